"""Joint errors of Crossing Nets on a pool of crops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from dgpose.data.hand_pool import UNIT_MM, HandPool
from dgpose.models.crossing_nets.networks import CrossingNets

__all__ = ["pool_errors"]


@torch.no_grad()
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
    if nets.training:
        raise ValueError("nets must be in eval mode")
    device = next(nets.parameters()).device
    errors = []
    for part in torch.split(torch.arange(len(pool)), batch):
        estimated = nets.estimate(pool.depth[part].to(device, torch.float32)).cpu()
        difference = (estimated - pool.joints[part])[:, list(joints)]
        errors.append(difference.double().norm(dim=-1) * UNIT_MM)
    return np.asarray(torch.cat(errors).numpy())
