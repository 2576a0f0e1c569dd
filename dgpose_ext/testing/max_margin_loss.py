"""Sample inputs of max_margin_loss."""

from __future__ import annotations

import torch

from dgpose_ext import max_margin_loss
from dgpose_ext.testing import BadInput, OpSpec, Sample
from dgpose_ext.testing.inner_product_topk import BAD_EMBEDDINGS, FLOATS
from dgpose_ext.testing.max_margin_topk import BAD_MARGIN, hostile_margins, margin_call


def loss_call(
    dtype: torch.dtype, batch: int, count: int, dim: int, joints: int, seed: int = 0
) -> Sample:
    """Positives that win over every candidate for each fourth query: its hinge is 0."""
    call = margin_call(torch.float32, batch, count, dim, joints, seed)
    call["positives"] = call["queries"] * 0.5
    call["positives"][::4] = 1000 * (call["queries"][::4] + 0.1)
    return {name: value.to(dtype) for name, value in call.items()}


def _samples(dtype: torch.dtype) -> list[Sample]:
    sizes = [(3, 200, 33, 17), (6, 40, 15, 5), (1, 1, 1, 1), (20, 3, 17, 2), (2, 1500, 8, 3)]
    calls = [loss_call(dtype, *size, seed=seed) for seed, size in enumerate(sizes)]
    calls += [calls[1] | {"reduction": reduction} for reduction in ("none", "sum")]
    return [*calls, calls[1] | {"margin_weight": 0.01, "reduction": "none"}]


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    calls: list[tuple[str, tuple[object, ...]]] = []
    for dtype in (torch.float32, torch.float64):
        call = loss_call(dtype, 5, 12, 9, 4)
        losses, violators = max_margin_loss(**call, reduction="none")
        queries, candidates, positives = call["queries"], call["candidates"], call["positives"]
        poses, targets = call["poses"].float(), call["targets"].float()
        grad = torch.linspace(-1, 1, 5, dtype=dtype)
        calls += [
            ("max_margin_loss", (queries, candidates, poses, targets, positives, violators, 0.5)),
            (
                "max_margin_loss_backward",
                (grad, queries, candidates, positives, violators, losses),
            ),
            ("max_margin_loss_backward_candidates", (grad, queries, violators, losses, 12)),
        ]
    return calls


def _empty() -> list[Sample]:
    sizes = [(0, 5, 4, 2), (2, 0, 4, 2), (2, 5, 0, 2)]
    calls = [loss_call(torch.float32, *size) for size in sizes]
    return [call | {"reduction": r} for call in calls for r in ("mean", "sum", "none")]


def _hostile() -> list[Sample]:
    return [
        call | {"positives": call["queries"].flip(0), "reduction": "none"}
        for call in hostile_margins()
    ]


def _gradient_samples() -> list[Sample]:
    """Float64, away from the kink of the hinge and from ties of the violators."""
    calls = [loss_call(torch.float64, *size) for size in ((4, 6, 5, 2), (5, 3, 17, 2))]
    unreduced = [call | {"reduction": "none", "margin_weight": 0.01} for call in calls]
    return [*unreduced, calls[0] | {"reduction": "none"}]


SPEC = OpSpec(
    name="max_margin_loss",
    family="scoring",
    function=max_margin_loss,
    samples=_samples,
    dtypes=FLOATS,
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    differentiable=("queries", "candidates", "positives"),
    gradient_samples=_gradient_samples,
    # Distances in float64: torch's square root is off by an ulp now and then.
    tolerance={torch.float64: (1e-12, 1e-12)},
    bad=(
        *BAD_EMBEDDINGS, *BAD_MARGIN,
        BadInput(
            {"positives": torch.zeros((3, 7))}, ValueError,
            r"positives must have shape \[B, D\] with B = 3, D = 33, got \[3, 7\]",
        ),
        BadInput(
            {"positives": torch.zeros((3, 33), dtype=torch.int64)}, TypeError,
            "positives must be of dtype float32, float64, float16, bfloat16, got int64",
        ),
        BadInput(
            {"reduction": "max"}, ValueError,
            "reduction must be 'mean', 'sum' or 'none', got 'max'",
        ),
        BadInput(
            {"targets": torch.zeros((3, 17, 3), requires_grad=True)}, ValueError,
            "targets must not require a gradient: max_margin_loss has none for it; detach it",
        ),
    ),
)  # fmt: skip
