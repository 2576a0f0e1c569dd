"""HandPose, and the way to it that all estimators of a depth image share.

Centre (given, or found by `dgpose_ext.find_hand_center`, then moved to the palm that the network
sees) -> an estimator's look at the cube around it -> a check of the result against the image
(`hand_evidence`). A pose that fails the check is not given out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dgpose.data.cameras import Camera, parse_camera, unproject
from dgpose.data.nyu import CENTER_JOINT
from dgpose.inference.depth_input import Depth, Place, check_center, depth_in_mm, why_no_center
from dgpose.inference.hand_evidence import weigh_evidence, weigh_support
from dgpose.skeletons import ICVL16, MEDIAPIPE21, MSRA21, NYU36, Skeleton, nyu36_to_21
from dgpose_ext import find_hand_center

__all__ = ["HandPose", "Look", "check_conversion", "estimate_pose"]

Array = npt.NDArray[np.float32]

_LOOK_AGAIN_MM = 15.0
"""How far a found centre may lie from the palm; the networks are trained for about as much."""

_PALM = {
    NYU36.name: [CENTER_JOINT],
    ICVL16.name: [0],
    MSRA21.name: [0, MSRA21.joints.index("middle_mcp")],
}
"""The joints whose mean is the middle of the palm."""


@dataclass(frozen=True, eq=False)
class HandPose:
    """One estimated hand.

    Attributes:
        joints_mm: `[J, 3]` float32, mm from the camera: x right, y UP, z forward; the joints of
            `skeleton`. NaN where `found` is false.
        joints_px: `[J, 2]` float32, (u, v) in pixels of the image, v down. NaN likewise.
        center: (u, v, mm), the centre of the crop, given or found; None where none was found.
        found: whether there is a hand and the pose agrees with the image.
        confidence: 0 to 1, the agreement (see `hand_evidence`).
        reason: why `found` is false, in one sentence; else empty.
        timings: milliseconds: "center", "crop+network", "check", and "total".
        skeleton: the joints' names and order; NYU's 36 unless the network has others.
    """

    joints_mm: Array
    joints_px: Array
    center: Place | None
    found: bool
    confidence: float
    reason: str
    timings: dict[str, float]
    skeleton: Skeleton = NYU36

    def in_skeleton(self, skeleton: Skeleton) -> HandPose:
        """The same hand with the joints of another order; see `dgpose.skeletons.nyu36_to_21`.

        Args:
            skeleton: the pose's own (nothing changes), or from NYU36 MSRA21 or MEDIAPIPE21.

        Raises:
            ValueError: there is no way to these joints.
        """
        check_conversion(self.skeleton, skeleton)
        if skeleton == self.skeleton:
            return self
        joints_mm = nyu36_to_21(self.joints_mm, skeleton)
        # A mean of points in space, seen in the image: nearer points count more.
        depth = self.joints_mm[:, 2:]
        joints_px = nyu36_to_21(self.joints_px * depth, skeleton) / joints_mm[:, 2:]
        return replace(self, joints_mm=joints_mm, joints_px=joints_px, skeleton=skeleton)


def check_conversion(own: Skeleton, wanted: Skeleton) -> None:
    """ValueError where `HandPose.in_skeleton` has no way from one order to the other, TypeError
    where `wanted` is none."""
    if not isinstance(wanted, Skeleton):
        raise TypeError(f"joints must be a dgpose.skeletons.Skeleton, got {wanted!r}")
    ways = (own, MSRA21, MEDIAPIPE21) if own == NYU36 else (own,)
    if wanted not in ways:
        known = ", ".join(skeleton.name for skeleton in ways)
        raise ValueError(f"joints must be one of {known} for this model, got {wanted.name}")


class Look(NamedTuple):
    """What an estimator sees in the cube around a place."""

    crop: Array
    """[S, S] of `dgpose_ext.depth_crop` with normalize="cube"."""
    coords: Array
    """[J, 3] joints in the coordinates of this crop."""
    uvd: Array
    """[J, 3] joints in the image: pixels and mm."""


def estimate_pose(
    look: Callable[[Tensor, Camera, Place], Look],
    depth: Depth,
    camera: str | Sequence[float],
    center: Sequence[float] | None,
    *,
    unit: str,
    look_again: bool | None,
    skeleton: Skeleton,
    cube_mm: float,
    common_cube_mm: float,
) -> HandPose:
    """Estimate the hand in one depth image; arguments and errors as of `HandEstimator`.

    Args:
        look: what the network sees around a place.
        skeleton: the network's joints.
        cube_mm: edge of the cube that it looks at.
        common_cube_mm: ... for a hand of common size: a smaller cube announces a smaller hand.
    """
    start = time.perf_counter()
    optics = parse_camera(camera)
    image = depth_in_mm(depth, unit)
    place = find_hand_center(image, optics) if center is None else check_center(center)
    located = time.perf_counter()
    if place is None:
        return _not_found(skeleton, None, 0.0, why_no_center(image), (located - start, 0.0, 0.0))

    seen = look(image, optics, place)
    if look_again or (look_again is None and center is None):
        # The mean of what is seen lies towards the forearm; a tracked hand has moved.
        palm = _PALM[skeleton.name]
        offset_mm = float(np.linalg.norm(seen.coords[palm].mean(0))) * cube_mm / 2
        u, v, mm = seen.uvd[palm].mean(0).tolist()
        if offset_mm > _LOOK_AGAIN_MM and mm > 0:
            place = (u, v, mm)
            seen = look(image, optics, place)
    joints_mm = unproject(seen.uvd, optics)
    estimated = time.perf_counter()
    if skeleton == NYU36:
        evidence = weigh_evidence(
            seen.crop, seen.coords, joints_mm, cube_mm, common_cube_mm=common_cube_mm
        )
        confidence, reason = evidence.confidence, evidence.reason
    else:
        confidence, reason = weigh_support(seen.crop, seen.coords, cube_mm)
    seconds = (located - start, estimated - located, time.perf_counter() - estimated)
    if reason:
        return _not_found(skeleton, place, confidence, reason, seconds)
    joints_px = seen.uvd[:, :2].copy()
    return HandPose(joints_mm, joints_px, place, True, confidence, "", _timings(seconds), skeleton)


def _timings(seconds: tuple[float, float, float]) -> dict[str, float]:
    names = ("center", "crop+network", "check", "total")
    values = (*seconds, sum(seconds))
    return {name: 1000 * value for name, value in zip(names, values, strict=True)}


def _not_found(
    skeleton: Skeleton,
    center: Place | None,
    confidence: float,
    reason: str,
    seconds: tuple[float, float, float],
) -> HandPose:
    joints = len(skeleton)
    return HandPose(
        np.full((joints, 3), np.nan, np.float32),
        np.full((joints, 2), np.nan, np.float32),
        center,
        False,
        confidence,
        reason,
        _timings(seconds),
        skeleton,
    )
