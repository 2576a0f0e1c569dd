"""Pose models on top of dgpose_ext: data, training, inference and the command line.

`dgpose.HandEstimator` and its kin are loaded when first used: importing `dgpose` alone is cheap,
and needs none of what the extra `systems` installs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgpose.inference import (
        CropPose,
        CrossingNetsEstimator,
        GeneratedPeople,
        HandEstimator,
        HandPose,
        HandTracker,
        InvertedPair,
        KeypointEstimate,
        KeypointEstimator,
        OneEuroConfig,
        PersonFactors,
        PersonGenerator,
        PoseEstimate,
        PoseRetriever,
        hand_from_crop,
    )
    from dgpose.model_zoo import load

__all__ = [
    "CropPose",
    "CrossingNetsEstimator",
    "GeneratedPeople",
    "HandEstimator",
    "HandPose",
    "HandTracker",
    "InvertedPair",
    "KeypointEstimate",
    "KeypointEstimator",
    "OneEuroConfig",
    "PersonFactors",
    "PersonGenerator",
    "PoseEstimate",
    "PoseRetriever",
    "hand_from_crop",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dgpose' has no attribute {name!r}")
    from dgpose._errors import systems_required

    with systems_required():
        module = import_module("dgpose.model_zoo" if name == "load" else "dgpose.inference")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
