"""What DPIG sees of pictures, and makes of codes: crops, the factors' codes and joints, images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from dgpose.data.person_crops import box_with_margin, to_crop
from dgpose.inference.person_keypoints import KeypointEstimator
from dgpose.inference.person_views import (
    Box,
    Image,
    PersonView,
    Pose,
    as_box,
    as_pose,
    known_joints,
    pose_box,
    stacked,
    view_person,
)
from dgpose.models.dpig import DPIG, FACTORS, Factor
from dgpose.skeletons import OPENPOSE18

__all__ = ["FactorCodec", "Parts"]

Parts: TypeAlias = dict[Factor, Tensor]
"""Codes of foreground [B, D] and background [B, G] where the model has one, and the pose as joints
[B, 18, 2] in pixels of the crop, NaN where not known."""


class FactorCodec:
    """Pictures to parts, noise to parts, parts to images.

    Args:
        model: in eval mode; used where it is. Poses and images are on the CPU.
        estimator: estimates poses that are not given.
    """

    def __init__(self, model: DPIG, estimator: KeypointEstimator | None = None) -> None:
        self.model, self.estimator = model, estimator

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of crops and images."""
        return self.model.config.size

    def noise(self, factor: Factor, count: int, seed: int) -> Tensor:
        """[count, D]; each factor has draws of its own of a seed."""
        random = torch.Generator().manual_seed(len(FACTORS) * seed + FACTORS.index(factor))
        return self.model.sample_noise(factor, count, random)

    @torch.no_grad()
    def part(self, factor: Factor, noise: Tensor) -> Tensor:
        """What noise [B, D] becomes: a code; of the pose the joints that its code decodes to."""
        code = self.model.map_noise(factor, noise)
        if factor != "pose":
            return code
        joints, visible = self.model.decode_pose(code)
        return joints.where(visible[..., None], torch.nan).cpu()

    @torch.no_grad()
    def code(self, parts: Parts, factor: Factor) -> Tensor:
        """A factor's code [B, D], which of the pose is not among the parts."""
        if factor != "pose":
            return parts[factor]
        joints, known = known_joints(parts["pose"])
        return self.model.encode_pose(joints.to(self._device), known.to(self._device))

    def placed(self, targets: Iterable[tuple[Pose, Box | None]]) -> Tensor:
        """Poses to show [B, 18, 2], each in the box around itself or the one that is given.

        Raises:
            ValueError, TypeError: as `as_pose`, `as_box` and `pose_box`.
        """
        placed = []
        for pose, box in targets:
            joints = as_pose(pose, OPENPOSE18)
            around = (
                pose_box(joints, self.size)
                if box is None
                else box_with_margin(as_box(box), self.size)
            )
            placed.append(to_crop(joints, around, self.size))
        return stacked(placed)

    @torch.no_grad()
    def people(self, rows: Iterable[tuple[Image, Pose | None, Box | None]]) -> tuple[Tensor, Parts]:
        """Crops [B, 3, H, W] of (image, pose, box) each, and what they are made of.

        Raises:
            ValueError, TypeError: as `view_person` and `DPIG.encode_images`; a pose that is not
                given, and no estimator.
        """
        views = [self._view(*row) for row in rows]
        crops = torch.stack([view.image for view in views])
        poses = stacked([view.pose_px for view in views if view.pose_px is not None])
        foregrounds, backgrounds = [], []
        many = self.model.config.images_at_once
        for crop, pose in zip(crops.split(many), poses.split(many), strict=True):  # type: ignore[no-untyped-call]
            given = (values.to(self._device) for values in (crop, *known_joints(pose)))
            foreground, background = self.model.encode_images(*given)
            foregrounds.append(foreground)
            if background is not None:
                backgrounds.append(background)
        parts: Parts = {"foreground": torch.cat(foregrounds), "pose": poses}
        if backgrounds:
            parts["background"] = torch.cat(backgrounds)
        return crops, parts

    def _view(self, image: Image, pose: Pose | None, box: Box | None) -> PersonView:
        if pose is None:
            if self.estimator is None:
                raise ValueError("a pose must be given, or an estimator: DPIG estimates none")
            pose = self.estimator.estimate(image, boxes=box).poses_px[0]
        return view_person(image, self.size, pose, box, skeleton=OPENPOSE18)

    @torch.no_grad()
    def decode(self, parts: Mapping[Factor, Tensor]) -> Tensor:
        """Images [B, 3, H, W]."""
        images = []
        many = self.model.config.images_at_once
        for rows in torch.arange(len(parts["pose"])).split(many):  # type: ignore[no-untyped-call]
            joints, known = (x.to(self._device) for x in known_joints(parts["pose"][rows]))
            background = parts["background"][rows] if "background" in parts else None
            images.append(self.model.decode(parts["foreground"][rows], background, joints, known))
        return torch.cat(images).cpu()

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device
