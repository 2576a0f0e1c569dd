"""2D poses from files of any kind, as inputs of commands; everything becomes OpenPose-18.

| file | content |
|---|---|
| what `read_keypoints` reads | COCO's and OpenPose's JSON, LSP's NPZ, Market-1501's text |
| `.npy` | [J, 2] or [P, J, 2] pixels; [.., 3]: a confidence or visibility, 0 is missing |
| `.npz` | the same under `keypoints_px`, `keypoints`, `xy` or `poses`; `known` [.., J], `size` |
| `.json`, a list | COCO's results: objects with `keypoints`, 17 x (x, y, score) |
| `.json`, `poses` | objects with `keypoints_px`: see below; written by `dgpose person estimate` |
| `.csv` | `joint,x,y` or `pose,joint,x,y`: names of OpenPose-18's joints, missing ones left out |

In arrays a joint is missing where a coordinate is NaN, or both are -1. An object of `poses` has
`keypoints_px`, a list of J pairs [x, y] with null for a missing joint, and may have `image` (a
name), `size` ([height, width] of the image in pixels), `skeleton` (a key of SKELETONS), and `known`
and `visible` (J times true or false each): a joint may be known and hidden.

The order of joints is named, or follows from their number: 18, 16, 25 and 33 are OPENPOSE18,
MPII16, BODY_25 and MEDIAPIPE33; of 14 and 17 there are two each, and one must be named (`poses`:
14 are BODY14). Coordinates are pixels; numbers from 0 to 1, as MediaPipe gives them, are refused.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dgpose.data.keypoint_files import (
    MAX_COORDINATE,
    SKELETONS,
    KeypointFormatError,
    read_keypoints,
    skeleton_by_count,
    to_openpose,
)
from dgpose.data.pickled_arrays import PickleFormatError, read_array_npz
from dgpose.skeletons import BODY14, COCO17, OPENPOSE18, Skeleton

__all__ = ["PoseFile", "read_pose_file"]

Size = tuple[int, int]

_ARRAYS = ("keypoints_px", "keypoints", "xy", "poses")
_HEADERS = (["joint", "x", "y"], ["pose", "joint", "x", "y"])
_LARGEST_IMAGE = 65535
_NORMALISED = 2.0  # no person is so small in pixels; MediaPipe's coordinates are from 0 to 1


class PoseFile(NamedTuple):
    """P poses.

    `keypoints_px` [P, 18, 2] float32 in the order of OPENPOSE18, 0 where not known; `known`
    [P, 18] bool; `sizes`, P times (H, W) of the image or None where the file does not say it;
    `images`, P names or ""; `visible` [P, 18], among the known, all where the file does not say it.
    """

    keypoints_px: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]
    sizes: tuple[Size | None, ...]
    images: tuple[str, ...]
    visible: npt.NDArray[np.bool_]


class _Pose(NamedTuple):
    xy: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]
    size: Size | None = None
    image: str = ""
    visible: npt.NDArray[np.bool_] | None = None


def read_pose_file(path: str | PathLike[str], skeleton: str | None = None) -> PoseFile:
    """The poses of a file, in its order.

    Args:
        path: a file of any of the kinds above, or a folder of OpenPose's JSON files.
        skeleton: name of its joint order, a key of SKELETONS; None: as the form has it, or by the
            number of joints, where that leaves one.

    Raises:
        KeypointFormatError: the file is damaged or of no known form, its joints are those of
            another skeleton or of several, or its coordinates are not pixels.
        ValueError: an unknown skeleton.
        OSError: it cannot be opened.
    """
    path = Path(path)
    if skeleton is not None and skeleton not in SKELETONS:
        raise ValueError(f"skeleton must be one of {', '.join(SKELETONS)}, got {skeleton!r}")
    wanted = None if skeleton is None else SKELETONS[skeleton]
    poses = None if path.is_dir() else _own_form(path, path.read_bytes(), wanted)
    if poses is None:
        poses = [
            _Pose(person.xy, person.visible, person.size, person.image)
            for person in read_keypoints(path, skeleton)
        ]
    if not poses:
        raise KeypointFormatError(f"{path}: must hold at least one pose, got none")
    for number, pose in enumerate(poses):
        seen = pose.xy[pose.known]
        if len(seen) > 2 and float(np.abs(seen).max()) <= _NORMALISED:
            raise KeypointFormatError(
                f"{path}: pose {number}: coordinates must be pixels, got numbers up to "
                f"{np.abs(seen).max():g}: multiply them by the image's width and height"
            )
    return PoseFile(
        np.stack([pose.xy for pose in poses]),
        np.stack([pose.known for pose in poses]),
        tuple(pose.size for pose in poses),
        tuple(pose.image for pose in poses),
        np.stack([pose.known if pose.visible is None else pose.visible for pose in poses]),
    )


def _own_form(path: Path, content: bytes, wanted: Skeleton | None) -> list[_Pose] | None:
    """What `read_keypoints` does not read; None where it should."""
    if content.startswith(b"\x93NUMPY"):
        try:
            array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError, MemoryError, OverflowError) as error:
            raise KeypointFormatError(f"{path}: the .npy file is damaged: {error}") from None
        return _array_poses(path, array, wanted)
    if content.startswith(b"PK"):
        return _npz_poses(path, wanted)
    if content.lstrip()[:1] in (b"{", b"["):
        return _json_poses(path, content, wanted)
    try:
        lines = list(csv.reader(content.decode("utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error):
        lines = []
    header = [word.strip() for word in lines[0]] if lines else []
    if header in _HEADERS:
        return _csv_poses(path, lines, wanted)
    if content.startswith(b"name:"):
        return None
    raise KeypointFormatError(
        f"{path}: must be a file of poses: .json, .npy, .npz, or .csv that begins with 'joint,x,y'"
    )


def _pose(
    place: str,
    points: npt.NDArray[np.float64],
    there: npt.NDArray[np.bool_],
    wanted: Skeleton | None,
    known: Iterable[Skeleton],
    size: Size | None = None,
    image: str = "",
    visible: npt.NDArray[np.bool_] | None = None,
) -> _Pose:
    """A pose of J joints [J, 2], as OpenPose-18."""
    skeleton = skeleton_by_count(place, len(points), wanted, known)
    far = np.abs(points[there])
    if far.size and not float(far.max()) <= MAX_COORDINATE:
        raise KeypointFormatError(f"{place}: coordinates must be pixels, got {far.max():g}")
    pixels = np.where(there[:, None], points, 0).astype(np.float32)
    xy, seen = to_openpose(skeleton, pixels, there)
    shown = None if visible is None else to_openpose(skeleton, pixels, there & visible)[1]
    return _Pose(xy, seen, size, image, shown)


def _finite(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Rows [J] without NaN and infinity."""
    finite: npt.NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=1))
    return finite


