"""Reader of DeepFashion's in-shop images (Liu et al.: CVPR 2016) with OpenPose keypoints.

| what | where |
|---|---|
| images, raw | `Img/img/WOMEN/Dresses/id_00000002/02_1_front.jpg` |
| images, flattened | `fashionWOMENDressesid0000000202_1front.jpg`, or `fasion...` without `_` |
| keypoints | `fasion-annotation-{train,test}.csv` or .npz; `fasion-resize-annotation-...` |
| parts | `Eval/list_eval_partition.txt`; or `train.lst`, `test.lst`; or the keypoint files |

Images have 256x256 pixels, or are the columns 40 to 216 of such ones, 176x256. Keypoints of the
files with "resize" in their name are in pixels of the latter, others of the former; they are moved
to those of the images that are there. All spellings of a name are one (`image_key`). Of an image
that is there twice the first by path is taken. The item is the identity: nearly always one person
in one outfit. "val" are the items of the training part whose number is 7 modulo 50.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dgpose.data.image_files import IMAGE_SUFFIXES, ImageFiles, read_image
from dgpose.data.keypoint_annotations import find_annotations
from dgpose.data.keypoint_files import PersonKeypoints
from dgpose.data.person_photos import PersonPhotos, PhotoSetError

__all__ = ["image_key", "open_deepfashion"]

_KEY = re.compile(r"(?:WO)?MEN[A-Za-z]+id(\d{8})\d{3}[a-z]+$")
_FULL, _CROPPED, _MARGIN = 256, 176, 40
_STATUS = {"train": "train", "query": "test", "gallery": "test"}
_PARTS = ("train", "test")
_LAYOUT = (
    "its images (Img/img/..., or flattened into one folder) and keypoints "
    "(fasion-annotation-train.csv and -test.csv, or fasion-resize-annotation-...; of "
    "pose-attentional transfer, PATN): DeepFashion, In-shop Clothes Retrieval Benchmark"
)


def image_key(name: str) -> str | None:
    """One spelling for the name of an image, whatever its folder, dialect or ending.

    `Img/img/WOMEN/Tees_Tanks/id_00000316/06_2_side.jpg`,
    `fashionWOMENTees_Tanksid0000031606_2side.jpg` and `fasionWOMENTeesTanksid0000031606_2side.jpg`
    are "WOMENTeesTanksid00000316062side"; None for other names.
    """
    stem = name.rpartition(".")[0] if name.lower().endswith(IMAGE_SUFFIXES) else name
    found = _KEY.search(stem.replace("/", "").replace("_", ""))
    return None if found is None else found.group()


def open_deepfashion(path: str | Path, split: str) -> PersonPhotos:
    """Read the labels of one part; images are read when asked for.

    Args:
        path: folder of the data set.
        split: "train", "val" or "test".

    Raises:
        FileNotFoundError: no keypoints, or no image at all.
        PhotoSetError, KeypointFormatError: a damaged file, or images of another size.
    """
    root = Path(path)
    files = sorted(root.rglob("*")) if root.is_dir() else []
    images: dict[str, str] = {}
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES:
            name = file.relative_to(root).as_posix()
            key = image_key(name)
            if key is not None:
                images.setdefault(key, name)
    people = {part: _annotations(root, part) for part in _PARTS}
    if not images or not any(people.values()):
        raise FileNotFoundError(f"{root}: must hold {_LAYOUT}")
    width = _width(root, next(iter(images.values())))
    parts = _partition(root)
    names, xy, known, identity = [], [], [], []
    done: set[str] = set()
    for part in _PARTS:
        for person, person_width in people[part]:
            key = image_key(person.image)
            if key is None:
                raise PhotoSetError(f"{root}: keypoints must be of DeepFashion, got {person.image}")
            item = int(_KEY.match(key).group(1))  # type: ignore[union-attr]
            own = part if parts is None else parts.get(key)
            if own == "train" and item % 50 == 7:
                own = "val"
            if split != own or key in done:
                continue
            done.add(key)
            moved = person.xy + np.float32((width - person_width) / 2) * np.array([1, 0])
            names.append(images.get(key, person.image))
            xy.append(np.where(person.visible[:, None], moved, 0))
            known.append(person.visible)
            identity.append(item)
    return PersonPhotos(
        ImageFiles(root),
        tuple(names),
        np.array(xy, np.float32).reshape(-1, 18, 2),
        np.array(known, bool).reshape(-1, 18),
        f"DeepFashion, in-shop images, {split} part",
        identity=np.array(identity, np.int64),
    )


def _annotations(root: Path, part: str) -> list[tuple[PersonKeypoints, int]]:
    """The people of a part's keypoint file, and the width of the images that it is about."""
    stems = [f"{word}-annotation-{part}" for word in ("fasion", "fashion")]
    stems += [f"{word}-resize-annotation-{part}" for word in ("fasion", "fashion")]
    found = find_annotations((root, root / "fashion_data", root / "Anno"), tuple(stems))
    if found is None:
        return []
    file, people = found
    width = _CROPPED if "resize" in file.name else _FULL
    return [(person, width) for person in people]


def _width(root: Path, name: str) -> int:
    height, width = (int(edge) for edge in read_image(root / name).shape[:2])
    if height != _FULL or width not in (_FULL, _CROPPED):
        raise PhotoSetError(
            f"{root / name}: images must have 256x256 or 176x256 pixels, got {width}x{height}"
        )
    return width


def _partition(root: Path) -> dict[str, str] | None:
    """ "train" or "test" by key; None where no file says it."""
    listed = root / "Eval" / "list_eval_partition.txt"
    parts: dict[str, str] = {}
    if listed.is_file():
        for number, line in enumerate(_lines(listed)[2:], start=3):
            words = line.split()
            key = image_key(words[0]) if len(words) == 3 else None
            if key is None or words[2] not in _STATUS:
                raise PhotoSetError(
                    f"{listed}:{number}: must read image item train|query|gallery, got {line!r:.80}"
                )
            parts[key] = _STATUS[words[2]]
        return parts
    for part in _PARTS:
        for folder in (root, root / "fashion_data"):
            listed = folder / f"{part}.lst"
            for line in _lines(listed) if listed.is_file() else ():
                key = image_key(line.strip())
                if key is None:
                    raise PhotoSetError(f"{listed}: must name images, got {line!r:.80}")
                parts[key] = part
    return parts or None


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise PhotoSetError(f"{path}: must be text") from None
    return [line for line in lines if line.strip()]
