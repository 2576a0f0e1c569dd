"""max_margin_loss in plain torch. Maths: csrc/scoring/max_margin_loss.h."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpose_ext.reference.scoring._search import inner_products, mean_joint_distances


def _row_products(a: Tensor, b: Tensor) -> Tensor:
    """The defined sums of a[i].b[i] in float64."""
    pairs = [inner_products(x[None], y[None])[0, 0] for x, y in zip(a, b, strict=True)]
    return torch.stack(pairs) if pairs else a.new_zeros(0, dtype=torch.float64)


def max_margin_loss(
    queries: Tensor,
    candidates: Tensor,
    poses: Tensor,
    targets: Tensor,
    positives: Tensor,
    violators: Tensor,
    margin_weight: float,
) -> Tensor:
    """losses [B] in the dtype of queries; 0 where a violator is none of the candidates."""
    losses = queries.new_zeros(len(queries))
    (there,) = torch.where((violators >= 0) & (violators < len(candidates)))
    q, rows = queries[there], violators[there]
    distances = mean_joint_distances(poses[rows], targets[there])
    values = _row_products(q, candidates[rows]) + margin_weight * distances
    hinge = values - _row_products(q, positives[there])
    losses[there] = torch.where(hinge <= 0, 0, hinge).to(losses.dtype)
    return losses


def _active(violators: Tensor, losses: Tensor, count: int) -> Tensor:
    return (violators >= 0) & (violators < count) & ~(losses <= 0)


def max_margin_loss_backward(
    grad_losses: Tensor,
    queries: Tensor,
    candidates: Tensor,
    positives: Tensor,
    violators: Tensor,
    losses: Tensor,
) -> tuple[Tensor, Tensor]:
    """grad_queries, grad_positives [B, D]."""
    grad_queries, grad_positives = torch.zeros_like(queries), torch.zeros_like(positives)
    (at,) = torch.where(_active(violators, losses, len(candidates)))
    grad = grad_losses[at, None]
    grad_queries[at] = grad * (candidates[violators[at]] - positives[at])
    grad_positives[at] = -(grad * queries[at])
    return grad_queries, grad_positives


def max_margin_loss_backward_candidates(
    grad_losses: Tensor, queries: Tensor, violators: Tensor, losses: Tensor, count: int
) -> Tensor:
    """grad_candidates [N, D], N = count."""
    grad_candidates = queries.new_zeros((count, queries.shape[1]))
    for b in torch.where(_active(violators, losses, count))[0].tolist():
        grad_candidates[violators[b]] += grad_losses[b] * queries[b]
    return grad_candidates
