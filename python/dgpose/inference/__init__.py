"""Estimation on single depth images: `HandEstimator`."""

from dgpose.inference.hand_estimator import HandEstimator, HandPose

__all__ = ["HandEstimator", "HandPose"]
