"""DGPose: images of people with disentangled pose and appearance.

Rodrigo de Bem, Arnab Ghosh, Adnane Boukhayma, Thalaiyasingam Ajanthan, N. Siddharth, Philip Torr:
"DGPose: Deep Generative Models for Human Body Analysis", IJCV 2020.
"""

from dgpose.models.dgpose.body_parts import PART_NAMES
from dgpose.models.dgpose.config import DGPoseConfig, DGPoseRecipe
from dgpose.models.dgpose.gaussians import FittedGaussian, Gaussian
from dgpose.models.dgpose.networks import Discriminator, latent_size
from dgpose.models.dgpose.pose_maps import LearnedMapper, RenderedMapper
from dgpose.models.dgpose.systems import (
    ConditionalDGPose,
    DGPoseModel,
    ImageVAE,
    PoseRegressor,
    SemiDGPose,
    make_model,
)
from dgpose.models.dgpose.weight_file import load_model, save_model

__all__ = [
    "PART_NAMES",
    "ConditionalDGPose",
    "DGPoseConfig",
    "DGPoseModel",
    "DGPoseRecipe",
    "Discriminator",
    "FittedGaussian",
    "Gaussian",
    "ImageVAE",
    "LearnedMapper",
    "PoseRegressor",
    "RenderedMapper",
    "SemiDGPose",
    "latent_size",
    "load_model",
    "make_model",
    "save_model",
]
