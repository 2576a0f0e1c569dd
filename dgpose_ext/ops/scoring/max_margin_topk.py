"""max_margin_topk: the loss-augmented search. Maths: csrc/scoring/max_margin_topk.h."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import refuse_gradients
from dgpose_ext.ops.scoring._inputs import (
    require_embeddings,
    require_k,
    require_margin,
    search_rows,
)
from dgpose_ext.reference.scoring import max_margin_topk as reference


def max_margin_topk(
    queries: Tensor,
    candidates: Tensor,
    poses: Tensor,
    targets: Tensor,
    k: int = 1,
    *,
    margin_weight: float = 1.0,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The k candidates with the largest score + margin_weight * MPJPE(pose, target). Exact.

    The value is float32(float64 inner product + margin_weight * mean joint distance in float64),
    ranked as by `inner_product_topk`. Square roots are taken only where a bound, the root mean
    square distance, which is a product like the score, reaches the k-th value.

    Args:
        queries: [B, D]; candidates: [N, D]; k: as for `inner_product_topk`.
        poses: [N, J, 3], the pose of every candidate, in mm, J >= 1. float32, float16, bfloat16,
            or float64, which is rounded to float32.
        targets: [B, J, 3], the true pose of every query, in mm; dtypes as for poses.
        margin_weight: finite and not negative.
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        values [B, k] float32 and indices [B, k] int64, by rank; -inf and -1 where k > N.

    No gradients: arguments that require one are refused (`max_margin_loss` has some). Autocast
    changes nothing.

    Raises:
        TypeError: an argument is no tensor or has another dtype; k is no integer.
        ValueError: shapes or devices do not fit; k < 1; margin_weight is negative or not finite; an
            argument requires a gradient.
    """
    require_embeddings(queries, candidates)
    require_margin(poses, targets, margin_weight, queries, candidates)
    require_k(k)
    refuse_gradients(
        "max_margin_topk", queries=queries, candidates=candidates, poses=poses, targets=targets
    )
    chosen = _backend.choose(backend, queries.device, "max_margin_topk")
    run = _backend.implementation(chosen, "max_margin_topk", reference.max_margin_topk)
    values, indices = run(
        queries.float(),
        search_rows(candidates, chosen),
        poses.float(),
        targets.float(),
        k,
        float(margin_weight),
    )
    return values, indices


@_fake.register("max_margin_topk")
def _(
    queries: Tensor,
    candidates: Tensor,
    poses: Tensor,
    targets: Tensor,
    k: int,
    margin_weight: float,
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int64)
