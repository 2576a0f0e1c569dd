"""Gaussian posteriors of latents, and priors fitted to data."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["FittedGaussian", "Gaussian"]


class Gaussian(NamedTuple):
    """Independent Gaussians: a posterior q(. | image)."""

    mean: Tensor  #: [B, D]
    log_variance: Tensor  #: [B, D]

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw [B, D], differentiable in mean and log-variance; `generator` on the CPU."""
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return self.mean + noise * (0.5 * self.log_variance).exp()

    def divergence(self) -> Tensor:
        """KL(q || N(0, 1)) in nats, [B]."""
        mean, log_variance = self.mean.float(), self.log_variance.float()
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


class FittedGaussian(nn.Module):
    """A Gaussian fitted to rows of data; N(0, 1) until then.

    Args:
        size: D, numbers of a row.
        diagonal: whether the numbers are taken as independent.
    """

    _LEAST_VARIANCE = 1e-6

    def __init__(self, size: int, *, diagonal: bool = False) -> None:
        super().__init__()
        self.diagonal = diagonal
        self.mean: Tensor
        self.scale: Tensor  # lower triangular: the covariance is scale scale^T
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.eye(size))

    def fit(self, rows: Tensor, known: Tensor | None = None) -> None:
        """Mean and covariance of rows [N, D]; `known` [N, D] says which numbers count.

        Each mean and variance is that of the known numbers; a pair's covariance, of rows that know
        both, shrinks by the share of rows that don't, so that the matrix stays positive.

        Raises:
            ValueError: a number that fewer than two rows know.
        """
        values = rows.detach().double()
        there = torch.ones_like(values) if known is None else known.to(values)
        counts = there.sum(0)
        if bool((counts < 2).any()):
            raise ValueError(
                "each number of a fitted Gaussian must be known in at least 2 rows, "
                f"got {int(counts.min())}"
            )
        mean = (values * there).nan_to_num().sum(0) / counts
        centred = torch.where(there > 0, values - mean, 0)
        covariance = centred.T @ centred / (counts[:, None] * counts[None]).sqrt()
        covariance += self._LEAST_VARIANCE * torch.eye(len(mean)).to(covariance)
        if self.diagonal:
            covariance = covariance.diagonal().diag()
        self.mean.copy_(mean)
        self.scale.copy_(torch.linalg.cholesky(covariance))

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws [count, D]; `generator` on the CPU."""
        return self.colored(torch.randn(count, len(self.mean), generator=generator).to(self.mean))

    def colored(self, white: Tensor) -> Tensor:
        """Draws of N(0, 1) [B, D] as draws of this one [B, D]."""
        with torch.autocast(white.device.type, enabled=False):  # 8 bits would not do
            return self.mean + white.float() @ self.scale.T

    def whitened(self, rows: Tensor) -> Tensor:
        """The inverse of `colored`."""
        with torch.autocast(rows.device.type, enabled=False):
            apart = (rows.float() - self.mean).T
            white: Tensor = torch.linalg.solve_triangular(self.scale, apart, upper=False)
            return white.T

    def divergence(self, posterior: Gaussian) -> Tensor:
        """KL(posterior || this) in nats, [B]."""
        mean, log_variance = posterior.mean.float(), posterior.log_variance.float()
        precision_root = torch.linalg.solve_triangular(
            self.scale, torch.eye(len(self.mean)).to(self.scale), upper=False
        )
        with torch.autocast(mean.device.type, enabled=False):  # 8 bits would not do
            apart = (mean - self.mean) @ precision_root.T
            traces = log_variance.exp() @ precision_root.square().sum(0)
        log_determinant = 2 * self.scale.diagonal().log().sum()
        nats: Tensor = 0.5 * (
            traces + apart.square().sum(1) - mean.shape[1] + log_determinant - log_variance.sum(1)
        )
        return nats
