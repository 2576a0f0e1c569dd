"""Reading 2D body keypoints of people in images; everything becomes OpenPose-18.

| file | content |
|---|---|
| text, `name:keypoints_y:keypoints_x` | Market-1501, DeepFashion: 18 joints, -1 missing |
| `.npz`, `names` and `xy` [N, J, 2] | any skeleton, a negative coordinate is missing |
| `.npz`, `ids` and `xy` [N, 14, 2] | LSP and its extension; images `im00002.jpg`, ... |
| `.json`, `images` and `annotations` | COCO person keypoints |
| `.json`, `people` | OpenPose, one image a file (BODY_25 or 18 joints); or a folder of these |

The form is found by the content, not by the ending. What is read is checked: a damaged or
unsuitable file is a `KeypointFormatError` that names the file and the line or record.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dgpose.skeletons import (
    BODY14,
    BODY_25,
    COCO17,
    H36M17,
    LSP14,
    MEDIAPIPE33,
    MPII16,
    OPENPOSE18,
    Skeleton,
    to_openpose18,
)

__all__ = [
    "MAX_COORDINATE",
    "SKELETONS",
    "KeypointFormatError",
    "PersonKeypoints",
    "keypoint_text",
    "read_keypoints",
    "skeleton_by_count",
    "to_openpose",
]

_ORDERS = (OPENPOSE18, COCO17, H36M17, BODY_25, MEDIAPIPE33, MPII16, LSP14, BODY14)
SKELETONS: dict[str, Skeleton] = {skeleton.name: skeleton for skeleton in _ORDERS}
"""Joint orders that a file may have, by name."""

_CSV_HEADER = "name:keypoints_y:keypoints_x"
_OPENPOSE_ENDING = "_keypoints"
MAX_COORDINATE = 1e6
"""Pixels; beyond it a number is damage, not a place."""


class KeypointFormatError(ValueError):
    """A file does not hold readable keypoints. The message names the file and the defect."""


@dataclass(frozen=True, eq=False)
class PersonKeypoints:
    """One person in one image.

    Attributes:
        image: file name of the image, as the keypoint file has it.
        xy: `[18, 2]` float32, (x, y) in pixels, in the order of OPENPOSE18; 0 where not visible.
        visible: `[18]` bool.
        size: (H, W) of the image where the file says it, else None.
    """

    image: str
    xy: npt.NDArray[np.float32]
    visible: npt.NDArray[np.bool_]
    size: tuple[int, int] | None = None


def read_keypoints(
    path: str | PathLike[str], skeleton: str | None = None, *, limit: int | None = None
) -> list[PersonKeypoints]:
    """The people of a keypoint file, in its order.

    Args:
        path: a file, or a folder of OpenPose's JSON files.
        skeleton: name of its joint order, a key of SKELETONS; None: as the form has it, or by the
            number of joints, where that leaves one.
        limit: stop after so many people.

    Raises:
        KeypointFormatError: the file is damaged or of no known form, or has another skeleton.
        ValueError: an unknown skeleton.
        OSError: it cannot be opened.
    """
    path = Path(path)
    if skeleton is not None and skeleton not in SKELETONS:
        raise ValueError(f"skeleton must be one of {', '.join(SKELETONS)}, got {skeleton!r}")
    wanted = None if skeleton is None else SKELETONS[skeleton]
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise KeypointFormatError(f"{path}: the folder must hold OpenPose's .json files")
        people: list[PersonKeypoints] = []
        for file in files:
            document = _json(file, file.read_bytes())
            if not isinstance(document, dict) or "people" not in document:
                raise KeypointFormatError(
                    f'{file}: must be OpenPose\'s JSON, with "people", in a folder (files of other '
                    "forms are given one by one)"
                )
            people += _openpose(file, document, wanted)
            if limit is not None and len(people) >= limit:
                break
    else:
        content = path.read_bytes()
        if content.startswith(b"PK"):
            people = _npz(path, wanted, limit)
        elif content.lstrip()[:1] in (b"{", b"["):
            people = _coco_or_openpose(path, _json(path, content), wanted)
        else:
            people = _csv(path, content, wanted, limit)
    if not people:
        raise KeypointFormatError(f"{path}: must hold at least one person, got none")
    return people[:limit]


def to_openpose(
    skeleton: Skeleton, xy: npt.NDArray[np.float32], visible: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """[..., J, 2] and [..., J] as OpenPose-18."""
    if skeleton is OPENPOSE18:
        return np.where(visible[..., None], xy, np.float32(0)), visible
    points, seen = to_openpose18(xy, skeleton, visible)
    return points, seen


def skeleton_by_count(
    place: str, joints: int, wanted: Skeleton | None, known: Iterable[Skeleton]
) -> Skeleton:
    """The one of these skeletons that has so many joints; `wanted`, where that is named.

    Raises:
        KeypointFormatError: none has, or several have.
    """
    fitting = [s for s in (known if wanted is None else (wanted,)) if len(s) == joints]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " or ".join(skeleton.name for skeleton in fitting)
        raise KeypointFormatError(
            f"{place}: {joints} joints may be {names}: name their order (--skeleton)"
        )
    if wanted is not None:
        raise KeypointFormatError(
            f"{place}: {wanted.name} must have {len(wanted)} joints, got {joints}"
        )
    expected = ", ".join(f"{len(s)} ({s.name})" for s in known)
    raise KeypointFormatError(f"{place}: the number of joints must be {expected}, got {joints}")


# ---- text ----


def keypoint_text(
    names: Sequence[str], xy: npt.NDArray[np.float32], visible: npt.NDArray[np.bool_]
) -> str:
    """People [N, 18, 2] of images as Market-1501's text, which has whole pixels."""
    pixels = np.where(visible[..., None], np.rint(xy).clip(0), -1).astype(np.int64)
    lines = (
        f"{name}: {points[:, 1].tolist()}: {points[:, 0].tolist()}"
        for name, points in zip(names, pixels, strict=True)
    )
    return "\n".join([_CSV_HEADER, *lines]) + "\n"


