"""HandTracker: one hand through the frames of a stream."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from dgpose.data.cameras import Camera, parse_camera, project
from dgpose.data.nyu import CENTER_JOINT
from dgpose.inference.depth_input import Depth
from dgpose.inference.hand_estimator import HandEstimator
from dgpose.inference.hand_pose import HandPose
from dgpose.inference.one_euro import OneEuroConfig, OneEuroFilter

__all__ = ["HandTracker"]

_CHECK_EVERY = 30
"""Frames between two searches of the whole frame while a hand is tracked (a second of most
cameras)."""

_BETTER_BY = 0.2
"""The hand found by such a search is taken where its confidence is better by this: what was
tracked is then hardly a hand."""


class HandTracker:
    """Follows one hand: each frame is searched where the last one had the palm.

    That saves the search for the hand, and keeps to this hand when something else comes nearer to
    the camera. A pose that does not agree with the frame is a loss: the hand is searched in the
    whole frame, in the same call and in the following ones, until it is found again. Once a second
    or so the whole frame is searched anyway, in case what is tracked only resembles a hand.

    A tracker belongs to one stream of frames, and to one thread. A frame that is refused (an
    error is raised) leaves it as it was: the stream can go on.

    Args:
        estimator: estimates the single frames.
        smoothing: parameters of a One-Euro filter over the joints; None: joints stay as estimated.
    """

    def __init__(self, estimator: HandEstimator, *, smoothing: OneEuroConfig | None = None) -> None:
        self._estimator = estimator
        self.smoothing = smoothing
        self.reset()

    def reset(self) -> None:
        """Forget the hand and the stream: the next frame is searched as a whole."""
        self._palm: tuple[float, float, float] | None = None
        self._since_search = 0
        self._camera: Camera | None = None
        self._shape: tuple[int, ...] = ()
        self._forget_motion()

    @property
    def smoothing(self) -> OneEuroConfig | None:
        """The filter's parameters; None: no smoothing. May be set at any time."""
        return None if self._filter is None else self._filter.config

    @smoothing.setter
    def smoothing(self, config: OneEuroConfig | None) -> None:
        self._filter = None if config is None else OneEuroFilter(config)
        self._time_s = -math.inf

    @property
    def tracking(self) -> bool:
        """Whether the last frame had the hand, so that the next is searched around it."""
        return self._palm is not None

    def __call__(
        self,
        depth: Depth,
        camera: str | Sequence[float],
        time_s: float | None = None,
        *,
        unit: Literal["mm", "m"] = "mm",
    ) -> HandPose:
        """Estimate the hand in the next frame.

        Args:
            depth, camera, unit: as for `HandEstimator`.
            time_s: when the frame was taken, in seconds; None: now. Used by the smoothing alone.

        Returns:
            As from `HandEstimator`; "center" is the place that was searched around.

        Raises:
            TypeError, ValueError: as from `HandEstimator`; or the frame has another size than the
                frames before with the same camera, whose intrinsics cannot fit both.
        """
        moment = time.monotonic() if time_s is None else time_s
        optics = parse_camera(camera)
        shape = tuple(getattr(depth, "shape", ()))  # what is no array, the estimator refuses
        if shape and optics == self._camera and shape != self._shape:
            raise ValueError(
                f"depth must have shape {list(self._shape)} as the frames before, got {list(shape)}"
            )
        pose = self._follow(depth, optics, unit)
        self._camera, self._shape = optics, shape
        if not pose.found:
            self._palm = None
            self._forget_motion()
            return pose
        u, v, mm = project(pose.joints_mm[CENTER_JOINT], optics).tolist()
        self._palm = (u, v, mm)
        return self._smoothed(pose, optics, moment)

    def _follow(self, depth: Depth, camera: Camera, unit: Literal["mm", "m"]) -> HandPose:
        if self._palm is None:
            self._since_search = 0
            return self._estimator(depth, camera, unit=unit)
        pose = self._estimator(depth, camera, self._palm, unit=unit, look_again=True)
        self._since_search += 1
        if pose.found and self._since_search < _CHECK_EVERY:
            return pose
        anew = self._estimator(depth, camera, unit=unit)
        self._since_search = 0
        better = anew.found and anew.confidence > pose.confidence + _BETTER_BY
        if better and pose.found:
            self._forget_motion()  # another hand: no motion leads from one to the other
        spent = {name: ms + pose.timings[name] for name, ms in anew.timings.items()}
        return replace(pose if pose.found and not better else anew, timings=spent)

    def _smoothed(self, pose: HandPose, camera: Camera, moment: float) -> HandPose:
        if self._filter is None:
            return pose
        if not moment > self._time_s:  # a recording that starts again
            self._filter.reset()
        self._time_s = moment
        joints = self._filter(pose.joints_mm, moment).astype(np.float32)
        return replace(pose, joints_mm=joints, joints_px=project(joints, camera)[:, :2].copy())

    def _forget_motion(self) -> None:
        self._time_s = -math.inf
        if self._filter is not None:
            self._filter.reset()
