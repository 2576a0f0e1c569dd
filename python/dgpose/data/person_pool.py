"""Pools of person images with 2D joints: what DGPose learns from and is tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dgpose.data.tensor_pool import TensorPool, require_tensor
from dgpose.skeletons import BODY14, OPENPOSE18

if TYPE_CHECKING:
    from dgpose.data.synthetic_people import PeopleBatch, SyntheticPeople

__all__ = ["PersonPool", "pool_of_batches", "rendered_people"]


@dataclass(frozen=True, eq=False)
class PersonPool(TensorPool):
    """Images of one person each, all in memory.

    Attributes:
        images: [N, 3, H, W] uint8 RGB.
        keypoints_px: [N, 18, 2] float32, joints of OPENPOSE18 in pixels of the image, the centre of
            the first pixel at (0, 0); 0 where not known.
        known: [N, 18] bool: the joint has coordinates. Of rendered people all have, hidden ones and
            those outside the image, too.
        visible: [N, 18] bool, among the known: the joint is seen. Where labels of photographs do
            not say it, `known`.
        identity: [N] int64, equal where the person is the same; None where nobody knows.
        masks: [N, 1, H, W] bool, the person; None where nobody knows.
        names: N different ids, by which parts of a data set are told apart; or none.
        source: one sentence on where the images come from.

    Raises:
        ValueError, TypeError: tensors of other shapes or dtypes, coordinates that are not finite or
            of unknown joints not 0, a visible joint that is not known, or names that are not N
            different ones.
    """

    images: Tensor
    keypoints_px: Tensor
    known: Tensor
    visible: Tensor
    identity: Tensor | None = None
    masks: Tensor | None = None
    names: tuple[str, ...] = ()
    source: str = ""

    _KIND = "person_pool"
    _VERSION = 1

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise ValueError(f"images must have shape [N, 3, H, W], got {list(self.images.shape)}")
        count, _, height, width = self.images.shape
        sizes = {"N": count, "H": height, "W": width}
        joints = len(OPENPOSE18)
        require_tensor("images", self.images, ("N", 3, "H", "W"), torch.uint8, **sizes)
        require_tensor("keypoints_px", self.keypoints_px, ("N", joints, 2), torch.float32, N=count)
        for name in ("known", "visible"):
            require_tensor(name, getattr(self, name), ("N", joints), torch.bool, N=count)
        if self.identity is not None:
            require_tensor("identity", self.identity, ("N",), torch.int64, N=count)
        if self.masks is not None:
            require_tensor("masks", self.masks, ("N", 1, "H", "W"), torch.bool, **sizes)
        if bool((self.keypoints_px[~self.known] != 0).any()):
            raise ValueError("keypoints_px must be 0 where not known")
        if bool((self.visible & ~self.known).any()):
            raise ValueError("visible must hold known joints alone")
        if self.names and not count == len(self.names) == len(set(self.names)):
            raise ValueError(
                f"names must be {count} different ones or none, got {len(self.names)}, "
                f"{len(set(self.names))} of them different"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    @property
    def body(self) -> tuple[Tensor, Tensor]:
        """The joints of BODY14: pixels [N, 14, 2], and which are known [N, 14]."""
        return self.keypoints_px[:, : len(BODY14)], self.known[:, : len(BODY14)]

    def _taken(self, rows: Tensor) -> dict[str, Any]:
        taken = super()._taken(rows)
        if self.names:
            taken["names"] = tuple(self.names[row] for row in torch.arange(len(self))[rows])
        return taken


def rendered_people(
    people: SyntheticPeople,
    count: int,
    *,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> PersonPool:
    """The first `count` samples of `SyntheticPeople`, with identities and masks.

    Args:
        people: renders them.
        count: samples.
        source: one sentence on what they are.
        progress: called with (samples done, samples in all).

    Raises:
        ValueError: a count below 1.
    """
    return pool_of_batches(people.batches(count, progress=progress), source)


def pool_of_batches(batches: Iterable[PeopleBatch], source: str = "") -> PersonPool:
    """Rendered people as one pool; their names are their numbers."""
    images: list[Tensor] = []
    fields: list[tuple[Tensor, ...]] = []
    for batch in batches:
        images.append((batch.image * 255).round().to(torch.uint8))
        fields.append((batch.keypoints_px, batch.keypoint_visible, batch.identity, batch.mask))
    keypoints, visible, identity, masks = (torch.cat(parts) for parts in zip(*fields, strict=True))
    return PersonPool(
        torch.cat(images),
        keypoints,
        torch.ones_like(visible),
        visible,
        identity,
        masks,
        tuple(f"person{index:07d}" for index in range(len(keypoints))),
        source,
    )
