"""max_margin_topk in Triton. Maths: csrc/scoring/max_margin_topk.h.

Arguments as torch.ops.dgpose.max_margin_topk; candidates may be halves.
"""

from __future__ import annotations

from torch import Tensor

from dgpose_ext.triton.scoring._search import search


def max_margin_topk(
    queries: Tensor,
    candidates: Tensor,
    poses: Tensor,
    targets: Tensor,
    k: int,
    margin_weight: float,
) -> tuple[Tensor, Tensor]:
    """values [B, k] float32 and indices [B, k]; all inputs but candidates float32."""
    return search(queries, candidates, k, poses, targets, margin_weight)
