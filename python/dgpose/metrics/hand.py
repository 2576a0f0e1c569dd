"""Errors of estimated hand joints, computed as the published tables compute them.

Results and labels come as text, one frame a line, J x (u v d): pixels and millimetres. They are
turned into millimetres with `EVALUATION_CAMERAS`; a joint's error is its distance to its label.

The mean errors published for ICVL come out of the published prediction files to 0.01 mm. For SRN
two figures are in print: its prediction file gives 6.271 mm, the 6.27 that later papers quote. The
6.152 of its authors' own table comes out of that file neither with this camera nor with the
sensor's (6.263), so it rests on other predictions or another protocol.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dgpose.data.cameras import EVALUATION_CAMERAS, Camera, unproject
from dgpose.skeletons import ICVL16, MSRA21, NYU14, NYU36, NYU_SCORED14, Skeleton
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = [
    "HAND_PROTOCOLS",
    "HandErrors",
    "HandProtocol",
    "ResultFormatError",
    "area_under_curve",
    "evaluate",
    "joint_errors",
    "label_errors",
    "mean_error_success_rate",
    "mean_joint_error",
    "per_joint_error",
    "read_uvd",
    "success_rate",
    "uvd_to_mm",
    "write_uvd",
]

Array = npt.NDArray[np.float64]


class ResultFormatError(ValueError):
    """A result or label file cannot be scored. The message says which, where and why."""


@dataclass(frozen=True)
class HandProtocol:
    """How results on one data set are scored: which joints, with which camera.

    Attributes:
        name: `"icvl"`, `"nyu"` or `"msra"`.
        camera: the camera that turns pixels into millimetres.
        skeleton: the scored joints.
        all_joints: rows of the scored joints in the set's full label, where not all are scored.
        full_joints: joints of the full label.
        subsets: parts of the complete test set that papers report apart: name, first row, end row.
    """

    name: str
    camera: Camera
    skeleton: Skeleton
    all_joints: tuple[int, ...]
    full_joints: int
    subsets: tuple[tuple[str, int, int], ...] = ()


HAND_PROTOCOLS: dict[str, HandProtocol] = {
    "icvl": HandProtocol(
        "icvl",
        EVALUATION_CAMERAS["icvl"],
        ICVL16,
        tuple(range(16)),
        16,
        (("test_seq_1", 0, 702), ("test_seq_2", 702, 1596)),
    ),
    "nyu": HandProtocol(
        "nyu",
        EVALUATION_CAMERAS["nyu"],
        NYU14,
        NYU_SCORED14,
        len(NYU36),
        (("training actor", 0, 2440), ("other actor", 2440, 8252)),
    ),
    "msra": HandProtocol("msra", EVALUATION_CAMERAS["msra"], MSRA21, tuple(range(21)), 21),
}
"""The data sets whose results can be scored, by name."""


def read_uvd(path: str | PathLike[str]) -> Array:
    """Read a result or label file.

    Args:
        path: text, plain or gzip-compressed, one frame a line: u v d of each joint (px, px, mm),
            optionally after the frame's file name (as in ICVL's label files). Empty lines are
            skipped.

    Returns:
        `[N, J, 3]` float64.

    Raises:
        ResultFormatError: not text, not numbers, NaN or Inf, lines of different length, a count of
            numbers that is no multiple of 3, or no frame at all; with the line.
        OSError: the file cannot be opened.
    """
    path = Path(path)
    rows: list[list[float]] = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) % 3 == 1 and _number(words[0]) is None:
            words = words[1:]
        row = [_number(word) for word in words]
        for word, value in zip(words, row, strict=True):
            if value is None or not np.isfinite(value):
                raise ResultFormatError(
                    f"{path}, line {number}: not a finite number: {word[:40]!r}"
                )
        if len(row) % 3:
            raise ResultFormatError(
                f"{path}, line {number}: must hold J x (u v d), got {len(row)} numbers"
            )
        if rows and len(row) != len(rows[0]):
            raise ResultFormatError(
                f"{path}, line {number}: must hold {len(rows[0])} numbers like the lines before, "
                f"got {len(row)}"
            )
        rows.append([value for value in row if value is not None])
    if not rows:
        raise ResultFormatError(f"{path}: holds no frame")
    return np.array(rows).reshape(len(rows), -1, 3)


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        return data.decode()
    except (OSError, EOFError, zlib.error) as error:
        raise ResultFormatError(f"{path}: the gzip file is damaged ({error})") from None
    except UnicodeDecodeError:
        raise ResultFormatError(f"{path}: not a text file") from None


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def write_uvd(path: str | PathLike[str], uvd: npt.NDArray[Any]) -> None:
    """Write a result or label file that `read_uvd` reads, atomically; digits to a thousandth.

    Args:
        path: the file; its folders are made.
        uvd: `[N, J, 3]` u, v in pixels, d in mm.
    """
    lines = [" ".join(f"{value:.3f}" for value in frame.ravel()) for frame in np.asarray(uvd)]
    write_bytes_atomically(Path(path), ("\n".join(lines) + "\n").encode())


def uvd_to_mm(uvd: npt.NDArray[Any], dataset: str) -> Array:
    """Pixels and depth to millimetres with the data set's evaluation camera.

    Args:
        uvd: `[..., 3]` u, v in pixels, d in mm.
        dataset: `"icvl"`, `"nyu"` or `"msra"`.

    Returns:
        `[..., 3]` float64, mm, x right, y UP, z forward.

    Raises:
        ValueError: unknown data set, or the last dimension is not 3.
    """
    return unproject(np.asarray(uvd, np.float64), _protocol(dataset).camera)


def joint_errors(predicted_mm: npt.NDArray[Any], truth_mm: npt.NDArray[Any]) -> Array:
    """Distance of each joint to its label.

    Args:
        predicted_mm: `[N, J, 3]` mm.
        truth_mm: `[N, J, 3]` mm.

    Returns:
        `[N, J]` float64, mm.

    Raises:
        ValueError: the shapes differ or are not `[N, J, 3]` with N, J >= 1.
    """
    predicted = np.asarray(predicted_mm, np.float64)
    truth = np.asarray(truth_mm, np.float64)
    if truth.ndim != 3 or truth.shape[-1] != 3 or truth.size == 0:
        raise ValueError(f"truth_mm must have shape [N, J, 3], got {list(truth.shape)}")
    if predicted.shape != truth.shape:
        raise ValueError(
            f"predicted_mm must have the shape of truth_mm {list(truth.shape)}, "
            f"got {list(predicted.shape)}"
        )
    distances: Array = np.linalg.norm(predicted - truth, axis=-1)
    return distances


def label_errors(joints_mm: npt.NDArray[Any], truth_mm: npt.NDArray[Any]) -> Array | None:
    """Distances of one hand's scored joints to its label.

    Args:
        joints_mm: `[J, 3]` mm; of NYU's 36 the 14 scored ones count, of other orders all.
        truth_mm: `[K, 3]` mm: the same joints, or the 14 scored ones.

    Returns:
        float64, mm; None where the label is of other joints.
    """
    if len(joints_mm) == len(NYU36):
        scored = list(NYU_SCORED14)
        joints_mm = joints_mm[scored]
        truth_mm = truth_mm[scored] if len(truth_mm) == len(NYU36) else truth_mm
    if len(joints_mm) != len(truth_mm):
        return None
    errors: Array = joint_errors(joints_mm[None], truth_mm[None])[0]
    return errors


def mean_joint_error(errors_mm: Array) -> float:
    """Mean of `[N, J]` errors over frames and joints: the figure that papers quote, in mm."""
    return float(errors_mm.mean())


def per_joint_error(errors_mm: Array) -> Array:
    """Mean of `[N, J]` errors over frames: `[J]`, mm."""
    mean: Array = errors_mm.mean(axis=0)
    return mean


def success_rate(errors_mm: Array, thresholds_mm: Sequence[float] | Array) -> Array:
    """Share of frames whose MAXIMUM joint error is below each threshold.

    The success rate of the hand literature (Taylor et al. 2012): one bad joint fails a frame.

    Args:
        errors_mm: `[N, J]` joint errors, mm.
        thresholds_mm: `[T]` thresholds, mm.

    Returns:
        `[T]` shares, 0 to 1.
    """
    return _share_below(errors_mm.max(axis=1), thresholds_mm)


def mean_error_success_rate(errors_mm: Array, thresholds_mm: Sequence[float] | Array) -> Array:
    """Share of frames whose MEAN joint error is below each threshold; arguments as `success_rate`.

    Always higher than `success_rate`; the two must not be compared with each other.
    """
    return _share_below(errors_mm.mean(axis=1), thresholds_mm)


def _share_below(frame_errors_mm: Array, thresholds_mm: Sequence[float] | Array) -> Array:
    thresholds = np.asarray(thresholds_mm, np.float64)
    return np.searchsorted(np.sort(frame_errors_mm), thresholds, side="left") / len(frame_errors_mm)


def area_under_curve(thresholds_mm: Sequence[float] | Array, rates: Array) -> float:
    """Area under a success-rate curve, divided by the width of its threshold range: 0 to 1."""
    thresholds = np.asarray(thresholds_mm, np.float64)
    area = np.sum(np.diff(thresholds) * (rates[1:] + rates[:-1]) / 2)
    return float(area / (thresholds[-1] - thresholds[0]))


@dataclass(frozen=True)
class HandErrors:
    """The errors of one method on one data set.

    Attributes:
        protocol: how they were scored.
        errors_mm: `[N, J]` over the scored joints.
    """

    protocol: HandProtocol
    errors_mm: Array

    @property
    def mean_mm(self) -> float:
        """Mean joint error, mm."""
        return mean_joint_error(self.errors_mm)

    @property
    def subset_means_mm(self) -> dict[str, float]:
        """Mean joint error of the set's parts; empty unless the whole test set was scored."""
        subsets = self.protocol.subsets
        if not subsets or len(self.errors_mm) != subsets[-1][2]:
            return {}
        return {name: mean_joint_error(self.errors_mm[a:b]) for name, a, b in subsets}