# ---- arrays ----


def _array_poses(
    path: Path,
    array: npt.NDArray[Any],
    wanted: Skeleton | None,
    known: npt.NDArray[Any] | None = None,
    size: Size | None = None,
) -> list[_Pose]:
    stack = array[None] if array.ndim == 2 else array
    if stack.ndim != 3 or stack.shape[2] not in (2, 3) or stack.dtype.kind not in "iuf":
        raise KeypointFormatError(
            f"{path}: poses must be numbers of shape [J, 2], [J, 3], [P, J, 2] or [P, J, 3], "
            f"got {array.dtype} of shape {list(array.shape)}"
        )
    values = stack.astype(np.float64)
    points = values[..., :2]
    there: npt.NDArray[Any] = ~np.isnan(points).any(axis=-1) & (points != -1).any(axis=-1)
    if stack.shape[2] == 3:
        there = there & (values[..., 2] > 0)
    if known is not None:
        if known.shape != array.shape[:-1] or known.dtype.kind not in "biuf":
            raise KeypointFormatError(
                f"{path}: known must have shape {list(array.shape[:-1])}, got {list(known.shape)}"
            )
        there = there & (known != 0).reshape(there.shape)
    return [
        _pose(f"{path}: pose {row}", points[row], there[row], wanted, SKELETONS.values(), size)
        for row in range(len(stack))
    ]


def _npz_poses(path: Path, wanted: Skeleton | None) -> list[_Pose] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = set(file.files)
    except Exception as error:  # zipfile raises errors of many kinds on a damaged file
        raise KeypointFormatError(f"{path}: the .npz file is damaged: {error}") from None
    if "xy" in keys and keys & {"names", "ids"}:
        return None
    named = next((key for key in _ARRAYS if key in keys), None)
    if named is None:
        raise KeypointFormatError(
            f"{path}: must have an array {', '.join(_ARRAYS[:-1])} or {_ARRAYS[-1]}, "
            f"got {', '.join(sorted(keys)[:8]) or 'none'}"
        )
    try:
        array, known, size = (
            np.asarray(read_array_npz(path, key)) if key in keys else None
            for key in (named, "known", "size")
        )
    except PickleFormatError as error:
        raise KeypointFormatError(str(error)) from None
    assert array is not None
    return _array_poses(path, array, wanted, known, _size(str(path), size))


def _size(place: str, value: Any) -> Size | None:
    """(H, W) from what a file has for it."""
    if value is None:
        return None
    edges = value.tolist() if isinstance(value, np.ndarray) else value
    if not (
        isinstance(edges, list)
        and len(edges) == 2
        and all(type(edge) is int and 0 < edge <= _LARGEST_IMAGE for edge in edges)
    ):
        raise KeypointFormatError(f"{place}: size must be [height, width], got {edges!r:.60}")
    return edges[0], edges[1]


