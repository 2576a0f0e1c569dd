"""Inverse interpolation (DPIG, CVPR 2018): the noise from which a mapper makes a given code.

Between two images whose codes were brought back to noise, all that lies on the line is noise, too,
and maps to codes of people. The authors' code has no more than flags for it: how the noise is found
is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dgpose.models.dpig import DPIG, Factor

__all__ = ["InversionConfig", "InvertedCodes", "invert_codes"]

_DRAWN = 64


@dataclass(frozen=True)
class InversionConfig:
    """How the noise is sought.

    Args:
        restarts: draws of noise to start from; the one that comes nearest is kept.
        steps: of Adam, whose step falls along half a cosine.
        learning_rate: of its first step, in standard deviations of the noise.
        noise_weight: of the mean square of the noise, in its variances, against the squared code
            error: holds it where noise is drawn from.

    Raises:
        ValueError: a value out of range.
    """

    restarts: int = 8
    steps: int = 400
    learning_rate: float = 0.1
    noise_weight: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("restarts", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not self.noise_weight >= 0:
            raise ValueError(f"noise_weight must not be negative, got {self.noise_weight}")


class InvertedCodes(NamedTuple):
    """The noise of B codes."""

    noise: Tensor  #: [B, D]
    codes: Tensor  #: [B, D], what it maps to
    error: Tensor  #: [B], distance from the codes asked for, over their length
    drawn_error: Tensor  #: [B], the same of drawn codes, in the mean


def invert_codes(
    model: DPIG,
    factor: Factor,
    codes: Tensor,
    *,
    config: InversionConfig | None = None,
    seed: int = 0,
) -> InvertedCodes:
    """Noise whose codes come as near as found to those asked for.

    Args:
        model: has a trained mapper of the factor; it is not changed.
        factor: whose codes these are.
        codes: [B, D].
        config: how to seek it.
        seed: of the noise to start from.

    Raises:
        ValueError: as `DPIG.map_noise`; codes of another shape, not finite, or 0 throughout.
    """
    config = InversionConfig() if config is None else config
    size = model.code_size(factor)
    if codes.dim() != 2 or codes.shape[1] != size:
        raise ValueError(f"codes must have shape [B, {size}], got {list(codes.shape)}")
    lengths = codes.norm(dim=1)
    if not bool((lengths > 0).all() and lengths.isfinite().all()):
        raise ValueError("codes must be finite, and not 0 throughout")
    wanted = codes.detach()
    random = torch.Generator().manual_seed(seed)
    starts = model.sample_noise(factor, len(codes) * config.restarts, random)
    target = wanted.repeat_interleave(config.restarts, 0)
    scale = lengths.repeat_interleave(config.restarts)
    std = model.config.noise_std
    with torch.enable_grad():
        unit = (starts / std).requires_grad_()
        adam = torch.optim.Adam([unit], config.learning_rate)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, config.steps)
        for _ in range(config.steps):
            off = (model.map_noise(factor, std * unit) - target).norm(dim=1) / scale
            loss = off.square() + config.noise_weight * unit.square().mean(1)
            (unit.grad,) = torch.autograd.grad(loss.sum(), [unit])
            adam.step()
            falling.step()
    with torch.no_grad():
        noise = std * unit.detach()
        found = model.map_noise(factor, noise)
        errors = ((found - target).norm(dim=1) / scale).view(len(codes), -1)
        best = errors.argmin(1) + config.restarts * torch.arange(len(codes), device=codes.device)
        drawn = model.sample(factor, _DRAWN, random)
        away = torch.cdist(wanted, drawn).mean(1) / lengths
    return InvertedCodes(noise[best], found[best], errors.amin(1), away)
