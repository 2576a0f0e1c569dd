"""What the principal components of an embedding say about poses.

The paper of max-margin retrieval (Li, Zhang, Chan: ICCV 2015) reads from a picture that the first
components follow the orientation of the body, the next ones its legs. Here that is a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dgpose.skeletons import H36M17

__all__ = ["EmbeddingAnalysis", "analyse_embedding", "body_heading", "leg_spread"]

Array = npt.NDArray[np.float64]


def body_heading(poses_mm: npt.ArrayLike) -> Array:
    """The direction in which hips and shoulders face, `[N]` radians in (-pi, pi].

    Args:
        poses_mm: `[N, 17, 3]` H36M17, camera coordinates, y DOWN.

    Returns:
        0: towards the camera; pi / 2: to the right of the image; pi: away.
    """
    poses = _bodies(poses_mm)
    right = (
        _joint(poses, "right_hip")
        - _joint(poses, "left_hip")
        + _joint(poses, "right_shoulder")
        - _joint(poses, "left_shoulder")
    )
    # Ahead = up x right, of which the vertical part does not matter: (-z, ., x).
    heading: Array = np.arctan2(-right[:, 2], -right[:, 0])
    return heading


def leg_spread(poses_mm: npt.ArrayLike) -> Array:
    """Distance of the ankles, `[N]` mm; poses as for `body_heading`."""
    poses = _bodies(poses_mm)
    apart = _joint(poses, "right_ankle") - _joint(poses, "left_ankle")
    distance: Array = np.linalg.norm(apart, axis=-1)
    return distance


@dataclass(frozen=True, eq=False)
class EmbeddingAnalysis:
    """The first C principal components of N embeddings, and what they go with.

    Attributes:
        components: `[N, C]`, the embeddings along each.
        variance_share: `[C]`, of all variance.
        heading_correlation: `[C]` in 0 to 1: multiple correlation with sine and cosine of
            `body_heading`, which is a circle.
        leg_correlation: `[C]` in 0 to 1: absolute correlation with `leg_spread`.
        heading: `[N]` radians.
        leg_spread_mm: `[N]`.
    """

    components: Array
    variance_share: Array
    heading_correlation: Array
    leg_correlation: Array
    heading: Array
    leg_spread_mm: Array


def analyse_embedding(
    embeddings: npt.ArrayLike, poses_mm: npt.ArrayLike, *, count: int = 4
) -> EmbeddingAnalysis:
    """Principal components of embeddings, and their correlation with orientation and legs.

    Args:
        embeddings: `[N, D]`, N >= 4.
        poses_mm: `[N, 17, 3]` as for `body_heading`: the poses, or those of the images.
        count: C, at most N and D.

    Raises:
        ValueError: other shapes, or values that are not finite.
    """
    rows: npt.NDArray[Any] = np.asarray(embeddings, np.float64)
    poses = _bodies(poses_mm)
    if rows.ndim != 2 or len(rows) != len(poses) or len(rows) < 4:
        raise ValueError(
            f"embeddings must have shape [N, D] with N = {len(poses)} poses, at least 4, "
            f"got {list(rows.shape)}"
        )
    if not (np.isfinite(rows).all() and np.isfinite(poses).all()):
        raise ValueError("embeddings and poses_mm must be finite")
    if not 1 <= count <= min(rows.shape):
        raise ValueError(f"count must lie in 1..{min(rows.shape)}, got {count}")
    centred = rows - rows.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    components = centred @ vectors[:, : -count - 1 : -1]
    total = np.square(centred).sum()
    share = np.square(components).sum(axis=0) / (total if total > 0 else 1.0)
    heading, legs = body_heading(poses), leg_spread(poses)
    circle = np.stack([np.sin(heading), np.cos(heading)], axis=1)
    return EmbeddingAnalysis(
        components,
        share,
        np.array([_multiple_correlation(circle, c) for c in components.T]),
        np.array([_multiple_correlation(legs[:, None], c) for c in components.T]),
        heading,
        legs,
    )


def _multiple_correlation(causes: Array, effect: Array) -> float:
    """R of the least-squares fit of `effect` [N] by `causes` [N, P] and a constant; 0 where the
    effect does not vary."""
    causes, effect = causes - causes.mean(axis=0), effect - effect.mean()
    size = float(effect @ effect)
    if size == 0:
        return 0.0
    fitted = causes @ np.linalg.lstsq(causes, effect, rcond=None)[0]
    return float(np.sqrt(min(1.0, float(fitted @ fitted) / size)))


def _bodies(poses_mm: npt.ArrayLike) -> Array:
    poses: Array = np.asarray(poses_mm, np.float64)
    if poses.ndim != 3 or poses.shape[1:] != (len(H36M17), 3):
        raise ValueError(f"poses_mm must have shape [N, 17, 3], got {list(poses.shape)}")
    return poses


def _joint(poses: Array, name: str) -> Array:
    place: Array = poses[:, H36M17.joints.index(name)]
    return place
