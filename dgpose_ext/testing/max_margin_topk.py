"""Sample inputs of max_margin_topk."""

from __future__ import annotations

import math
from typing import Any

import torch

from dgpose_ext import max_margin_topk
from dgpose_ext.testing import BadInput, OpSpec, Sample
from dgpose_ext.testing.inner_product_topk import (
    BAD_EMBEDDINGS,
    BAD_K,
    FLOATS,
    adversarial_embeddings,
    bad_gradients,
    hostile_embeddings,
    random_embeddings,
)
from dgpose_ext.testing.topk_mean_pose import random_poses


def margin_call(
    dtype: torch.dtype,
    batch: int,
    count: int,
    dim: int,
    joints: int,
    seed: int = 0,
    **changes: Any,
) -> Sample:
    """Random embeddings with poses and targets in mm."""
    call = random_embeddings(batch, count, dim, seed)
    call["poses"] = random_poses(count, joints, seed)
    call["targets"] = random_poses(batch, joints, seed + 1000)
    return {name: value.to(dtype) for name, value in call.items()} | changes


def _samples(dtype: torch.dtype) -> list[Sample]:
    calls = [margin_call(dtype, 3, 200, 33, 17), margin_call(dtype, 20, 300, 19, 5, k=6)]
    weights = (0.0, 0.02, 1.0, 30.0)
    calls += [margin_call(dtype, 2, 300, 16, 5, k=6, margin_weight=w) for w in weights]
    calls += [margin_call(dtype, 7, n, n, n, n, k=3) for n in (1, 15, 16, 17, 33)]
    calls += [margin_call(dtype, 2, 20, 8, 3, k=50), margin_call(dtype, 2, 3000, 8, 3, k=1200)]
    return [*calls, cancelling_scores(2, 2000, dtype)]


def cancelling_scores(batch: int, count: int, dtype: torch.dtype = torch.float32) -> Sample:
    """Scores that nearly equal -MPJPE: no bound can tell the candidates apart."""
    call = margin_call(torch.float32, batch, count, batch, 4)
    difference = call["poses"][:, None] - call["targets"]
    call["candidates"] = -difference.norm(dim=-1).mean(-1)
    call["queries"] = torch.eye(batch)
    return {name: value.to(dtype) for name, value in call.items()} | {"k": 20}


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    # The second takes more than one round on a GPU.
    calls = [margin_call(torch.float32, 3, count, 9, 4) for count in (40, 9000)]
    return [("max_margin_topk", (*call.values(), 5, 0.5)) for call in calls]


def _empty() -> list[Sample]:
    return [margin_call(torch.float32, *s) for s in ((0, 5, 4, 2), (2, 0, 4, 2), (2, 5, 0, 2))]


def hostile_margins() -> list[Sample]:
    """Embeddings, poses and targets with NaN, Inf, huge and denormal values."""
    calls = []
    for embeddings in hostile_embeddings():
        batch, count = len(embeddings["queries"]), len(embeddings["candidates"])
        margin = {"poses": random_poses(count, 3), "targets": random_poses(batch, 3, 1)}
        calls.append(embeddings | margin)
    for value in (math.nan, math.inf, -math.inf, 3e38, 1e30, 1e-30):
        call = margin_call(torch.float32, 4, 1500, 5, 3)
        call["poses"][1::3] *= 1e-3
        call["poses"][1400, 1, 2] = value
        call["poses"][1401] = value
        call["targets"][1, 2] = value
        calls += [call, call | {"queries": call["queries"] * 0}]
    for scale in (1e-20, 1e-26, 1e-42, 1e17, 1e30):
        call = margin_call(torch.float32, 2, 1500, 5, 3)
        call = call | {"queries": call["queries"] * 0, "targets": call["targets"] * 0}
        call["poses"] *= scale / 300
        call["poses"][1400] *= 50
        calls += [call | {"margin_weight": w} for w in (1.0, 1e-45, 1e-47, 1e30)]
    for embeddings in adversarial_embeddings().values():
        batch, count = len(embeddings["queries"]), len(embeddings["candidates"])
        margin = {"poses": random_poses(count, 3), "targets": random_poses(batch, 3, 1)}
        calls.append(embeddings | margin)
    return calls


def _hostile() -> list[Sample]:
    return [call | {"k": k} for call in hostile_margins() for k in (1, 6)]


#: Wrong poses, targets and weights, for the ops with a margin.
BAD_MARGIN = (
    BadInput({"poses": None}, TypeError, "poses must be a torch.Tensor, got NoneType"),
    BadInput(
        {"poses": torch.zeros((199, 17, 3))}, ValueError,
        r"poses must have shape \[N, J, 3\] with N = 200, got \[199, 17, 3\]",
    ),
    BadInput(
        {"poses": torch.zeros((200, 0, 3))}, ValueError,
        r"poses must have at least one joint, got \[200, 0, 3\]",
    ),
    BadInput(
        {"targets": torch.zeros((3, 16, 3))}, ValueError,
        r"targets must have shape \[B, J, 3\] with B = 3, J = 17, got \[3, 16, 3\]",
    ),
    BadInput(
        {"targets": torch.zeros((3, 17, 3), dtype=torch.int32)}, TypeError,
        "targets must be of dtype float32, float64, float16, bfloat16, got int32",
    ),
    BadInput(
        {"margin_weight": -1.0}, ValueError, "margin_weight must be finite and not negative, got -1"
    ),
    BadInput(
        {"margin_weight": math.nan}, ValueError, "margin_weight must be finite .*, got nan"
    ),
    BadInput(
        {"margin_weight": math.inf}, ValueError, "margin_weight must be finite .*, got inf"
    ),
)  # fmt: skip

SPEC = OpSpec(
    name="max_margin_topk",
    family="scoring",
    function=max_margin_topk,
    samples=_samples,
    dtypes=FLOATS,
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    bad=(
        *BAD_EMBEDDINGS, *BAD_K, *BAD_MARGIN, *bad_gradients("max_margin_topk"),
        BadInput(
            {"targets": torch.zeros((3, 17, 3), requires_grad=True)}, ValueError,
            "targets must not require a gradient: max_margin_topk has none for it; detach it",
        ),
    ),
)  # fmt: skip
