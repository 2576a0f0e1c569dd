"""Crossing Nets: hand pose from depth, with one latent space for poses and depth maps.

Chengde Wan, Thomas Probst, Luc Van Gool, Angela Yao: "Crossing Nets: Combining GANs and VAEs with a
Shared Latent Space for Hand Pose Estimation", CVPR 2017.
"""

from dgpose.models.crossing_nets.config import (
    ORIGIN_JOINTS,
    CrossingNetsConfig,
    JointWeights,
    StageConfig,
)
from dgpose.models.crossing_nets.inference_path import CrossingNetsPath
from dgpose.models.crossing_nets.latent_distribution import LatentDistribution
from dgpose.models.crossing_nets.networks import (
    Alignment,
    CrossingNets,
    DepthGenerator,
    Discriminator,
    PoseVAE,
)
from dgpose.models.crossing_nets.weight_file import load_crossing_nets, save_crossing_nets

__all__ = [
    "ORIGIN_JOINTS",
    "Alignment",
    "CrossingNets",
    "CrossingNetsConfig",
    "CrossingNetsPath",
    "DepthGenerator",
    "Discriminator",
    "JointWeights",
    "LatentDistribution",
    "PoseVAE",
    "StageConfig",
    "load_crossing_nets",
    "save_crossing_nets",
]
