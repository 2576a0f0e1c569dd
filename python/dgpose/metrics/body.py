"""Errors of estimated 3D body poses, as tables on Human3.6M compute them.

Poses are root-relative: joint 0 (the hip) of each pose is moved to the origin before anything is
compared ("protocol 1", MPJPE). PA-MPJPE ("protocol 2") first moves, turns and scales each estimate
onto its label as a whole, which hides a wrong orientation or size. Units are millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dgpose.metrics.hand import area_under_curve

__all__ = [
    "ActionErrors",
    "BodyErrors",
    "align",
    "evaluate_body",
    "mpjpe",
    "pa_mpjpe",
    "pck3d",
    "pck3d_auc",
    "root_relative",
]

Array = npt.NDArray[np.float64]

PCK3D_MM = 150.0
"""The usual threshold of PCK3D (Mehta et al. 2017)."""

_AUC_MM = np.arange(0.0, PCK3D_MM + 1, 5.0)


def root_relative(poses_mm: npt.ArrayLike) -> Array:
    """Poses `[N, J, 3]` with joint 0, the hip, at the origin, float64.

    Raises:
        ValueError: another shape, no pose, or coordinates that are not finite.
    """
    poses = _poses("poses_mm", poses_mm)
    return poses - poses[:, :1]


def mpjpe(predicted_mm: npt.ArrayLike, truth_mm: npt.ArrayLike) -> float:
    """Mean per-joint position error in mm, over root-relative poses; the hip's zero counts, too.

    Args:
        predicted_mm: `[N, J, 3]`.
        truth_mm: `[N, J, 3]`.

    Raises:
        ValueError: shapes that differ or are not `[N, J, 3]` with N, J >= 1, or coordinates that
            are not finite.
    """
    predicted, truth = _pair(predicted_mm, truth_mm)
    return float(_root_relative_errors(predicted, truth).mean())


def pa_mpjpe(predicted_mm: npt.ArrayLike, truth_mm: npt.ArrayLike) -> float:
    """MPJPE in mm after `align`; arguments and errors as for `mpjpe`."""
    predicted, truth = _pair(predicted_mm, truth_mm)
    return float(_distances(align(predicted, truth), truth).mean())


def align(predicted_mm: npt.ArrayLike, truth_mm: npt.ArrayLike) -> Array:
    """Each pose moved, turned and scaled onto its label: the least sum of squared distances.

    Procrustes analysis by singular value decomposition (Umeyama 1991), with one scale a pose and
    without reflection: a mirrored pose does not become the right one.

    Args:
        predicted_mm: `[N, J, 3]`. A pose whose joints all coincide becomes the label's mean.
        truth_mm: `[N, J, 3]`.

    Returns:
        `[N, J, 3]` float64.

    Raises:
        ValueError: as for `mpjpe`.
    """
    predicted, truth = _pair(predicted_mm, truth_mm)
    middle = truth.mean(axis=1, keepdims=True)
    source = predicted - predicted.mean(axis=1, keepdims=True)
    target = truth - middle
    u, singular, v = np.linalg.svd(source.transpose(0, 2, 1) @ target)
    # A determinant of -1 is a reflection: the direction that matters least is turned round.
    sign = np.sign(np.linalg.det(u @ v))
    singular[:, -1] *= sign
    u[:, :, -1] *= sign[:, None]
    size = np.square(source).sum(axis=(1, 2))
    scale = np.divide(singular.sum(axis=1), size, out=np.zeros_like(size), where=size > 0)
    aligned: Array = scale[:, None, None] * (source @ u @ v) + middle
    return aligned


def pck3d(errors_mm: Array, threshold_mm: float = PCK3D_MM) -> float:
    """Share of joints whose error is at most the threshold (3D-PCK), 0 to 1; errors `[N, J]`."""
    return float((errors_mm <= threshold_mm).mean())


def pck3d_auc(errors_mm: Array) -> float:
    """Area under the curve of `pck3d` over 0 to 150 mm in steps of 5 mm, 0 to 1."""
    shares = np.array([pck3d(errors_mm, threshold) for threshold in _AUC_MM])
    return area_under_curve(_AUC_MM, shares)


@dataclass(frozen=True)
class ActionErrors:
    """The errors of one action.

    Attributes:
        frames: how many poses.
        mpjpe_mm: mean error.
        pa_mpjpe_mm: mean error after `align`.
    """

    frames: int
    mpjpe_mm: float
    pa_mpjpe_mm: float


@dataclass(frozen=True, eq=False)
class BodyErrors:
    """The errors of one method on N poses.

    Two means are in use and differ where actions have different numbers of frames: that over all
    frames, and that of the actions' means. Each table must say which it shows.

    Attributes:
        errors_mm: `[N, J]`, root-relative.
        aligned_errors_mm: `[N, J]` after `align`.
        actions: the action of each pose.
    """

    errors_mm: Array
    aligned_errors_mm: Array
    actions: tuple[str, ...]

    @classmethod
    def joined(cls, parts: Sequence[BodyErrors]) -> BodyErrors:
        """The errors of several sets of poses as those of one; at least one part."""
        return cls(
            np.concatenate([part.errors_mm for part in parts]),
            np.concatenate([part.aligned_errors_mm for part in parts]),
            tuple(action for part in parts for action in part.actions),
        )

    @property
    def frame_mean_mm(self) -> float:
        """MPJPE over all frames."""
        return float(self.errors_mm.mean())

    @property
    def aligned_frame_mean_mm(self) -> float:
        """PA-MPJPE over all frames."""
        return float(self.aligned_errors_mm.mean())

    @property
    def action_mean_mm(self) -> float:
        """Mean of the actions' MPJPE: each action counts the same."""
        return float(np.mean([action.mpjpe_mm for action in self.by_action.values()]))

    @property
    def aligned_action_mean_mm(self) -> float:
        """Mean of the actions' PA-MPJPE."""
        return float(np.mean([action.pa_mpjpe_mm for action in self.by_action.values()]))

    @property
    def per_joint_mm(self) -> Array:
        """Mean error of each joint, `[J]`."""
        mean: Array = self.errors_mm.mean(axis=0)
        return mean

    @property
    def by_action(self) -> dict[str, ActionErrors]:
        """The errors of each action, by name in alphabetical order."""
        names = np.array(self.actions)
        result = {}
        for name in sorted(set(self.actions)):
            rows = names == name
            result[name] = ActionErrors(
                int(rows.sum()),
                float(self.errors_mm[rows].mean()),
                float(self.aligned_errors_mm[rows].mean()),
            )
        return result


