"""The losses of the three stages (Wan et al., CVPR 2017, and the released training code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "adversarial_loss",
    "feature_matching_loss",
    "posterior_loss",
    "reconstruction_loss",
    "smoothness_loss",
    "vae_loss",
]


def vae_loss(pose: Tensor, decoded: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Mean over the batch of KL(N(mean, variance) || N(0, 1)) + 0.5 |pose - decoded|^2."""
    divergence = 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(1)
    return (divergence + 0.5 * (pose - decoded).square().sum(1)).mean()


def reconstruction_loss(depth: Tensor, generated: Tensor, clip: float | None = 1.0) -> Tensor:
    """L_recons: mean over pixels of min((x - G(Ali(z)))^2, clip)."""
    error = (depth - generated).square()
    return (error if clip is None else error.clamp_max(clip)).mean()


def posterior_loss(estimated: Tensor, latent: Tensor) -> Tensor:
    """L_pos: mean of (pos(x) - z)^2."""
    return (estimated - latent).square().mean()


def smoothness_loss(
    latent: Tensor, other: Tensor, metric: Tensor, other_metric: Tensor, generated_metric: Tensor
) -> Tensor:
    """L_smo: differences of the metric head are differences of latents, [B, 23] all.

    mean of (z_l - z_r - (m(x_l) - m(x_r')))^2 + (m(x_l) - m(x_l'))^2; x' are generated from z.

    Args:
        latent, other: z_l of labelled frames; z_r, mixtures of them.
        metric, generated_metric: the head's values of the frames and of those generated from z_l.
        other_metric: of those generated from z_r.
    """
    distances = (latent - other - (metric - other_metric)).square().mean()
    return distances + (metric - generated_metric).square().mean()


def adversarial_loss(real: Tensor, *generated: Tensor) -> Tensor:
    """L_gan: binary cross-entropy of logits [B], real against generated, halves weighted alike."""
    of_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    made = torch.cat(generated)
    return of_real + F.binary_cross_entropy_with_logits(made, torch.zeros_like(made))


def feature_matching_loss(real: Tensor, generated: Tensor) -> Tensor:
    """L1 distance of batch means of the GAN head's last features (Salimans et al., 2016)."""
    return (real.detach().mean(0) - generated.mean(0)).abs().mean()


def mixtures(latent: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """Convex combinations [B, L] of latents [B, L]: weights [B, 5] >= 0, rows `chosen` [B, 5]."""
    shares = weights / weights.sum(1, keepdim=True)
    return (shares[:, :, None] * latent[chosen]).sum(1)
