"""Human3.6M (Ionescu et al. 2014) in the two forms in which it is passed around.

| form | files |
|---|---|
| MMPose | `annotation_body3d/fps50/h36m_{train,test}.npz`, `images/` |
| VideoPose3D | `data_3d_h36m.npz`, with MMPose's `cameras.pkl` beside it, and maybe `images/` |

Images have MMPose's names, `images/S1/S1_Walking_1.54138969/S1_Walking_1.54138969_000001.jpg`
(frames from 1, 50 a second). Poses are in camera coordinates: x right, y DOWN, z forward, mm, the
17 joints of `dgpose.skeletons.H36M17`. Files with a pickle inside are parsed, not loaded
(`dgpose.data.pickled_arrays`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dgpose.data.image_files import read_image
from dgpose.data.person_crops import person_box, person_crop, to_crop
from dgpose.data.pickled_arrays import read_array_npz, read_array_pickle
from dgpose.skeletons import H36M17

__all__ = [
    "ACTIONS",
    "SUBJECTS",
    "BodyCamera",
    "Human36M",
    "Human36MError",
    "action_name",
    "open_human36m",
    "read_cameras",
]

Split = Literal["train", "test"]

SUBJECTS: dict[str, tuple[str, ...]] = {
    "train": ("S1", "S5", "S6", "S7", "S8"),
    "test": ("S9", "S11"),
}
"""Actors by part: the split of the published tables."""

ACTIONS: tuple[str, ...] = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "TakingPhoto", "Waiting", "Walking", "WalkingDog", "WalkingTogether",
)  # fmt: skip
"""The 15 actions, as published tables name them."""

_SHORT = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog", "WalkTogether": "WalkingTogether"}
# The 17 of 32 recorded joints that move on their own.
_SCORED = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
_NAME = re.compile(r"(?P<subject>S\d+)_(?P<action>[^/]+)\.(?P<camera>\d{8})_(?P<frame>\d{6})\.\w+$")
_MMPOSE_KEYS = "must hold imgname [N], S [N, 17, 4], part [N, 17, 3], center [N, 2] and scale [N]"
_LAYOUT = (
    "annotation_body3d/fps50/h36m_{split}.npz (MMPose), or data_3d_h36m.npz with cameras.pkl "
    "beside it (VideoPose3D)"
)


class Human36MError(ValueError):
    """A file of Human3.6M is missing something or damaged. The message names the file."""


@dataclass(frozen=True, eq=False)
class BodyCamera:
    """A camera of Human3.6M: where it stands and how it draws.

    Attributes:
        rotation: `[3, 3]` float64; its columns are the camera's axes in the world.
        position_mm: `[3]`, in the world.
        focal: `[2]` pixels.
        center: `[2]` pixels.
        radial: `[3]` coefficients of the radial distortion.
        tangential: `[2]` of the tangential one.
    """

    rotation: npt.NDArray[np.float64]
    position_mm: npt.NDArray[np.float64]
    focal: npt.NDArray[np.float64]
    center: npt.NDArray[np.float64]
    radial: npt.NDArray[np.float64]
    tangential: npt.NDArray[np.float64]

    def to_camera(self, world_mm: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """World coordinates `[..., 3]` mm (z up) to camera coordinates (y DOWN, z forward)."""
        seen: npt.NDArray[np.float64] = (world_mm - self.position_mm) @ self.rotation
        return seen

    def project(self, camera_mm: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Camera coordinates `[..., 3]` mm to pixels `[..., 2]`, with the lens's distortion."""
        flat = camera_mm[..., :2] / camera_mm[..., 2:]
        square = np.square(flat).sum(axis=-1, keepdims=True)
        powers = np.concatenate([square, square**2, square**3], axis=-1)
        bent = 1 + powers @ self.radial + flat @ self.tangential[::-1]
        drawn = flat * bent[..., None] + square * self.tangential[::-1]
        pixels: npt.NDArray[np.float64] = drawn * self.focal + self.center
        return pixels


def read_cameras(path: Path) -> dict[tuple[str, str], BodyCamera]:
    """MMPose's `cameras.pkl`: cameras by (subject, number), such as ("S1", "54138969").

    Raises:
        PickleFormatError: it holds more than arrays.
        Human36MError: it holds no cameras.
        OSError: the file cannot be read.
    """
    content = read_array_pickle(path)
    cameras = {}
    try:
        for (subject, number), fields in content.items():
            values = [np.asarray(fields[key], np.float64) for key in "RTfckp"]
            shapes = ((3, 3), (3,), (2,), (2,), (3,), (2,))
            parts = [v.reshape(shape) for v, shape in zip(values, shapes, strict=True)]
            parts[1] = 1000 * parts[1]
            cameras[str(subject), str(number)] = BodyCamera(*parts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Human36MError(
            f"{path}: must be {{(subject, camera): {{R, T, f, c, k, p}}}} ({error!r})"
        ) from None
    return cameras


def action_name(text: str) -> str:
    """The published name of a recording: "Walking 1", "Walking_1" -> "Walking", "Photo" ->
    "TakingPhoto".

    Raises:
        ValueError: no action of Human3.6M.
    """
    name = re.sub(r"[ _]\d+$", "", text)
    name = _SHORT.get(name, name)
    if name not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}, got {text!r}")
    return name