def evaluate_body(
    predicted_mm: npt.ArrayLike, truth_mm: npt.ArrayLike, actions: Sequence[str] | None = None
) -> BodyErrors:
    """Score estimated poses.

    Args:
        predicted_mm: `[N, J, 3]`.
        truth_mm: `[N, J, 3]`.
        actions: N names; None: all are one action, "all".

    Raises:
        ValueError: as for `mpjpe`, or not one action a pose.
    """
    predicted, truth = _pair(predicted_mm, truth_mm)
    names = ("all",) * len(truth) if actions is None else tuple(actions)
    if len(names) != len(truth):
        raise ValueError(f"actions must be one a pose ({len(truth)}), got {len(names)}")
    aligned = _distances(align(predicted, truth), truth)
    return BodyErrors(_root_relative_errors(predicted, truth), aligned, names)


def _pair(predicted_mm: npt.ArrayLike, truth_mm: npt.ArrayLike) -> tuple[Array, Array]:
    truth = _poses("truth_mm", truth_mm)
    predicted = _poses("predicted_mm", predicted_mm)
    if predicted.shape != truth.shape:
        raise ValueError(
            f"predicted_mm must have the shape of truth_mm {list(truth.shape)}, "
            f"got {list(predicted.shape)}"
        )
    return predicted, truth


def _poses(name: str, value: npt.ArrayLike) -> Array:
    poses: npt.NDArray[Any] = np.asarray(value, np.float64)
    if poses.ndim != 3 or poses.shape[-1] != 3 or poses.size == 0:
        raise ValueError(f"{name} must have shape [N, J, 3], got {list(poses.shape)}")
    bad = np.flatnonzero(~np.isfinite(poses).all(axis=(1, 2)))
    if bad.size:
        raise ValueError(f"{name} must be finite, got NaN or Inf in pose {bad[0]}")
    return poses


def _distances(predicted: Array, truth: Array) -> Array:
    distances: Array = np.linalg.norm(predicted - truth, axis=-1)
    return distances


def _root_relative_errors(predicted: Array, truth: Array) -> Array:
    return _distances(predicted - predicted[:, :1], truth - truth[:, :1])
