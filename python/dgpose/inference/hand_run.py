"""Runs of `HandEstimator` over many frames: their labels, and what is written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dgpose._errors import one_line
from dgpose.data.cameras import Camera, unproject
from dgpose.data.depth_sources import SourceFrame
from dgpose.inference.hand_pose import HandPose
from dgpose.metrics.hand import read_uvd
from dgpose.skeletons import NYU36, NYU_SCORED14, Skeleton

__all__ = [
    "HandResult",
    "estimate",
    "in_skeleton",
    "read_labels",
    "results_csv",
    "results_json",
    "summarise",
    "with_labels",
]

SCHEMA = "dgpose.hand.joints/1"
"""Version of what `results_json` writes."""


@dataclass(frozen=True, eq=False)
class HandResult:
    """What became of one frame.

    Attributes:
        name: the frame's name.
        pose: the estimate; None for a bad frame.
        problem: why the frame is bad; else empty.
        errors_mm: `[14]` errors of the scored joints, where there are labels and a pose of NYU's
            joints.
    """

    name: str
    pose: HandPose | None
    problem: str = ""
    errors_mm: npt.NDArray[np.float64] | None = None

    @property
    def status(self) -> str:
        """One of found, not_found, bad_frame."""
        if self.pose is None:
            return "bad_frame"
        return "found" if self.pose.found else "not_found"

    @property
    def reason(self) -> str:
        """Why there are no joints; empty where there are."""
        return self.problem if self.pose is None else self.pose.reason


# ---- labels ----


def read_labels(
    path: Path,
    camera: Camera | None,
    counts: Sequence[int] = (len(NYU36), len(NYU_SCORED14)),
) -> npt.NDArray[np.float64]:
    """True joints, one row a frame.

    Args:
        path: `.npz` with `joints_mm` or `xyz_mm` [N, J, 3], or text with J x (u v d) a line.
        camera: turns pixels into millimetres; needed for text.
        counts: which J there may be; NYU's 36 joints and the 14 scored ones.

    Returns:
        `[N, J, 3]` mm.

    Raises:
        ValueError: an unreadable or empty file, another shape, or text without a camera.
        OSError: the file cannot be opened.
    """
    if path.suffix.lower() == ".npz":
        joints = _npz_joints(path)
    elif camera is None:
        raise ValueError(f"{path}: labels in pixels (text) need a camera to become millimetres")
    else:
        joints = unproject(read_uvd(path), camera)
    if joints.ndim != 3 or joints.shape[1] not in counts or joints.shape[2] != 3:
        raise ValueError(
            f"{path}: labels must have shape [N, {' or '.join(map(str, counts))}, 3], "
            f"got {list(joints.shape)}"
        )
    if not len(joints):
        raise ValueError(f"{path}: labels must have at least one row, got none")
    if not np.isfinite(joints).all():
        row = int(np.argmin(np.isfinite(joints).all(axis=(1, 2))))
        raise ValueError(f"{path}: labels must be finite, row {row} is not")
    return joints


def _npz_joints(path: Path) -> npt.NDArray[np.float64]:
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in ("joints_mm", "xyz_mm"):
                if key in file:
                    return np.asarray(file[key], np.float64)
            keys = sorted(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # zip's and NumPy's readers raise many kinds on damaged bytes
        raise ValueError(f"{path}: not a readable .npz file ({one_line(error)})") from None
    raise ValueError(f"{path}: needs the key joints_mm or xyz_mm, got {keys}")


def with_labels(
    inputs: Iterable[SourceFrame],
    labels: npt.NDArray[np.float64],
    total: int | None,
    *,
    limited: bool = False,
) -> Iterator[SourceFrame]:
    """The same frames with their labels, row by row.

    Args:
        inputs: the frames.
        labels: `[N, J, 3]` mm.
        total: number of frames.
        limited: the source may have more frames than are read: labels may be more, too.

    Raises:
        ValueError: the number of labels is not that of the frames.
    """
    if total is None or total > len(labels) or (total < len(labels) and not limited):
        raise ValueError(f"labels must have one row per frame ({total}), got {len(labels)}")
    return (
        SourceFrame(item.name, item.depth, item.camera, truth, item.problem)
        for item, truth in zip(inputs, labels[:total], strict=True)
    )


# ---- estimation ----


def estimate(
    estimator: Callable[[npt.NDArray[Any], Camera], HandPose], item: SourceFrame
) -> HandResult:
    """Estimate one frame; a frame that cannot be estimated is a result too.

    Args:
        estimator: a `HandEstimator` or its like, a `HandTracker`, or one with arguments bound.
        item: the frame.
    """
    if item.depth is None or item.camera is None:
        return HandResult(item.name, None, item.problem)
    try:
        pose = estimator(item.depth, item.camera)
    except (TypeError, ValueError) as error:
        return HandResult(item.name, None, one_line(error))
    errors = None
    if item.truth_mm is not None and pose.found and pose.skeleton == NYU36:
        truth = item.truth_mm
        if len(truth) != len(NYU_SCORED14):
            truth = truth[list(NYU_SCORED14)]
        errors = np.linalg.norm(pose.joints_mm[list(NYU_SCORED14)] - truth, axis=1)
    return HandResult(item.name, pose, errors_mm=errors)


def in_skeleton(result: HandResult, skeleton: Skeleton) -> HandResult:
    """The same result with the joints of another order; see `HandPose.in_skeleton`."""
    if result.pose is None:
        return result
    return replace(result, pose=result.pose.in_skeleton(skeleton))


# ---- results ----


def summarise(results: Sequence[HandResult]) -> dict[str, Any]:
    """Counts, reasons, latency in ms (estimation alone) and mean error, ready for JSON."""
    totals = [r.pose.timings["total"] for r in results if r.pose is not None]
    errors = [r.errors_mm for r in results if r.errors_mm is not None]
    missed = [r.reason for r in results if r.status == "not_found"]
    statuses = [result.status for result in results]
    latency = None
    if totals:
        p50, p99 = np.percentile(totals, [50, 99])
        latency = {"p50": float(p50), "p99": float(p99), "mean": float(np.mean(totals))}
    return {
        "frames": {
            "total": len(results),
            **{status: statuses.count(status) for status in ("found", "not_found", "bad_frame")},
        },
        "not_found_reasons": {reason: missed.count(reason) for reason in dict.fromkeys(missed)},
        "bad_frames": {r.name: r.problem for r in results if r.pose is None},
        "latency_ms": latency,
        "labelled_frames": len(errors),
        "mean_error_mm": float(np.mean(errors)) if errors else None,
    }


def results_csv(results: Sequence[HandResult], skeleton: Skeleton = NYU36) -> str:
    """One line a frame: status, centre, and x y z (mm) and u v (px) of each joint.

    Args:
        results: of poses with the joints of `skeleton`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["frame", "status", "reason", "confidence", "center_u_px", "center_v_px", "center_mm"]
    for joint in skeleton.joints:
        header += [f"{joint}_{axis}" for axis in ("x_mm", "y_mm", "z_mm", "u_px", "v_px")]
    writer.writerow(header)
    for result in results:
        pose = result.pose
        row: list[str] = [result.name, result.status, result.reason]
        row.append("" if pose is None else f"{pose.confidence:.4f}")
        if pose is not None and pose.center is not None:
            row += [f"{value:.3f}" for value in pose.center]
        if pose is not None and pose.found:
            joints = np.concatenate([pose.joints_mm, pose.joints_px], axis=1)
            row += [f"{value:.3f}" for value in joints.ravel().tolist()]
        writer.writerow(row + [""] * (len(header) - len(row)))
    return text.getvalue()