@dataclass(frozen=True, eq=False)
class Human36M:
    """Labelled frames, in the order of the files.

    Attributes:
        poses_mm: `[N, 17, 3]` float32, camera coordinates, not root-relative.
        joints_px: `[N, 17, 2]` float32, in the image.
        boxes: `[N, 4]` x1, y1, x2, y2: the square around the person, pixels.
        subjects: N names, "S1".
        actions: N of `ACTIONS`.
        names: N paths of the images under `images`.
        images: the folder.
    """

    poses_mm: npt.NDArray[np.float32]
    joints_px: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float64]
    subjects: tuple[str, ...]
    actions: tuple[str, ...]
    names: tuple[str, ...]
    images: Path

    def __len__(self) -> int:
        return len(self.names)

    @property
    def relative_mm(self) -> npt.NDArray[np.float32]:
        """`[N, 17, 3]` with the hip at the origin."""
        return self.poses_mm - self.poses_mm[:, :1]

    def rows(self, rows: Sequence[int] | npt.NDArray[Any]) -> Human36M:
        """These frames alone, in this order."""
        chosen = np.asarray(rows, np.int64)
        who, what, names = (
            tuple(texts[row] for row in chosen.tolist())
            for texts in (self.subjects, self.actions, self.names)
        )
        arrays = (self.poses_mm[chosen], self.joints_px[chosen], self.boxes[chosen])
        return Human36M(*arrays, who, what, names, self.images)

    def of_action(self, action: str) -> Human36M:
        """The frames of one action; ValueError for a name that is none."""
        wanted = action_name(action)
        return self.rows([row for row, name in enumerate(self.actions) if name == wanted])

    def with_images(self) -> Human36M:
        """The frames whose image is there."""
        return self.rows([row for row in range(len(self)) if self.image_path(row).is_file()])

    def image_path(self, row: int) -> Path:
        """Where the image of a frame is looked for; of the recordings that some copies call
        TakingPhoto and WalkingDog, others Photo and WalkDog, under both names."""
        path = self.images / self.names[row]
        if path.is_file():
            return path
        for short in ("Photo", "WalkDog"):
            for old, new in ((short, _SHORT[short]), (_SHORT[short], short)):
                other = self.images / re.sub(rf"_{old}(?=[_.])", f"_{new}", self.names[row])
                if other.is_file():
                    return other
        return path

    def image(self, row: int) -> npt.NDArray[np.uint8]:
        """The whole image of a frame, `[H, W, 3]` RGB.

        Raises:
            FileNotFoundError: it is not there.
            ImageFormatError: it cannot be decoded.
        """
        return read_image(self.image_path(row))

    def crop(self, row: int, size: int) -> npt.NDArray[np.uint8]:
        """The square around the person, `[3, S, S]` uint8; errors as for `image`."""
        return person_crop(self.image(row), self.boxes[row], size)

    def joints_in_crop(self, row: int, size: int) -> npt.NDArray[np.float32]:
        """The joints in pixels of that crop, `[17, 2]`."""
        return to_crop(self.joints_px[row], self.boxes[row], size).astype(np.float32)


def open_human36m(path: str | Path, split: Split, *, every: int = 5) -> Human36M:
    """Read the labels of one part in either form; images are read when asked for.

    Args:
        path: the data set's folder, or a label file of MMPose's form, whose frames are then taken
            whatever their part.
        split: "train" (S1, 5, 6, 7, 8) or "test" (S9, 11).
        every: of the 50 frames a second each `every`-th is taken, beginning with the first.

    Raises:
        FileNotFoundError: no file of either form.
        Human36MError, PickleFormatError: a damaged file, or one that holds more than arrays.
        ValueError: another split, or `every` below 1.
    """
    if split not in SUBJECTS:
        raise ValueError(f"split must be train or test, got {split!r}")
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    root = Path(path)
    if root.is_file():
        return _read_mmpose(root, root.parent, None, every)
    for folder in (root / "annotation_body3d", root):
        labels = folder / "fps50" / f"h36m_{split}.npz"
        if labels.is_file():
            return _read_mmpose(labels, root, SUBJECTS[split], every)
    labels = root / "data_3d_h36m.npz"
    if labels.is_file():
        return _read_videopose3d(labels, root, SUBJECTS[split], every)
    raise FileNotFoundError(f"{root}: must hold {_LAYOUT.format(split=split)}")


def _images_in(root: Path) -> Path:
    return root / "images" if (root / "images").is_dir() else root


