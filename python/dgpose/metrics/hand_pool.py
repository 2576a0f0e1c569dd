"""What Crossing Nets estimate on a pool of crops, and how far that is from the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data.hand_pool import UNIT_MM, HandPool
from dgpose.models.crossing_nets.networks import CrossingNets

__all__ = ["joint_distances", "pool_errors", "pool_estimates"]


@torch.no_grad()
def pool_estimates(nets: CrossingNets, pool: HandPool, *, batch: int = 500) -> Tensor:
    """Estimated joints `[N, J, 3]` as in a pool: (joint - centre of the cube) / 50 mm.

    Args:
        nets: in eval mode.
        pool: frames; their labels do not matter here.
        batch: frames at once.

    Raises:
        ValueError: networks in training mode.
    """
    if nets.training:
        raise ValueError("nets must be in eval mode")
    device = next(nets.parameters()).device
    estimates = []
    for part in torch.split(pool.depth, batch):
        estimates.append(nets.estimate(part.to(device, torch.float32)).cpu())
    return torch.cat(estimates)


def pool_errors(
    nets: CrossingNets, pool: HandPool, joints: Sequence[int], *, batch: int = 500
) -> npt.NDArray[np.float64]:
    """Distance in mm of each estimated joint from its label, `[N, len(joints)]`.

    Args:
        nets: in eval mode.
        pool: frames with labels; which of them training may use does not matter here.
        joints: the scored ones, rows of the label.
        batch: frames at once.

    Raises:
        ValueError: networks in training mode.
    """
    return joint_distances(pool_estimates(nets, pool, batch=batch), pool.joints, joints).numpy()


def joint_distances(one: Tensor, other: Tensor, joints: Sequence[int]) -> Tensor:
    """Distances in mm `[N, len(joints)]` float64 of these joints of `[N, J, 3]` as in a pool."""
    distance: Tensor = (one - other)[:, list(joints)].double().norm(dim=-1)
    return distance * UNIT_MM
