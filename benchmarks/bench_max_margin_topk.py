"""max_margin_topk beside torch expressions and KeOps, the most violated of all candidates.

Limit: the float32 product alone, as torch's BLAS does it. MPJPE in torch: cdist joint by joint, or
broadcast over chunks of candidates.

`python -m benchmarks.bench_max_margin_topk` prints what else is asked of this op: the memory that
one call adds, each contender in its own process, and the share of pairs whose square roots were
taken, over the weight of the margin.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .gpu import Arguments, GpuCase
from .harness import Case
from .pose_embeddings import JOINTS, SOURCE, margin_call

BATCH, COUNT, DIM = 128, 40_293, 1024


def _ours() -> Callable[[], Any]:
    from dgpose_ext import max_margin_topk

    call = margin_call(BATCH, COUNT, DIM)
    return lambda: max_margin_topk(**call, backend="cpu")


def _product() -> Callable[[], Any]:
    call = margin_call(BATCH, COUNT, DIM)
    queries, columns = call["queries"], call["candidates"].T
    out = torch.empty((BATCH, COUNT))
    return lambda: torch.mm(queries, columns, out=out)


def _cdist() -> Callable[[], Any]:
    call = margin_call(BATCH, COUNT, DIM)
    queries, columns = call["queries"], call["candidates"].T
    poses = [call["poses"][:, j].contiguous() for j in range(JOINTS)]
    targets = [call["targets"][:, j].contiguous() for j in range(JOINTS)]

    def run() -> Any:
        values = queries @ columns
        for pose, target in zip(poses, targets, strict=True):
            distances = torch.cdist(target, pose, compute_mode="donot_use_mm_for_euclid_dist")
            values.add_(distances, alpha=1 / JOINTS)
        return values.max(1)

    return run


def _chunk_values(
    queries: Tensor, candidates: Tensor, poses: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    x, y, z = (targets[:, None, :, i] - poses[None, :, :, i] for i in range(3))
    distances = (x * x + y * y + z * z).sqrt().mean(-1)
    return (queries @ candidates.T + distances).max(1)


def _broadcast(size: int, compiled: bool = False) -> Callable[[], Any]:
    """`size` candidates at a time."""
    call = margin_call(BATCH, COUNT, DIM)
    queries, targets = call["queries"], call["targets"]
    chunks = list(zip(call["candidates"].split(size), call["poses"].split(size), strict=True))
    best = torch.compile(_chunk_values, dynamic=True) if compiled else _chunk_values

    def run() -> Any:
        parts = [best(queries, rows, poses, targets) for rows, poses in chunks]
        values, indices = (torch.stack(p, 1) for p in zip(*parts, strict=True))
        top = values.max(1)
        return top.values, indices.gather(1, top.indices[:, None])[:, 0] + top.indices * size

    return run


def _keops() -> Callable[[], Any]:
    from pykeops.torch import LazyTensor

    call = margin_call(BATCH, COUNT, DIM)
    queries, rows = (
        LazyTensor(call["queries"][:, None]), LazyTensor(call["candidates"][None]),
    )  # fmt: skip
    targets, poses = call["targets"], call["poses"]
    values = (queries | rows).sum(-1)
    for j in range(JOINTS):
        target, pose = LazyTensor(targets[:, None, j].contiguous()), poses[None, :, j].contiguous()
        values = values + (target - LazyTensor(pose)).norm2() * (1 / JOINTS)
    return lambda: values.max_argmax(dim=1)


CONTENDERS: dict[str, Callable[[], Callable[[], Any]]] = {
    "dgpose_ext": _ours,
    "float32 product alone": _product,
    "torch, cdist by joints": _cdist,
    "torch, broadcast by 256 candidates": lambda: _broadcast(256),
    "torch, broadcast by 2048": lambda: _broadcast(2048),
    "torch, broadcast by 2048, torch.compile": lambda: _broadcast(2048, True),
}
_NAME = f"B={BATCH} N={COUNT} D={DIM} J={JOINTS} k=1"
_NOTE = f"embeddings of {SOURCE}"

CASES = [
    Case(
        _NAME, "queries", BATCH, 2, CONTENDERS, "dgpose_ext", "float32 product alone",
        note=_NOTE, repeats=2,
    ),
    Case(
        f"{_NAME}, KeOps", "queries", BATCH, 2, {"dgpose_ext": _ours, "KeOps": _keops},
        "dgpose_ext", note=f"{_NOTE}; KeOps takes tens of seconds", repeats=1,
    ),
]  # fmt: skip


def _cdist_on_gpu(arguments: Arguments) -> Callable[[], Any]:
    """The product, and the distances joint by joint."""
    queries, columns = arguments["queries"], arguments["candidates"].T
    targets, poses = arguments["targets"], arguments["poses"]

    def run() -> Any:
        values = queries @ columns
        for j in range(JOINTS):
            values.add_(torch.cdist(targets[:, j], poses[:, j]), alpha=1 / JOINTS)
        return values.max(1)

    return run


def _gpu_case(batch: int) -> GpuCase:
    def call(count: int) -> tuple[Callable[..., Any], Arguments]:
        from dgpose_ext import max_margin_topk

        return max_margin_topk, dict(margin_call(batch, count, DIM))

    return GpuCase(
        f"B={batch} D={DIM} J={JOINTS} k=1", "candidates", 1 << 18, call, (DIM + 3 * JOINTS) * 4,
        compiled=False, peers={"torch, cdist by joints (not exact)": _cdist_on_gpu},
    )  # fmt: skip


GPU_CASES = [_gpu_case(1), _gpu_case(16), _gpu_case(128)]


def _status_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def _print_added_memory(name: str) -> None:
    """On Linux: the peak of the second call above what was in use before it."""
    torch.set_num_threads(2)
    run = CONTENDERS[name]()
    run()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status_mib("VmRSS")
    run()
    print(f"{name:<42}{_status_mib('VmHWM') - before:8.0f} MiB added by a call")


def _print_roots() -> None:
    from dgpose_ext.pose_index import PoseIndex

    call = margin_call(BATCH, COUNT, DIM)
    for weight in (0.0, 0.01, 0.1, 1.0, 10.0):
        index = PoseIndex(call["candidates"], poses=call["poses"], storage="float32")
        index.most_violated(call["queries"], call["targets"], margin_weight=weight)
        share = index.stats.roots / (BATCH * COUNT)
        print(f"margin_weight {weight:<6} square roots of {share:9.4%} of the pairs")


def main() -> None:
    """One contender named, or all, each in a process of its own."""
    if len(sys.argv) > 1:
        return _print_added_memory(sys.argv[1])
    for name in CONTENDERS:
        subprocess.run([sys.executable, "-m", "benchmarks.bench_max_margin_topk", name])
    _print_roots()


if __name__ == "__main__":
    main()
