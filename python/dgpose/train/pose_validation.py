"""How well a max-margin model finds poses among candidates, while it is trained."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dgpose.data.pose_pool import PosePool
from dgpose.models.max_margin.networks import MaxMarginModel
from dgpose.models.max_margin.violators import embed_all
from dgpose_ext import inner_product_topk

__all__ = ["RetrievalErrors", "retrieval_errors"]

_AVERAGED = 20
_IMAGES_AT_ONCE = 256


class RetrievalErrors(NamedTuple):
    """Mean joint distance in mm, over the images and 17 joints, of poses relative to the hip; NaN
    for what a model does not estimate."""

    best_mm: float  #: the candidate with the highest score ("Max")
    average_mm: float  #: the mean of the 20 best ("Avg(20)")
    auxiliary_mm: float  #: what the auxiliary head regresses


@torch.no_grad()
def retrieval_errors(model: MaxMarginModel, pool: PosePool, candidates: Tensor) -> RetrievalErrors:
    """Errors of a model in evaluation mode.

    Args:
        model: on any device.
        pool: images and their true poses.
        candidates: poses [N, 17, 3] mm, relative to the hip.
    """
    device = next(model.parameters()).device
    retrieves = model.config.loss != "none"
    candidates = candidates.to(device)
    embeddings = embed_all(model.pose_network, candidates) if retrieves else None
    totals = torch.zeros(3, dtype=torch.float64)
    for first in range(0, len(pool), _IMAGES_AT_ONCE):
        part = slice(first, first + _IMAGES_AT_ONCE)
        images, poses = pool.images[part].to(device), pool.poses[part].to(device)
        errors = [torch.full((len(poses),), torch.nan)] * 3
        if embeddings is not None:
            count = min(_AVERAGED, len(candidates))
            _, rows = inner_product_topk(model.embed_images(images), embeddings, count)
            found = candidates[rows]
            errors[:2] = _distance(found[:, 0], poses), _distance(found.mean(1), poses)
        if model.auxiliary is not None:
            errors[2] = _distance(model.estimate_auxiliary(images), poses)
        totals += torch.stack([error.double().cpu().sum() for error in errors])
    return RetrievalErrors(*(totals / len(pool)).tolist())


def _distance(estimates: Tensor, poses: Tensor) -> Tensor:
    distance: Tensor = (estimates - poses).norm(dim=2).mean(1)
    return distance
