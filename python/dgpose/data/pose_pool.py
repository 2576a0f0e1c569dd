"""Pools of person crops with their poses: what pose retrieval learns from and is tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dgpose.data.tensor_pool import TensorPool, require_tensor
from dgpose.skeletons import H36M17

if TYPE_CHECKING:
    from dgpose.data.body_poses import BodyPoses
    from dgpose.data.synthetic_people import SyntheticPeople

__all__ = ["PosePool", "people_pool"]

_JOINTS = len(H36M17.joints)


@dataclass(frozen=True, eq=False)
class PosePool(TensorPool):
    """Person crops, all in memory.

    Attributes:
        images: [N, 3, S, S] uint8 RGB.
        poses: [N, 17, 3] float32 mm, joints of H36M17 relative to the hip; camera coordinates: x
            right, y DOWN, z forward.
        joints_px: [N, 17, 2] float32, joints in pixels of the crop, the centre of the first pixel
            at (0, 0); None where nobody knows them.
        actions: [N] int64, rows of `action_names`; None where nobody knows them.
        action_names: what the persons do.
        source: one sentence on where the images come from.

    Raises:
        ValueError, TypeError: tensors of other shapes or dtypes, or poses that are not finite.
    """

    images: Tensor
    poses: Tensor
    joints_px: Tensor | None = None
    actions: Tensor | None = None
    action_names: tuple[str, ...] = ()
    source: str = ""

    _KIND = "pose_pool"
    _VERSION = 1

    def __post_init__(self) -> None:
        count = len(self.images)
        edge = self.images.shape[-1]
        require_tensor("images", self.images, ("N", 3, "S", "S"), torch.uint8, N=count, S=edge)
        require_tensor("poses", self.poses, ("N", _JOINTS, 3), torch.float32, N=count)
        if self.joints_px is not None:
            require_tensor("joints_px", self.joints_px, ("N", _JOINTS, 2), torch.float32, N=count)
        if self.actions is None:
            return
        require_tensor("actions", self.actions, ("N",), torch.int64, N=count)
        if count and not 0 <= int(self.actions.min()) <= int(self.actions.max()) < len(
            self.action_names
        ):
            raise ValueError(
                f"actions must be rows of the {len(self.action_names)} action_names, got "
                f"{int(self.actions.min())}..{int(self.actions.max())}"
            )

    @property
    def image_size(self) -> int:
        """S."""
        return int(self.images.shape[-1])


def people_pool(
    people: SyntheticPeople,
    count: int,
    *,
    bodies: BodyPoses | None = None,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> PosePool:
    """The first `count` samples of `SyntheticPeople`.

    Args:
        people: renders square images.
        count: samples.
        bodies: the CMU poses, whose actions name what the samples do; poses from elsewhere are
            "kinematic". None: actions stay unknown.
        source: one sentence on what they are.
        progress: called with (samples done, samples in all).

    Raises:
        ValueError: a count below 1.
    """
    images, poses, pixels, rows = [], [], [], []
    for batch in people.batches(count, progress=progress):
        images.append((batch.image * 255).round().to(torch.uint8))
        poses.append((batch.joints_mm - batch.joints_mm[:, :1]).float())
        pixels.append(batch.joints_px.float())
        rows.append(batch.pose_row)
    actions, names = None, tuple[str, ...]()
    if bodies is not None:
        row = torch.cat(rows)
        of_row = torch.as_tensor(np.asarray(bodies.action)).long()
        names = (*bodies.action_names, "kinematic")
        actions = torch.where(row < 0, len(names) - 1, of_row[row.clamp_min(0)])
    return PosePool(torch.cat(images), torch.cat(poses), torch.cat(pixels), actions, names, source)
