"""Pictures of estimated hands: an overlay per frame, and a contact sheet of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.data.cameras import Camera, project
from dgpose.data.hand_datasets import HandSample
from dgpose.skeletons import FINGER_COLORS, NYU14, NYU36, Skeleton
from dgpose.viz.drawing import (
    BACKGROUND,
    TEXT,
    LegendEntry,
    Picture,
    draw_skeleton,
    page_of_tiles,
    titled,
)

__all__ = [
    "SheetTile",
    "colour_depth",
    "contact_sheet",
    "hand_view",
    "image_view",
    "labelled_sheet",
    "live_picture",
    "overlay",
]

Center = tuple[float, float, float]

_HEIGHT = 480
_TRUTH = (255, 255, 255)

_FAR, _NEAR = np.array([38, 48, 72]), np.array([222, 232, 244])
# Level 0 is "nothing measured".
_BLUES = (_FAR + np.linspace(0, 1, 255)[:, None] * (_NEAR - _FAR)).astype(np.uint8)
_BLUES = np.vstack([np.array([BACKGROUND], np.uint8), _BLUES])[:, None]


def colour_depth(depth: npt.NDArray[Any], near: float, far: float) -> Picture:
    """Depth as a picture: pale blue near, dark blue far, dark grey where nothing is measured.

    The blues leave the finger colours of a skeleton drawn over them easy to tell apart.

    Args:
        depth: `[H, W]` mm; 0, NaN and Inf = no depth.
        near, far: ends of the scale in mm; nearer and farther depths get the end colours.

    Returns:
        `[H, W, 3]` RGB.
    """
    values = np.asarray(depth, np.float32)
    valid = (values > 0) & (values < np.inf)
    share = (far - np.where(valid, values, far)) * np.float32(254 / max(far - near, 1e-6))
    level = np.where(valid, 1 + np.clip(share, 0, 254), 0).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(np.ascontiguousarray(level), _BLUES), np.uint8)


def hand_view(
    depth: npt.NDArray[Any],
    camera: Camera,
    center: Center,
    *,
    cube_mm: float = 300.0,
    size: int = 320,
) -> tuple[Picture, npt.NDArray[np.float64]]:
    """The cube around a hand, enlarged.

    Args:
        depth: `[H, W]` mm.
        camera: its camera.
        center: (u, v, mm) of the cube.
        cube_mm: edge of the cube.
        size: edge of the picture.

    Returns:
        picture `[size, size, 3]` RGB, and the matrix `[2, 3]` from pixels of `depth` to its own.
    """
    half_u = cube_mm / 2 * camera.fx / center[2]
    half_v = cube_mm / 2 * camera.fy / center[2]
    scale = np.array([size / (2 * half_u), size / (2 * half_v)])
    offset = (np.array([half_u, half_v]) - np.array(center[:2])) * scale - 0.5
    matrix = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]])
    values = np.nan_to_num(np.asarray(depth, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    window = cv2.warpAffine(values, matrix, (size, size), flags=cv2.INTER_NEAREST)
    near_only = np.where(window > center[2] + cube_mm / 2, np.float32(0), window)
    return colour_depth(near_only, *_range(near_only)), matrix


def image_view(
    depth: npt.NDArray[Any],
    camera: Camera,
    center: Center | None,
    *,
    cube_mm: float = 300.0,
    height: int = _HEIGHT,
) -> tuple[Picture, npt.NDArray[np.float64]]:
    """The whole image, with a frame around the cube that was looked at.

    Args:
        depth: `[H, W]` mm.
        camera: its camera.
        center: (u, v, mm) of the cube, which also sets the range of the colours; None: no frame.
        cube_mm: edge of the cube.
        height: of the picture in pixels; its width follows.

    Returns:
        picture `[height, width, 3]` RGB, and the matrix `[2, 3]` from pixels of `depth` to its own.
    """
    scale = height / depth.shape[0]
    width = max(1, round(depth.shape[1] * scale))
    values = np.nan_to_num(np.asarray(depth, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    enlarged = cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)
    near_far = _range(values) if center is None else (center[2] - 150, center[2] + 700)
    picture = colour_depth(enlarged, *near_far)
    matrix = np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5]])
    if center is not None:
        half = np.array([camera.fx, camera.fy]) * (cube_mm / 2 / center[2])
        corners = _moved(np.array([center[:2] - half, center[:2] + half]), matrix)
        top_left, bottom_right = np.clip(corners, -1e4, 1e4).round().astype(int).tolist()
        cv2.rectangle(picture, top_left, bottom_right, TEXT, 1, cv2.LINE_AA)
    return picture, matrix


def live_picture(
    depth: npt.NDArray[Any],
    camera: Camera,
    joints_px: npt.NDArray[Any] | None,
    center: Center | None,
    *,
    cube_mm: float = 300.0,
) -> Picture:
    """The whole image with the skeleton over it, 480 pixels high; arguments as for `overlay`."""
    picture, matrix = image_view(depth, camera, center, cube_mm=cube_mm)
    _draw_hands(picture, matrix, joints_px, None, 2)
    return picture


def overlay(
    depth: npt.NDArray[Any],
    camera: Camera,
    joints_px: npt.NDArray[Any] | None,
    center: Center | None,
    title: str,
    *,
    cube_mm: float = 300.0,
    truth_px: npt.NDArray[Any] | None = None,
    skeleton: Skeleton = NYU36,
) -> Picture:
    """One frame with its skeleton: the whole image, and the hand enlarged beside it.

    Args:
        depth: `[H, W]` mm.
        camera: its camera.
        joints_px: `[J, 2]` estimated joints, or None.
        center: (u, v, mm) of the crop, or None: there is no enlarged view then.
        title: one line above the pictures.
        cube_mm: edge of the cube around the hand, drawn as a frame.
        truth_px: `[36, 2]` or `[14, 2]` labelled joints, drawn thin and white.
        skeleton: of the estimated joints.

    Returns:
        RGB picture, about 512 pixels high.
    """
    views = [image_view(depth, camera, center, cube_mm=cube_mm, height=_HEIGHT)]
    if center is not None:
        views.append(hand_view(depth, camera, center, cube_mm=cube_mm, size=_HEIGHT))
    for (view, matrix), thickness in zip(views, (2, 3), strict=False):
        _draw_hands(view, matrix, joints_px, truth_px, thickness, skeleton)
    return titled(np.hstack([view for view, _ in views]), title)


def _draw_hands(
    view: Picture,
    matrix: npt.NDArray[np.float64],
    joints_px: npt.NDArray[Any] | None,
    truth_px: npt.NDArray[Any] | None,
    thickness: int,
    skeleton: Skeleton = NYU36,
) -> None:
    """The label thin and white, the estimate in finger colours over it."""
    if truth_px is not None:
        labelled = NYU14 if len(truth_px) == len(NYU14) else NYU36
        draw_skeleton(view, _moved(truth_px, matrix), labelled, color=_TRUTH, thickness=1)
    if joints_px is not None:
        draw_skeleton(view, _moved(joints_px, matrix), skeleton, thickness=thickness)


@dataclass(frozen=True, eq=False)
class SheetTile:
    """One frame of a contact sheet.

    Attributes:
        depth: `[H, W]` mm.
        camera: its camera.
        center: (u, v, mm) of the view; None: the whole image is shown.
        joints_px: `[36, 2]` estimate, or None.
        truth_px: `[36, 2]` label, or None.
        caption: one short line.
        cube_mm: edge of the view around the centre.
    """

    depth: npt.NDArray[Any]
    camera: Camera
    center: Center | None
    joints_px: npt.NDArray[Any] | None
    truth_px: npt.NDArray[Any] | None
    caption: str
    cube_mm: float = 300.0


def contact_sheet(
    tiles: Sequence[SheetTile], title: str, *, columns: int = 4, size: int = 320
) -> Picture:
    """Many hands on one page: estimates in finger colours, labels thin and white.

    Args:
        tiles: what to show, row by row.
        title: headline.
        columns: tiles in a row.
        size: edge of a tile in pixels.

    Returns:
        RGB picture.

    Raises:
        ValueError: no tile.
    """
    if not tiles:
        raise ValueError("tiles must hold at least one tile, got none")
    legend = [LegendEntry(name, color) for name, color in FINGER_COLORS.items()]
    if any(tile.truth_px is not None for tile in tiles):
        legend.append(LegendEntry("ground truth", _TRUTH, 1))
    pictures = [(_tile_picture(tile, size), tile.caption) for tile in tiles]
    return page_of_tiles(pictures, title, legend, columns=columns)


def labelled_sheet(
    samples: Sequence[HandSample], skeleton: Skeleton, captions: Sequence[str], title: str
) -> Picture:
    """Labelled images one below the other, each whole and enlarged around the hand.

    Args:
        samples: of one data set, so of one size.
        skeleton: of its joints.
        captions: a short line for each.
        title: headline.

    Returns:
        RGB picture.

    Raises:
        ValueError: no sample.
    """
    tiles = []
    for sample, caption in zip(samples, captions, strict=True):
        u, v, mm = project(sample.joints_mm.mean(axis=0), sample.camera).tolist()
        where = (sample.depth, sample.camera, (u, v, mm))
        views = [
            image_view(*where, cube_mm=sample.cube_mm, height=_HEIGHT),
            hand_view(*where, cube_mm=sample.cube_mm, size=_HEIGHT),
        ]
        for view, matrix in views:
            draw_skeleton(view, _moved(sample.uvd[:, :2], matrix), skeleton)
        tiles.append((np.hstack([view for view, _ in views]), caption))
    legend = [LegendEntry(name, color) for name, color in FINGER_COLORS.items()]
    return page_of_tiles(tiles, title, legend, columns=1)


def _tile_picture(tile: SheetTile, size: int) -> Picture:
    if tile.center is not None:
        picture, matrix = hand_view(
            tile.depth, tile.camera, tile.center, cube_mm=tile.cube_mm, size=size
        )
    else:
        scale = size / max(tile.depth.shape)
        matrix = np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5]])
        values = np.nan_to_num(np.asarray(tile.depth, np.float32), posinf=0.0, neginf=0.0)
        small = cv2.warpAffine(values, matrix, (size, size), flags=cv2.INTER_NEAREST)
        picture = colour_depth(small, *_range(values))
    _draw_hands(picture, matrix, tile.joints_px, tile.truth_px, 2)
    return picture


def _range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Ends of the colour scale: where the depths are."""
    valid = values[values > 0]
    if not valid.size:
        return 0.0, 1.0
    near, far = np.percentile(valid, [1, 99])
    return float(near), float(far) + 1


def _moved(points: npt.NDArray[Any], matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    moved: npt.NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    return moved
