"""What pictures of all systems share: skeletons, lines of text, and pages of tiles."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.skeletons import BODY_COLORS, Skeleton

__all__ = [
    "BACKGROUND",
    "BODY_LEGEND",
    "PAGE",
    "TEXT",
    "LegendEntry",
    "Picture",
    "animation",
    "draw_skeleton",
    "page_of_tiles",
    "titled",
    "write_text",
]

Picture = npt.NDArray[np.uint8]
"""`[H, W, 3]` RGB."""

Color = tuple[int, int, int]
BACKGROUND: Color = (24, 24, 28)
PAGE: Color = (52, 54, 60)
TEXT: Color = (235, 235, 235)
_OUTLINE: Color = (20, 20, 20)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Lines and circles are placed to 1/16 of a pixel.
_SHIFT = 4


def draw_skeleton(
    picture: Picture,
    joints_px: npt.NDArray[Any],
    skeleton: Skeleton,
    *,
    color: Color | None = None,
    thickness: int = 2,
) -> None:
    """Draw bones and joints into an RGB picture.

    Args:
        picture: `[H, W, 3]`, changed in place.
        joints_px: `[J, 2]` pixels of the picture; joints that are not finite are left out, and
            their bones.
        skeleton: of these joints.
        color: one RGB colour for all; None: the skeleton's colours, and dots on the joints.
        thickness: of the bones, in pixels.
    """
    points = np.asarray(joints_px, np.float64)
    drawable: npt.NDArray[np.bool_] = np.all(np.abs(points) < 1e5, axis=1)  # not NaN either
    fixed = np.zeros(points.shape, np.int64)
    fixed[drawable] = np.rint(points[drawable] * (1 << _SHIFT)).astype(np.int64)
    corners = [(int(x), int(y)) for x, y in fixed]
    for outline, width in ((_OUTLINE, thickness + 2), (None, thickness)):
        for (a, b), own in zip(skeleton.edges, skeleton.edge_colors, strict=True):
            if drawable[a] and drawable[b]:
                shade = outline or color or own
                cv2.line(picture, corners[a], corners[b], shade, width, cv2.LINE_AA, _SHIFT)
    if color is None:
        radius = int((0.5 * thickness + 1.2) * (1 << _SHIFT))
        for joint, shade in enumerate(skeleton.joint_colors):
            if drawable[joint]:
                cv2.circle(picture, corners[joint], radius, shade, -1, cv2.LINE_AA, _SHIFT)


def write_text(
    picture: Picture, text: str, place: tuple[int, int], scale: float, color: Color = TEXT
) -> int:
    """Write one line, its left end of the base line at `place`; returns its width in pixels."""
    cv2.putText(picture, _ascii(text), place, _FONT, scale, color, 1, cv2.LINE_AA)
    return _text_width(text, scale)


def _ascii(text: str) -> str:
    """What OpenCV's own font has."""
    return text.encode("ascii", "replace").decode()


def _text_width(text: str, scale: float) -> int:
    width: int = cv2.getTextSize(_ascii(text), _FONT, scale, 1)[0][0]
    return width


def titled(picture: Picture, title: str) -> Picture:
    """The picture under a bar with one line of text."""
    bar: Picture = np.full((32, picture.shape[1], 3), PAGE, np.uint8)
    write_text(bar, title, (10, 21), 0.5)
    whole: Picture = np.vstack([bar, picture])
    return whole


class LegendEntry(NamedTuple):
    """A line of this colour, and what it stands for."""

    name: str
    color: Color
    thickness: int = 4


BODY_LEGEND = tuple(LegendEntry(k.replace("_", " "), v) for k, v in BODY_COLORS.items())
"""Of skeletons and parts of bodies."""


def page_of_tiles(
    tiles: Sequence[tuple[Picture, str]],
    title: str,
    legend: Sequence[LegendEntry] = (),
    *,
    columns: int,
) -> Picture:
    """Pictures of one size with a line of text each, under a headline and a legend.

    Args:
        tiles: (picture, caption), row by row.
        title: the headline.
        legend: its second line; none: there is no such line.
        columns: tiles in a row.

    Raises:
        ValueError: no tile.
    """
    if not tiles:
        raise ValueError("tiles must hold at least one tile, got none")
    height, width = tiles[0][0].shape[:2]
    gap, caption, header = 8, 26, 76 if legend else 44
    rows = math.ceil(len(tiles) / columns)
    across = columns * (width + gap) + gap
    needed = 2 * (gap + 4) + _text_width(title, 0.65)  # by a few small tiles' headline
    shape = header + rows * (height + caption + gap), max(across, needed), 3
    page: Picture = np.full(shape, PAGE, np.uint8)
    write_text(page, title, (gap + 4, 28), 0.65)
    x = gap + 4
    for name, color, thickness in legend:
        cv2.line(page, (x, 52), (x + 22, 52), color, thickness, cv2.LINE_AA)
        x += 28 + write_text(page, name, (x + 28, 56), 0.45) + 22
    for number, (picture, text) in enumerate(tiles):
        top = header + (number // columns) * (height + caption + gap)
        left = gap + (number % columns) * (width + gap)
        page[top : top + height, left : left + width] = picture
        write_text(page, text, (left + 2, top + height + 18), 0.45)
    return page


def animation(pictures: Sequence[Picture], *, frame_ms: int = 80) -> bytes:
    """Pictures of one size as a GIF that plays forth and back without end."""
    from PIL import Image

    # An octree keeps the few pixels of a skeleton in their colours, which a median cut does not.
    frames = [
        Image.fromarray(p).quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        for p in (*pictures, *pictures[-2:0:-1])
    ]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=frame_ms, loop=0
    )
    return buffer.getvalue()
