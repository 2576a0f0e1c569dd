"""Square crops of people in photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "PERSON_MARGIN",
    "from_crop",
    "person_box",
    "person_crop",
    "person_square",
    "require_box",
    "to_crop",
    "whole_image",
]

PERSON_MARGIN = 1.2
"""Edge of a person's square over the larger side of the box around the joints (MMPose's Human3.6M
annotations) or the person; that of rendered people lies between 1.06 and 1.32."""

_LARGEST_BOX = 8


def person_box(joints_px: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The square around a person's joints, with `PERSON_MARGIN`.

    Args:
        joints_px: `[..., J, 2]` pixels, finite.

    Returns:
        `[..., 4]`: x1, y1, x2, y2.
    """
    return person_square(np.concatenate([joints_px.min(axis=-2), joints_px.max(axis=-2)], axis=-1))


def person_square(boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The square around a tight box, with `PERSON_MARGIN`: x1, y1, x2, y2, `[..., 4]` both."""
    low, high = boxes[..., :2], boxes[..., 2:]
    half = PERSON_MARGIN * (high - low).max(axis=-1, keepdims=True) / 2
    middle = (low + high) / 2
    return np.concatenate([middle - half, middle + half], axis=-1).astype(np.float64)


def whole_image(picture: npt.NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """The box of a whole `[H, W, 3]` image, from edge to edge."""
    height, width = picture.shape[:2]
    return -0.5, -0.5, width - 0.5, height - 0.5


def person_crop(
    picture: npt.NDArray[np.uint8],
    box: Sequence[float] | npt.NDArray[Any],
    size: int,
    *,
    repeat_border: bool = False,
) -> npt.NDArray[np.uint8]:
    """The square around the middle of a box, with the box's longer side as its edge.

    Args:
        picture: `[H, W, 3]` RGB.
        box: x1, y1, x2, y2 in pixels (the centre of the first pixel is 0, 0).
        size: S of the crop. Enlarged images are averaged when they are made smaller.
        repeat_border: what of the square lies outside the image repeats its border, and is not
            black.

    Returns:
        `[3, S, S]` uint8.

    Raises:
        ValueError: as `require_box`.
    """
    require_box(picture, box)
    height, width = picture.shape[:2]
    left, top, edge = _pixels(box)
    rows, columns = np.arange(top, top + edge), np.arange(left, left + edge)
    square = picture[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)]
    if not repeat_border:
        square[(rows < 0) | (rows >= height)] = 0
        square[:, (columns < 0) | (columns >= width)] = 0
    how = cv2.INTER_AREA if size < edge else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(square, (size, size), interpolation=how), np.uint8)
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
    points_px: npt.NDArray[Any], box: Sequence[float] | npt.NDArray[Any], size: int
) -> npt.NDArray[np.float64]:
    """Pixels `[..., 2]` of the image as pixels of `person_crop(picture, box, size)`."""
    left, top, edge = _pixels(box)
    inside = np.asarray(points_px, np.float64) - (left, top) + 0.5
    return inside * (size / edge) - 0.5


def from_crop(
    points_px: npt.NDArray[Any], box: Sequence[float] | npt.NDArray[Any], size: int
) -> npt.NDArray[np.float64]:
    """Pixels `[..., 2]` of `person_crop(picture, box, size)` as pixels of the image."""
    left, top, edge = _pixels(box)
    return (np.asarray(points_px, np.float64) + 0.5) * (edge / size) - 0.5 + (left, top)


def _pixels(box: Sequence[float] | npt.NDArray[Any]) -> tuple[int, int, int]:
    """First column, first row and edge of the square that is cut out, in whole pixels."""
    x1, y1, x2, y2 = (float(value) for value in box)
    edge = max(1, round(max(x2 - x1, y2 - y1)))
    return round((x1 + x2 + 1 - edge) / 2), round((y1 + y2 + 1 - edge) / 2), edge
