"""The three public hand-depth data sets, in the folders and files that they are published in.

| data set | folder | joints | cameras | cube, mm |
|---|---|---|---|---|
| NYU (Tompson et al. 2014) | holds `train`, `test` | 36 | 3 | 300; second actor 261 |
| ICVL (Tang et al. 2014) | holds `Training`, `Testing` | 16 | 1 | 250 |
| MSRA15 (Sun et al. 2015) | holds `P0` .. `P8` | 21 | 1 | 240 .. 190 by subject |

A sample is read when it is asked for; what is missing or damaged is an error with the file's name.
Joints are in mm from the camera: x right, y UP, z forward. Depth is in mm, 0 = nothing measured.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dgpose.data.cameras import CAMERAS, Camera, project, unproject
from dgpose.data.depth_io import read_depth

__all__ = [
    "MSRA_GESTURES",
    "MSRA_SUBJECTS",
    "HandSample",
    "HandSet",
    "IcvlHands",
    "MsraHands",
    "NyuHands",
    "open_hand_set",
    "read_centers",
]

Split = Literal["train", "test"]

_CENTERS_OUTSIDE = 0.05
_NYU_CAMERA = Camera(588.036865, 587.075073, 320.0, 240.0)
_NYU_FIRST_ACTOR_TEST_ROWS = 2440
_NYU_CUBES = (300.0, 300.0 * 0.87)
_ICVL_JOINTS, _ICVL_INVALID = 16, 32000
_MSRA_JOINTS = 21
# By size of hand: the cubes of DeepPrior++ (Oberweger, Lepetit 2017: 200, 180, 170, 160, 150 mm),
# each 40 mm larger.
_MSRA_CUBES = (240.0, 240.0, 240.0, 220.0, 220.0, 220.0, 210.0, 200.0, 190.0)
# Wrong labels, known to the set's users.
_MSRA_FAULTY: dict[tuple[int, str], frozenset[int]] = {
    (2, "TIP"): frozenset(range(172, 175)),
    (2, "MP"): frozenset([*range(173, 176), *range(345, 355), 356, 359, 360]),
    (3, "T"): frozenset([120, 489]),
    (8, "4"): frozenset([168]),
}

MSRA_SUBJECTS = tuple(range(len(_MSRA_CUBES)))
"""The nine people of MSRA15, folders P0 to P8."""

MSRA_GESTURES = (*"123456789", "I", "IP", "L", "MP", "RP", "T", "TIP", "Y")
"""The folders of each, in the order of the published list of frames."""


@dataclass(frozen=True, eq=False)
class HandSample:
    """One labelled depth image.

    Attributes:
        name: path of the image, relative to the data set's folder.
        depth: `[H, W]` mm, 0 = nothing measured.
        joints_mm: `[J, 3]` float32, x right, y UP, z forward.
        uvd: `[J, 3]` float32: pixels (v down) and mm.
        camera: of the image.
        cube_mm: edge of the cube around the hand that the set's users take.
        subject: whose hand: NYU 0 or 1, MSRA 0 to 8; ICVL does not say: 0.
        center: (u, v, mm) of the hand where a centre file says it, else None.
    """

    name: str
    depth: npt.NDArray[Any]
    joints_mm: npt.NDArray[np.float32]
    uvd: npt.NDArray[np.float32]
    camera: Camera
    cube_mm: float
    subject: int
    center: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class _Label:
    path: str
    uvd: npt.NDArray[np.float32]
    joints_mm: npt.NDArray[np.float32]
    subject: int
    cube_mm: float
    faulty: bool = False


class HandSet:
    """Labelled depth images, by number; the labels of all are in memory, the images are not.

    Attributes:
        name: of the data set.
        joints: J.
        camera: of all its images.
        root: its folder.
        label_files: where the labels came from.
    """

    name: str
    joints: int
    camera: Camera
    root: Path
    label_files: tuple[Path, ...]

    def __init__(
        self,
        root: Path,
        label_files: Sequence[Path],
        labels: Sequence[_Label],
        centers: npt.NDArray[np.float32] | None,
    ) -> None:
        if centers is not None:
            _check_centers(centers, len(labels), self.camera)
        self.root = root
        self.label_files = tuple(label_files)
        self._labels = labels
        self._centers = centers

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> HandSample:
        """Reads one image.

        Raises:
            IndexError: index outside 0 .. len - 1.
            FileNotFoundError, DepthFormatError: the image is missing or damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index must be 0 to {len(self) - 1}, got {index}")
        label = self._labels[index]
        center = None
        if self._centers is not None and np.isfinite(self._centers[index]).all():
            u, v, mm = self._centers[index].tolist()
            center = (u, v, mm)
        return HandSample(
            label.path,
            self._read(self.root / label.path),
            label.joints_mm,
            label.uvd,
            self.camera,
            label.cube_mm,
            label.subject,
            center,
        )

    def _read(self, path: Path) -> npt.NDArray[Any]:
        return read_depth(path).depth

    @property
    def names(self) -> list[str]:
        """Paths of the images, relative to the folder, whether they are there or not."""
        return [label.path for label in self._labels]

    @property
    def uvd(self) -> npt.NDArray[np.float32]:
        """Labels of all images, `[N, J, 3]`: pixels (v down) and mm."""
        return np.stack([label.uvd for label in self._labels])

    def missing(self) -> list[str]:
        """Paths of labelled images that are not there."""
        return [name for name in self.names if not (self.root / name).is_file()]

    def of_subjects(self, subjects: Sequence[int], *, faulty: bool = True) -> HandSet:
        """The images of these subjects alone, with their centres.

        Args:
            subjects: as `HandSample.subject` counts them.
            faulty: whether images with known wrong labels are kept.
        """
        part = copy.copy(self)
        part._keep(lambda label: label.subject in subjects and (faulty or not label.faulty))
        return part

    def _keep(self, wanted: Callable[[_Label], bool]) -> None:
        rows = [row for row, label in enumerate(self._labels) if wanted(label)]
        self._labels = [self._labels[row] for row in rows]
        if self._centers is not None:
            self._centers = self._centers[rows]


