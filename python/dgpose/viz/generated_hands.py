"""Pictures of hands that Crossing Nets made or refined: depth map and skeleton side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.skeletons import FINGER_COLORS, hand_skeleton
from dgpose.viz.drawing import BACKGROUND, LegendEntry, Picture, draw_skeleton, page_of_tiles

__all__ = ["generated_sheet", "hand_pair", "refinement_picture", "shaded_depth"]

_LIGHT = np.array([-0.4, -0.5, -0.77])  # toward the viewer's upper left
_DIMMED = 0.35
_BEFORE = (255, 255, 255)


def shaded_depth(depth_mm: npt.NDArray[Any], cube_mm: float, size: int) -> Picture:
    """A depth map as a lit surface in grey, nearer parts lighter.

    Args:
        depth_mm: [S, S] relative to the cube's centre, NaN = nothing.
        cube_mm: edge of the cube.
        size: edge of the picture.
    """
    there = np.isfinite(depth_mm)
    back = np.float32(cube_mm / 2)
    filled = np.where(there, depth_mm, back).astype(np.float32)
    large = cv2.resize(filled, (size, size), interpolation=cv2.INTER_CUBIC)
    inside = cv2.resize(there.astype(np.float32), (size, size)) > 0.5
    pixel_mm = cube_mm / size
    # Sensor noise of a pixel of the map is no relief.
    smooth = cv2.GaussianBlur(large, (0, 0), size / len(depth_mm))
    dy, dx = np.gradient(smooth, pixel_mm)
    normal = np.stack([dx, dy, -np.ones_like(dx)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    lit = np.clip(normal @ _LIGHT, 0, 1)
    near = np.clip(0.5 - large / cube_mm, 0, 1)
    grey = 255 * np.clip(0.05 + 0.55 * lit + 0.45 * near, 0, 1)
    picture: Picture = np.repeat(grey.astype(np.uint8)[..., None], 3, 2)
    picture[~inside] = BACKGROUND
    return picture


def hand_pair(
    depth_mm: npt.NDArray[Any], joints_mm: npt.NDArray[Any], cube_mm: float, *, size: int = 160
) -> Picture:
    """Depth map, and beside it the skeleton over the same map dimmed: `[size, 2 size, 3]` RGB.

    Joints `[J, 3]` are relative to the cube's centre, y UP, and are drawn as seen from far away.

    Raises:
        ValueError: joints that no known skeleton has.
    """
    shaded = shaded_depth(depth_mm, cube_mm, size)
    beside = _dimmed(shaded)
    _draw_joints(beside, joints_mm, cube_mm)
    return np.hstack([shaded, beside])


def refinement_picture(
    observed_mm: npt.NDArray[Any],
    generated_mm: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    joints_mm: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    cube_mm: float,
    title: str,
    *,
    size: int = 320,
) -> Picture:
    """A crop, its joints before (white) and after, and the maps generated before and after.

    Args:
        observed_mm: [S, S] as for `shaded_depth`.
        generated_mm: before and after, likewise.
        joints_mm: before and after, [J, 3] as for `hand_pair`.
        cube_mm: edge of the cube.
        title: one line.
        size: edge of each of the four.
    """
    observed = shaded_depth(observed_mm, cube_mm, size)
    joints = _dimmed(observed)
    _draw_joints(joints, joints_mm[0], cube_mm, _BEFORE)
    _draw_joints(joints, joints_mm[1], cube_mm)
    tiles = [(observed, "observed"), (joints, "joints: before (white), after")]
    tiles += [
        (shaded_depth(depth, cube_mm, size), f"generated from the {latent} latent")
        for depth, latent in zip(generated_mm, ("estimated", "refined"), strict=True)
    ]
    return page_of_tiles(tiles, title, columns=4)


def generated_sheet(
    depth_mm: npt.NDArray[Any],
    joints_mm: npt.NDArray[Any],
    cube_mm: float,
    captions: Sequence[str],
    title: str,
    *,
    columns: int = 4,
    size: int = 160,
) -> Picture:
    """Many hands on one page, [N, S, S] and [N, J, 3] as for `hand_pair`."""
    pictures = [
        hand_pair(depth, joints, cube_mm, size=size)
        for depth, joints in zip(depth_mm, joints_mm, strict=True)
    ]
    legend = [LegendEntry(name, color) for name, color in FINGER_COLORS.items()]
    tiles = list(zip(pictures, captions, strict=True))
    return page_of_tiles(tiles, title, legend, columns=columns)


def _dimmed(picture: Picture) -> Picture:
    mixed = picture * _DIMMED + np.array(BACKGROUND) * (1 - _DIMMED)
    return np.asarray(mixed, np.uint8)


def _draw_joints(
    picture: Picture,
    joints_mm: npt.NDArray[Any],
    cube_mm: float,
    color: tuple[int, int, int] | None = None,
) -> None:
    places = (joints_mm[:, :2] * [1.0, -1.0] / cube_mm + 0.5) * len(picture) - 0.5
    width = 2 if color is None else 1
    draw_skeleton(picture, places, hand_skeleton(len(joints_mm)), color=color, thickness=width)
