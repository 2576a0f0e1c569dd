"""Does an estimated hand agree with the image it was estimated from?

A regressor gives 36 joints for every crop, hand or not. Three cheap facts tell a hand from a wall,
a box or a face, each a number from 0 to 1:

- support: the share of joints that lie just behind something seen. A joint with nothing but
  background around its pixel, or well in front of the surface there, hangs in the air; one far
  behind the surface may be hidden, and counts half.
- coverage: the share of what is seen in the crop that lies beside a joint. A wall goes on where the
  hand ends. What is beyond the wrist (the forearm) and what is behind the hand are left out.
- proportion: exp(-(s / 0.25)^2), s the scatter of log(length / length in the reference hand) over
  rigid bones. It leaves the overall size free, which is bounded apart from it.

The confidence is their product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dgpose.data.hand_kinematics import forward_kinematics

__all__ = ["HandEvidence", "weigh_evidence"]

Array = npt.NDArray[np.float32]

ACCEPT = 0.25
"""A pose is accepted from this confidence on."""

_FOREGROUND_SHARE = 0.012
"""Of the crop; a fist held edge-on has more."""

_SIZE = (0.5, 1.6)
"""Overall size relative to the reference hand, a man's: from a small child's up."""

_IN_FRONT_MM = 15.0
_HIDDEN_MM = 60.0
_BESIDE_MM = 36.0
_BEHIND_HAND_MM = 25.0
_BONE_SCATTER = 0.25
# Added to every length before the logarithm: an error of 5 mm says little about a bone of 12 mm.
_SOFTEN_MM = 20.0

_WRIST = np.array([30, 31, 35])
_PALM = np.array([32, 33, 34])
_CELLS = 16


@dataclass(frozen=True)
class HandEvidence:
    """How well a pose agrees with its image; see the top of this module.

    Attributes:
        support, coverage, proportion: 0 to 1.
        size: overall size relative to the reference hand.
        reason: why the pose is refused; empty if it is accepted.
    """

    support: float = 0.0
    coverage: float = 0.0
    proportion: float = 0.0
    size: float = 0.0
    reason: str = ""

    @property
    def confidence(self) -> float:
        """Product of the three."""
        return self.support * self.coverage * self.proportion

    @property
    def accepted(self) -> bool:
        """Whether the pose may be given out."""
        return not self.reason


def weigh_evidence(crop: Array, joints: Array, joints_mm: Array, cube_mm: float) -> HandEvidence:
    """Weigh an estimated hand against the crop it came from.

    Args:
        crop: `[S, S]` as `dgpose_ext.depth_crop` gives it: -1 front of the cube .. 1 background; S
            a multiple of 16.
        joints: `[36, 3]` NYU joints in crop coordinates (a right, b down, c forward).
        joints_mm: `[36, 3]` the same in mm.
        cube_mm: edge of the cube.
    """
    step = crop.shape[0] // _CELLS
    grid = crop[step // 2 :: step, step // 2 :: step].ravel()
    # -1 is what lies before the cube.
    if np.count_nonzero((grid < 1) & (grid > -1)) < _FOREGROUND_SHARE * grid.size:
        return HandEvidence(reason="there is next to nothing in the cube around the centre")
    if not np.abs(joints).max() < 4:  # NaN too
        return HandEvidence(reason="the network's joints lie far outside the crop")
    half = cube_mm / 2
    support = _support(crop, joints, half)
    coverage = _coverage(grid, joints, half)
    size, proportion = _proportion(joints_mm)
    confidence = support * coverage * proportion
    reason = ""
    if not _SIZE[0] <= size <= _SIZE[1]:
        reason = f"the estimate has {size:.2f} times the size of a hand"
    elif confidence < ACCEPT:
        weakest = min((support, 0), (coverage, 1), (proportion, 2))[1]
        reason = (
            f"{1 - support:.0%} of the estimated joints lie on nothing that is seen",
            f"{1 - coverage:.0%} of what is seen is not beside the estimated hand",
            "the estimated bones have not the proportions of a hand",
        )[weakest]
    return HandEvidence(support, coverage, proportion, size, reason)


def _support(crop: Array, joints: Array, half: float) -> float:
    size = crop.shape[0]
    pixel = ((joints[:, :2] + 1) * (size / 2)).astype(np.int32)
    inner = np.minimum(np.maximum(pixel, 2), size - 3)
    around = crop.ravel().take((inner[:, 1] * size + inner[:, 0])[:, None] + _around(size))
    behind = (joints[:, 2:] - around) * half
    behind[around >= 1] = -np.inf
    behind[(pixel != inner).any(axis=1)] = -np.inf
    held = behind.max(axis=1) > -_IN_FRONT_MM
    middle, reach = (_HIDDEN_MM - _IN_FRONT_MM) / 2, (_HIDDEN_MM + _IN_FRONT_MM) / 2
    near = np.abs(behind - middle).min(axis=1) < reach
    return float((np.count_nonzero(held) + np.count_nonzero(near)) / (2 * len(joints)))


def _coverage(grid: Array, joints: Array, half: float) -> float:
    a, b, beside = _cells(_BESIDE_MM / half)
    wrist = joints[_WRIST].sum(axis=0) / 3
    x, y, z = (wrist - joints[_PALM].sum(axis=0) / 3).tolist()
    counted = a * x + b * y + grid * z < float(wrist @ (x, y, z))
    counted &= grid < min(1.0, float(joints[:, 2].max()) + _BEHIND_HAND_MM / half)
    cell = ((joints[:, :2] + 1) * (_CELLS / 2)).astype(np.int32)
    cell = np.minimum(np.maximum(cell, 0), _CELLS - 1)
    covered = counted & beside.take(cell[:, 1] * _CELLS + cell[:, 0], axis=0).any(axis=0)
    total = np.count_nonzero(counted)
    return float(np.count_nonzero(covered) / total) if total else 0.0


def _proportion(joints_mm: Array) -> tuple[float, float]:
    first, second, reference, log_reference = _rigid_bones()
    bones = joints_mm[first] - joints_mm[second]
    length = np.sqrt(np.einsum("ij,ij->i", bones, bones))
    size = float(length.sum() / reference.sum())
    error = np.log(length / max(size, 1e-6) + _SOFTEN_MM) - log_reference
    return size, float(np.exp(-(error @ error) / (len(error) * _BONE_SCATTER**2)))


@lru_cache(maxsize=4)
def _around(size: int) -> npt.NDArray[np.int64]:
    """3 x 3 places around a pixel, 2 px apart (5 mm with the common cube)."""
    return np.array([dy * size + dx for dy in (-2, 0, 2) for dx in (-2, 0, 2)])


@lru_cache(maxsize=4)
def _cells(radius: float) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """a and b of the middle of each cell [256], and which cells are beside which [256, 256]."""
    middle = (np.arange(_CELLS, dtype=np.float32) + 0.5) * (2 / _CELLS) - 1
    a, b = np.tile(middle, _CELLS), np.repeat(middle, _CELLS)
    squared = np.square(a[:, None] - a) + np.square(b[:, None] - b)
    return a, b, squared < radius**2


@lru_cache(maxsize=1)
def _rigid_bones() -> tuple[Any, Any, Any, Any]:
    """Pairs of joints that are rigid in every hand, their distance in the reference hand, mm, and
    the logarithm of it, softened."""
    up = np.broadcast_to([0.0, 1.0, 0.0], (1, 5, 3))
    across = np.broadcast_to([-1.0, 0.0, 0.0], (1, 5, 3))
    joints = forward_kinematics(up, across, np.zeros((1, 5, 2)))[0]
    bones = [(j, j + 1) for j in range(0, 30, 2)]
    palm = [(a, b) for a in range(29, 36) for b in range(a + 1, 36)]
    first, second = np.array(bones + palm).T
    length = np.linalg.norm(joints[first] - joints[second], axis=1).astype(np.float32)
    return first, second, length, np.log(length + _SOFTEN_MM)
