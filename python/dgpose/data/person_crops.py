"""Crops of people in photographs: squares, or of any height and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "PERSON_MARGIN",
    "CropSize",
    "box_with_margin",
    "edges",
    "from_crop",
    "person_box",
    "person_crop",
    "require_box",
    "to_crop",
    "whole_image",
]

PERSON_MARGIN = 1.2
"""Edge of a person's square over the larger side of the box around the joints (MMPose's Human3.6M
annotations) or the person; that of rendered people lies between 1.06 and 1.32."""

CropSize: TypeAlias = int | tuple[int, int]
"""Pixels of a crop: S of a square one, or (H, W)."""

_LARGEST_BOX = 8


def edges(size: CropSize) -> tuple[int, int]:
    """(H, W)."""
    return (size, size) if isinstance(size, int) else size


def person_box(joints_px: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The square around a person's joints, with `PERSON_MARGIN`.

    Args:
        joints_px: `[..., J, 2]` pixels, finite.

    Returns:
        `[..., 4]`: x1, y1, x2, y2.
    """
    return box_with_margin(
        np.concatenate([joints_px.min(axis=-2), joints_px.max(axis=-2)], axis=-1)
    )


def box_with_margin(boxes: npt.NDArray[Any], size: CropSize = 1) -> npt.NDArray[np.float64]:
    """The box of a crop's shape around a tight one, with `PERSON_MARGIN`.

    Args:
        boxes: `[..., 4]` x1, y1, x2, y2.
        size: of the crop; a square one by default.

    Returns:
        `[..., 4]`, too.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    shape = np.array(edges(size)[::-1], np.float64)
    half = PERSON_MARGIN * ((high - low) / shape).max(axis=-1, keepdims=True) * shape / 2
    middle = (low + high) / 2
    return np.concatenate([middle - half, middle + half], axis=-1).astype(np.float64)


def whole_image(picture: npt.NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """The box of a whole `[H, W, 3]` image, from edge to edge."""
    height, width = picture.shape[:2]
    return -0.5, -0.5, width - 0.5, height - 0.5


def person_crop(
    picture: npt.NDArray[np.uint8],
    box: Sequence[float] | npt.NDArray[Any],
    size: CropSize,
    *,
    repeat_border: bool = False,
) -> npt.NDArray[np.uint8]:
    """The smallest rectangle of the crop's shape around a box, and around the same middle.

    Of a square crop its edge is the box's longer side.

    Args:
        picture: `[H, W, 3]` RGB.
        box: x1, y1, x2, y2 in pixels (the centre of the first pixel is 0, 0).
        size: of the crop. Images that are made smaller are averaged.
        repeat_border: what of the rectangle lies outside the image repeats its border, and is not
            black.

    Returns:
        `[3, H, W]` uint8.

    Raises:
        ValueError: as `require_box`.
    """
    require_box(picture, box)
    height, width = picture.shape[:2]
    (left, top), sides = _pixels(box, size)
    rows, columns = np.arange(top, top + sides[1]), np.arange(left, left + sides[0])
    inside = picture[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)]
    if not repeat_border:
        inside[(rows < 0) | (rows >= height)] = 0
        inside[:, (columns < 0) | (columns >= width)] = 0
    target = edges(size)[::-1]
    how = cv2.INTER_AREA if target < sides else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(inside, target, interpolation=how), np.uint8)
    return np.ascontiguousarray(resized.transpose(2, 0, 1))


def require_box(picture: npt.NDArray[np.uint8], box: Sequence[float] | npt.NDArray[Any]) -> None:
    """ValueError for a box that is not four finite numbers, empty, wholly outside the `[H, W, 3]`
    image, or more than eight times as large."""
    if len(box) != 4:
        raise ValueError(f"box must be x1, y1, x2, y2, got {box!r}")
    x1, y1, x2, y2 = (float(value) for value in box)
    height, width = picture.shape[:2]
    got = f"got {x1:g},{y1:g},{x2:g},{y2:g}"
    if not (np.isfinite([x1, y1, x2, y2]).all() and x1 < x2 and y1 < y2):
        raise ValueError(f"box must have x1 < x2 and y1 < y2, {got}")
    if x2 < 0 or y2 < 0 or x1 > width - 1 or y1 > height - 1:
        raise ValueError(f"box must touch the image of {width}x{height} pixels, {got}")
    if max(x2 - x1, y2 - y1) > _LARGEST_BOX * max(width, height):  # it would be drawn in memory
        raise ValueError(
            f"box must be at most {_LARGEST_BOX} times as large as the image of {width}x{height} "
            f"pixels, {got}"
        )


def to_crop(
    points_px: npt.NDArray[Any], box: Sequence[float] | npt.NDArray[Any], size: CropSize
) -> npt.NDArray[np.float64]:
    """Pixels `[..., 2]` of the image as pixels of `person_crop(picture, box, size)`."""
    corner, sides = _pixels(box, size)
    inside = np.asarray(points_px, np.float64) - corner + 0.5
    return inside * (np.array(edges(size)[::-1]) / sides) - 0.5


def from_crop(
    points_px: npt.NDArray[Any], box: Sequence[float] | npt.NDArray[Any], size: CropSize
) -> npt.NDArray[np.float64]:
    """Pixels `[..., 2]` of `person_crop(picture, box, size)` as pixels of the image."""
    corner, sides = _pixels(box, size)
    inside = (np.asarray(points_px, np.float64) + 0.5) * (sides / np.array(edges(size)[::-1]))
    return inside - 0.5 + corner


def _pixels(
    box: Sequence[float] | npt.NDArray[Any], size: CropSize
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first pixel (x, y) and the sides (width, height) of what is cut out, in whole pixels."""
    x1, y1, x2, y2 = (float(value) for value in box)
    height, width = edges(size)
    scale = max((x2 - x1) / width, (y2 - y1) / height)
    sides = max(1, round(scale * width)), max(1, round(scale * height))
    return (round((x1 + x2 + 1 - sides[0]) / 2), round((y1 + y2 + 1 - sides[1]) / 2)), sides
