"""inner_product_topk in Triton. Maths: csrc/scoring/inner_product_topk.h.

Arguments as torch.ops.dgpose.inner_product_topk; candidates may be halves.
"""

from __future__ import annotations

from torch import Tensor

from dgpose_ext.triton.scoring._search import search


def inner_product_topk(queries: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """values [B, k] float32 and indices [B, k] of queries [B, D] float32, candidates [N, D]."""
    return search(queries, candidates, k)
