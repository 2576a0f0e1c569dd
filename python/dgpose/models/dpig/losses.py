"""The losses of all stages."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgpose.models.dpig.config import DPIGConfig
from dgpose.models.dpig.dense_networks import Critic
from dgpose.models.dpig.model import DPIG
from dgpose.models.dpig.networks import Discriminator
from dgpose.models.dpig.pose_inputs import PoseInputs, normalized_coordinates

__all__ = [
    "Rebuilt",
    "clip_weights",
    "critic_loss",
    "discriminator_loss",
    "generator_losses",
    "mapper_loss",
    "pose_losses",
    "rebuild",
]


class Rebuilt(NamedTuple):
    """What stage 1 makes of a batch."""

    images: Tensor  #: [B, 3, H, W] for pixels in [-1, 1]
    truth: Tensor  #: [B, 3, H, W] in [-1, 1]
    mask: Tensor  #: [B, 1, H, W] of the foreground
    codes: tuple[Tensor, ...]  #: foreground and, where there is one, background, without noise


def rebuild(
    model: DPIG, images: Tensor, pose: PoseInputs, generator: torch.Generator | None = None
) -> Rebuilt:
    """Images [B, 3, H, W] in [0, 1] encoded and decoded in the same pose, with `code_noise` on the
    codes; `generator` on the CPU."""
    truth = 2 * images - 1
    foreground, background = model.encoder(truth, pose)
    codes = (foreground,) if background is None else (foreground, background)
    noisy = [_with_noise(code, model.config.code_noise, generator) for code in codes]
    rebuilt = model.decoder(noisy[0], None if background is None else noisy[1], pose)
    return Rebuilt(rebuilt, truth, pose.mask, codes)


def _with_noise(code: Tensor, std: float, generator: torch.Generator | None) -> Tensor:
    if std == 0:
        return code
    return code + std * torch.randn(code.shape, generator=generator).to(code)


def generator_losses(
    config: DPIGConfig, discriminator: Discriminator | None, rebuilt: Rebuilt
) -> dict[str, Tensor]:
    """The weighted terms of stage 1's loss of all networks but the discriminator, by name."""
    apart = (rebuilt.images - rebuilt.truth).abs()
    if config.body_weight:
        apart = apart * (1 + config.body_weight * rebuilt.mask)
    terms = {"l1": config.l1_weight * apart.mean()}
    if config.code_weight:
        squares = torch.stack([code.square().mean() for code in rebuilt.codes])
        terms["codes"] = config.code_weight * squares.sum()
    if discriminator is not None:
        scores = discriminator(rebuilt.images)
        fooled = -scores if config.gan_loss == "hinge" else F.softplus(-scores)
        terms["adversarial"] = config.adversarial_weight * fooled.mean()
    return terms


def discriminator_loss(
    config: DPIGConfig, discriminator: Discriminator, rebuilt: Rebuilt
) -> Tensor:
    """That of true images against rebuilt ones, whose generator learns nothing by it."""
    true = discriminator(rebuilt.truth)
    false = discriminator(rebuilt.images.detach())
    if config.gan_loss == "hinge":
        return F.relu(1 - true).mean() + F.relu(1 + false).mean()
    return F.softplus(-true).mean() + F.softplus(false).mean()


def pose_losses(model: DPIG, keypoints_px: Tensor, visible: Tensor) -> dict[str, Tensor]:
    """The pose autoencoder's mean squared error over the 54 numbers of a pose: 36 coordinates in
    [-1, 1], of which those of visible joints count (in the authors' code all), and 18 visibilities.

    Args:
        model: its autoencoder is run.
        keypoints_px: [B, 18, 2] in pixels.
        visible: [B, 18] bool.
    """
    given = normalized_coordinates(keypoints_px, visible, model.config)
    coordinates, visibility = model.pose_decoder(model.pose_encoder(given, visible))
    count = visible.numel() * 3
    apart = (coordinates - given).where(visible[..., None], 0).square().sum() / count
    wrong = (visibility - visible.to(visibility)).square().sum() / count
    weight = model.config.pose_weight
    return {"coordinates": weight * apart, "visibility": weight * wrong}


def critic_loss(
    config: DPIGConfig,
    critic: Critic,
    codes: Tensor,
    mapped: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """WGAN's: mean score of mapped codes [B, D] less that of true ones [B, D], whose networks learn
    nothing by it; with `gradient_penalty` the penalty at random points between them (Gulrajani et
    al., 2017), whose `generator` is on the CPU."""
    true, false = critic.seen(codes.detach()), critic.seen(mapped.detach())
    loss: Tensor = critic.score(false).mean() - critic.score(true).mean()
    if config.gradient_penalty:
        shares = torch.rand(len(true), 1, generator=generator).to(true)
        between = (true + shares * (false - true)).requires_grad_()
        (gradient,) = torch.autograd.grad(critic.score(between).sum(), between, create_graph=True)
        loss = loss + config.gradient_penalty * (gradient.norm(dim=1) - 1).square().mean()
    return loss


def mapper_loss(critic: Critic, mapped: Tensor) -> Tensor:
    """What a mapper minimises: the mean score of its codes [B, D], negated."""
    loss: Tensor = -critic(mapped).mean()
    return loss


@torch.no_grad()
def clip_weights(critic: Critic, limit: float) -> None:
    """Holds a critic's weights within [-limit, limit], after each of its steps."""
    for weight in critic.parameters():
        weight.clamp_(-limit, limit)
