"""Queries and galleries of re-identification: Market-1501's, and rendered ones.

Rendered people share outfits, three of them one on average: colours of clothes alone do not tell
them apart. A camera sees a few scenes of its own, each with its place, light and angle: another
camera never shows a person before the same background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dgpose.data.body_kinematics import with_bone_lengths
from dgpose.data.counter_rng import CounterRng
from dgpose.data.market1501 import DISTRACTOR, open_market1501_ranking
from dgpose.data.person_pool import PersonPool, pool_of_batches
from dgpose.data.synthetic_people import SyntheticPeople, SyntheticPeopleConfig

__all__ = ["ReidSet", "market_reid_set", "rendered_reid_people", "rendered_reid_set"]

Progress = Callable[[int, int], None]

_PERSONS_AN_OUTFIT = 3
_SCENES = 8  # of a camera
_AT_ONCE = 256


class ReidSet(NamedTuple):
    """Who is to be found, and among whom. The pools' identity is the person; in the gallery also
    DISTRACTOR or JUNK (of `dgpose.data.market1501`), which is nobody."""

    query: PersonPool
    gallery: PersonPool
    query_cameras: Tensor  #: [Q] int64
    gallery_cameras: Tensor  #: [G] int64


def market_reid_set(
    path: str | Path, *, size: tuple[int, int] = (128, 64), progress: Progress | None = None
) -> ReidSet:
    """Market-1501's query and gallery in memory (570 MB at 128x64).

    Args:
        path: folder of the data set; joints are read where its keypoint file is there.
        size: (H, W) that the images are resized to.
        progress: called with (images read, all), of the query and of the gallery.

    Raises:
        FileNotFoundError, PhotoSetError: as `open_market1501_ranking`.
    """
    query, gallery = open_market1501_ranking(path)
    return ReidSet(
        query.photos.pool(size, progress=progress),
        gallery.photos.pool(size, progress=progress),
        torch.from_numpy(query.cameras),
        torch.from_numpy(gallery.cameras),
    )


def rendered_reid_set(
    data: str | Path | None = None,
    *,
    persons: int = 150,
    distractors: int = 50,
    cameras: int = 6,
    images: int = 3,
    seed: int = 0,
    size: tuple[int, int] = (128, 64),
    progress: Progress | None = None,
) -> ReidSet:
    """Unseen people of SyntheticPeople's test part before several cameras, in any pose and heading.

    Args:
        data: the data folder with CMU's poses; None: kinematic poses.
        persons: who is asked for, by one image of each camera.
        distractors: other people, in the gallery alone.
        cameras: at least 2.
        images: at least 2 of each person and camera, all but one of them in the gallery.
        seed: another seed, other people, places, light and poses.
        size: (H, W) of the images.
        progress: called with (images rendered, all).

    Raises:
        ValueError: fewer persons than 1, distractors than 0, cameras or images than 2.
        FileNotFoundError: `data` holds no poses.
    """
    for name, value, least in (
        ("persons", persons, 1),
        ("distractors", distractors, 0),
        ("cameras", cameras, 2),
        ("images", images, 2),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    people = _people(data, persons + distractors, "test", seed, size)
    who, camera, take = (
        part.ravel()
        for part in np.meshgrid(
            np.arange(persons + distractors), np.arange(cameras), np.arange(images), indexing="ij"
        )
    )
    scene = CounterRng(seed, np.arange(len(who))).integers("reid.scene", _SCENES)
    asked = (take == 0) & (who < persons)
    shown = asked | (take > 0)
    who, camera, scene, asked = (part[shown] for part in (who, camera, scene, asked))
    first = people.identities.start

    def rendered() -> Any:
        for start in range(0, len(who), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(who)))
            # Poses and headings of other samples, in the bones of these people.
            drawn = people.batch(cameras * _SCENES + rows).joints_mm.double().numpy()
            identities = first + who[rows]
            posed = with_bone_lengths(drawn - drawn[:, :1], people.bone_lengths(identities))
            yield people.posed(posed, identities, camera[rows] * _SCENES + scene[rows])
            if progress is not None:
                progress(int(rows[-1]) + 1, len(who))

    said = f"SyntheticPeople, test part, {persons} persons before {cameras} cameras"
    pool = pool_of_batches(rendered(), said)
    ids = torch.from_numpy(np.where(who < persons, who + 1, DISTRACTOR))
    pool = replace(pool, identity=ids)
    query = torch.from_numpy(asked)
    where = torch.from_numpy(camera + 1)
    return ReidSet(pool.subset(query), pool.subset(~query), where[query], where[~query])


def rendered_reid_people(
    data: str | Path | None = None,
    *,
    persons: int = 500,
    count: int = 12_000,
    split: str = "train",
    seed: int = 0,
    size: tuple[int, int] = (128, 64),
    progress: Progress | None = None,
) -> PersonPool:
    """Labelled people to learn re-identification from, who share outfits as those of
    `rendered_reid_set` do; every image has a place and light of its own.

    Args:
        data, seed, size, progress: as for `rendered_reid_set`.
        persons: how many there are.
        count: images.
        split: "train" or "val".

    Raises:
        ValueError, FileNotFoundError: as `SyntheticPeople`.
    """
    people = _people(data, persons, split, seed, size)
    said = f"SyntheticPeople, {split} part, {persons} persons"
    return pool_of_batches(people.batches(count, progress=progress), said)


def _people(
    data: str | Path | None, persons: int, split: Any, seed: int, size: tuple[int, int]
) -> SyntheticPeople:
    config = SyntheticPeopleConfig(
        identities=persons, outfits=max(1, persons // _PERSONS_AN_OUTFIT)
    )
    return SyntheticPeople(
        seed,
        poses="kinematic" if data is None else "mixed",
        data_dir=data,
        split=split,
        size=size,
        config=config,
    )
