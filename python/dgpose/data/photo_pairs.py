"""Pairs of photographs of one person, as pose transfer is tested on Market-1501 and DeepFashion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from dgpose.data.deepfashion import image_key
from dgpose.data.keypoint_annotations import read_pairs
from dgpose.data.person_pairs import PersonPairs
from dgpose.data.person_photos import PhotoSetError
from dgpose.data.person_sources import open_photos

__all__ = ["PAIRED_SETS", "photo_pairs"]

_STEMS = {
    "market": ("market-pairs",),
    "deepfashion": (
        *("fasion-pairs", "fashion-pairs"),
        *("fasion-resize-pairs", "fashion-resize-pairs"),
    ),
}
PAIRED_SETS = tuple(_STEMS)
"""Data sets of which lists of pairs are passed around."""


def photo_pairs(
    name: str,
    data: str | Path,
    split: str,
    *,
    size: tuple[int, int],
    count: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PersonPairs:
    """The pairs of a list (`market-pairs-test.csv`, `fasion-pairs-test.csv`, `fasion-resize-...`)
    whose two images are there and have keypoints.

    Args:
        name: one of PAIRED_SETS.
        data: folder of the data set.
        split: "train" or "test".
        size: (H, W) that the photographs are resized to.
        count: so many, evenly spread; None: all.
        progress: called with (images read, all); an image of several pairs is read once.

    Raises:
        FileNotFoundError: no list, or no keypoints.
        PhotoSetError: a damaged list, or one of which nothing is there.
        ValueError: another data set.
    """
    if name not in PAIRED_SETS:
        raise ValueError(f"pairs must be of {' or '.join(PAIRED_SETS)}, got {name!r}")
    files = [
        folder / f"{stem}-{split}.csv"
        for folder in (Path(data), Path(data) / "fashion_data")
        for stem in _STEMS[name]
    ]
    listed = next((file for file in files if file.is_file()), None)
    if listed is None:
        raise FileNotFoundError(f"{data}: must hold {files[0].name}, pairs of {name}")
    photos = open_photos(name, data, split).with_images()
    row_of = {_key(name, photo): row for row, photo in enumerate(photos.names)}
    keys = [[_key(name, word) for word in pair] for pair in read_pairs(listed)]
    rows = np.array([[row_of[key] for key in pair] for pair in keys if set(pair) <= row_of.keys()])
    if not len(rows):
        raise PhotoSetError(f"{listed}: must name images with keypoints, none of them is there")
    if count is not None and count < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
    used, places = np.unique(rows, return_inverse=True)
    # Pools have different names; here an image may be in several pairs.
    pool = replace(photos.rows(used).pool(size, progress=progress), names=())
    source, target = torch.from_numpy(places.reshape(-1, 2)).unbind(1)
    return PersonPairs(pool.subset(source), pool.subset(target))


def _key(data_set: str, image: str) -> str:
    """One spelling for the names of photographs, lists and keypoint files."""
    if data_set == "market":
        return PurePosixPath(image).name
    return image_key(image) or image
