"""The networks of Crossing Nets: pose VAE, depth generator, discriminator with three heads,
alignment of the two latent spaces.

Sizes are those of the released training code where the paper is silent; see CrossingNetsConfig.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dgpose.models.crossing_nets.config import CrossingNetsConfig

__all__ = ["Alignment", "CrossingNets", "DepthGenerator", "Discriminator", "Heads", "PoseVAE"]


class PoseVAE(nn.Module):
    """Variational auto-encoder of poses relative to their origin joint.

    Shape:
        pose [B, 3J] in units of `unit_mm`, the origin joint at 0.
        latent [B, 20].
    """

    def __init__(self, config: CrossingNetsConfig) -> None:
        super().__init__()
        self.noise = config.noise
        size = 3 * config.joints
        self.first = nn.Linear(size, config.hidden)
        self.mean = nn.Linear(config.hidden, config.pose_latent)
        self.log_variance = nn.Linear(config.hidden, config.pose_latent)
        self.decoder = nn.Sequential(
            nn.Linear(config.pose_latent, config.hidden),
            nn.LeakyReLU(config.decoder_slope),
            nn.Linear(config.hidden, size),
        )

    @torch.no_grad()
    def start_from_components(self, poses: Tensor) -> None:
        """First and last weights from the principal components of poses [N, 3J].

        Raises:
            ValueError: fewer poses than components.
        """
        hidden, size = self.first.weight.shape
        count = min(hidden, size)
        if len(poses) < count:
            raise ValueError(f"poses must be at least {count}, got {len(poses)}")
        mean = poses.double().mean(0)
        _, _, components = torch.linalg.svd(poses.double() - mean, full_matrices=False)
        part = components[:count].to(self.first.weight)
        self.first.weight[:count] = part
        self.first.bias[:count] = -(part @ mean.to(part))
        last = self.decoder[2]
        assert isinstance(last, nn.Linear)
        last.weight[:, :count] = part.T
        last.bias.copy_(mean)

    def encode(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3J] -> mean and log-variance, [B, 20] each."""
        hidden = torch.relu(self.first(pose))
        return self.mean(hidden), self.log_variance(hidden)

    def sample(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """A latent near its mean; the noise is drawn with the published standard deviation."""
        return mean + self.noise * torch.randn_like(mean) * (0.5 * log_variance).exp()

    def decode(self, latent: Tensor) -> Tensor:
        """[B, 20] -> [B, 3J]."""
        pose: Tensor = self.decoder(latent)
        return pose

    def forward(self, pose: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (reconstruction, mean, log-variance)."""
        mean, log_variance = self.encode(pose)
        return self.decode(self.sample(mean, log_variance)), mean, log_variance


class Alignment(nn.Module):
    """From the VAE's latent and the origin to the GAN's latent: [B, 23] -> [B, 23].

    Released code: a linear layer and batch normalisation; the paper: a linear layer and tanh.
    """

    def __init__(self, config: CrossingNetsConfig) -> None:
        super().__init__()
        linear = nn.Linear(config.latent, config.latent)
        norm = config.alignment == "batch_norm"
        last = nn.BatchNorm1d(config.latent, config.epsilon) if norm else nn.Tanh()
        self.layers = nn.Sequential(linear, last)

    def forward(self, latent: Tensor) -> Tensor:
        out: Tensor = self.layers(latent)
        return out


class DepthGenerator(nn.Module):
    """Latent [B, 23] -> depth map [B, 1, S, S], -1 (near) .. +1 (background)."""

    def __init__(self, config: CrossingNetsConfig) -> None:
        super().__init__()
        width, cells = config.channels, config.cells
        self.base = (width, cells, cells)
        features = width * cells * cells
        self.dense = nn.Sequential(
            nn.Linear(config.latent, features, bias=False),
            nn.BatchNorm1d(features, config.epsilon),
            nn.ReLU(),
        )
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [
                nn.ConvTranspose2d(width, width, 6, stride=2, padding=2, bias=False),
                nn.BatchNorm2d(width, config.epsilon),
                nn.ReLU(),
            ]
        layers += [nn.ConvTranspose2d(width, 1, 6, stride=2, padding=2), nn.Tanh()]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        start = self.dense(torch.tanh(latent)).unflatten(1, self.base)
        depth: Tensor = self.convolutions(start)
        return depth


def convolutions(config: CrossingNetsConfig, inputs: int, count: int) -> nn.Sequential:
    """`count` halvings: conv 6x6 stride 2, batch normalisation, LeakyReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, *[config.channels] * (count - 1)):
        layers += [
            nn.Conv2d(channels, config.channels, 6, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(config.channels, config.epsilon),
            nn.LeakyReLU(config.slope),
        ]
    return nn.Sequential(*layers)


class Heads(NamedTuple):
    """What the discriminator says of depth maps.

    realness [B] (logits); features [B, 32, 4, 4] of the GAN head, which the generator matches;
    posterior [B, 23]; metric [B, 23].
    """

    realness: Tensor
    features: Tensor
    posterior: Tensor
    metric: Tensor


class Discriminator(nn.Module):
    """Three heads on two shared convolutions: real or not, the latent, and a metric of it."""

    def __init__(self, config: CrossingNetsConfig) -> None:
        super().__init__()
        features = config.channels * config.cells**2
        self.shared = convolutions(config, 1, 2)
        self.gan = convolutions(config, config.channels, 3)
        self.realness = nn.Linear(features, 1)
        self.posterior = nn.Sequential(
            *convolutions(config, config.channels, 3),
            nn.Flatten(),
            nn.Linear(features, config.latent, bias=False),
            nn.BatchNorm1d(config.latent, config.epsilon),
            nn.LeakyReLU(config.posterior_slope),
            nn.Linear(config.latent, config.latent),
        )
        self.metric = nn.Sequential(
            *convolutions(config, config.channels, 3),
            nn.Flatten(),
            nn.Linear(features, config.metric),
            nn.LeakyReLU(config.slope),
            nn.Linear(config.metric, config.latent),
        )

    def forward(self, depth: Tensor) -> Heads:
        bottom = self.shared(depth)
        features = self.gan(bottom)
        realness = self.realness(features.flatten(1))[:, 0]
        return Heads(realness, features, self.posterior(bottom), self.metric(bottom))

    def estimate(self, depth: Tensor) -> Tensor:
        """The posterior alone: [B, 1, S, S] -> [B, 23]."""
        latent: Tensor = self.posterior(self.shared(depth))
        return latent


class CrossingNets(nn.Module):
    """All networks, and the ways between pose, latent and depth map.

    Joints are [B, J, 3], (joint - centre of the cube) / unit_mm; x right, y UP, z forward.
    """

    def __init__(self, config: CrossingNetsConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or CrossingNetsConfig()
        self.vae = PoseVAE(c)
        self.alignment = Alignment(c)
        self.generator = DepthGenerator(c)
        self.discriminator = Discriminator(c)

    def split(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Joints -> pose relative to the origin joint [B, 3J], origin [B, 3]."""
        origin = joints[:, self.config.origin_joint]
        return (joints - origin[:, None]).flatten(1), origin

    def latent_of(self, joints: Tensor) -> Tensor:
        """Joints -> shared latent [B, 23]: mean of the VAE's encoder, and the origin."""
        pose, origin = self.split(joints)
        return torch.cat((self.vae.encode(pose)[0], origin), 1)

    def joints_of(self, latent: Tensor) -> Tensor:
        """Shared latent [B, 23] -> joints [B, J, 3]."""
        size = self.config.pose_latent
        pose = self.vae.decode(latent[:, :size]).view(len(latent), -1, 3)
        return pose + latent[:, None, size:]

    def depth_of(self, latent: Tensor) -> Tensor:
        """Shared latent [B, 23] -> depth map [B, 1, S, S]."""
        depth: Tensor = self.generator(self.alignment(latent))
        return depth

    def estimate(self, depth: Tensor) -> Tensor:
        """Depth map [B, 1, S, S] -> joints [B, J, 3]: the published inference."""
        return self.joints_of(self.discriminator.estimate(depth))
