"""Generated images of people, and what they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["GeneratedPeople"]


@dataclass(frozen=True, eq=False)
class GeneratedPeople:
    """B generated images of H x W pixels.

    Attributes:
        images: [B, 3, H, W] float32, RGB in [0, 1].
        poses_px: [B, J, 2] float32, what they were generated from, BODY14 or OPENPOSE18 in their
            pixels; NaN where not known.
        sources: [B, 3, H, W], the crops whose appearance they have; None where that was drawn.
        source_poses_px: [B, J, 2] in the sources' pixels; None without sources.
    """

    images: Tensor
    poses_px: Tensor
    sources: Tensor | None = None
    source_poses_px: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Tensor) -> GeneratedPeople:
        """Some of them."""
        sources, own = self.sources, self.source_poses_px
        return GeneratedPeople(
            self.images[rows],
            self.poses_px[rows],
            None if sources is None else sources[rows],
            None if own is None else own[rows],
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    @classmethod
    def joined(cls, parts: Sequence[GeneratedPeople]) -> GeneratedPeople:
        """People of one model, one after another; at least one part, all with sources or none."""
        values: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            fields = [getattr(part, name) for part in parts]
            values[name] = None if fields[0] is None else torch.cat(fields)
        return cls(**values)

    def pictures(self) -> npt.NDArray[np.uint8]:
        """The images as [B, H, W, 3] RGB."""
        values = (255 * self.images).round().to(torch.uint8)
        return np.ascontiguousarray(values.permute(0, 2, 3, 1).numpy())
