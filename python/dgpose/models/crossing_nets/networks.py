"""The networks of Crossing Nets: pose VAE, depth generator, discriminator with three heads,
alignment of the two latent spaces.

Sizes are those of the released training code where the paper is silent; see CrossingNetsConfig.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgpose.models.crossing_nets.config import CrossingNetsConfig

__all__ = ["Alignment", "CrossingNets", "DepthGenerator", "Discriminator", "PoseVAE"]


class PoseVAE(nn.Module):
    """Variational auto-encoder of poses relative to their origin joint.

    Shape:
        pose [B, 3J] in units of `unit_mm`, the origin joint at 0.
        latent [B, 20].
    """

    def __init__(self, config: CrossingNetsConfig | None = None) -> None:
        super().__init__()
        config = config or CrossingNetsConfig()
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

    def __init__(self, config: CrossingNetsConfig | None = None) -> None:
        super().__init__()
        config = config or CrossingNetsConfig()
        linear = nn.Linear(config.latent, config.latent)
        norm = config.alignment == "batch_norm"
        last = nn.BatchNorm1d(config.latent, config.epsilon) if norm else nn.Tanh()
        self.layers = nn.Sequential(linear, last)

    def forward(self, latent: Tensor) -> Tensor:
        out: Tensor = self.layers(latent)
        return out


class DepthGenerator(nn.Module):
    """Latent [B, 23] -> depth map [B, 1, S, S], -1 (near) .. +1 (background)."""

    def __init__(self, config: CrossingNetsConfig | None = None) -> None:
        super().__init__()
        config = config or CrossingNetsConfig()
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


class GanOutput(NamedTuple):
    """What the GAN head says: logits [B], and the features [B, 32, 4, 4] the generator matches."""

    logits: Tensor
    features: Tensor


class Estimate(NamedTuple):
    """What the posterior head says: latent [B, 23], and the correction of the joints [B, J, 3] in
    `unit_mm`, or None where the configuration has no direct head."""

    latent: Tensor
    correction: Tensor | None


class Heads(NamedTuple):
    """What all three heads say of depth maps; metric [B, 23]."""

    gan: GanOutput
    estimate: Estimate
    metric: Tensor


class Discriminator(nn.Module):
    """Three heads on two shared convolutions: real or not, the latent, and a metric of it.

    Each head alone takes `shared(depth)` [B, 32, S / 4, S / 4]; the module gives all three.
    """

    def __init__(self, config: CrossingNetsConfig | None = None) -> None:
        super().__init__()
        config = config or CrossingNetsConfig()
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
        self.direct: nn.Linear | None = None
        if config.direct_head:
            self.direct = nn.Linear(features, 3 * config.joints)
            nn.init.zeros_(self.direct.weight)
            nn.init.zeros_(self.direct.bias)

    def forward(self, depth: Tensor) -> Heads:
        """All heads of depth maps [B, 1, S, S]."""
        bottom = self.shared(depth)
        return Heads(self.discriminate(bottom), self.estimate(bottom), self.metric(bottom))

    def discriminate(self, bottom: Tensor) -> GanOutput:
        """The GAN head."""
        features = self.gan(bottom)
        return GanOutput(self.realness(features.flatten(1))[:, 0], features)

    def estimate(self, bottom: Tensor) -> Estimate:
        """The posterior head."""
        features = self.posterior[:FLAT](bottom)
        latent = self.posterior[FLAT:](features)
        correction = None
        if self.direct is not None:
            correction = self.direct(features).view(len(features), -1, 3)
        return Estimate(latent, correction)


FLAT = 10
"""Layers of the posterior head that end in its flat features."""


def palm_rotation(joints: Tensor, palm: tuple[int, int, int]) -> Tensor:
    """Palm axes [B, 3, 3] as rows: x from little finger to index, y from wrist to fingers, z."""
    wrist, index, little = (joints[:, joint] for joint in palm)
    return orthonormal((index + little) / 2 - wrist, index - little)


def orthonormal(up: Tensor, side: Tensor) -> Tensor:
    """Axes [B, 3, 3] as rows from two directions [B, 3]: y along the first, x across it."""
    y = F.normalize(up, dim=1)
    x = F.normalize(side - y * (y * side).sum(1, keepdim=True), dim=1)
    return torch.stack((x, y, torch.linalg.cross(x, y)), 1)


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
        """Joints -> pose relative to the origin joint [B, 3J], and its place [B, 3 or 9]: origin,
        and the palm's axes y and x where poses are turned into the palm's frame."""
        origin = joints[:, self.config.origin_joint]
        pose = joints - origin[:, None]
        if self.config.palm_joints is None:
            return pose.flatten(1), origin
        axes = palm_rotation(joints, self.config.palm_joints)
        pose = pose @ axes.transpose(1, 2)
        return pose.flatten(1), torch.cat((origin, axes[:, 1], axes[:, 0]), 1)

    def latent_of(self, joints: Tensor) -> Tensor:
        """Joints -> shared latent [B, 23]: mean of the VAE's encoder, and the place."""
        pose, place = self.split(joints)
        return torch.cat((self.vae.encode(pose)[0], place), 1)

    def joints_of(self, latent: Tensor) -> Tensor:
        """Shared latent [B, 23] -> joints [B, J, 3]."""
        size = self.config.pose_latent
        pose = self.vae.decode(latent[:, :size]).view(len(latent), -1, 3)
        origin, axes = latent[:, size : size + 3], latent[:, size + 3 :]
        if self.config.palm_joints is not None:
            pose = pose @ orthonormal(axes[:, :3], axes[:, 3:])
        return pose + origin[:, None]

    def depth_of(self, latent: Tensor) -> Tensor:
        """Shared latent [B, 23] -> depth map [B, 1, S, S]."""
        depth: Tensor = self.generator(self.alignment(latent))
        return depth

    def posterior_of(self, depth: Tensor) -> Estimate:
        """Depth map [B, 1, S, S] -> latent and, with a direct head, correction of the joints."""
        return self.discriminator.estimate(self.discriminator.shared(depth))

    def estimate(self, depth: Tensor) -> Tensor:
        """Depth map [B, 1, S, S] -> joints [B, J, 3]: the published inference, and the direct
        head's correction where there is one."""
        return self.joints_from(self.posterior_of(depth))

    def joints_from(self, estimate: Estimate) -> Tensor:
        """The joints [B, J, 3] of an estimate of the posterior head."""
        joints = self.joints_of(estimate.latent)
        return joints if estimate.correction is None else joints + estimate.correction
