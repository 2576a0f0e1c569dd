"""Disentangled Person Image Generation: an image is a foreground, a background and a pose.

Liqian Ma, Qianru Sun, Stamatios Georgoulis, Luc Van Gool, Bernt Schiele, Mario Fritz: "Disentangled
Person Image Generation", CVPR 2018.
"""

from dgpose.models.dpig.config import FACTORS, DPIGConfig, DPIGRecipe, Factor
from dgpose.models.dpig.dense_networks import Critic, Mapper, PoseDecoder, PoseEncoder
from dgpose.models.dpig.losses import (
    Rebuilt,
    clip_weights,
    critic_loss,
    discriminator_loss,
    generator_losses,
    mapper_loss,
    pose_losses,
    rebuild,
)
from dgpose.models.dpig.model import DPIG, TRAINABLE, Codes, Trainable
from dgpose.models.dpig.networks import Decoder, Discriminator, Encoder
from dgpose.models.dpig.pose_inputs import PoseInputs, pose_inputs
from dgpose.models.dpig.weight_file import load_dpig, save_dpig

__all__ = [
    "DPIG",
    "FACTORS",
    "TRAINABLE",
    "Codes",
    "Critic",
    "DPIGConfig",
    "DPIGRecipe",
    "Decoder",
    "Discriminator",
    "Encoder",
    "Factor",
    "Mapper",
    "PoseDecoder",
    "PoseEncoder",
    "PoseInputs",
    "Rebuilt",
    "Trainable",
    "clip_weights",
    "critic_loss",
    "discriminator_loss",
    "generator_losses",
    "load_dpig",
    "mapper_loss",
    "pose_inputs",
    "pose_losses",
    "rebuild",
    "save_dpig",
]
