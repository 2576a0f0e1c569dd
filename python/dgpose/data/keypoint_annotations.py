"""Keypoint files beside image folders, as Market-1501 and DeepFashion are passed around with."""

from __future__ import annotations

import csv
from pathlib import Path

from dgpose.data.keypoint_files import PersonKeypoints, read_keypoints
from dgpose.data.person_photos import PhotoSetError

__all__ = ["find_annotations", "read_pairs"]


def find_annotations(
    folders: tuple[Path, ...], stems: tuple[str, ...]
) -> tuple[Path, list[PersonKeypoints]] | None:
    """The first keypoint file, .csv or .npz, of these stems in these folders, and its people.

    Raises:
        KeypointFormatError: it is damaged.
    """
    for folder in folders:
        for stem in stems:
            for suffix in (".csv", ".npz"):
                file = folder / f"{stem}{suffix}"
                if file.is_file():
                    return file, read_keypoints(file, "openpose18")
    return None


def read_pairs(path: str | Path) -> list[tuple[str, str]]:
    """Pairs of image names: the source and the target of pose transfer.

    Args:
        path: text with the header `from,to` and a pair a line.

    Raises:
        PhotoSetError: a file of another form.
        OSError: it cannot be read.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [line for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise PhotoSetError(f"{path}: must be text with the header from,to ({error})") from None
    if not lines or [word.strip() for word in lines[0]] != ["from", "to"]:
        raise PhotoSetError(f"{path}: must begin with the header from,to")
    pairs = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != 2 or not all(word.strip() for word in line):
            raise PhotoSetError(f"{path}:{number}: must read from,to, got {','.join(line)!r:.60}")
        pairs.append((line[0].strip(), line[1].strip()))
    return pairs
