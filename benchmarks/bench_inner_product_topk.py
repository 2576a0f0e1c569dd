"""inner_product_topk beside torch (product and topk, float32 and bfloat16) and faiss.

Limit: for one query the float32 rows read once; for more the float32 product alone, without any
selection, as torch's BLAS does it. bfloat16 in torch is not exact: a bound for what less memory
could give (PoseIndex keeps such codes and stays exact). faiss switches from loops to BLAS at
`distance_compute_blas_threshold` queries; "tuned" takes the faster of both ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from .gpu import Arguments, GpuCase
from .harness import Case
from .pose_embeddings import SOURCE, search_call


def _ours(batch: int, count: int, dim: int, k: int) -> Callable[[], Any]:
    from dgpose_ext import inner_product_topk

    call = search_call(batch, count, dim)
    return lambda: inner_product_topk(**call, k=k, backend="cpu")


def _torch(batch: int, count: int, dim: int, k: int, dtype: torch.dtype) -> Callable[[], Any]:
    call = search_call(batch, count, dim)
    queries, columns = call["queries"].to(dtype), call["candidates"].to(dtype).T
    return lambda: (queries @ columns).topk(k)


def _product(batch: int, count: int, dim: int) -> Callable[[], Any]:
    call = search_call(batch, count, dim)
    queries, columns = call["queries"], call["candidates"].T
    out = torch.empty((batch, count))
    return lambda: torch.mm(queries, columns, out=out)


def _read(batch: int, count: int, dim: int) -> Callable[[], Any]:
    rows = search_call(batch, count, dim)["candidates"]
    return lambda: rows.sum()


def _faiss(batch: int, count: int, dim: int, k: int, tuned: bool) -> Callable[[], Any]:
    import faiss

    call = search_call(batch, count, dim)
    queries = call["queries"].numpy()
    index = faiss.IndexFlatIP(dim)
    index.add(call.pop("candidates").numpy())
    if tuned:
        seconds = {}
        for threshold in (1, 1 << 30):  # always BLAS, never
            faiss.cvar.distance_compute_blas_threshold = threshold
            index.search(queries, k)
            start = time.perf_counter()
            index.search(queries, k)
            seconds[threshold] = time.perf_counter() - start
        faiss.cvar.distance_compute_blas_threshold = min(seconds, key=lambda t: seconds[t])
    return lambda: index.search(queries, k)


def _case(batch: int, count: int, dim: int, k: int) -> Case:
    size = (batch, count, dim)
    contenders = {
        "dgpose_ext": lambda: _ours(*size, k),
        "float32 product alone": lambda: _product(*size),
        "torch, float32": lambda: _torch(*size, k, torch.float32),
        "torch, bfloat16 (not exact)": lambda: _torch(*size, k, torch.bfloat16),
        "faiss IndexFlatIP": lambda: _faiss(*size, k, False),
        "faiss IndexFlatIP, tuned": lambda: _faiss(*size, k, True),
    }
    limit = "float32 product alone"
    if batch == 1:
        limit = "rows read once (sum)"
        contenders[limit] = lambda: _read(*size)
    return Case(
        f"B={batch} N={count // 1000}k D={dim} k={k}", "queries", batch, 2, contenders,
        "dgpose_ext", limit, note=f"embeddings of {SOURCE}", repeats=2,
    )  # fmt: skip


CASES = [
    _case(batch, count, dim, k)
    for count, dim, k in ((200_000, 1024, 500), (500_000, 256, 100))
    for batch in (1, 16, 64, 256)
]


def _torch_on_gpu(arguments: Arguments) -> Callable[[], Any]:
    queries, columns, k = arguments["queries"], arguments["candidates"].T, arguments["k"]
    return lambda: (queries @ columns).topk(k)


def _gpu_case(batch: int, dtype: torch.dtype, dim: int = 1024, k: int = 100) -> GpuCase:
    def call(count: int) -> tuple[Callable[..., Any], Arguments]:
        from dgpose_ext import inner_product_topk

        tensors = search_call(batch, count, dim)
        arguments = {name: value.to(dtype) for name, value in tensors.items()}
        return inner_product_topk, arguments | {"k": min(k, count)}

    return GpuCase(
        f"B={batch} D={dim} k={k}, {str(dtype).removeprefix('torch.')}", "candidates", 1 << 18,
        call, dim * dtype.itemsize, compiled=False,
        peers={"torch, product and topk (not exact)": _torch_on_gpu},
    )  # fmt: skip


GPU_CASES = [
    _gpu_case(1, torch.float32),
    _gpu_case(1, torch.bfloat16),
    _gpu_case(16, torch.float32),
    _gpu_case(128, torch.bfloat16),
    _gpu_case(256, torch.float32),
]
