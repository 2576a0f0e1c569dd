"""Images of people with 2D joints by the names that commands have for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgpose.data.chictopia import open_chictopia
from dgpose.data.deepfashion import open_deepfashion
from dgpose.data.human36m import open_human36m
from dgpose.data.human36m_pool import human36m_photos
from dgpose.data.lsp import open_lsp
from dgpose.data.market1501 import open_market1501
from dgpose.data.person_photos import PersonPhotos
from dgpose.data.person_pool import PersonPool, rendered_people
from dgpose.data.synthetic_people import SyntheticPeople

__all__ = ["PERSON_SPLITS", "PHOTO_SETS", "open_photos", "read_people", "synthetic_people"]

Progress = Callable[[int, int], None]

PHOTO_SETS = ("lsp", "lspe", "h36m", "deepfashion", "chictopia", "market")
"""Data sets of photographs."""

PERSON_SPLITS = ("train", "val", "test")
"""Their parts; no two share an image. Validation is held out of what the authors train on."""

_RENDERED = 1000
_POSES = {"kinematic": "kinematic", "mixed": "CMU and kinematic"}
_VALIDATION_SUBJECT = "S8"


def open_photos(name: str, data: str | Path, split: str, *, every: int = 5) -> PersonPhotos:
    """The photographs of a data set with their joints; images are read when asked for.

    Args:
        name: one of PHOTO_SETS.
        data: folder of the data set, as the reader of it describes.
        split: one of PERSON_SPLITS. Of Human3.6M "val" is subject 8, "train" 1, 5, 6 and 7.
        every: of Human3.6M's 50 frames a second.

    Raises:
        FileNotFoundError: what is missing, and where it should lie.
        ValueError: another name or part, or a damaged file.
    """
    if name not in PHOTO_SETS:
        raise ValueError(f"data set must be one of {', '.join(PHOTO_SETS)}, got {name!r}")
    if split not in PERSON_SPLITS:
        raise ValueError(f"split must be one of {', '.join(PERSON_SPLITS)}, got {split!r}")
    if name == "h36m":
        frames = open_human36m(data, "test" if split == "test" else "train", every=every)
        if split != "test":
            held = [subject == _VALIDATION_SUBJECT for subject in frames.subjects]
            frames = frames.rows([row for row, own in enumerate(held) if own == (split == "val")])
        return human36m_photos(frames)
    if name in ("lsp", "lspe"):
        return open_lsp(data, "lsp" if name == "lsp" else "lspe", split)
    readers = {
        "deepfashion": open_deepfashion,
        "chictopia": open_chictopia,
        "market": open_market1501,
    }
    return readers[name](data, split)


def read_people(
    name: str,
    data: str | Path | None = None,
    *,
    split: str = "train",
    size: int | tuple[int, int] = 64,
    count: int | None = None,
    seed: int = 0,
    every: int = 5,
    progress: Progress | None = None,
) -> PersonPool:
    """A part of a data set in memory.

    Args:
        name: "rendered" (SyntheticPeople), one of PHOTO_SETS, or a file of `PersonPool.save`, which
            has no parts.
        data: folder of the data set; of "rendered" as for `synthetic_people`.
        split: one of PERSON_SPLITS.
        size: S, or (H, W) of images that are person-centred; a file's must be it.
        count: people to render (default 1,000); of the others so many, evenly spread (None: all).
        seed: of rendered people.
        every: as for `open_photos`.
        progress: called with (images made, all).

    Raises:
        FileNotFoundError: nothing there.
        ValueError: an unknown name, no image of that part, or a damaged file.
    """
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if name == "rendered":
        people = synthetic_people(data, split=split, size=size, seed=seed)
        said = f"SyntheticPeople, {_POSES[people.poses]} poses, {split} part"
        return rendered_people(people, count or _RENDERED, source=said, progress=progress)
    if name in PHOTO_SETS:
        if data is None:
            raise ValueError(f"--data must name the folder of {name}")
        photos = open_photos(name, data, split, every=every).with_images()
        if count is not None:
            photos = photos.rows(_spread(len(photos), count).numpy())
        return photos.pool(size, progress=progress)
    if not Path(name).is_file():
        raise FileNotFoundError(
            f"{name}: no such file (people must be rendered, {', '.join(PHOTO_SETS)}, or a file)"
        )
    pool = PersonPool.load(name)
    wanted = (size, size) if isinstance(size, int) else tuple(size)
    if pool.size != wanted:
        raise ValueError(
            f"{name}: images must have {wanted[1]}x{wanted[0]} pixels, as the model's, got "
            f"{pool.size[1]}x{pool.size[0]}"
        )
    return pool if count is None else pool.subset(_spread(len(pool), count))


def synthetic_people(
    data: str | Path | None, *, split: str, size: int | tuple[int, int], seed: int = 0
) -> SyntheticPeople:
    """The people that "rendered" means.

    Args:
        data: the data folder with CMU's poses, which 70 % of the people are then in; None, and the
            others: kinematic ones.
        split, size, seed: as for `SyntheticPeople`.

    Raises:
        FileNotFoundError, ValueError: as `SyntheticPeople`.
    """
    part: Any = split  # SyntheticPeople says what is wrong
    poses: Any = "kinematic" if data is None else "mixed"
    return SyntheticPeople(seed, poses=poses, data_dir=data, split=part, size=size)


def _spread(count: int, wanted: int) -> Tensor:
    """`wanted` of `count` rows, evenly spread; all where there are fewer."""
    return torch.linspace(0, max(count - 1, 0), min(wanted, count)).round().long()
