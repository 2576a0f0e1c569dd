"""Pools of person crops with their poses: what pose retrieval learns from and is tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dgpose.skeletons import H36M17
from dgpose_ext.tensor_file import read_tensor_file, write_tensor_file

if TYPE_CHECKING:
    from dgpose.data.body_poses import BodyPoses
    from dgpose.data.synthetic_people import PeopleBatch, SyntheticPeople

__all__ = ["PosePool", "people_pool"]

_KIND, _VERSION = "pose_pool", 1
_RENDERED_AT_ONCE = 256
_JOINTS = len(H36M17.joints)


@dataclass(frozen=True, eq=False)
class PosePool:
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

    def __post_init__(self) -> None:
        count = len(self.images)
        edge = self.images.shape[-1]
        if tuple(self.images.shape) != (count, 3, edge, edge):
            raise ValueError(f"images must have shape [N, 3, S, S], got {list(self.images.shape)}")
        if self.images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, got {self.images.dtype}")
        for name, value, width in (("poses", self.poses, 3), ("joints_px", self.joints_px, 2)):
            if value is None:
                continue
            if tuple(value.shape) != (count, _JOINTS, width):
                raise ValueError(
                    f"{name} must have shape [N, {_JOINTS}, {width}] with N = {count}, "
                    f"got {list(value.shape)}"
                )
            if value.dtype != torch.float32:
                raise TypeError(f"{name} must be float32, got {value.dtype}")
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite")
        if self.actions is None:
            return
        if tuple(self.actions.shape) != (count,) or self.actions.dtype != torch.int64:
            raise ValueError(f"actions must be int64 of shape [N] with N = {count}")
        if count and not 0 <= int(self.actions.min()) <= int(self.actions.max()) < len(
            self.action_names
        ):
            raise ValueError(
                f"actions must be rows of the {len(self.action_names)} action_names, got "
                f"{int(self.actions.min())}..{int(self.actions.max())}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> int:
        """S."""
        return int(self.images.shape[-1])

    def subset(self, rows: Tensor) -> PosePool:
        """The crops of these rows [M], or of a mask [N]."""
        return PosePool(
            self.images[rows],
            self.poses[rows],
            None if self.joints_px is None else self.joints_px[rows],
            None if self.actions is None else self.actions[rows],
            self.action_names,
            self.source,
        )

    def save(self, path: str | Path) -> None:
        """Writes one tensor file, atomically."""
        optional = {"joints_px": self.joints_px, "actions": self.actions}
        tensors = {"images": self.images, "poses": self.poses}
        tensors |= {name: value for name, value in optional.items() if value is not None}
        described = {"action_names": list(self.action_names), "source": self.source}
        write_tensor_file(path, tensors, kind=_KIND, version=_VERSION, metadata=described)

    @classmethod
    def load(cls, path: str | Path) -> PosePool:
        """Reads a file of `save`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a foreign, truncated or changed file.
        """
        tensors, described = read_tensor_file(path, kind=_KIND, version=_VERSION)
        try:
            return cls(
                **tensors,
                action_names=tuple(described["action_names"]),
                source=described["source"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: does not hold a pool of poses ({error})") from error


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
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    images = torch.empty(count, 3, *people.size, dtype=torch.uint8)
    poses, pixels, rows = [], [], []
    for first, batch in _batches(people, count, progress):
        images[first : first + len(batch.image)] = (batch.image * 255).round()
        poses.append((batch.joints_mm - batch.joints_mm[:, :1]).float())
        pixels.append(batch.joints_px.float())
        rows.append(batch.pose_row)
    actions, names = None, tuple[str, ...]()
    if bodies is not None:
        row = torch.cat(rows)
        of_row = torch.as_tensor(np.asarray(bodies.action)).long()
        names = (*bodies.action_names, "kinematic")
        actions = torch.where(row < 0, len(names) - 1, of_row[row.clamp_min(0)])
    return PosePool(images, torch.cat(poses), torch.cat(pixels), actions, names, source)


def _batches(
    people: SyntheticPeople, count: int, progress: Callable[[int, int], None] | None
) -> Iterable[tuple[int, PeopleBatch]]:
    for first in range(0, count, _RENDERED_AT_ONCE):
        last = min(first + _RENDERED_AT_ONCE, count)
        yield first, people.batch(np.arange(first, last))
        if progress is not None:
            progress(last, count)
