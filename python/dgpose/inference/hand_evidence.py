"""Does an estimated hand agree with the image it was estimated from?

A regressor gives 36 joints for every crop, hand or not. Three cheap facts tell a hand from a wall,
a box or a face, each a number from 0 to 1:

- support: the share of joints that lie just behind something seen. A joint with nothing but
  background around its pixel, or well in front of the surface there, hangs in the air; one far
  behind the surface may be hidden, and counts half.
- coverage: the share of what is seen in the cube that lies near a joint. A wall goes on where the
  hand ends. What is beyond the wrist, the forearm, is left out.
- proportion: bones of a hand. exp(-(s / 0.3)^2), s the scatter of log(length / length of the
  reference hand) over the rigid bones; the scatter leaves the hand's overall size free, which is
  bounded apart from it.

The confidence is their product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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
_NEAR_MM = 38.0
_BONE_SCATTER = 0.3

# Around the pixel of a joint: 3 x 3 places, 2 px apart (5 mm with the common cube).
_AROUND = np.array([(dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2)])
# Every 8th pixel of the crop, from the 4th.
_STEP = 8
_WRIST = [30, 31, 35]
_PALM = [32, 33, 34]


@dataclass(frozen=True)
class HandEvidence:
    """How well a pose agrees with its image; see the top of this module.

    Attributes:
        support, coverage, proportion: 0 to 1.
        reason: why the pose is refused; empty if it is accepted.
    """

    support: float
    coverage: float
    proportion: float
    reason: str

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
        crop: `[S, S]` as `dgpose_ext.depth_crop` gives it: -1 front of the cube .. 1 background.
        joints: `[36, 3]` NYU joints in crop coordinates (a right, b down, c forward).
        joints_mm: `[36, 3]` the same in mm.
        cube_mm: edge of the cube.
    """
    grid = crop[_STEP // 2 :: _STEP, _STEP // 2 :: _STEP]
    seen = grid < 1
    # -1 is what lies before the cube.
    if (seen & (grid > -1)).mean() < _FOREGROUND_SHARE:
        return HandEvidence(0.0, 0.0, 0.0, "there is next to nothing in the cube around the centre")
    if not np.isfinite(joints).all():
        return HandEvidence(0.0, 0.0, 0.0, "the network gave no finite joints")
    half = cube_mm / 2
    support = _support(crop, joints, half)
    coverage = _coverage(crop, seen, joints * np.float32(half), half)
    size, proportion = _proportion(joints_mm)
    evidence = HandEvidence(support, coverage, proportion, "")
    if not _SIZE[0] <= size <= _SIZE[1]:
        reason = f"the estimate has {size:.2f} times the size of a hand"
    elif evidence.confidence < ACCEPT:
        weakest = min((support, 0), (coverage, 1), (proportion, 2))[1]
        reason = (
            f"{1 - support:.0%} of the joints lie on nothing that is seen",
            f"{1 - coverage:.0%} of what is seen is not near the estimated hand",
            "the estimated bones have not the proportions of a hand",
        )[weakest]
    else:
        return evidence
    return HandEvidence(support, coverage, proportion, reason)


def _support(crop: Array, joints: Array, half: float) -> float:
    size = crop.shape[0]
    pixel = np.rint((joints[:, 1::-1] + 1) * (size / 2) - 0.5).astype(np.int32)
    rows, columns = (pixel[:, None] + _AROUND).transpose(2, 0, 1)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    around = crop[np.clip(rows, 0, size - 1), np.clip(columns, 0, size - 1)]
    behind = (joints[:, 2:] - around) * half
    held = inside & (around < 1) & (behind > -_IN_FRONT_MM)
    near = (held & (behind < _HIDDEN_MM)).any(axis=1)
    return float(0.5 * (held.any(axis=1).mean() + near.mean()))


def _coverage(crop: Array, seen: npt.NDArray[np.bool_], joints: Array, half: float) -> float:
    rows, columns = np.nonzero(seen)
    size = crop.shape[0]
    start = _STEP // 2
    points = np.empty((len(rows), 3), np.float32)
    points[:, 0] = (2 * (columns * _STEP + start) + 1) * (half / size) - half
    points[:, 1] = (2 * (rows * _STEP + start) + 1) * (half / size) - half
    points[:, 2] = crop[rows * _STEP + start, columns * _STEP + start] * half
    wrist = joints[_WRIST].mean(axis=0)
    arm = wrist - joints[_PALM].mean(axis=0)
    hand = (points - wrist) @ arm < 0
    if not hand.any():
        return 0.0
    points = points[hand]
    squared = (
        (points * points).sum(axis=1)[:, None]
        - 2 * (points @ joints.T)
        + (joints * joints).sum(axis=1)
    )
    return float((squared.min(axis=1) < _NEAR_MM**2).mean())


def _proportion(joints_mm: Array) -> tuple[float, float]:
    pairs, reference = _rigid_bones()
    bones = joints_mm[pairs[:, 0]] - joints_mm[pairs[:, 1]]
    ratio = 0.5 * np.log((bones * bones).sum(axis=1) + 1e-6) - reference
    size = float(np.exp(ratio.mean()))
    return size, float(np.exp(-ratio.var() / _BONE_SCATTER**2))


@lru_cache(maxsize=1)
def _rigid_bones() -> tuple[npt.NDArray[np.int64], Array]:
    """Pairs of joints that are rigid in every hand, and log of their distance in the reference."""
    up = np.broadcast_to([0.0, 1.0, 0.0], (1, 5, 3))
    across = np.broadcast_to([-1.0, 0.0, 0.0], (1, 5, 3))
    joints = forward_kinematics(up, across, np.zeros((1, 5, 2)))[0]
    bones = [(j, j + 1) for j in range(0, 30, 2)]
    palm = [(a, b) for a in range(30, 36) for b in range(a + 1, 36)]
    pairs = np.array(bones + palm)
    length = np.linalg.norm(joints[pairs[:, 0]] - joints[pairs[:, 1]], axis=1)
    return pairs, np.log(length).astype(np.float32)