def evaluate(
    predicted_uvd: npt.NDArray[Any], truth_uvd: npt.NDArray[Any], dataset: str
) -> HandErrors:
    """Score predictions against labels.

    Args:
        predicted_uvd: `[N, J, 3]` px, px, mm.
        truth_uvd: `[N, J, 3]` px, px, mm. For NYU either may hold all 36 joints or the 14 scored
            ones; only those are scored.
        dataset: `"icvl"`, `"nyu"` or `"msra"`.

    Returns:
        The joint errors.

    Raises:
        ValueError: unknown data set, a wrong number of joints, numbers of frames that differ, or
            values that are not finite.
    """
    protocol = _protocol(dataset)
    predicted = _scored(predicted_uvd, "predictions", protocol)
    truth = _scored(truth_uvd, "labels", protocol)
    if len(predicted) != len(truth):
        raise ValueError(
            f"predictions must have one frame per label ({len(truth)}), got {len(predicted)} frames"
        )
    return HandErrors(
        protocol, joint_errors(uvd_to_mm(predicted, dataset), uvd_to_mm(truth, dataset))
    )


def _scored(uvd: npt.NDArray[Any], name: str, protocol: HandProtocol) -> Array:
    values = np.asarray(uvd, np.float64)
    scored = len(protocol.skeleton)
    counts = sorted({scored, protocol.full_joints})
    if values.ndim != 3 or values.shape[1] not in counts or values.shape[2] != 3:
        joints = " or ".join(str(count) for count in counts)
        raise ValueError(
            f"{name} for {protocol.name} must have shape [N, {joints}, 3], got {list(values.shape)}"
        )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))
    if bad.size:
        raise ValueError(f"{name} must be finite, got NaN or Inf in frame {bad[0]}")
    if values.shape[1] != scored:
        values = values[:, list(protocol.all_joints)]
    return values


def _protocol(name: str) -> HandProtocol:
    if name not in HAND_PROTOCOLS:
        raise ValueError(f"dataset must be one of {', '.join(HAND_PROTOCOLS)}, got {name!r}")
    return HAND_PROTOCOLS[name]
