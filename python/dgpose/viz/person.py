"""Pictures of people and 2D poses: skeletons over images, and what models made of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.data.person_crops import CropSize, edges
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.skeletons import BODY14, OPENPOSE18
from dgpose.viz.drawing import BACKGROUND, PAGE, Picture, draw_skeleton, page_of_tiles, titled

__all__ = [
    "estimate_picture",
    "grid_sheet",
    "person_tile",
    "pose_tile",
    "result_sheet",
    "short_caption",
]

_TILE = 256
_PHOTO = 640
_SMALL_TILE = 144
_LARGE_TILES = 12  # so many have room for large ones
_WIDEST = 8 * _SMALL_TILE


def person_tile(
    image: Picture, pose_px: npt.NDArray[Any] | None = None, size: int = _TILE
) -> Picture:
    """An image enlarged to a height of `size` pixels, with its skeleton where one is given.

    Args:
        image: `[H, W, 3]` RGB.
        pose_px: `[J, 2]` BODY14 or OPENPOSE18 in pixels of the image; NaN: left out.
        size: height of the tile.
    """
    height, width = image.shape[:2]
    how = cv2.INTER_CUBIC if size > height else cv2.INTER_AREA
    across = _width((height, width), size)
    tile: Picture = np.asarray(cv2.resize(image, (across, size), interpolation=how), np.uint8)
    if pose_px is not None:
        _draw(tile, pose_px, height)
    return tile


def estimate_picture(picture: Picture, pose_px: npt.NDArray[Any], title: str) -> Picture:
    """A whole picture with a skeleton, its longer side brought to 640 pixels.

    Args:
        picture: `[H, W, 3]` RGB.
        pose_px: `[14, 2]` pixels of it.
        title: one line above.
    """
    height, width = picture.shape[:2]
    scale = _PHOTO / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    large: Picture = np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
    points = (pose_px + 0.5) * (size[0] / width, size[1] / height) - 0.5
    draw_skeleton(large, points, BODY14, thickness=4)
    return titled(large, title)


def pose_tile(pose_px: npt.NDArray[Any], image_size: CropSize, size: int = _TILE) -> Picture:
    """A skeleton alone, `size` pixels high, of a pose in pixels of an image of `image_size`."""
    shape = edges(image_size)
    tile: Picture = np.full((size, _width(shape, size), 3), BACKGROUND, np.uint8)
    _draw(tile, pose_px, shape[0])
    return tile


def _width(shape: tuple[int, int], size: int) -> int:
    """Of an image (H, W) that is brought to a height of `size`."""
    return max(1, round(size * shape[1] / shape[0]))


def _draw(tile: Picture, pose_px: npt.NDArray[Any], height: int) -> None:
    points = (np.asarray(pose_px, np.float64) + 0.5) * (len(tile) / height) - 0.5
    skeleton = BODY14 if len(points) == len(BODY14) else OPENPOSE18
    draw_skeleton(tile, points, skeleton, thickness=max(1, len(tile) // 128))


def result_sheet(
    people: GeneratedPeople, names: Sequence[str], title: str, result: str = "result"
) -> Picture:
    """A row for each result: the source with its skeleton, the pose asked for, the result.

    Without sources: pose and result. Many results stand side by side in smaller tiles.

    Args:
        people: one or more.
        names: of each, the caption of its first tile.
        title: the headline.
        result: caption of the results.
    """
    size = _TILE if 3 * len(people) <= _LARGE_TILES else _SMALL_TILE
    shape = people.image_size
    room = _width(shape, size)
    tiles: list[tuple[Picture, str]] = []
    pictures, poses = people.pictures(), people.poses_px.numpy()
    sources = None if people.sources is None else _uint8(people.sources)
    for row, (picture, pose, name) in enumerate(zip(pictures, poses, names, strict=True)):
        if sources is not None and people.source_poses_px is not None:
            own = people.source_poses_px[row].numpy()
            tiles.append((person_tile(sources[row], own, size), short_caption(name, room)))
            name = "pose"
        tiles.append((pose_tile(pose, shape, size), short_caption(name, room)))
        tiles.append((person_tile(picture, None, size), result))
    a_result = len(tiles) // len(people)
    across = 1 if size == _TILE else min(len(people), max(1, _WIDEST // (room * a_result)))
    return page_of_tiles(tiles, title, columns=a_result * across)


def grid_sheet(
    people: GeneratedPeople, names: Sequence[str], title: str, poses: Sequence[str]
) -> Picture:
    """A column for each pose, which stands at its top, and a row for each appearance.

    Where there are sources, each row begins with its own.

    Args:
        people: a multiple of `poses`, an appearance's in all poses together.
        names: of the appearances, captions of their rows.
        title: the headline.
        poses: their names, captions of the columns.

    Raises:
        ValueError: numbers that do not fit.
    """
    if not poses or len(people) != len(poses) * len(names):
        raise ValueError(
            f"people must be {len(poses)} poses of {len(names)} appearances, got {len(people)}"
        )
    size = _TILE if (len(poses) + 1) * (len(names) + 1) <= _LARGE_TILES else _SMALL_TILE
    shape = people.image_size
    room = _width(shape, size)
    empty: Picture = np.full((size, room, 3), PAGE, np.uint8)
    heads = [
        (pose_tile(people.poses_px[column].numpy(), shape, size), short_caption(pose, room))
        for column, pose in enumerate(poses)
    ]
    tiles = [(empty, ""), *heads] if people.sources is not None else heads
    pictures = people.pictures()
    for row, name in enumerate(names):
        first = row * len(poses)
        if people.sources is not None:
            source = _uint8(people.sources[first : first + 1])[0]
            tiles.append((person_tile(source, None, size), short_caption(name, room)))
            name = ""
        for column in range(len(poses)):
            caption = name if column == 0 else ""
            picture = person_tile(pictures[first + column], None, size)
            tiles.append((picture, short_caption(caption, room)))
    return page_of_tiles(tiles, title, columns=len(tiles) // (len(names) + 1))


def _uint8(images: Any) -> npt.NDArray[np.uint8]:
    """[B, 3, H, W] in [0, 1] as [B, H, W, 3]."""
    return GeneratedPeople(images, images).pictures()


def short_caption(text: str, width: int) -> str:
    """As much of the end of a caption as fits below a tile."""
    room = width // 8
    return text if len(text) <= room else f"..{text[-(room - 2) :]}"
