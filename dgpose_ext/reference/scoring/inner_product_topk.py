"""inner_product_topk in plain torch. Maths: csrc/scoring/inner_product_topk.h."""

from __future__ import annotations

from torch import Tensor

from dgpose_ext.reference.scoring._search import search


def inner_product_topk(queries: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """values [B, k] float32 and indices [B, k] of queries [B, D], candidates [N, D] float32."""
    return search(queries, candidates, k)
