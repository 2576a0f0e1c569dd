"""Estimation on depth images: `HandEstimator` for one, `HandTracker` for a stream, `hand_from_crop`
for crops that were made elsewhere; `CrossingNetsEstimator` runs Crossing Nets. On photographs:
`PoseRetriever` finds 3D body poses among candidates, `KeypointEstimator` 2D ones, and
`PersonGenerator` and `PersonFactors` make images of people."""

from dgpose.inference.crossing_nets import CrossingNetsEstimator
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.inference.hand_crop import CropPose, hand_from_crop
from dgpose.inference.hand_estimator import HandEstimator
from dgpose.inference.hand_pose import HandPose
from dgpose.inference.hand_tracker import HandTracker
from dgpose.inference.one_euro import OneEuroConfig
from dgpose.inference.person_factors import InvertedPair, PersonFactors
from dgpose.inference.person_generator import PersonGenerator
from dgpose.inference.person_keypoints import KeypointEstimate, KeypointEstimator
from dgpose.inference.pose_retriever import PoseEstimate, PoseRetriever

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
]
