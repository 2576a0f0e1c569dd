"""Estimation on depth images: `HandEstimator` for one, `HandTracker` for a stream."""

from dgpose.inference.hand_estimator import HandEstimator, HandPose
from dgpose.inference.hand_tracker import HandTracker
from dgpose.inference.one_euro import OneEuroConfig

__all__ = ["HandEstimator", "HandPose", "HandTracker", "OneEuroConfig"]
