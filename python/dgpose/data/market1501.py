"""Reader of Market-1501 (Zheng et al.: ICCV 2015) with OpenPose keypoints.

| what | where |
|---|---|
| images | `{bounding_box_train,bounding_box_test,query}/0002_c1s1_000451_03.jpg`, 64x128 pixels |
| keypoints | `market-annotation-{train,test}.csv` or .npz |

The name begins with the person, then comes the camera; `open_market1501` leaves distractors (0000)
and junk (-1) out. "val" are the persons of the training part whose number is 7 modulo 20.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dgpose.data.image_files import ImageFiles
from dgpose.data.keypoint_annotations import find_annotations
from dgpose.data.person_photos import PersonPhotos, PhotoSetError

__all__ = ["DISTRACTOR", "JUNK", "RankedPhotos", "open_market1501", "open_market1501_ranking"]

DISTRACTOR = 0
"""Person of gallery images that are never right."""

JUNK = -1
"""Person of gallery images that no ranking counts."""

_NAME = re.compile(r"(-?\d+)_c(\d)")
_FOLDERS = {"train": ("bounding_box_train",), "test": ("query", "bounding_box_test")}
_LAYOUT = (
    "bounding_box_train, bounding_box_test, query, and market-annotation-train.csv and -test.csv "
    "(keypoints of pose-attentional transfer, PATN): Market-1501"
)


def open_market1501(path: str | Path, split: str) -> PersonPhotos:
    """Read the labels of one part; images are read when asked for.

    Args:
        path: folder of the data set.
        split: "train", "val" or "test".

    Raises:
        FileNotFoundError: no keypoints, or none of the folders.
        KeypointFormatError: damaged keypoints.
    """
    root = Path(path)
    names, xy, known, identity = [], [], [], []
    there = {part: _present(root, part) for part in _FOLDERS}
    annotations = {
        part: find_annotations((root,), (f"market-annotation-{part}",)) for part in there
    }
    if not any(there.values()) or not any(annotations.values()):
        raise FileNotFoundError(f"{root}: must hold {_LAYOUT}")
    for part, found in annotations.items():
        for person in found[1] if found is not None else ():
            who = _NAME.match(person.image)
            number = int(who.group(1)) if who is not None else 0
            own = "val" if part == "train" and number % 20 == 7 else part
            if number > 0 and split == own:
                names.append(there[part].get(person.image, person.image))
                xy.append(person.xy)
                known.append(person.visible)
                identity.append(number)
    return PersonPhotos(
        ImageFiles(root),
        tuple(names),
        np.array(xy, np.float32).reshape(-1, 18, 2),
        np.array(known, bool).reshape(-1, 18),
        f"Market-1501, {split} part",
        identity=np.array(identity, np.int64),
    )


class RankedPhotos(NamedTuple):
    """Photographs of a query or a gallery, and the camera [N] int64 of each; their identity is the
    person, DISTRACTOR or JUNK."""

    photos: PersonPhotos
    cameras: npt.NDArray[np.int64]


def open_market1501_ranking(path: str | Path) -> tuple[RankedPhotos, RankedPhotos]:
    """The query and the gallery of re-identification: all images of their folders.

    Joints are those of market-annotation-test, where it is there and knows the image; of others
    none is known.

    Args:
        path: folder of the data set.

    Raises:
        FileNotFoundError: query or bounding_box_test is missing or empty.
        PhotoSetError: an image whose name tells neither person nor camera.
        KeypointFormatError: damaged keypoints.
    """
    root = Path(path)
    found = find_annotations((root,), ("market-annotation-test",))
    joints = {} if found is None else {person.image: person for person in found[1]}
    ranked = []
    for folder in _FOLDERS["test"]:
        names = [file.name for file in sorted((root / folder).glob("*.jpg"))]
        if not names:
            raise FileNotFoundError(f"{root}: must hold {folder} with .jpg images: Market-1501")
        said = [_NAME.match(name) for name in names]
        unknown = [name for name, match in zip(names, said, strict=True) if match is None]
        if unknown:
            raise PhotoSetError(
                f"{root / folder}: images must be named PPPP_cCsS_..., got {unknown[0]}"
            )
        people = [joints.get(name) for name in names]
        xy, known = np.zeros((len(names), 18, 2), np.float32), np.zeros((len(names), 18), bool)
        for row, person in enumerate(people):
            if person is not None:
                xy[row], known[row] = person.xy, person.visible
        numbers = np.array([[int(part) for part in match.groups()] for match in said if match])
        photos = PersonPhotos(
            ImageFiles(root),
            tuple(f"{folder}/{name}" for name in names),
            xy,
            known,
            f"Market-1501, {folder}",
            identity=numbers[:, 0],
        )
        ranked.append(RankedPhotos(photos, numbers[:, 1]))
    return ranked[0], ranked[1]


def _present(root: Path, part: str) -> dict[str, str]:
    """Where the images of a part are, by their names."""
    return {
        file.name: f"{folder}/{file.name}"
        for folder in _FOLDERS[part]
        for file in sorted((root / folder).glob("*.jpg"))
    }