def results_json(results: Sequence[HandResult], skeleton: Skeleton = NYU36) -> bytes:
    """The same as one JSON document that says its units, axes, joint names and bones itself."""
    document = {
        "schema": SCHEMA,
        "about": {
            "joints_mm": "[J][x, y, z], mm from the camera: x right, y up, z forward",
            "joints_px": "[J][u, v], pixels: u right, v down, (0, 0) the centre of the first pixel",
            "center": "[u, v, mm], centre of the cube that was looked at",
            "status": "found, not_found (joints are null), or bad_frame (it could not be read)",
            "confidence": "0 to 1, agreement of the joints with the image",
            "error_mm": "mean distance of NYU's 14 scored joints to the label, where there is one",
        },
        "skeleton": skeleton.name,
        "joints": list(skeleton.joints),
        "bones": [list(edge) for edge in skeleton.edges],
        "frames": [_frame_document(result) for result in results],
    }
    return to_json(document)


def _frame_document(result: HandResult) -> dict[str, Any]:
    pose, errors = result.pose, result.errors_mm
    document: dict[str, Any] = {
        "name": result.name,
        "status": result.status,
        "reason": result.reason,
        "confidence": None,
        "center": None,
        "joints_mm": None,
        "joints_px": None,
        "error_mm": None if errors is None else round(float(errors.mean()), 3),
        "timings_ms": None,
    }
    if pose is not None:
        document["confidence"] = round(pose.confidence, 4)
        document["center"] = None if pose.center is None else _rounded(pose.center)
        document["timings_ms"] = {name: round(value, 4) for name, value in pose.timings.items()}
        if pose.found:
            document["joints_mm"] = [_rounded(joint) for joint in pose.joints_mm.tolist()]
            document["joints_px"] = [_rounded(joint) for joint in pose.joints_px.tolist()]
    return document


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in values]


def to_json(document: dict[str, Any]) -> bytes:
    """Readable, strict JSON (no NaN)."""
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