def read_centers(path: Path) -> npt.NDArray[np.float32]:
    """A usual centre file: a line of three numbers (u, v, mm) an image; "invalid" lines are NaN.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line of other content, by its number.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            row = [float("nan")] * 3 if "invalid" in words else [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != 3:
            raise ValueError(f"{path}, line {number}: must be three numbers u v mm, got {line!r}")
        rows.append(row)
    return np.array(rows, np.float32).reshape(-1, 3)


class NyuHands(HandSet):
    """NYU Hand Pose: `{train,test}/depth_K_0000001.png` and `joint_data.mat`.

    Args:
        root: the folder that holds `train` and `test`, or one above it.
        split: "train" or "test".
        view: camera K, 1 to 3; published results use 1.
        centers: `[N, 3]` (u, v, mm), see `read_centers`.

    Raises:
        FileNotFoundError: `joint_data.mat` is not there.
        ValueError: it holds something else.
    """

    name, joints, camera = "nyu", 36, _NYU_CAMERA

    def __init__(
        self,
        root: str | Path,
        split: Split = "train",
        *,
        view: int = 1,
        centers: npt.NDArray[np.float32] | None = None,
    ) -> None:
        if view not in (1, 2, 3):
            raise ValueError(f"view must be 1, 2 or 3, got {view}")
        root = _below(Path(root), "nyu_hand_dataset_v2/dataset", "dataset")
        path = root / split / "joint_data.mat"
        uvd, joints_mm = _read_nyu_labels(path, view)
        labels = []
        for row in range(len(uvd)):
            second = split == "test" and row >= _NYU_FIRST_ACTOR_TEST_ROWS
            name = f"{split}/depth_{view}_{row + 1:07d}.png"
            cube = _NYU_CUBES[second]
            labels.append(_Label(name, uvd[row], joints_mm[row], int(second), cube))
        super().__init__(root, [path], labels, centers)


class IcvlHands(HandSet):
    """ICVL: `Training/labels.txt` with `Training/Depth`, `Testing/test_seq_{1,2}.txt` with
    `Testing/Depth`.

    Args:
        root: the folder that holds `Training` and `Testing`.
        split: "train" (all sequences, turned images included) or "test".
        sequences: of the test part.
        centers: `[N, 3]` (u, v, mm), see `read_centers`.

    Raises:
        FileNotFoundError: a label file is not there.
        ValueError: a line that does not hold a path and 48 numbers, by its number.
    """

    name, joints, camera = "icvl", _ICVL_JOINTS, CAMERAS["icvl"]

    def __init__(
        self,
        root: str | Path,
        split: Split = "train",
        *,
        sequences: Sequence[int] = (1, 2),
        centers: npt.NDArray[np.float32] | None = None,
    ) -> None:
        root = Path(root)
        folder = "Training" if split == "train" else "Testing"
        test = [f"test_seq_{number}.txt" for number in sequences]
        files = ["labels.txt"] if split == "train" else test
        paths = [root / folder / file for file in files]
        labels = [label for path in paths for label in self._read_labels(path, folder)]
        super().__init__(root, paths, labels, centers)

    def _read_labels(self, path: Path, folder: str) -> list[_Label]:
        labels = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            name, *words = line.split() or [""]
            if not name:
                continue
            uvd = _floats(words, self.joints, f"{path}, line {number}")
            joints_mm = unproject(uvd, self.camera).astype(np.float32)
            labels.append(_Label(f"{folder}/Depth/{name}", uvd, joints_mm, 0, 250.0))
        return labels

    def _read(self, path: Path) -> npt.NDArray[Any]:
        depth = super()._read(path)
        return np.where(depth >= _ICVL_INVALID, 0, depth).astype(depth.dtype)


class MsraHands(HandSet):
    """MSRA15: `P0..P8/GESTURE/000000_depth.bin` and `joint.txt`.

    Args:
        root: the folder that holds `P0` to `P8`.
        subjects: whose hands; published results leave one of the nine out and test on it.
        gestures: which of each subject's folders.
        faulty: whether the frames with known wrong labels are kept.
        centers: `[N, 3]` (u, v, mm), see `read_centers`: a row for every frame of these subjects
            and gestures, the faulty ones included, as in the published list.

    Raises:
        FileNotFoundError: a `joint.txt` is not there.
        ValueError: a subject that does not exist; a `joint.txt` of other content.
    """

    name, joints, camera = "msra", _MSRA_JOINTS, CAMERAS["msra"]

    def __init__(
        self,
        root: str | Path,
        subjects: Sequence[int] = MSRA_SUBJECTS,
        *,
        gestures: Sequence[str] = MSRA_GESTURES,
        faulty: bool = False,
        centers: npt.NDArray[np.float32] | None = None,
    ) -> None:
        root = Path(root)
        _check_subjects(subjects)
        paths, labels = [], []
        for subject in subjects:
            for gesture in gestures:
                wrong = _MSRA_FAULTY.get((subject, gesture), frozenset())
                folder = f"P{subject}/{gesture}"
                paths.append(root / folder / "joint.txt")
                for number, joints_mm in enumerate(self._read_labels(paths[-1])):
                    uvd = project(joints_mm, self.camera).astype(np.float32)
                    name = f"{folder}/{number:06d}_depth.bin"
                    cube = _MSRA_CUBES[subject]
                    labels.append(_Label(name, uvd, joints_mm, subject, cube, number in wrong))
        super().__init__(root, paths, labels, centers)
        if not faulty:
            self._keep(lambda label: not label.faulty)

    def _read_labels(self, path: Path) -> list[npt.NDArray[np.float32]]:
        first, *lines = path.read_text(encoding="utf-8").split("\n")
        lines = [line for line in lines if line.strip()]
        if first.strip() != str(len(lines)):
            raise ValueError(
                f"{path}: must hold as many frames as its first line says, {first.strip()!r}, "
                f"got {len(lines)}"
            )
        toward_camera = np.array([1, 1, -1], np.float32)
        return [
            _floats(line.split(), self.joints, f"{path}, line {number}") * toward_camera
            for number, line in enumerate(lines, 2)
        ]


def open_hand_set(
    name: str,
    root: str | Path,
    split: Split = "train",
    *,
    left_out: Sequence[int] = (),
    centers: npt.NDArray[np.float32] | None = None,
) -> HandSet:
    """A data set by its name, split into what is learned from and what is tested on.

    Args:
        name: "nyu", "icvl" or "msra".
        root: its folder.
        split: "train" or "test". MSRA has no such parts: "test" is the subjects that are left out,
            with all frames of the published list; "train" the others, without the faulty frames.
        left_out: subjects of MSRA.
        centers: `[N, 3]` (u, v, mm), see `read_centers`: of the split's images; of MSRA, of all
            frames of all nine subjects.

    Raises:
        ValueError: another name, subjects of another set than MSRA, or that do not exist; MSRA's
            test part without subjects; labels that cannot be read.
        FileNotFoundError: a label file is not there.
    """
    if name == "msra":
        _check_subjects(left_out)
        if split == "test" and not left_out:
            raise ValueError("the test part of msra is the subjects that are left out: name some")
        whole = MsraHands(root, faulty=True, centers=centers)
        subjects = [s for s in MSRA_SUBJECTS if (s in left_out) == (split == "test")]
        return whole.of_subjects(subjects, faulty=split == "test")
    if left_out:
        raise ValueError(f"subjects are MSRA's, and {name} is split by its own files")
    if name == "nyu":
        return NyuHands(root, split, centers=centers)
    if name == "icvl":
        return IcvlHands(root, split, centers=centers)
    raise ValueError(f"name must be one of nyu, icvl, msra, got {name!r}")


def _check_subjects(subjects: Sequence[int]) -> None:
    if wrong := [subject for subject in subjects if subject not in MSRA_SUBJECTS]:
        raise ValueError(f"subjects must be 0 to {MSRA_SUBJECTS[-1]}, got {wrong}")


def _check_centers(centers: npt.NDArray[np.float32], images: int, camera: Camera) -> None:
    if centers.shape != (images, 3):
        raise ValueError(
            f"centers must have shape [{images}, 3], a row for every image, "
            f"got {list(centers.shape)}"
        )
    # The files that come with V2V-PoseNet hold x y z in mm: about half of each is negative.
    pixels = centers[np.isfinite(centers).all(axis=1), :2]
    outside = ((pixels < 0) | (pixels > (2 * camera.cx, 2 * camera.cy))).any(axis=1)
    if outside.sum() > _CENTERS_OUTSIDE * images:
        raise ValueError(
            f"centers must be (u, v, mm) with u, v in pixels, got {int(outside.sum())} of {images} "
            "outside of the image: x, y, z in mm must be projected first"
        )


def _below(root: Path, *folders: str) -> Path:
    """The folder itself, or the first of these that is in it."""
    return next((root / folder for folder in folders if (root / folder).is_dir()), root)


def _floats(words: Sequence[str], joints: int, where: str) -> npt.NDArray[np.float32]:
    try:
        values = np.array(words, np.float32)
    except ValueError:
        values = np.empty(0, np.float32)
    if values.size != 3 * joints or not np.isfinite(values).all():
        raise ValueError(f"{where}: must hold {3 * joints} finite numbers, got {len(words)} words")
    return values.reshape(joints, 3)


def _read_nyu_labels(
    path: Path, view: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(uvd, joints_mm) of one camera, [N, 36, 3] each."""
    from scipy.io import loadmat

    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        file = loadmat(path, variable_names=("joint_uvd", "joint_xyz"))
        uvd, xyz = (np.asarray(file[key], np.float32) for key in ("joint_uvd", "joint_xyz"))
    except Exception as error:  # loadmat raises errors of many kinds on a damaged file
        raise ValueError(f"{path}: not NYU's joint_data.mat ({error})") from error
    for key, array in (("joint_uvd", uvd), ("joint_xyz", xyz)):
        if array.ndim != 4 or array.shape[0] != 3 or array.shape[2:] != (36, 3):
            raise ValueError(f"{path}: {key} must have shape [3, N, 36, 3], got {array.shape}")
    if uvd.shape != xyz.shape:
        raise ValueError(f"{path}: joint_uvd and joint_xyz must have as many frames")
    return uvd[view - 1], xyz[view - 1]
