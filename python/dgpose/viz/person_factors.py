"""Pictures of what DPIG makes: draws of single factors, ways between people, the virtual Market."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dgpose.data.person_pool import PersonPool
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.inference.person_factors import InvertedPair
from dgpose.viz.drawing import PAGE, Picture, animation, page_of_tiles, titled
from dgpose.viz.person import person_tile, short_caption

__all__ = [
    "identities_sheet",
    "inversion_sheet",
    "variation_sheet",
    "way_animation",
    "way_sheet",
]

_LARGE, _SMALL = 256, 144  # heights of tiles
_FEW = 24  # tiles that may be large

Row = list[tuple[Picture, str]]


def variation_sheet(
    people: GeneratedPeople, names: Sequence[str], title: str, drawn: Sequence[str]
) -> Picture:
    """A row for each image and each choice of factors: the image, and draws of these factors.

    Args:
        people: with sources, as many draws of each choice; the first image's first.
        names: of the images.
        title: the headline.
        drawn: what each row's draws vary, its caption.
    """
    count = len(people) // (len(names) * len(drawn))
    size = _height(len(names) * len(drawn) * (count + 1))
    pictures, rows = people.pictures(), []
    for number, name in enumerate(names):
        for choice, caption in enumerate(drawn):
            first = (number * len(drawn) + choice) * count
            row: Row = [_source(people, first, name, size)]
            for draw, picture in enumerate(pictures[first : first + count]):
                row.append((person_tile(picture, None, size), "" if draw else caption))
            rows.append(row)
    return _page(rows, title)


def way_sheet(ways: Mapping[str, GeneratedPeople], title: str) -> Picture:
    """A row for each way, its frames from left to right, behind the image they keep the rest of.

    Args:
        ways: by what changes on them.
        title: the headline.
    """
    size = _height(sum(map(len, ways.values())))
    rows = []
    for name, people in ways.items():
        row: Row = [] if people.sources is None else [_source(people, 0, "image", size)]
        frames = _frames(people, size)
        row += [(picture, name if not number else "") for number, picture in enumerate(frames)]
        rows.append(row)
    return _page(rows, title)


def way_animation(ways: Mapping[str, GeneratedPeople]) -> bytes:
    """Ways of equal length as one GIF, side by side, the person beside the same with a skeleton
    where the pose changes; several under what changes on them."""
    columns = []
    for name, people in ways.items():
        frames = _frames(people, _LARGE)
        if not bool((people.poses_px.nan_to_num() == people.poses_px[:1].nan_to_num()).all()):
            pairs = zip(frames, _frames(people, _LARGE, skeleton=True), strict=True)
            frames = [np.hstack(pair) for pair in pairs]
        if len(ways) > 1:
            caption = short_caption(name, frames[0].shape[1])
            frames = [titled(frame, caption) for frame in frames]
        columns.append(frames)
    return animation([np.hstack(frames) for frames in zip(*columns, strict=True)])


def inversion_sheet(pair: InvertedPair, names: Sequence[str], title: str) -> Picture:
    """Two rows: each image, rebuilt from its codes and from those of its noise; and the frames.

    Args:
        pair: what was found.
        names: of both images.
        title: the headline.
    """
    size = _height(len(pair.frames))
    ends: Row = []
    codes, noise = pair.rebuilt.pictures(), pair.inverted.pictures()
    for end, name in enumerate(names):
        made = [
            _source(pair.rebuilt, end, name, size),
            (person_tile(codes[end], None, size), "from codes"),
            (person_tile(noise[end], None, size), "from noise"),
        ]
        ends += made if end == 0 else made[::-1]
    return _page([ends, [(picture, "") for picture in _frames(pair.frames, size)]], title)


def identities_sheet(pool: PersonPool, title: str, *, rows: int = 6, columns: int = 12) -> Picture:
    """The first images of the first people of a pool, a row each.

    Args:
        pool: with identities.
        title: the headline.
        rows, columns: most people, and most images of each.
    """
    assert pool.identity is not None
    page = []
    for who in sorted(set(pool.identity.tolist()))[:rows]:
        chosen = (pool.identity == who).nonzero()[:columns, 0]
        pictures = pool.images[chosen].permute(0, 2, 3, 1).numpy()
        tiles = [person_tile(np.ascontiguousarray(picture), None, _SMALL) for picture in pictures]
        page.append([(tile, f"{who:04d}" if not n else "") for n, tile in enumerate(tiles)])
    return _page(page, title)


def _height(tiles: int) -> int:
    return _LARGE if tiles <= _FEW else _SMALL


def _source(people: GeneratedPeople, row: int, name: str, size: int) -> tuple[Picture, str]:
    """The image that a result is made from, with its skeleton."""
    assert people.sources is not None
    assert people.source_poses_px is not None
    picture = GeneratedPeople(people.sources[row : row + 1], people.poses_px[:1]).pictures()[0]
    tile = person_tile(picture, people.source_poses_px[row].numpy(), size)
    return tile, short_caption(name, tile.shape[1])


def _frames(people: GeneratedPeople, size: int, *, skeleton: bool = False) -> list[Picture]:
    poses = people.poses_px.numpy()
    return [
        person_tile(picture, pose if skeleton else None, size)
        for picture, pose in zip(people.pictures(), poses, strict=True)
    ]


def _page(rows: Sequence[Row], title: str) -> Picture:
    """Rows of tiles of one size, shorter ones filled up."""
    longest = max(map(len, rows))
    empty = np.full_like(rows[0][0][0], PAGE)
    tiles = [tile for row in rows for tile in [*row, *[(empty, "")] * (longest - len(row))]]
    return page_of_tiles(tiles, title, columns=longest)
