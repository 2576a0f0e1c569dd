"""Pictures of 3D body poses: from the camera and from the side, and what a retrieval found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.skeletons import H36M17
from dgpose.viz.drawing import (
    BACKGROUND,
    BODY_LEGEND,
    Color,
    Picture,
    draw_skeleton,
    page_of_tiles,
    write_text,
)

__all__ = ["pose_view", "pose_views", "retrieval_picture"]

_GREY: Color = (96, 100, 110)
_FLOOR: Color = (46, 48, 54)
_HALF_MM = 1050.0
_GRID_MM = 500.0


def pose_view(
    pose_mm: npt.NDArray[Any],
    size: int,
    *,
    side: bool = False,
    behind: Sequence[npt.NDArray[Any]] = (),
) -> Picture:
    """One pose as seen from far away, `[size, size, 3]` RGB.

    Args:
        pose_mm: `[17, 3]` H36M17, mm, x right, y DOWN, z forward; the middle of its joints comes
            to the middle of the picture.
        size: edge of the picture; 2.1 m, or more where the pose needs it.
        side: from the right of the image instead of from the camera, which is then on the left.
        behind: other poses, drawn thin and grey around the same point of origin.
    """
    pose = np.asarray(pose_mm, np.float64)
    axes = [2, 1] if side else [0, 1]
    middle = (pose.min(axis=0) + pose.max(axis=0)) / 2
    reach = max(_HALF_MM, 1.08 * float(np.abs(pose - middle).max()))

    def place(joints: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        seen: npt.NDArray[np.float64] = (np.asarray(joints, np.float64) - middle)[:, axes]
        return (seen / reach + 1) * (size / 2) - 0.5

    picture: Picture = np.full((size, size, 3), BACKGROUND, np.uint8)
    for step in range(-2, 3):
        line = round((step * _GRID_MM / reach + 1) * (size / 2))
        cv2.line(picture, (line, 0), (line, size), _FLOOR, 1)
        cv2.line(picture, (0, line), (size, line), _FLOOR, 1)
    for other in behind:
        draw_skeleton(picture, place(other), H36M17, color=_GREY, thickness=1)
    draw_skeleton(picture, place(pose), H36M17, thickness=max(2, size // 80))
    return picture


def pose_views(pose_mm: npt.NDArray[Any], size: int) -> Picture:
    """A pose from the camera and from the side, next to each other: `[size, 2 size, 3]`."""
    both = [pose_view(pose_mm, size, side=side) for side in (False, True)]
    for picture, text in zip(both, ("from the camera", "from the side"), strict=True):
        write_text(picture, text, (6, size - 8), 0.4)
    return np.hstack(both)


def retrieval_picture(
    image: npt.NDArray[np.uint8],
    pose_mm: npt.NDArray[Any],
    candidates_mm: npt.NDArray[Any],
    scores: Sequence[float],
    title: str,
    *,
    count: int,
    size: int = 240,
) -> Picture:
    """An input, the averaged pose from two views, and the best candidates.

    Args:
        image: `[3, S, S]` uint8, the crop.
        pose_mm: `[17, 3]`, the average.
        candidates_mm: `[n, 17, 3]`, the best first: four are drawn one by one, all of them in
            grey behind the average.
        scores: n, theirs.
        title: the headline.
        count: how many candidates were averaged.
        size: edge of each of the eight tiles.
    """
    rgb = np.ascontiguousarray(image.transpose(1, 2, 0))
    large = np.asarray(cv2.resize(rgb, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    mean = f"mean of {count}"
    cloud = list(candidates_mm)
    tiles = [
        (large, "input"),
        (pose_view(pose_mm, size), f"{mean}, from the camera"),
        (pose_view(pose_mm, size, side=True), f"{mean}, from the side"),
        (pose_view(pose_mm, size, behind=cloud), f"{mean}, and the best {len(cloud)}"),
    ]
    for rank, (candidate, score) in enumerate(zip(candidates_mm[:4], scores, strict=False)):
        tiles.append((pose_view(candidate, size), f"candidate {rank + 1}, score {score:.4g}"))
    return page_of_tiles(tiles, title, BODY_LEGEND, columns=4)
