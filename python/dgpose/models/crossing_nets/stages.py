"""One step of each training stage: which networks run on what, and which losses teach whom.

The generator's side (generator, alignment) and the discriminator's side see one forward pass and
are updated together, each by its own loss: `GameLosses.backward` fills the gradients of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dgpose.models.crossing_nets.config import JointWeights
from dgpose.models.crossing_nets.losses import (
    adversarial_loss,
    feature_matching_loss,
    mixtures,
    posterior_loss,
    reconstruction_loss,
    smoothness_loss,
    vae_loss,
)
from dgpose.models.crossing_nets.networks import CrossingNets

__all__ = ["GameLosses", "LatentMixture", "gan_losses", "joint_losses", "vae_losses"]

_MIXED = 5  # latents of the batch in a convex combination


@dataclass(frozen=True)
class LatentMixture:
    """Which latents of a batch are mixed, and how: weights [B, 5], rows [B, 5]."""

    weights: Tensor
    rows: Tensor

    @classmethod
    def draw(cls, batch: int, generator: torch.Generator) -> LatentMixture:
        """Uniform weights of random rows."""
        weights = torch.rand(batch, _MIXED, generator=generator)
        return cls(weights, torch.randint(batch, (batch, _MIXED), generator=generator))


@dataclass(frozen=True)
class GameLosses:
    """Losses of the two sides, and their terms for the log."""

    generator: Tensor
    discriminator: Tensor
    terms: dict[str, Tensor]

    def backward(
        self,
        generator_side: Sequence[nn.Parameter],
        discriminator_side: Sequence[nn.Parameter],
    ) -> None:
        """Sets the gradients of both sides, each from its own loss."""
        sides = (
            (self.generator, generator_side, True),
            (self.discriminator, discriminator_side, False),
        )
        for loss, parameters, retain in sides:
            wanted = [p for p in parameters if p.requires_grad]
            gradients = torch.autograd.grad(loss, wanted, retain_graph=retain, allow_unused=True)
            for parameter, gradient in zip(wanted, gradients, strict=True):
                parameter.grad = gradient


def generator_side(nets: CrossingNets, warm_up: bool = False) -> Iterator[nn.Parameter]:
    """What the generator's loss teaches; in the warm-up the alignment alone."""
    yield from nets.alignment.parameters()
    if not warm_up:
        yield from nets.generator.parameters()


def discriminator_side(nets: CrossingNets, warm_up: bool = False) -> Iterator[nn.Parameter]:
    """What the discriminator's loss teaches; in the warm-up the posterior and metric heads."""
    yield from nets.discriminator.posterior.parameters()
    yield from nets.discriminator.metric.parameters()
    if not warm_up:
        for part in ("shared", "gan", "realness"):
            yield from nets.discriminator.get_submodule(part).parameters()


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Generated maps must not move the batch statistics that real ones are estimated with."""
    norms = [m for m in module.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def vae_losses(nets: CrossingNets, joints: Tensor) -> Tensor:
    """Stage 1, poses alone: joints [B, J, 3] -> loss."""
    pose, _ = nets.split(joints)
    decoded, mean, log_variance = nets.vae(pose)
    return vae_loss(pose, decoded, mean, log_variance)


def gan_losses(nets: CrossingNets, depth: Tensor, latent: Tensor) -> GameLosses:
    """Stage 2, depth maps alone: real ones [B, 1, S, S], and latents [B, 23] to generate from."""
    real = nets.discriminator(depth)
    with _statistics_kept(nets.discriminator):
        made = nets.discriminator(nets.generator(latent))
    terms = {
        "feature_matching": feature_matching_loss(real.features, made.features),
        "adversarial": adversarial_loss(real.realness, made.realness),
    }
    return GameLosses(terms["feature_matching"], terms["adversarial"], terms)


def joint_losses(
    nets: CrossingNets,
    depth: Tensor,
    joints: Tensor,
    mixture: LatentMixture,
    unlabelled: Tensor | None = None,
    *,
    weights: JointWeights | None = None,
) -> GameLosses:
    """Stage 3: everything, on the shared latent.

    An unlabelled frame has no latent: it enters the adversarial and feature-matching terms (and the
    cycle term, where that has a weight), no others.

    Args:
        nets: all networks; the VAE is not taught.
        depth, joints: B labelled frames [B, 1, S, S], [B, J, 3].
        mixture: how z_r is made from their latents.
        unlabelled: more depth maps [U, 1, S, S].
        weights: of the terms; the configuration's where None.
    """
    w = weights or nets.config.weights
    count = len(depth)
    with torch.no_grad():
        latent = nets.latent_of(joints)
        other = mixtures(latent, mixture.weights.to(latent), mixture.rows.to(latent.device))
    generated = nets.depth_of(torch.cat((latent, other)))
    frames = depth if unlabelled is None else torch.cat((depth, unlabelled))
    real = nets.discriminator(frames)
    with _statistics_kept(nets.discriminator):
        made = nets.discriminator(generated)
    terms = {
        "reconstruction": reconstruction_loss(
            depth, generated[:count], nets.config.clip_reconstruction
        ),
        "posterior": posterior_loss(real.posterior[:count], latent),
        "smoothness": smoothness_loss(
            latent, other, real.metric[:count], made.metric[count:], made.metric[:count]
        ),
        "adversarial": adversarial_loss(real.realness, made.realness),
        "feature_matching": feature_matching_loss(real.features, made.features),
        "generated_posterior": posterior_loss(made.posterior, torch.cat((latent, other))),
    }
    if unlabelled is not None and w.cycle:
        again = nets.depth_of(real.posterior[count:])
        terms["cycle"] = reconstruction_loss(unlabelled, again, nets.config.clip_reconstruction)
    shared = w.smoothness * terms["smoothness"]
    generator = (
        shared
        + w.reconstruction * terms["reconstruction"]
        + w.feature_matching * terms["feature_matching"]
    )
    discriminator = (
        shared
        + w.posterior * terms["posterior"]
        + w.adversarial * terms["adversarial"]
        + w.generated_posterior * terms["generated_posterior"]
    )
    if "cycle" in terms:
        generator = generator + w.cycle * terms["cycle"]
        discriminator = discriminator + w.cycle * terms["cycle"]
    return GameLosses(generator, discriminator, {k: v.detach() for k, v in terms.items()})
