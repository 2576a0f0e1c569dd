"""topk_mean_pose beside torch: product, topk, gather, mean.

Limit: the float32 product alone, as torch's BLAS does it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .gpu import Arguments, GpuCase
from .harness import Case
from .pose_embeddings import SOURCE, margin_call

COUNT, DIM, K = 40_293, 1024, 500


def _ours(batch: int) -> Callable[[], Any]:
    from dgpose_ext import topk_mean_pose

    call = margin_call(batch, COUNT, DIM)
    del call["targets"]
    return lambda: topk_mean_pose(**call, k=K, backend="cpu")


def _torch(batch: int) -> Callable[[], Any]:
    call = margin_call(batch, COUNT, DIM)
    queries, columns, poses = call["queries"], call["candidates"].T, call["poses"]
    return lambda: poses[(queries @ columns).topk(K).indices].mean(1)


def _product(batch: int) -> Callable[[], Any]:
    call = margin_call(batch, COUNT, DIM)
    queries, columns = call["queries"], call["candidates"].T
    out = torch.empty((batch, COUNT))
    return lambda: torch.mm(queries, columns, out=out)


def _case(batch: int) -> Case:
    return Case(
        f"B={batch} N={COUNT} D={DIM} k={K}", "queries", batch, 2,
        {
            "dgpose_ext": lambda: _ours(batch),
            "float32 product alone": lambda: _product(batch),
            "torch": lambda: _torch(batch),
        },
        "dgpose_ext", "float32 product alone", note=f"embeddings of {SOURCE}", repeats=2,
    )  # fmt: skip


CASES = [_case(batch) for batch in (1, 64)]


def _torch_on_gpu(arguments: Arguments) -> Callable[[], Any]:
    queries, columns, k = arguments["queries"], arguments["candidates"].T, arguments["k"]
    poses = arguments["poses"]
    return lambda: poses[(queries @ columns).topk(k).indices].mean(1)


def _gpu_case(batch: int) -> GpuCase:
    def call(count: int) -> tuple[Callable[..., Any], Arguments]:
        from dgpose_ext import topk_mean_pose

        arguments: Arguments = dict(margin_call(batch, count, DIM))
        del arguments["targets"]
        return topk_mean_pose, arguments | {"k": min(K, count)}

    return GpuCase(
        f"B={batch} D={DIM} k={K}", "candidates", 1 << 18, call, DIM * 4, compiled=False,
        peers={"torch, product, topk and mean (not exact)": _torch_on_gpu},
    )  # fmt: skip


GPU_CASES = [_gpu_case(1), _gpu_case(16)]
