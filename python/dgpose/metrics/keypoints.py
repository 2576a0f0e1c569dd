"""PCK: the share of joints that are found, by one written definition.

The error of a joint is its distance in pixels over the torso of the true pose; it is found where
that is at most the threshold. The torso is the mean of two diagonals, right shoulder to left hip
and left shoulder to right hip (Leeds Sports Pose is usually scored by one of them alone); where an
end of one is not known, it is the other. A pose with neither, or with a torso of less than one
pixel, is left out of the score altogether: `KeypointErrors.scored` says how many were not. Every
known joint counts once, whatever its pose; hidden joints count where their place is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpose.skeletons import BODY14

__all__ = ["CURVE", "THRESHOLDS", "KeypointErrors", "keypoint_errors", "pck", "torso_px"]

THRESHOLDS = (0.1, 0.2, 0.5)
"""Thresholds of the tables, in torsos."""

CURVE = tuple(step / 100 for step in range(51))
"""Thresholds of the whole curve, in torsos."""

_DIAGONALS = tuple(
    (BODY14.joints.index(f"{one}_shoulder"), BODY14.joints.index(f"{other}_hip"))
    for one, other in (("right", "left"), ("left", "right"))
)


def torso_px(keypoints_px: Tensor, known: Tensor) -> Tensor:
    """Torso lengths [B] in pixels; NaN where neither diagonal is known, or below one pixel.

    Args:
        keypoints_px: [B, 14, 2] of BODY14.
        known: [B, 14] bool.
    """
    lengths = [
        (keypoints_px[:, a] - keypoints_px[:, b])
        .norm(dim=1)
        .masked_fill(~(known[:, a] & known[:, b]), torch.nan)
        for a, b in _DIAGONALS
    ]
    torso = torch.stack(lengths).nanmean(0)
    return torso.masked_fill(~(torso >= 1), torch.nan)


@dataclass(frozen=True, eq=False)
class KeypointErrors:
    """Errors of estimated poses.

    Attributes:
        torsos: [B, 14] float64, distances over the torso; NaN where a joint or its torso is not
            known.
    """

    torsos: Tensor

    @property
    def scored(self) -> int:
        """Poses with at least one scored joint."""
        return int((~self.torsos.isnan()).any(1).sum())

    def pck(self, threshold: float) -> float:
        """Share of the scored joints within the threshold, 0 to 1; NaN without any."""
        known = int((~self.torsos.isnan()).sum())
        return int((self.torsos <= threshold).sum()) / known if known else math.nan

    def by_joint(self, threshold: float) -> Tensor:
        """The same for each joint [14]; NaN for joints that are never known."""
        known = ~self.torsos.isnan()
        return (self.torsos <= threshold).sum(0).double() / known.sum(0)

    @property
    def curve(self) -> list[float]:
        """`pck` at CURVE."""
        return [self.pck(threshold) for threshold in CURVE]

    @property
    def area(self) -> float:
        """Area under the curve up to 0.5 torsos over its width (trapezoidal rule), 0 to 1."""
        shares = self.curve
        return (sum(shares) - (shares[0] + shares[-1]) / 2) / (len(shares) - 1)


def keypoint_errors(estimate_px: Tensor, true_px: Tensor, known: Tensor) -> KeypointErrors:
    """Errors of estimated joints.

    Args:
        estimate_px: [B, 14, 2] of BODY14, in the pixels of `true_px`. One that is not finite is
            never found.
        true_px: [B, 14, 2].
        known: [B, 14] bool: which true joints have coordinates.

    Raises:
        ValueError: shapes that do not fit.
    """
    shape = (len(true_px), len(BODY14), 2)
    for name, value in (("estimate_px", estimate_px), ("true_px", true_px)):
        if tuple(value.shape) != shape:
            raise ValueError(
                f"{name} must have shape [B, {len(BODY14)}, 2] with B = {len(true_px)}, "
                f"got {list(value.shape)}"
            )
    if tuple(known.shape) != shape[:2] or known.dtype != torch.bool:
        raise ValueError(
            f"known must be bool of shape [B, {len(BODY14)}] with B = {len(true_px)}, "
            f"got {known.dtype} of shape {list(known.shape)}"
        )
    true_px = true_px.double()
    distance = (estimate_px.double() - true_px).norm(dim=2).nan_to_num(nan=torch.inf)
    torso = torso_px(true_px, known)
    return KeypointErrors((distance / torso[:, None]).masked_fill(~known, torch.nan).cpu())


def pck(
    estimate_px: Tensor,
    true_px: Tensor,
    known: Tensor,
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[float]:
    """PCK at some thresholds; arguments and errors as for `keypoint_errors`."""
    errors = keypoint_errors(estimate_px, true_px, known)
    return [errors.pck(threshold) for threshold in thresholds]
