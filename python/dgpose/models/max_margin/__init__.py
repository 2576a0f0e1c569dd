"""Max-margin pose retrieval: images and 3D poses embedded so that inner products find the pose.

Sijin Li, Weichen Zhang, Antoni B. Chan: "Maximum-Margin Structured Learning with Deep Networks for
3D Human Pose Estimation", ICCV 2015.
"""

from dgpose.models.max_margin.config import MaxMarginConfig, MaxMarginRecipe
from dgpose.models.max_margin.networks import (
    AuxiliaryHead,
    ImageNetwork,
    ImageOutput,
    MaxMarginModel,
    PaperBackbone,
    PoseNetwork,
    PretrainingHeads,
    ResidualBackbone,
)
from dgpose.models.max_margin.violators import ViolatorSearch, embed_all
from dgpose.models.max_margin.weight_file import load_model, save_model

__all__ = [
    "AuxiliaryHead",
    "ImageNetwork",
    "ImageOutput",
    "MaxMarginConfig",
    "MaxMarginModel",
    "MaxMarginRecipe",
    "PaperBackbone",
    "PoseNetwork",
    "PretrainingHeads",
    "ResidualBackbone",
    "ViolatorSearch",
    "embed_all",
    "load_model",
    "save_model",
]
