"""Maps of a pose that a decoder can see: learned, or rendered by differentiable kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgpose.models.dgpose.config import DGPoseConfig
from dgpose.skeletons import BODY14
from dgpose_ext import gaussian_heatmap, limb_heatmap

__all__ = ["LearnedMapper", "RenderedMapper", "map_channels", "normalized_pose", "pose_pixels"]


def normalized_pose(pose_px: Tensor, image_size: int) -> Tensor:
    """Pixels [B, 14, 2] as y [B, 28]: -1 at the centre of the first pixel, 1 at the last's."""
    return (pose_px * (2 / (image_size - 1)) - 1).flatten(1)


def pose_pixels(y: Tensor, image_size: int) -> Tensor:
    """The inverse of `normalized_pose`."""
    pose_px: Tensor = (y.view(len(y), -1, 2) + 1) * ((image_size - 1) / 2)
    return pose_px


def map_channels(config: DGPoseConfig) -> int:
    """C of a mapper's maps."""
    joints = len(BODY14) if config.joint_maps else 0
    limbs = len(BODY14.edges) if config.limb_maps else 0
    return joints + limbs + int(config.body_map)


class RenderedMapper(nn.Module):
    """Poses as maps of joints, of limbs and of the whole body (the largest of its limbs).

    Shape:
        pose_px [B, 14, 2] in pixels of the crop, known [B, 14] (bool; None: all) -> [B, C, S, S] in
        [0, 1]. Maps of joints that are not known, and of their limbs, are 0. Gradients flow to
        pose_px.
    """

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = map_channels(config)

    def forward(self, pose_px: Tensor, known: Tensor | None = None) -> Tensor:
        config = self.config
        size = (config.image_size, config.image_size)
        points, maps = pose_px.float(), []
        if config.joint_maps:
            maps.append(gaussian_heatmap(points, size, config.joint_sigma, visible=known))
        if config.limb_maps or config.body_map:
            limbs = limb_heatmap(points, BODY14.edges, size, config.limb_sigma, visible=known)
            if config.limb_maps:
                maps.append(limbs)
            if config.body_map:
                maps.append(limbs.amax(1, keepdim=True))
        return torch.cat(maps, 1)


class LearnedMapper(nn.Module):
    """The same maps by a network, which learns them from rendered ones before all else: the paper's
    Mapper. Its layers are [?]; it works on a grid of S/2 cells a side, whose maps are enlarged.

    Shape: that of `RenderedMapper`.
    """

    _WIDTHS = (64, 48, 32)  # on grids of S/8, S/4 and S/2 cells

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = map_channels(config)
        coarse, middle, fine = self._WIDTHS
        self.grid = config.image_size // 8
        self.dense = nn.Sequential(nn.Linear(3 * len(BODY14), 256), nn.ReLU())
        self.first = nn.Sequential(nn.Linear(256, coarse * self.grid**2), nn.ReLU())
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(coarse, middle, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(middle, fine, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(fine, self.channels, 3, padding=1),
        )

    def forward(self, pose_px: Tensor, known: Tensor | None = None) -> Tensor:
        y = normalized_pose(pose_px, self.config.image_size)
        there = y.new_ones(pose_px.shape[:2])
        if known is not None:
            there = known.to(y)
            y = y.where(known.repeat_interleave(2, 1), 0)
        hidden = self.first(self.dense(torch.cat((y, there), 1)))
        hidden = hidden.view(len(hidden), -1, self.grid, self.grid)
        maps: Tensor = self.layers(hidden)
        return F.interpolate(maps.float(), scale_factor=2, mode="bilinear")