def _read_mmpose(path: Path, root: Path, subjects: Sequence[str] | None, every: int) -> Human36M:
    try:
        names, joints, pixels, centers, scales = (
            read_array_npz(path, key) for key in ("imgname", "S", "part", "center", "scale")
        )
        shapes = [array.shape for array in (names, joints, pixels, centers, scales.reshape(-1))]
    except AttributeError as error:
        raise Human36MError(f"{path}: {_MMPOSE_KEYS} ({error})") from None
    n, bodies = len(names), len(H36M17)
    if n == 0 or shapes != [(n,), (n, bodies, 4), (n, bodies, 3), (n, 2), (n,)]:
        raise Human36MError(f"{path}: {_MMPOSE_KEYS}, got {', '.join(map(str, shapes))}")
    half = 100 * np.asarray(scales, np.float64).reshape(-1, 1)  # `scale` is the edge / 200 pixels
    boxes = np.concatenate([centers - half, centers + half], axis=1)
    kept, who, what = [], [], []
    for row, name in enumerate(names.tolist()):
        fields = _NAME.search(str(name))
        if fields is None:
            raise Human36MError(
                f"{path}: imgname must be ..S1_Walking.54138969_000001.jpg, got {name!r}"
            )
        wanted = subjects is None or fields["subject"] in subjects
        if wanted and (subjects is None or (int(fields["frame"]) - 1) % every == 0):
            kept.append(row)
            who.append(fields["subject"])
            what.append(_action(path, fields["action"]))
    poses = (1000 * joints[kept, :, :3]).astype(np.float32)
    drawn = pixels[kept, :, :2].astype(np.float32)
    chosen = tuple(str(names[row]) for row in kept)
    arrays = (poses, drawn, boxes[kept])
    return _checked(path, Human36M(*arrays, tuple(who), tuple(what), chosen, _images_in(root)))


def _read_videopose3d(path: Path, root: Path, subjects: Sequence[str], every: int) -> Human36M:
    places = (root / "cameras.pkl", root / "annotation_body3d" / "cameras.pkl")
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{places[0]}: must be there: data_3d_h36m.npz is in world coordinates, and the "
            "cameras are in MMPose's cameras.pkl"
        )
    cameras = read_cameras(found)
    poses: list[npt.NDArray[np.float32]] = []
    drawn: list[npt.NDArray[np.float32]] = []
    boxes, who, what, names = [], [], [], []
    for subject, recording, joints in _recordings(path, subjects):
        frames = np.arange(0, len(joints), every)
        world = 1000 * joints[frames].astype(np.float64)
        spaceless = recording.replace(" ", "_")
        for (owner, number), camera in cameras.items():
            if owner == subject:
                seen = camera.to_camera(world)
                poses.append(seen.astype(np.float32))
                pixels = camera.project(seen)
                drawn.append(pixels.astype(np.float32))
                boxes.append(person_box(pixels))
                take = f"{subject}_{spaceless}.{number}"
                names += [f"{subject}/{take}/{take}_{frame + 1:06d}.jpg" for frame in frames]
                who += [subject] * len(frames)
                what += [_action(path, recording)] * len(frames)
    if not poses:
        raise Human36MError(f"{path}: must hold one of {', '.join(subjects)} with cameras")
    arrays = (np.concatenate(poses), np.concatenate(drawn), np.concatenate(boxes))
    return _checked(
        path, Human36M(*arrays, tuple(who), tuple(what), tuple(names), _images_in(root))
    )


def _recordings(path: Path, subjects: Sequence[str]) -> Iterator[tuple[str, str, npt.NDArray[Any]]]:
    """Subject, recording and joints [frames, 17, 3] m in the world."""
    content = read_array_npz(path, "positions_3d")
    form = "positions_3d must be {subject: {action: [frames, 32, 3]}}"
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise Human36MError(f"{path}: {form}")
    for subject in subjects:
        for recording, joints in content.get(subject, {}).items():
            shape = getattr(joints, "shape", None)
            if shape is None or shape[1:] not in ((32, 3), (17, 3)):
                raise Human36MError(f"{path}: {form}, {subject} {recording} is {shape}")
            yield subject, str(recording), joints[:, _SCORED] if shape[1] == 32 else joints


def _action(path: Path, recording: str) -> str:
    try:
        return action_name(recording)
    except ValueError as error:
        raise Human36MError(f"{path}: {error}") from None


def _checked(path: Path, frames: Human36M) -> Human36M:
    if not len(frames):
        raise Human36MError(f"{path}: holds no frame of this part")
    finite = np.isfinite(frames.poses_mm).all(axis=(1, 2)) & np.isfinite(frames.boxes).all(axis=1)
    if not finite.all():
        raise Human36MError(
            f"{path}: labels must be finite, {frames.names[finite.argmin()]} is not"
        )
    return frames
