"""One step of each training stage: which networks run on what, and which losses teach whom.

The generator's side (generator, alignment) and the discriminator's side see one forward pass and
are updated together, each by its own loss: `StageLosses.backward` fills the gradients of both.
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

__all__ = ["LatentMixture", "StageLosses", "gan_losses", "joint_losses", "vae_losses"]

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
class StageLosses:
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
            if not loss.requires_grad:  # no term of this side has a weight
                continue
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
    if nets.discriminator.direct is not None:
        yield from nets.discriminator.direct.parameters()
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


def gan_losses(nets: CrossingNets, depth: Tensor, latent: Tensor) -> StageLosses:
    """Stage 2, depth maps alone: real ones [B, 1, S, S], and latents [B, 23] to generate from."""
    discriminator = nets.discriminator
    real = discriminator.discriminate(discriminator.shared(depth))
    with _statistics_kept(discriminator):
        made = discriminator.discriminate(discriminator.shared(nets.generator(latent)))
    terms = {
        "feature_matching": feature_matching_loss(real.features, made.features),
        "adversarial": adversarial_loss(real.logits, made.logits),
    }
    return StageLosses(terms["feature_matching"], terms["adversarial"], terms)


def joint_losses(
    nets: CrossingNets,
    depth: Tensor,
    joints: Tensor,
    mixture: LatentMixture,
    unlabelled: Tensor | None = None,
    *,
    weights: JointWeights | None = None,
) -> StageLosses:
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
    count, discriminator = len(depth), nets.discriminator
    with torch.no_grad():
        latent = nets.latent_of(joints)
        other = mixtures(latent, mixture.weights.to(latent), mixture.rows.to(latent.device))
    if unlabelled is None or not (w.uses_gan or w.cycle):
        unlabelled = depth[:0]
    real = discriminator.shared(torch.cat((depth, unlabelled)))
    estimate = discriminator.estimate(real)
    terms = {"posterior": posterior_loss(estimate.latent[:count], latent)}
    if estimate.correction is not None:
        made_joints = nets.joints_from(estimate)[:count]
        terms["direct"] = (made_joints - joints).square().mean()
    if w.generates_from_labels:
        discriminated = w.uses_gan or w.smoothness > 0 or w.generated_posterior > 0
        latents = torch.cat((latent, other)) if discriminated else latent
        generated = nets.depth_of(latents)
        terms["reconstruction"] = reconstruction_loss(
            depth, generated[:count], nets.config.clip_reconstruction
        )
        if discriminated:
            terms |= _discriminated_terms(nets, w, latents, generated, real)
    if w.cycle and len(unlabelled):
        again_depth = nets.depth_of(estimate.latent[count:])
        terms["cycle"] = reconstruction_loss(
            unlabelled, again_depth, nets.config.clip_reconstruction
        )

    def weighted(*names: str) -> Tensor:
        used = (getattr(w, name) * terms[name] for name in names if name in terms)
        return sum(used, start=latent.new_zeros(()))

    return StageLosses(
        weighted("reconstruction", "smoothness", "feature_matching", "cycle"),
        weighted(
            "posterior", "direct", "smoothness", "adversarial", "generated_posterior", "cycle"
        ),
        {name: value.detach() for name, value in terms.items()},
    )


def _discriminated_terms(
    nets: CrossingNets, w: JointWeights, latents: Tensor, generated: Tensor, real: Tensor
) -> dict[str, Tensor]:
    """Terms for which the discriminator looks at generated maps, those of z_l and then of z_r.

    Args:
        nets: all networks.
        w: terms without weight are left out.
        latents: z_l, z_r [2B, 23].
        generated: maps of them [2B, 1, S, S].
        real: shared features of real maps, those of z_l first.
    """
    discriminator, count = nets.discriminator, len(latents) // 2
    terms = {}
    with _statistics_kept(discriminator):
        made = discriminator.shared(generated)
        made_metric = discriminator.metric(made) if w.smoothness else None
        made_gan = discriminator.discriminate(made) if w.uses_gan else None
        if w.generated_posterior:
            again = discriminator.estimate(made).latent
            terms["generated_posterior"] = posterior_loss(again, latents)
    if made_metric is not None:
        metric = discriminator.metric(real[:count])
        terms["smoothness"] = smoothness_loss(
            latents[:count], latents[count:], metric, made_metric[count:], made_metric[:count]
        )
    if made_gan is not None:
        real_gan = discriminator.discriminate(real)
        terms["adversarial"] = adversarial_loss(real_gan.logits, made_gan.logits)
        terms["feature_matching"] = feature_matching_loss(real_gan.features, made_gan.features)
    return terms
