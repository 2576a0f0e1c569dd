"""Where the training poses lie in the shared latent space: what random hands are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgpose.models.crossing_nets.networks import CrossingNets

__all__ = ["LatentDistribution"]


@dataclass(frozen=True, eq=False)
class LatentDistribution:
    """Independent normal distributions of the shared latent's numbers.

    The pose VAE's prior, N(0, 1), is not it: the noise in training is small (0.05), so the poses
    fill a fraction of the prior's space, and what lies outside is no hand.

    Attributes:
        mean, std: [L], L as `CrossingNetsConfig.latent`.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, nets: CrossingNets, joints: Tensor) -> LatentDistribution:
        """That of poses [N, J, 3] in `unit_mm`, relative to the cube's centre."""
        latent = nets.latent_of(joints)
        return cls(latent.mean(0).cpu(), latent.std(0, unbiased=False).cpu())

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> LatentDistribution:
        """That of the poses a weight file was trained with.

        Raises:
            ValueError: the file does not say it.
        """
        try:
            return cls(torch.tensor(facts["latent_mean"]), torch.tensor(facts["latent_std"]))
        except KeyError:
            raise ValueError(
                "the weight file must say latent_mean and latent_std of its training poses for "
                "random hands, and does not"
            ) from None

    def facts(self) -> dict[str, list[float]]:
        """For the weight file."""
        return {
            f"latent_{name}": [round(float(value), 5) for value in values]
            for name, values in (("mean", self.mean), ("std", self.std))
        }

    def draw(self, count: int, seed: int) -> Tensor:
        """Random latents [count, L] on the CPU; the same seed, the same hands."""
        noise = torch.randn((count, len(self.mean)), generator=torch.Generator().manual_seed(seed))
        return self.mean + self.std * noise
