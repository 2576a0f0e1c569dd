"""Sample inputs of inner_product_topk, and embeddings that the other scoring ops share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dgpose_ext import inner_product_topk
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def random_embeddings(batch: int, count: int, dim: int, seed: int = 0) -> Sample:
    """Queries [B, D] and candidates [N, D] of a ReLU layer: not negative, half of them 0."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "queries": torch.randn((batch, dim), generator=generator).relu(),
        "candidates": torch.randn((count, dim), generator=generator).relu(),
    }


def adversarial_embeddings(dim: int = 20, count: int = 1500) -> dict[str, Sample]:
    """Sets that a screen gets wrong where its bound leaves something out, by name."""
    generator = torch.Generator().manual_seed(1)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    queries, rows = randn(3, dim), randn(count, dim)
    sets = {
        "gaussian": (queries, rows),
        "huge norms": (queries * 1e18, rows * 1e18 * (1 + torch.arange(count)[:, None] % 7)),
        "products overflow": (queries * 1e30, rows * 1e30),
        "denormals": (queries, rows * 1e-40),
        "products underflow": (queries * 1e-25, rows * 1e-25),
        "wide range": (queries, rows * 10.0 ** (torch.arange(count)[:, None] % 60 - 30)),
        "duplicates": (queries, rows[:3].repeat(count // 3, 1)),
        "zeros": (queries, rows * (torch.arange(count)[:, None] % 2)),
        "all zeros": (torch.zeros_like(queries), torch.zeros_like(rows)),
        "opposite signs": (queries, torch.cat([rows[: count // 2], -rows[: count // 2]])),
        # One large vector, and differences far below its rounding in float32.
        "near ties": (1000 + queries, 1000 + rows[:1] + rows * 1e-4),
        "cancellation": (
            torch.cat([queries, queries], 1),
            1e4 * torch.cat([rows, -rows + 1e-5 * randn(count, dim)], 1),
        ),
    }  # fmt: skip
    # Every float32 sum overflows to -Inf on the way to a score of 0, the best.
    overflow = torch.zeros((count, dim))
    overflow[:, 0] = -1e-19
    overflow[-100] = torch.tensor([-2e18, 2e18]).repeat_interleave(dim // 2)
    sets["sum overflows"] = (torch.full((1, dim), 1e20), overflow)
    return {name: {"queries": q, "candidates": x} for name, (q, x) in sets.items()}


def _call(dtype: torch.dtype, batch: int, count: int, dim: int, k: int, seed: int = 0) -> Sample:
    embeddings = random_embeddings(batch, count, dim, seed)
    return {name: value.to(dtype) for name, value in embeddings.items()} | {"k": k}


def _samples(dtype: torch.dtype) -> list[Sample]:
    calls = [_call(dtype, 3, 200, 33, 7)]
    calls += [_call(dtype, 2, 70, size, 5, size) for size in ODD_SIZES]
    calls += [_call(dtype, 1, size, 24, 3, size) for size in ODD_SIZES]
    calls += [_call(dtype, size, 40, 17, 4, size) for size in (5, 6, 7, 13, 20)]
    ties = _call(dtype, 4, 500, 3, 40)  # few values, and so many equal scores
    ties = {n: v.round() if isinstance(v, Tensor) else v for n, v in ties.items()}
    wide = torch.randn((300, 50), generator=torch.Generator().manual_seed(2)).to(dtype)
    columns = {"queries": wide[:3, :30], "candidates": wide[:, 10:40], "k": 9}
    return [*calls, _call(dtype, 2, 30, 8, 50), _call(dtype, 2, 3000, 40, 1500), ties, columns]


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    call = _call(torch.float32, 3, 40, 9, 5)
    apart = torch.randn((40, 20), generator=torch.Generator().manual_seed(3))[:, :9]
    many = _call(torch.float32, 3, 9000, 4, 5)  # more than one round on a GPU
    return [
        ("inner_product_topk", (call["queries"], call["candidates"], 5)),
        ("inner_product_topk", (call["queries"], apart, 50)),
        ("inner_product_topk", tuple(many.values())),
    ]


def _empty() -> list[Sample]:
    return [_call(torch.float32, *sizes, 3) for sizes in ((0, 5, 4), (2, 0, 4), (2, 5, 0))]


def hostile_embeddings() -> list[Sample]:
    """NaN, Inf and huge values among the queries and the candidates."""
    calls = []
    for value in (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45):
        embeddings = random_embeddings(4, 1500, 19, 4)
        embeddings["candidates"][::3, 2] = value
        embeddings["candidates"][7] = value
        embeddings["queries"][1, 3] = value
        embeddings["queries"][2] = value
        calls.append(embeddings)
    return calls


def _hostile() -> list[Sample]:
    calls = [*hostile_embeddings(), *adversarial_embeddings().values()]
    return [call | {"k": k} for call in calls for k in (1, 6, 520)]


#: Wrong queries and candidates, for all scoring ops.
BAD_EMBEDDINGS = (
    BadInput({"queries": [[0.0]]}, TypeError, "queries must be a torch.Tensor, got list"),
    BadInput(
        {"queries": torch.zeros((2, 3), dtype=torch.int64)}, TypeError,
        "queries must be of dtype float32, float64, float16, bfloat16, got int64",
    ),
    BadInput(
        {"queries": torch.zeros(3)}, ValueError, r"queries must have shape \[B, D\], got \[3\]"
    ),
    BadInput(
        {"candidates": torch.zeros((200, 7))}, ValueError,
        r"candidates must have shape \[N, D\] with D = 33, got \[200, 7\]",
    ),
    BadInput(
        {"candidates": torch.zeros((200, 33), dtype=torch.int8)}, TypeError,
        "candidates must be of dtype float32, float64, float16, bfloat16, got int8",
    ),
    BadInput(
        {"candidates": torch.zeros((200, 33), device="meta")}, ValueError,
        r"candidates must be on the device of queries \(cpu\), got meta",
    ),
    BadInput({"backend": "gpu"}, ValueError, "backend must be one of cpu, cuda, triton, reference"),
)  # fmt: skip

BAD_K = (
    BadInput({"k": 0}, ValueError, "k must be at least 1, got 0"),
    BadInput({"k": -3}, ValueError, "k must be at least 1, got -3"),
    BadInput({"k": 2.0}, TypeError, "k must be an integer, got 2.0"),
)


def bad_gradients(op: str) -> tuple[BadInput, ...]:
    """Embeddings that require a gradient, where an op has none."""
    shapes = {"queries": (3, 33), "candidates": (200, 33)}
    return tuple(
        BadInput(
            {name: torch.zeros(shape, requires_grad=True)}, ValueError,
            f"{name} must not require a gradient: {op} has none for it; detach it",
        )
        for name, shape in shapes.items()
    )  # fmt: skip


SPEC = OpSpec(
    name="inner_product_topk",
    family="scoring",
    function=inner_product_topk,
    samples=_samples,
    dtypes=FLOATS,
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    bad=(*BAD_EMBEDDINGS, *BAD_K, *bad_gradients("inner_product_topk")),
)
