"""max_margin_topk in plain torch. Maths: csrc/scoring/max_margin_topk.h."""

from __future__ import annotations

from torch import Tensor

from dgpose_ext.reference.scoring._search import search


def max_margin_topk(
    queries: Tensor,
    candidates: Tensor,
    poses: Tensor,
    targets: Tensor,
    k: int,
    margin_weight: float,
) -> tuple[Tensor, Tensor]:
    """values [B, k] float32 and indices [B, k]; all inputs float32."""
    return search(queries, candidates, k, poses, targets, margin_weight)
