"""topk_mean_pose in plain torch. Maths: csrc/scoring/topk_mean_pose.h."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpose_ext.reference.scoring._search import search


def topk_mean_pose(queries: Tensor, candidates: Tensor, poses: Tensor, k: int) -> Tensor:
    """means [B, J, 3] float32; all inputs float32."""
    _, indices = search(queries, candidates, min(k, max(1, len(candidates))))
    sums = torch.zeros((len(queries), *poses.shape[1:]), dtype=torch.float64, device=poses.device)
    if not len(candidates):
        return torch.full_like(sums, torch.nan, dtype=torch.float32)
    for rank in range(indices.shape[1]):  # in their order: the sum is defined to the bit
        sums += poses[indices[:, rank]]
    return (sums / indices.shape[1]).float()
