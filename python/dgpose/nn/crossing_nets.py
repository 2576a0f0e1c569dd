"""The inference path of Crossing Nets (Wan et al., CVPR 2017): depth crop to joints, as published.

The posterior head of the discriminator gives a latent vector, whose first 20 numbers the pose
decoder turns into joints relative to one of them (the origin), and whose last 3 are the origin.
166,570 parameters and 54.9 million multiply-adds for the 36 joints of NYU. The weights here are
random: the authors' have no licence, and only the architecture is needed to compare engines.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

CROP_SIZE = 128
"""Side of the square input, in pixels."""
CUBE_MM = 250.0
"""Edge of the cube that is cropped."""
UNIT_MM = 50.0
"""Millimetres in one unit of the output."""


@dataclass(frozen=True)
class CrossingNetsConfig:
    """Sizes of the published path.

    Args:
        joints: number of joints J; 36 on NYU.
        channels: of all five convolutions.
        pose_latent: numbers of the latent vector that the pose decoder reads.
        decoder: width of the pose decoder.
        slope: LeakyReLU of the convolutions.
        decoder_slope: LeakyReLU of the pose decoder.
        posterior_slope: LeakyReLU between the two fully connected layers. Not published; as in the
            convolutions. That exactly one of the two is batch-normalised follows from the number
            of parameters; that it is the first does not.
        epsilon: of the batch normalisation. Not published; torch's own.
    """

    joints: int = 36
    channels: int = 32
    pose_latent: int = 20
    decoder: int = 40
    slope: float = 0.2
    decoder_slope: float = 0.01
    posterior_slope: float = 0.2
    epsilon: float = 1e-5


class CrossingNetsPath(nn.Module):
    """Depth crop to joints in units of 50 mm.

    Args:
        config: sizes; None for the published ones.

    Shape:
        input [B, 1, 128, 128] float: `dgpose_ext.depth_crop` with a cube of 250 mm and
        normalize="nearest_pixel" (nearest pixel -1, background +1).
        output [B, J, 3]: (joint - centre of the cube) / 50 mm; x right, y UP, z forward.
    """

    def __init__(self, config: CrossingNetsConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or CrossingNetsConfig()
        latent = c.pose_latent + 3
        layers: list[nn.Module] = []
        for inputs in (1, *[c.channels] * 4):
            layers += [
                nn.Conv2d(inputs, c.channels, 6, stride=2, padding=2, bias=False),
                nn.BatchNorm2d(c.channels, c.epsilon),
                nn.LeakyReLU(c.slope),
            ]
        self.convolutions = nn.Sequential(*layers)  # to 4 x 4 cells
        self.posterior = nn.Sequential(
            nn.Flatten(),
            nn.Linear(c.channels * 4 * 4, latent, bias=False),
            nn.BatchNorm1d(latent, c.epsilon),
            nn.LeakyReLU(c.posterior_slope),
            nn.Linear(latent, latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(c.pose_latent, c.decoder),
            nn.LeakyReLU(c.decoder_slope),
            nn.Linear(c.decoder, c.joints * 3),
        )

    def latent(self, crop: Tensor) -> Tensor:
        """[B, 1, 128, 128] -> [B, 23]: 20 numbers of the pose, 3 of its origin."""
        z: Tensor = self.posterior(self.convolutions(crop))
        return z

    def decode(self, latent: Tensor) -> Tensor:
        """[B, 23] -> [B, J, 3]."""
        joints, pose_latent = self.config.joints, self.config.pose_latent
        pose: Tensor = self.decoder(latent[:, :pose_latent])
        return (pose + latent[:, pose_latent:].repeat(1, joints)).view(-1, joints, 3)

    def forward(self, crop: Tensor) -> Tensor:
        return self.decode(self.latent(crop))
