"""max_margin_loss, forward and backward, beside the expression in torch with autograd.

Limit: forward, the float32 product alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .gpu import Arguments, GpuCase
from .harness import Case
from .pose_embeddings import JOINTS, SOURCE, embed, margin_call

BATCH, COUNT, DIM = 128, 40_293, 1024


def _call() -> dict[str, Any]:
    call = margin_call(BATCH, COUNT, DIM)
    call["positives"] = embed(call["targets"], DIM)
    for name in ("queries", "candidates", "positives"):
        call[name].requires_grad_()
    return call


def _gradients(loss: Callable[[dict[str, Any]], torch.Tensor]) -> Callable[[], Any]:
    call = _call()
    leaves = [call[name] for name in ("queries", "candidates", "positives")]
    return lambda: torch.autograd.grad(loss(call), leaves)


def _ours(sparse: bool) -> Callable[[], Any]:
    from dgpose_ext import max_margin_loss

    return _gradients(lambda call: max_margin_loss(**call, sparse_grad=sparse, backend="cpu")[0])


def _direct(call: dict[str, Any]) -> torch.Tensor:
    values = call["queries"] @ call["candidates"].T
    for j in range(JOINTS):
        distances = torch.cdist(
            call["targets"][:, j], call["poses"][:, j], compute_mode="donot_use_mm_for_euclid_dist"
        )
        values = values.add(distances, alpha=1 / JOINTS)
    positive = (call["queries"] * call["positives"]).sum(1)
    return (values.amax(1) - positive).clamp(min=0).mean()


def _search_first(call: dict[str, Any]) -> torch.Tensor:
    """The violators without autograd, then the hinge on them alone."""
    with torch.no_grad():
        values = call["queries"] @ call["candidates"].T
        for j in range(JOINTS):
            values.add_(torch.cdist(call["targets"][:, j], call["poses"][:, j]), alpha=1 / JOINTS)
        rows = values.argmax(1)
    margin = (call["poses"][rows] - call["targets"]).norm(dim=-1).mean(-1)
    difference = call["candidates"][rows] - call["positives"]
    return ((call["queries"] * difference).sum(1) + margin).clamp(min=0).mean()


def _product() -> Callable[[], Any]:
    call = margin_call(BATCH, COUNT, DIM)
    queries, columns = call["queries"], call["candidates"].T
    out = torch.empty((BATCH, COUNT))
    return lambda: torch.mm(queries, columns, out=out)


CASES = [
    Case(
        f"forward and backward, B={BATCH} N={COUNT} D={DIM} J={JOINTS}", "queries", BATCH, 2,
        {
            "dgpose_ext, sparse gradient": lambda: _ours(True),
            "dgpose_ext, dense gradient": lambda: _ours(False),
            "float32 product alone": _product,
            "torch, one expression": lambda: _gradients(_direct),
            "torch, search without autograd first": lambda: _gradients(_search_first),
        },
        "dgpose_ext, sparse gradient", "float32 product alone",
        note=f"embeddings of {SOURCE}", repeats=2,
    ),
]  # fmt: skip


def _gpu_call(count: int) -> tuple[Callable[..., Any], Arguments]:
    from dgpose_ext import max_margin_loss

    call: Arguments = dict(margin_call(BATCH, count, DIM))
    return max_margin_loss, call | {"positives": embed(call["targets"], DIM)}


GPU_CASES = [
    GpuCase(
        f"forward and backward (dense gradient), B={BATCH} D={DIM} J={JOINTS}", "candidates",
        1 << 18, _gpu_call, (2 * DIM + 3 * JOINTS) * 4, compiled=False,
        differentiable=("queries", "candidates", "positives"),
    ),
]  # fmt: skip
