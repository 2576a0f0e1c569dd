"""Does an estimated hand agree with the image it was estimated from?

A regressor gives 36 joints for every crop, hand or not. Five cheap facts tell a hand from a wall, a
box or a head, and a good estimate from a lost one (`HandEvidence`). A logistic model weighs them;
its output is the confidence. It was fitted to rendered images alone, estimated hands against other
objects, by `tools/calibrate_hand_check.py`, which also says how well it does. No real image took
part in that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dgpose.data.hand_kinematics import forward_kinematics
from dgpose.data.hand_surface import JOINT_RADIUS_MM

__all__ = ["HandEvidence", "weigh_evidence", "weigh_support"]

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.int32]

TYPICAL = (0.972, 1.000, 0.253, 0.094, 0.525)
"""Medians of support, coverage, scatter, oddness and misfit over well placed rendered hands. What
is better than typical counts as typical: one fact cannot make up for another."""

WORST = (0.612, 0.357, 0.685, 0.500, 3.000)
"""Nothing worse is accepted, whatever the other facts say: 99.9 % of well placed rendered hands are
better, fact by fact. (Oddness is set by hand: sizes from 0.55 to 1.48.)"""

WEIGHTS = (4.070, 2.361, 3.855, -13.786, -4.712, -0.866)
"""Of 1 and the five facts in the logarithm of the odds."""

ACCEPT = 0.341
"""A pose is accepted from this confidence on: 99 % of well placed rendered hands have more."""

_FOREGROUND_SHARE = 0.012
"""Of the crop; a fist held edge-on has more."""

_IN_FRONT_MM = 15.0
_HIDDEN_MM = 60.0
_BESIDE_MM = 36.0
_BEHIND_HAND_MM = 25.0
_MISFIT_QUANTILE = 0.6
_MISFIT_MM = 20.0
_SIZE = 0.9
_CUBE_MM = 300.0
# Added to every length before the logarithm: an error of 5 mm says little about a bone of 12 mm.
_SOFTEN_MM = 20.0
_SCATTER = 0.25

_CELLS = 16
_RADIUS_MM = JOINT_RADIUS_MM.astype(np.float32)


@dataclass(frozen=True)
class HandEvidence:
    """How well a pose agrees with its image.

    Attributes:
        support: share of the joints that lie just behind something seen. A joint with nothing but
            background around its pixel, or well in front of the surface there, hangs in the air;
            one far behind the surface may be hidden, and counts half.
        coverage: share of what is seen in the crop that lies beside a joint. A wall goes on where
            the hand ends. What is beyond the wrist (the forearm) and what is behind the hand are
            left out.
        scatter: of the lengths of rigid bones, relative to the reference hand and to the overall
            size, in units of 25 %.
        size: overall size relative to the reference hand (a man's), for a cube of 300 mm: a smaller
            cube announces a smaller hand.
        misfit: distance between a joint's depth behind the surface and its radius, in units of
            20 mm: the value that 60 % of the joints keep; at most 3.
        reason: why the pose is refused; empty if it is accepted.
    """

    support: float = 0.0
    coverage: float = 0.0
    scatter: float = 0.0
    size: float = 0.0
    misfit: float = 0.0
    reason: str = ""

    @property
    def facts(self) -> tuple[float, float, float, float, float]:
        """What is weighed; the size as its distance from a common hand's, in either direction."""
        oddness = abs(math.log(max(self.size, 0.1) / _SIZE))
        return self.support, self.coverage, self.scatter, oddness, self.misfit

    @property
    def confidence(self) -> float:
        """Probability of a good estimate of a hand, where half of all estimates are."""
        if self.size == 0.0:
            return 0.0
        odds = WEIGHTS[0]
        for weight, fact, typical in zip(WEIGHTS[1:], self.facts, TYPICAL, strict=True):
            odds += weight * (min if weight > 0 else max)(fact, typical)
        return 1 / (1 + math.exp(-odds))

    @property
    def accepted(self) -> bool:
        """Whether the pose may be given out."""
        return not self.reason


def weigh_evidence(
    crop: Array,
    joints: Array,
    joints_mm: Array,
    cube_mm: float,
    *,
    common_cube_mm: float = _CUBE_MM,
) -> HandEvidence:
    """Weigh an estimated hand against the crop it came from.

    Args:
        crop: `[S, S]` as `dgpose_ext.depth_crop` gives it: -1 front of the cube .. 1 background; S
            a multiple of 16.
        joints: `[36, 3]` NYU joints in crop coordinates (a right, b down, c forward).
        joints_mm: `[36, 3]` the same in mm.
        cube_mm: edge of the cube.
        common_cube_mm: edge of the cube that a hand of common size would be looked at with.
    """
    grid = _grid(crop)
    if reason := _why_no_weighing(grid, joints):
        return HandEvidence(reason=reason)
    half = cube_mm / 2
    size, scatter = _proportions(joints_mm)
    pixel = _pixels(crop, joints)
    behind = _behind(crop, joints, pixel, half)
    support, misfit = _support(behind), _misfit(behind, size)
    coverage = _coverage(grid, joints, pixel // (crop.shape[0] // _CELLS), half)
    size *= common_cube_mm / cube_mm
    evidence = HandEvidence(support, coverage, scatter, size, misfit)
    reason = _refusal(evidence)
    return replace(evidence, reason=reason) if reason else evidence


def weigh_support(crop: Array, joints: Array, cube_mm: float) -> tuple[float, str]:
    """The one fact that needs no NYU joints: whether joints lie on something seen.

    Args:
        crop: as for `weigh_evidence`.
        joints: `[J, 3]` in crop coordinates, of any order.
        cube_mm: edge of the cube.

    Returns:
        (support, which is 0 where nothing can be weighed; why the pose is refused, or nothing).
    """
    if reason := _why_no_weighing(_grid(crop), joints):
        return 0.0, reason
    support = _support(_behind(crop, joints, _pixels(crop, joints), cube_mm / 2))
    return support, "" if support >= WORST[0] else _unsupported(support)


def _unsupported(support: float) -> str:
    return f"{1 - support:.0%} of the estimated joints lie on nothing that is seen"


def _refusal(evidence: HandEvidence) -> str:
    """Why the evidence is too weak, by the fact that weighs most; empty if it is not."""
    facts, weights = evidence.facts, WEIGHTS[1:]
    below = [
        weight * (fact - worst) < 0
        for weight, fact, worst in zip(weights, facts, WORST, strict=True)
    ]
    if evidence.confidence >= ACCEPT and not any(below):
        return ""
    loss = [w * (fact - typical) for w, fact, typical in zip(weights, facts, TYPICAL, strict=True)]
    ranks = list(zip([not is_below for is_below in below], loss, strict=True))
    return (
        _unsupported(evidence.support),
        f"{1 - evidence.coverage:.0%} of what is seen is not beside the estimated hand",
        "the estimated bones have not the proportions of a hand",
        f"the estimate has {evidence.size:.2f} times the size of a hand",
        "the estimated joints have not the depth of what is seen",
    )[ranks.index(min(ranks))]


def _grid(crop: Array) -> Array:
    """One pixel of each cell, [256]."""
    step = crop.shape[0] // _CELLS
    return crop[step // 2 :: step, step // 2 :: step].ravel()


def _why_no_weighing(grid: Array, joints: Array) -> str:
    # -1 is what lies before the cube.
    if np.count_nonzero((grid < 1) & (grid > -1)) < _FOREGROUND_SHARE * grid.size:
        return "there is next to nothing in the cube around the centre"
    if not np.abs(joints).max() < 4:  # NaN too
        return "the network's joints lie far outside the crop"
    return ""


def _pixels(crop: Array, joints: Array) -> Pixels:
    """Columns and rows [J, 2] of the joints, which may lie outside of the crop."""
    pixels: Pixels = ((joints[:, :2] + 1) * (crop.shape[0] / 2)).astype(np.int32)
    return pixels


def _behind(crop: Array, joints: Array, pixel: Pixels, half: float) -> Array:
    """How far each joint lies behind what is seen at nine places around it, mm [J, 9]; -inf where
    nothing is."""
    size = crop.shape[0]
    inner = np.minimum(np.maximum(pixel, 2), size - 3)
    around = crop.ravel().take((inner[:, 1] * size + inner[:, 0])[:, None] + _around(size))
    behind: Array = (joints[:, 2:] - around) * half
    behind[around >= 1] = -np.inf
    outside = pixel != inner
    if outside.any():
        behind[outside.any(axis=1)] = -np.inf
    return behind


def _support(behind: Array) -> float:
    held = behind.max(axis=1) > -_IN_FRONT_MM
    middle, reach = (_HIDDEN_MM - _IN_FRONT_MM) / 2, (_HIDDEN_MM + _IN_FRONT_MM) / 2
    near = np.abs(behind - middle).min(axis=1) < reach
    return (int(np.count_nonzero(held)) + int(np.count_nonzero(near))) / (2 * len(behind))


def _misfit(behind: Array, hand_size: float) -> float:
    radius = _RADIUS_MM * min(max(hand_size, 0.5), 1.4)
    misfit = np.sort(np.abs(behind[:, 4] - radius))[int(_MISFIT_QUANTILE * len(behind))]
    return min(float(misfit) / _MISFIT_MM, 3.0)


def _coverage(grid: Array, joints: Array, cell: Pixels, half: float) -> float:
    middles, beside = _cells(_BESIDE_MM / half)
    wrist = joints[30] + joints[31] + joints[35]
    arm = wrist - (joints[32] + joints[33] + joints[34])
    counted = middles @ arm[:2] + grid * arm[2] < float(wrist @ arm) / 3
    counted &= grid < min(1.0, float(joints[:, 2].max()) + _BEHIND_HAND_MM / half)
    cell = np.minimum(np.maximum(cell, 0), _CELLS - 1)
    covered = counted & beside.take(cell[:, 1] * _CELLS + cell[:, 0], axis=0).any(axis=0)
    total = np.count_nonzero(counted)
    return float(np.count_nonzero(covered) / total) if total else 0.0


def _proportions(joints_mm: Array) -> tuple[float, float]:
    """Size and scatter."""
    first, second, total, log_reference = _rigid_bones()
    bones = joints_mm[first] - joints_mm[second]
    length = np.sqrt(np.einsum("ij,ij->i", bones, bones))
    size = float(length.sum()) / total
    error = np.log(length / max(size, 1e-6) + _SOFTEN_MM) - log_reference
    return size, math.sqrt(float(error @ error) / len(error)) / _SCATTER


@lru_cache(maxsize=4)
def _around(size: int) -> npt.NDArray[np.int64]:
    """3 x 3 places around a pixel, 2 px apart (5 mm with the common cube)."""
    return np.array([dy * size + dx for dy in (-2, 0, 2) for dx in (-2, 0, 2)])


@lru_cache(maxsize=4)
def _cells(radius: float) -> tuple[Array, npt.NDArray[np.bool_]]:
    """(a, b) of the middle of each cell [256, 2], and which cells are beside which [256, 256]."""
    middle = (np.arange(_CELLS, dtype=np.float32) + 0.5) * (2 / _CELLS) - 1
    middles = np.stack([np.tile(middle, _CELLS), np.repeat(middle, _CELLS)], axis=1)
    squared = np.square(middles[:, None] - middles).sum(axis=2)
    return middles, squared < radius**2


@lru_cache(maxsize=1)
def _rigid_bones() -> tuple[Any, Any, float, Any]:
    """Pairs of joints that are rigid in every hand; of their distances in the reference hand, mm:
    the sum, and the logarithms, softened."""
    up = np.broadcast_to([0.0, 1.0, 0.0], (1, 5, 3))
    across = np.broadcast_to([-1.0, 0.0, 0.0], (1, 5, 3))
    joints = forward_kinematics(up, across, np.zeros((1, 5, 2)))[0]
    bones = [(j, j + 1) for j in range(0, 30, 2)]
    palm = [(a, b) for a in range(29, 36) for b in range(a + 1, 36)]
    first, second = np.array(bones + palm).T
    length = np.linalg.norm(joints[first] - joints[second], axis=1).astype(np.float32)
    return first, second, float(length.sum()), np.log(length + _SOFTEN_MM)