# ---- JSON ----


def _json_poses(path: Path, content: bytes, wanted: Skeleton | None) -> list[_Pose] | None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise KeypointFormatError(f"{path}: the JSON is damaged: {error}") from None
    if isinstance(document, list):
        return [
            _coco_result(f"{path}: [{number}]", record, wanted)
            for number, record in enumerate(document)
        ]
    if not isinstance(document, dict) or "poses" not in document:
        return None
    records = document["poses"]
    if not isinstance(records, list):
        raise KeypointFormatError(f'{path}: "poses" must be a list, got {records!r:.40}')
    return [
        _record(f"{path}: poses[{number}]", record, wanted) for number, record in enumerate(records)
    ]


def _coco_result(place: str, record: Any, wanted: Skeleton | None) -> _Pose:
    numbers = record.get("keypoints") if isinstance(record, dict) else None
    if not isinstance(numbers, list) or not numbers or len(numbers) % 3:
        raise KeypointFormatError(f'{place}: must have "keypoints", a list of J x (x, y, score)')
    values = np.array([_number(place, value) for value in numbers]).reshape(-1, 3)
    there = _finite(values) & (values[:, 2] > 0)
    return _pose(place, values[:, :2], there, wanted or COCO17, ())


def _record(place: str, record: Any, wanted: Skeleton | None) -> _Pose:
    points = record.get("keypoints_px") if isinstance(record, dict) else None
    if not isinstance(points, list) or not points:
        raise KeypointFormatError(f'{place}: must have "keypoints_px", a list of J x [x, y]')
    values = np.full((len(points), 2), np.nan)
    for joint, point in enumerate(points):
        if point is not None:
            if not isinstance(point, list) or len(point) != 2:
                raise KeypointFormatError(
                    f"{place}: joint {joint} must be [x, y] or null, got {point!r:.40}"
                )
            values[joint] = [_number(place, value) for value in point]
    there = _finite(values)
    marks = {}
    for name in ("known", "visible"):
        if (mark := record.get(name)) is not None:
            if not isinstance(mark, list) or len(mark) != len(points):
                said = f"{len(points)} times true or false"
                raise KeypointFormatError(f'{place}: "{name}" must be {said}')
            marks[name] = np.array([value is True for value in mark])
    there &= marks.get("known", True)
    own, image = record.get("skeleton"), record.get("image", "")
    if own is not None and (not isinstance(own, str) or own not in SKELETONS):
        raise KeypointFormatError(
            f'{place}: "skeleton" must be one of {", ".join(SKELETONS)}, got {own!r:.40}'
        )
    if not isinstance(image, str):
        raise KeypointFormatError(f'{place}: "image" must be text, got {image!r:.40}')
    orders = (OPENPOSE18, BODY14) if own is None else (SKELETONS[own],)
    size = _size(place, record.get("size"))
    return _pose(place, values, there, wanted, orders, size, image, marks.get("visible"))


def _number(place: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise KeypointFormatError(f"{place}: coordinates must be numbers, got {value!r:.40}")
    try:
        return float(value)
    except OverflowError:
        raise KeypointFormatError(
            f"{place}: coordinates must be pixels, got {value!r:.40}"
        ) from None


# ---- CSV ----


def _csv_poses(path: Path, lines: list[list[str]], wanted: Skeleton | None) -> list[_Pose]:
    skeleton = wanted or OPENPOSE18
    poses: dict[str, npt.NDArray[np.float64]] = {}
    width = len(lines[0])
    for number, line in enumerate(lines[1:], start=2):
        if not any(word.strip() for word in line):
            continue
        place = f"{path}:{number}"
        words = [word.strip() for word in line]
        if len(words) != width:
            raise KeypointFormatError(f"{place}: must have {width} fields, got {len(words)}")
        *who, joint, x, y = words
        if joint not in skeleton.joints:
            raise KeypointFormatError(
                f"{place}: joint must be one of {skeleton.name}, such as {skeleton.joints[0]}, "
                f"got {joint!r:.40}"
            )
        pose = poses.setdefault("".join(who), np.full((len(skeleton), 2), np.nan))
        row = skeleton.joints.index(joint)
        if not np.isnan(pose[row]).all():
            raise KeypointFormatError(f"{place}: {joint} must come once a pose")
        try:
            pose[row] = float(x), float(y)
            if not np.isfinite(pose[row]).all():
                raise ValueError
        except ValueError:
            raise KeypointFormatError(
                f"{place}: x and y must be numbers, got {x!r:.20} and {y!r:.20}"
            ) from None
    return [
        _pose(f"{path}: pose {who or 0}", points, _finite(points), skeleton, ())
        for who, points in poses.items()
    ]
