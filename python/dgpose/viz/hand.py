"""Pictures of estimated hands: an overlay per frame, and a contact sheet of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.data.cameras import Camera
from dgpose.skeletons import FINGER_COLORS, NYU14, NYU36

__all__ = ["SheetTile", "colour_depth", "contact_sheet", "draw_skeleton", "hand_view", "overlay"]

Picture = npt.NDArray[np.uint8]
Center = tuple[float, float, float]

_HEIGHT = 480
_BACKGROUND = (24, 24, 28)
_PAGE = (52, 54, 60)
_TEXT = (235, 235, 235)
_TRUTH = (255, 255, 255)
_OUTLINE = (20, 20, 20)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Lines and circles are placed to 1/16 of a pixel.
_SHIFT = 4


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
    share = np.clip((far - np.where(valid, values, far)) / max(far - near, 1e-6), 0, 1)
    dark, pale = np.array([38, 48, 72], np.float32), np.array([222, 232, 244], np.float32)
    picture: Picture = (dark + share[..., None] * (pale - dark)).astype(np.uint8)
    picture[~valid] = _BACKGROUND
    return picture


def draw_skeleton(
    picture: Picture,
    joints_px: npt.NDArray[Any],
    *,
    color: tuple[int, int, int] | None = None,
    thickness: int = 2,
) -> None:
    """Draw bones and joints into an RGB picture.

    Args:
        picture: `[H, W, 3]`, changed in place.
        joints_px: `[36, 2]` (NYU36) or `[14, 2]` (NYU14) pixels of the picture; bones with a joint
            that is not finite are left out.
        color: one RGB colour for all; None: the colour of each finger, and dots on the joints.
        thickness: of the bones, in pixels.
    """
    points = np.asarray(joints_px, np.float64)
    skeleton = NYU14 if len(points) == len(NYU14) else NYU36
    drawable: npt.NDArray[np.bool_] = np.all(np.abs(points) < 1e5, axis=1)  # not NaN either
    fixed = np.zeros(points.shape, np.int64)
    fixed[drawable] = np.rint(points[drawable] * (1 << _SHIFT)).astype(np.int64)
    corners = [(int(x), int(y)) for x, y in fixed]
    for outline, width in ((_OUTLINE, thickness + 2), (None, thickness)):
        for (a, b), finger in zip(skeleton.edges, skeleton.edge_colors, strict=True):
            if drawable[a] and drawable[b]:
                shade = outline or color or finger
                cv2.line(picture, corners[a], corners[b], shade, width, cv2.LINE_AA, _SHIFT)
    if color is None:
        radius = int((0.5 * thickness + 1.2) * (1 << _SHIFT))
        for joint, group in enumerate(skeleton.groups):
            if drawable[joint]:
                shade = FINGER_COLORS[group]
                cv2.circle(picture, corners[joint], radius, shade, -1, cv2.LINE_AA, _SHIFT)


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


def overlay(
    depth: npt.NDArray[Any],
    camera: Camera,
    joints_px: npt.NDArray[Any] | None,
    center: Center | None,
    title: str,
    *,
    cube_mm: float = 300.0,
    truth_px: npt.NDArray[Any] | None = None,
) -> Picture:
    """One frame with its skeleton: the whole image, and the hand enlarged beside it.

    Args:
        depth: `[H, W]` mm.
        camera: its camera.
        joints_px: `[36, 2]` estimated joints, or None.
        center: (u, v, mm) of the crop, or None: there is no enlarged view then.
        title: one line above the pictures.
        cube_mm: edge of the cube around the hand, drawn as a frame.
        truth_px: `[36, 2]` or `[14, 2]` labelled joints, drawn thin and white.

    Returns:
        RGB picture, about 512 pixels high.
    """
    scale = _HEIGHT / depth.shape[0]
    width = max(1, round(depth.shape[1] * scale))
    values = np.nan_to_num(np.asarray(depth, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    enlarged = cv2.resize(values, (width, _HEIGHT), interpolation=cv2.INTER_NEAREST)
    near_far = _range(values) if center is None else (center[2] - 150, center[2] + 700)
    whole = colour_depth(enlarged, *near_far)
    views = [(whole, np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5]]))]
    if center is not None:
        views.append(hand_view(depth, camera, center, cube_mm=cube_mm, size=_HEIGHT))
        half = np.array([camera.fx, camera.fy]) * (cube_mm / 2 / center[2])
        corners = _moved(np.array([center[:2] - half, center[:2] + half]), views[0][1])
        top_left, bottom_right = np.clip(corners, -1e4, 1e4).round().astype(int).tolist()
        cv2.rectangle(whole, top_left, bottom_right, _TEXT, 1, cv2.LINE_AA)
    for (view, matrix), thickness in zip(views, (2, 3), strict=False):
        if truth_px is not None:
            draw_skeleton(view, _moved(truth_px, matrix), color=_TRUTH, thickness=1)
        if joints_px is not None:
            draw_skeleton(view, _moved(joints_px, matrix), thickness=thickness)
    body = np.hstack([view for view, _ in views])
    bar: Picture = np.full((32, body.shape[1], 3), _PAGE, np.uint8)
    _write(bar, title, (10, 21), 0.5)
    picture: Picture = np.vstack([bar, body])
    return picture


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
    gap, caption, header = 8, 26, 76
    rows = math.ceil(len(tiles) / columns)
    sheet: Picture = np.full(
        (header + rows * (size + caption + gap), columns * (size + gap) + gap, 3),
        _PAGE,
        np.uint8,
    )
    _write(sheet, title, (gap + 4, 28), 0.65)
    _legend(sheet, (gap + 4, 56), with_truth=any(tile.truth_px is not None for tile in tiles))
    for number, tile in enumerate(tiles):
        top = header + (number // columns) * (size + caption + gap)
        left = gap + (number % columns) * (size + gap)
        sheet[top : top + size, left : left + size] = _tile_picture(tile, size)
        _write(sheet, tile.caption, (left + 2, top + size + 18), 0.45)
    return sheet


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
    if tile.truth_px is not None:
        draw_skeleton(picture, _moved(tile.truth_px, matrix), color=_TRUTH, thickness=1)
    if tile.joints_px is not None:
        draw_skeleton(picture, _moved(tile.joints_px, matrix), thickness=2)
    return picture


def _legend(picture: Picture, place: tuple[int, int], *, with_truth: bool) -> None:
    entries = [(name, color, 4) for name, color in FINGER_COLORS.items()]
    if with_truth:
        entries.append(("ground truth", _TRUTH, 1))
    x, y = place
    for name, color, thickness in entries:
        cv2.line(picture, (x, y - 4), (x + 22, y - 4), color, thickness, cv2.LINE_AA)
        _write(picture, name, (x + 28, y), 0.45)
        x += 28 + cv2.getTextSize(name, _FONT, 0.45, 1)[0][0] + 22


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


def _write(picture: Picture, text: str, place: tuple[int, int], scale: float) -> None:
    # OpenCV's own font has ASCII only.
    ascii_text = text.encode("ascii", "replace").decode()
    cv2.putText(picture, ascii_text, place, _FONT, scale, _TEXT, 1, cv2.LINE_AA)
