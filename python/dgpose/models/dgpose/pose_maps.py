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
    Mapper. Its layers are [?]: each cell of a grid of S/2 cells a side sees how near each joint is,
    and where; the maps are then enlarged.

    Shape: that of `RenderedMapper`.
    """

    _WIDTHS = (128, 64)

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = map_channels(config)
        wide, narrow = self._WIDTHS
        axis = torch.arange(config.image_size // 2) * 2 + 0.5  # cells of 2x2 pixels
        self.cells: Tensor
        cells = torch.stack((axis.expand(len(axis), -1), axis[:, None].expand(-1, len(axis))))
        self.register_buffer("cells", cells, persistent=False)
        self.layers = nn.Sequential(
            nn.Conv2d(4 * len(BODY14), wide, 1),  # offset, nearness, whether known
            nn.ReLU(),
            nn.Conv2d(wide, narrow, 1),
            nn.ReLU(),
            nn.Conv2d(narrow, self.channels, 1),
        )

    def forward(self, pose_px: Tensor, known: Tensor | None = None) -> Tensor:
        there = pose_px.new_ones(pose_px.shape[:2], dtype=torch.float32)
        points = pose_px.float()
        if known is not None:
            there = known.to(there)
            points = points.where(known[..., None], 0)
        offsets = (self.cells - points[..., None, None]) * (12 / self.config.image_size)
        near = 1 / (1 + offsets.square().sum(2))
        shown = there[..., None, None]
        near = near * shown
        seen = (offsets * near[:, :, None]).flatten(1, 2), near
        maps: Tensor = self.layers(torch.cat((*seen, shown.expand_as(near)), 1))
        return F.interpolate(maps.float(), scale_factor=2, mode="bilinear")
