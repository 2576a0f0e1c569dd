"""Labelled photographs of people on disk: what every loader of a data set gives.

An image is read when it is asked for; `PersonPhotos.pool` reads all of them into a `PersonPool`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from dgpose.data.image_files import ImageFiles
from dgpose.data.person_crops import person_crop, require_box, to_crop, whole_image
from dgpose.data.person_pool import PersonPool

__all__ = ["PersonPhotos", "PhotoSetError"]

_ROWS = ("keypoints_px", "known", "boxes", "identity")
_TEXTS = ("names", "mask_names")


class PhotoSetError(ValueError):
    """A file of a data set is missing something or damaged. The message names the file."""


@dataclass(frozen=True, eq=False)
class PersonPhotos:
    """Photographs of one person each, in the order of the label file.

    Attributes:
        images: where they lie.
        names: N different names in it.
        keypoints_px: `[N, 18, 2]` float32, joints of OPENPOSE18 in pixels of the photograph (the
            centre of the first pixel is 0, 0); 0 where not known.
        known: `[N, 18]` bool.
        source: one sentence on what they are.
        boxes: `[N, 4]` x1, y1, x2, y2, the square around each person; None: the whole photograph.
        identity: `[N]` int64, equal where the person is the same; None: nobody knows.
        mask_names: N names of images that are 0 outside the person; or none.
    """

    images: ImageFiles
    names: tuple[str, ...]
    keypoints_px: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]
    source: str
    boxes: npt.NDArray[np.float64] | None = None
    identity: npt.NDArray[np.int64] | None = None
    mask_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, rows: Sequence[int] | npt.NDArray[Any]) -> PersonPhotos:
        """These photographs alone, in this order."""
        chosen = np.asarray(rows, np.int64)
        changes: dict[str, Any] = {}
        for field in _ROWS:
            value = getattr(self, field)
            changes[field] = None if value is None else value[chosen]
        for field in _TEXTS:
            texts = getattr(self, field)
            changes[field] = tuple(texts[row] for row in chosen.tolist()) if texts else ()
        return replace(self, **changes)

    def missing(self) -> list[str]:
        """Names of the photographs that are not there."""
        return [name for name in self.names if name not in self.images]

    def with_images(self) -> PersonPhotos:
        """The photographs that are there, where some are missing."""
        lost = set(self.missing())
        return self.rows([row for row, name in enumerate(self.names) if name not in lost])

    def image(self, row: int) -> npt.NDArray[np.uint8]:
        """A whole photograph, `[H, W, 3]` RGB.

        Raises:
            FileNotFoundError: it is not there.
            ImageFormatError: it cannot be decoded.
        """
        return self._read(self.names[row])

    def _read(self, name: str) -> npt.NDArray[np.uint8]:
        picture = self.images.read(name)
        if picture is None:
            raise FileNotFoundError(f"{self.images.path}: must hold {name}")
        return picture

    def pool(
        self, size: int | tuple[int, int], *, progress: Callable[[int, int], None] | None = None
    ) -> PersonPool:
        """All photographs in memory: of 64x64 pixels 12 KB each.

        Args:
            size: S: squares around the persons, black outside the photograph; (H, W): whole
                photographs, which must then be person-centred, resized to it.
            progress: called with (photographs read, all).

        Raises:
            ValueError: no photograph, one that cannot be decoded, a box outside its photograph, or
                (H, W) of photographs with boxes.
            FileNotFoundError: a photograph is not there.
        """
        count = len(self)
        if count == 0:
            raise ValueError(
                f"{self.source}: must hold at least one image, none is in {self.images.path}"
            )
        if not isinstance(size, int) and self.boxes is not None:
            raise ValueError(
                f"size must be one edge for photographs that are not person-centred, got {size}"
            )
        height, width = (size, size) if isinstance(size, int) else size
        images = torch.empty(count, 3, height, width, dtype=torch.uint8)
        masks = torch.empty(count, 1, height, width, dtype=torch.bool) if self.mask_names else None
        keypoints = np.zeros_like(self.keypoints_px)
        for row, name in enumerate(self.names):
            picture = self._read(name)
            box = whole_image(picture) if self.boxes is None else self.boxes[row]
            try:
                require_box(picture, box)
            except ValueError as error:
                raise PhotoSetError(f"{self.images.path}/{name}: {error}") from None
            images[row] = torch.from_numpy(_cut(picture, box, size))
            keypoints[row] = _placed(self.keypoints_px[row], picture, box, size)
            if masks is not None:
                mask = self._read(self.mask_names[row])
                inside = 255 * (mask.max(axis=2, keepdims=True) > 0).astype(np.uint8)
                masks[row] = torch.from_numpy(_cut(inside.repeat(3, axis=2), box, size)[:1] > 127)
            if progress is not None:
                progress(row + 1, count)
        known = torch.from_numpy(self.known)
        return PersonPool(
            images,
            torch.where(known[..., None], torch.from_numpy(keypoints), 0.0),
            known,
            known.clone(),
            None if self.identity is None else torch.from_numpy(self.identity),
            masks,
            self.names,
            self.source,
        )


def _cut(
    picture: npt.NDArray[np.uint8], box: Any, size: int | tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """`[3, H, W]`: the square in the box, or the whole picture."""
    if isinstance(size, int):
        return person_crop(picture, box, size)
    height, width = size
    how = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)
    return np.ascontiguousarray(resized.transpose(2, 0, 1))


def _placed(
    points: npt.NDArray[np.float32],
    picture: npt.NDArray[np.uint8],
    box: Any,
    size: int | tuple[int, int],
) -> npt.NDArray[np.float64]:
    """Pixels of the photograph as those of `_cut`."""
    if isinstance(size, int):
        return to_crop(points, box, size)
    scale = np.array(size[::-1]) / picture.shape[1::-1]
    placed: npt.NDArray[np.float64] = (points + 0.5) * scale - 0.5
    return placed
