"""Pictures of bodies: maps over an image, and the parts that are cut from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.skeletons import BODY_COLORS, DPIG_PART_NAMES, OPENPOSE18
from dgpose.viz.drawing import PAGE, Picture, draw_skeleton, page_of_tiles, titled, write_text

__all__ = ["PART_COLORS", "body_page", "enlarge", "maps_over", "parts_picture"]

PART_COLORS: dict[str, tuple[int, int, int]] = {
    "head_and_shoulders": BODY_COLORS["head"],
    "upper_body": (240, 225, 90),
    "legs": (225, 125, 190),
    **{part: BODY_COLORS[part] for part in DPIG_PART_NAMES[3:]},
}
"""RGB colour of each of DPIG's parts."""

_MIN_HEIGHT = 384
_CROP = 168


def enlarge(picture: Picture) -> Picture:
    """A small picture enlarged by a whole number, to 384 pixels in height or more."""
    factor = max(1, math.ceil(_MIN_HEIGHT / picture.shape[0]))
    size = picture.shape[1] * factor, picture.shape[0] * factor
    return picture if factor == 1 else _resized(picture, size, cv2.INTER_CUBIC)


def _resized(picture: Picture, size: tuple[int, int], how: int) -> Picture:
    resized: Picture = np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
    return resized


def maps_over(
    picture: Picture,
    maps: npt.NDArray[np.float32],
    colors: Sequence[tuple[int, int, int]],
    *,
    strength: float = 0.85,
    smooth: bool = True,
) -> Picture:
    """Maps of keypoints or limbs over an image, each in its colour; the strongest is seen.

    Args:
        picture: `[H, W, 3]` RGB.
        maps: `[K, h, w]` in 0 to 1, of the same region; enlarged to the picture.
        colors: K RGB colours.
        strength: how much of the image a value of 1 covers.
        smooth: enlarge with soft edges, or pixel by pixel.
    """
    size = picture.shape[1], picture.shape[0]
    how = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    cover = cv2.resize(maps.max(0), size, interpolation=how)
    share = np.clip(maps, 1e-3, 1) ** 8  # where maps meet, the stronger has the colour
    tint = np.tensordot(share, np.asarray(colors, np.float32), ((0,), (0,)))
    tint = cv2.resize(tint / share.sum(0)[..., None], size, interpolation=how)
    alpha = strength * np.clip(cover, 0, 1)[..., None]
    mixed: Picture = np.rint(picture * (1 - alpha) + tint * alpha).astype(np.uint8)
    return mixed


def body_page(tiles: Sequence[tuple[Picture, str]], title: str) -> Picture:
    """Pictures of any sizes on one page, each as large as its tile allows.

    Args:
        tiles: (picture, caption).
        title: the headline.

    Raises:
        ValueError: no tile.
    """
    if not tiles:
        raise ValueError("tiles must hold at least one tile, got none")
    height = 320
    shapes = [picture.shape for picture, _ in tiles]
    width = min(480, max(160, round(height * max(s[1] / s[0] for s in shapes))))
    fitted = [(_fitted(picture, (height, width)), caption) for picture, caption in tiles]
    columns = min(len(tiles), max(1, 1680 // (width + 8)))
    return page_of_tiles(fitted, title, columns=columns)


def _fitted(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture as large as fits, in the middle of a tile."""
    height, width = size
    scale = min(height / picture.shape[0], width / picture.shape[1])
    small = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    tile: Picture = np.full((height, width, 3), PAGE, np.uint8)
    top, left = (height - small[1]) // 2, (width - small[0]) // 2
    tile[top : top + small[1], left : left + small[0]] = _resized(picture, small, how)
    return tile


def parts_picture(
    picture: Picture,
    xy: npt.NDArray[Any],
    visible: npt.NDArray[np.bool_],
    boxes: npt.NDArray[Any],
    present: npt.NDArray[np.bool_],
    crops: npt.NDArray[np.uint8],
    title: str,
) -> Picture:
    """The image with its seven boxes, and the seven crops beside it; absent ones are grey.

    Args:
        picture: `[H, W, 3]` RGB.
        xy: `[18, 2]` OpenPose-18 pixels of the picture.
        visible: `[18]`.
        boxes: `[7, 4]` (x1, y1, x2, y2) pixels of the picture.
        present: `[7]`.
        crops: `[7, h, w, 3]` RGB.
        title: one line above.
    """
    gap, caption = 8, 24
    height = 2 * (_CROP + caption) + gap
    scale = height / picture.shape[0]
    width = max(1, round(picture.shape[1] * scale))
    whole = _resized(picture, (width, height), cv2.INTER_CUBIC)
    points = np.where(visible[:, None], (xy + 0.5) * scale - 0.5, np.nan)
    draw_skeleton(whole, points, OPENPOSE18, thickness=2)
    page: Picture = np.full((height + 2 * gap, width + 6 * gap + 4 * _CROP, 3), PAGE, np.uint8)
    colors = [PART_COLORS[name] for name in DPIG_PART_NAMES]
    for box, there, color in zip(boxes, present, colors, strict=True):
        if there:
            x1, y1, x2, y2 = np.rint((box + 0.5) * scale - 0.5).astype(int).tolist()
            cv2.rectangle(whole, (x1, y1), (x2, y2), color, 2, cv2.LINE_AA)
    page[gap : gap + height, gap : gap + width] = whole
    for number, (name, color) in enumerate(zip(DPIG_PART_NAMES, colors, strict=True)):
        top = gap + (number // 4) * (_CROP + caption + gap)
        left = width + 2 * gap + (number % 4) * (_CROP + gap)
        if present[number]:
            enlarged = _resized(crops[number], (_CROP, _CROP), cv2.INTER_CUBIC)
            page[top : top + _CROP, left : left + _CROP] = enlarged
            cv2.rectangle(page, (left, top), (left + _CROP - 1, top + _CROP - 1), color, 2)
        else:
            page[top : top + _CROP, left : left + _CROP] = 90
            color = (140, 140, 140)
        text = name.replace("_", " ") + ("" if present[number] else ": absent")
        write_text(page, text, (left + 2, top + _CROP + 17), 0.42, color)
    return titled(page, title)