def _csv(
    path: Path, content: bytes, wanted: Skeleton | None, limit: int | None
) -> list[PersonKeypoints]:
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        lines = []
    if not lines or lines[0].strip() != _CSV_HEADER:
        raise KeypointFormatError(
            f"{path}: must be a keypoint file: text that begins with {_CSV_HEADER!r}, .npz, COCO's "
            "or OpenPose's .json"
        )
    if wanted not in (None, OPENPOSE18):
        raise KeypointFormatError(f"{path}: a file of this form has openpose18, not {wanted.name}")
    people = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        fields = line.rsplit(":", 2)
        if len(fields) != 3 or not fields[0].strip():
            raise KeypointFormatError(
                f"{place}: must read 'name: [18 y]: [18 x]', got {line!r:.60}"
            )
        y = _integers(place, "keypoints_y", fields[1])
        x = _integers(place, "keypoints_x", fields[2])
        xy = np.stack([x, y], 1).astype(np.float32)
        people.append(PersonKeypoints(fields[0].strip(), *to_openpose(OPENPOSE18, xy, _there(xy))))
        if limit is not None and len(people) >= limit:
            break
    return people


def _there(xy: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Joints that are neither negative (-1: missing) nor NaN."""
    there: npt.NDArray[np.bool_] = np.all(xy >= 0, axis=-1)
    return there


def _integers(place: str, name: str, text: str) -> npt.NDArray[np.int64]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(type(v) is int for v in values):
        raise KeypointFormatError(f"{place}: {name} must be a list of integers, got {text!r:.60}")
    if len(values) != len(OPENPOSE18):
        raise KeypointFormatError(f"{place}: {name} must be 18 integers, got {len(values)}")
    if any(abs(v) > MAX_COORDINATE for v in values):
        raise KeypointFormatError(f"{place}: {name} must be pixels, got {max(values, key=abs)}")
    return np.array(values, np.int64)


# ---- npz ----


def _npz(path: Path, wanted: Skeleton | None, limit: int | None) -> list[PersonKeypoints]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            keys = set(arrays.files)
            label = "names" if "names" in keys else "ids"
            if not {label, "xy"} <= keys:
                raise KeypointFormatError(
                    f"{path}: must have the arrays xy and names, or xy and ids, "
                    f"got {', '.join(sorted(keys)[:8]) or 'none'}"
                )
            labels, xy = arrays[label], arrays["xy"]
    except KeypointFormatError:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise KeypointFormatError(f"{path}: the .npz file is damaged: {error}") from None
    if xy.ndim != 3 or xy.shape[2] != 2 or xy.dtype.kind not in "iuf":
        raise KeypointFormatError(
            f"{path}: xy must have shape [N, J, 2] of numbers, got {list(xy.shape)} {xy.dtype}"
        )
    if labels.shape != xy.shape[:1] or labels.dtype.kind not in ("U" if label == "names" else "iu"):
        kind = "text" if label == "names" else "integers"
        raise KeypointFormatError(
            f"{path}: {label} must have shape [{len(xy)}] of {kind}, got {list(labels.shape)} "
            f"{labels.dtype}"
        )
    if wanted is None and label == "ids":
        wanted = LSP14
    skeleton = skeleton_by_count(str(path), xy.shape[1], wanted, SKELETONS.values())
    points = xy[:limit].astype(np.float32)
    if (np.abs(points) > MAX_COORDINATE).any():
        raise KeypointFormatError(f"{path}: xy must be pixels, got {np.abs(points).max():g}")
    names = [str(v) if label == "names" else f"im{v:05d}.jpg" for v in labels[:limit].tolist()]
    # LSP labels joints outside the image too; elsewhere a negative coordinate is a missing joint.
    there = np.isfinite(points).all(-1) if label == "ids" else _there(points)
    points, seen = to_openpose(skeleton, points, there)
    return [
        PersonKeypoints(name, person, shown)
        for name, person, shown in zip(names, points, seen, strict=True)
    ]


# ---- JSON ----


def _json(path: Path, content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise KeypointFormatError(f"{path}: the JSON is damaged: {error}") from None


def _coco_or_openpose(path: Path, document: Any, wanted: Skeleton | None) -> list[PersonKeypoints]:
    if isinstance(document, dict):
        if {"images", "annotations"} <= document.keys():
            return _coco(path, document, wanted)
        if "people" in document:
            return _openpose(path, document, wanted)
    raise KeypointFormatError(
        f'{path}: the JSON must have "images" and "annotations" (COCO) or "people" (OpenPose)'
    )


def _numbers(place: str, name: str, value: Any) -> npt.NDArray[np.float32]:
    """A flat list x, y, score, ... as [J, 3]."""
    if not isinstance(value, list) or len(value) % 3 or not value:
        got = f"{len(value)} values" if isinstance(value, list) else f"{value!r:.40}"
        raise KeypointFormatError(f"{place}: {name} must be a list of J x (x, y, v), got {got}")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise KeypointFormatError(f"{place}: {name} must be numbers, got {number!r:.40}")
        # NaN and Inf are missing joints; an integer may be too long for a float.
        if abs(number) > MAX_COORDINATE and number not in (math.inf, -math.inf):
            raise KeypointFormatError(f"{place}: {name} must be pixels, got {number!r:.40}")
    return np.array(value, np.float32).reshape(-1, 3)


def _person(
    image: str, skeleton: Skeleton, rows: npt.NDArray[np.float32], size: tuple[int, int] | None
) -> PersonKeypoints:
    there = (rows[:, 2] > 0) & np.isfinite(rows[:, :2]).all(1)
    return PersonKeypoints(image, *to_openpose(skeleton, rows[:, :2], there), size)


def _openpose(
    path: Path, document: dict[str, Any], wanted: Skeleton | None
) -> list[PersonKeypoints]:
    people = document["people"]
    if not isinstance(people, list):
        raise KeypointFormatError(f'{path}: "people" must be a list, got {people!r:.40}')
    image = path.stem.removesuffix(_OPENPOSE_ENDING)
    found = []
    for number, person in enumerate(people):
        place = f"{path}: person {number}"
        if not isinstance(person, dict) or "pose_keypoints_2d" not in person:
            raise KeypointFormatError(f'{place}: must have "pose_keypoints_2d"')
        rows = _numbers(place, "pose_keypoints_2d", person["pose_keypoints_2d"])
        skeleton = skeleton_by_count(place, len(rows), wanted, (BODY_25, OPENPOSE18))
        found.append(_person(image, skeleton, rows, None))
    return found


def _coco(path: Path, document: dict[str, Any], wanted: Skeleton | None) -> list[PersonKeypoints]:
    images: dict[Any, tuple[str, tuple[int, int] | None]] = {}
    for number, image in enumerate(_records(path, document, "images")):
        place = f"{path}: images[{number}]"
        name = image.get("file_name")
        if "id" not in image or not isinstance(name, str) or not name:
            raise KeypointFormatError(f'{place}: must have "id" and "file_name"')
        sides = image.get("height"), image.get("width")
        known = all(isinstance(side, int) and 0 < side <= 65535 for side in sides)
        images[_key(place, image["id"])] = name, (sides if known else None)  # type: ignore[assignment]
    skeleton = wanted or _coco_skeleton(path, document)
    found = []
    for number, annotation in enumerate(_records(path, document, "annotations")):
        place = f"{path}: annotations[{number}]"
        if "keypoints" not in annotation:
            raise KeypointFormatError(f'{place}: must have "keypoints"')
        rows = _numbers(place, "keypoints", annotation["keypoints"])
        skeleton_by_count(place, len(rows), skeleton, ())
        key = _key(place, annotation.get("image_id"))
        if key not in images:
            raise KeypointFormatError(f"{place}: image_id must be one of images, got {key!r:.40}")
        if (rows[:, 2] > 0).any():  # COCO has people without keypoints
            name, size = images[key]
            found.append(_person(name, skeleton, rows, size))
    return found


def _key(place: str, value: Any) -> int | str:
    if not isinstance(value, int | str):
        raise KeypointFormatError(f"{place}: an id must be a number or text, got {value!r:.40}")
    return value


def _records(path: Path, document: dict[str, Any], name: str) -> Sequence[dict[str, Any]]:
    records = document[name]
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise KeypointFormatError(f'{path}: "{name}" must be a list of objects')
    return records


def _coco_skeleton(path: Path, document: dict[str, Any]) -> Skeleton:
    """COCO-17; a file in COCO's form may say that it has other joints."""
    categories = document.get("categories")
    for category in categories if isinstance(categories, list) else ():
        joints = category.get("keypoints") if isinstance(category, dict) else None
        if isinstance(joints, list) and tuple(joints) != COCO17.joints:
            names = ", ".join(map(str, joints[:3]))
            raise KeypointFormatError(
                f"{path}: the joints must be those of coco17, got {names}, ... "
                f"(--skeleton reads them as one of {', '.join(SKELETONS)})"
            )
    return COCO17
