"""Reader of Market-1501 (Zheng et al.: ICCV 2015) with OpenPose keypoints.

| what | where |
|---|---|
| images | `{bounding_box_train,bounding_box_test,query}/0002_c1s1_000451_03.jpg`, 64x128 pixels |
| keypoints | `market-annotation-{train,test}.csv` or .npz |

The name begins with the person; distractors (0000) and junk (-1) are left out. "val" are the
persons of the training part whose number is 7 modulo 20.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dgpose.data.image_files import ImageFiles
from dgpose.data.keypoint_annotations import find_annotations
from dgpose.data.person_photos import PersonPhotos

__all__ = ["open_market1501"]

_NAME = re.compile(r"(-?\d+)_c\d")
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


def _present(root: Path, part: str) -> dict[str, str]:
    """Where the images of a part are, by their names."""
    return {
        file.name: f"{folder}/{file.name}"
        for folder in _FOLDERS[part]
        for file in sorted((root / folder).glob("*.jpg"))
    }
