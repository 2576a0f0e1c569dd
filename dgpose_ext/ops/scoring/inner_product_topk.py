"""inner_product_topk: exact search by inner product. Maths: csrc/scoring/inner_product_topk.h."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import refuse_gradients
from dgpose_ext.ops.scoring._inputs import require_embeddings, require_k, search_rows
from dgpose_ext.reference.scoring import inner_product_topk as reference


def inner_product_topk(
    queries: Tensor, candidates: Tensor, k: int, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """The k candidates with the largest inner products, for every query. Exact.

    The score is float32(sum of float64 products, in one fixed order); rows rank by it, descending,
    equal scores by the lower index, NaN last. This does not depend on the number of threads, the
    split of a batch, the instruction set or the backend. No matrix of size B x N is stored.

    Args:
        queries: [B, D]. float32; float16 and bfloat16 are taken exactly, float64 is rounded to
            float32 (as PoseIndex does: scores are defined on float32 rows).
        candidates: [N, D], dtypes as for queries. float32 rows may lie apart (a slice of the
            columns of a larger tensor is read in place), and on CUDA halves as well; other strides
            and dtypes are copied.
        k: at least 1; there is no upper limit (on CUDA 2^27, where N is larger).
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        values [B, k] float32 and indices [B, k] int64, by rank; -inf and -1 where k > N. With
        D = 0 all scores are 0.

    No gradients: arguments that require one are refused. Autocast changes nothing.

    Candidates that are searched often belong into a `PoseIndex`, whose stored codes read faster.

    Raises:
        TypeError: an argument is no tensor or has another dtype; k is no integer.
        ValueError: shapes or devices do not fit; k < 1; an argument requires a gradient.
    """
    require_embeddings(queries, candidates)
    require_k(k)
    refuse_gradients("inner_product_topk", queries=queries, candidates=candidates)
    chosen = _backend.choose(backend, queries.device, "inner_product_topk")
    run = _backend.implementation(chosen, "inner_product_topk", reference.inner_product_topk)
    values, indices = run(queries.float(), search_rows(candidates, chosen), k)
    return values, indices


@_fake.register("inner_product_topk")
def _(queries: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int64)
