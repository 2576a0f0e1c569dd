"""The inference path of Crossing Nets alone: depth crop to joints, a chain that HandNet runs.

The posterior head of the discriminator gives a latent vector, whose first 20 numbers the pose
decoder turns into joints relative to one of them (the origin), and whose last 3 are the origin.
166,570 parameters and 54.9 million multiply-adds for the 36 joints of NYU.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from dgpose.models.crossing_nets.config import CrossingNetsConfig
from dgpose.models.crossing_nets.networks import FLAT, CrossingNets

__all__ = ["CrossingNetsPath"]


class CrossingNetsPath(nn.Module):
    """Depth crop to joints in units of 50 mm; random weights, or a copy of trained ones.

    Args:
        nets: where the weights come from; None: new networks of the published sizes.

    Shape:
        input [B, 1, S, S] float: as the configuration says; published: 128 pixels,
        `dgpose_ext.depth_crop` with a cube of 250 mm and normalize="nearest_pixel" (nearest pixel
        -1, background +1).
        output [B, J, 3]: (joint - centre of the cube) / 50 mm (`unit_mm`); x right, y UP, z
        forward.

    Raises:
        ValueError: networks whose poses are turned into the palm's frame: turning them back is no
            layer of a chain.
    """

    def __init__(self, nets: CrossingNets | None = None) -> None:
        super().__init__()
        nets = CrossingNets() if nets is None else copy.deepcopy(nets)
        self.config: CrossingNetsConfig = nets.config
        if nets.config.palm_joints is not None:
            raise ValueError("palm_joints must be None for the inference path alone")
        self.convolutions = nets.discriminator.shared
        self.posterior = nets.discriminator.posterior
        self.direct = nets.discriminator.direct
        self.decoder = nets.vae.decoder

    def decode(self, latent: Tensor) -> Tensor:
        """Latent [B, 23], 20 numbers of the pose and 3 of its origin, -> [B, J, 3]."""
        joints, pose_latent = self.config.joints, self.config.pose_latent
        pose: Tensor = self.decoder(latent[:, :pose_latent])
        return (pose + latent[:, pose_latent:].repeat(1, joints)).view(-1, joints, 3)

    def forward(self, crop: Tensor) -> Tensor:
        bottom = self.convolutions(crop)
        if self.direct is None:
            return self.decode(self.posterior(bottom))
        features = self.posterior[:FLAT](bottom)
        joints = self.decode(self.posterior[FLAT:](features))
        correction: Tensor = self.direct(features).view(-1, self.config.joints, 3)
        return joints + correction
