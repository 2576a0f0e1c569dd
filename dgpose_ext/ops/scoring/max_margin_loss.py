"""max_margin_loss: the structured hinge and its gradients.

Maths: csrc/scoring/max_margin_loss.h.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import refuse_gradients
from dgpose_ext.ops.scoring._inputs import require_embeddings, require_margin, require_rows
from dgpose_ext.reference.scoring import max_margin_loss as reference
from dgpose_ext.reference.scoring import max_margin_topk as search_reference


def max_margin_loss(
    queries: Tensor,
    candidates: Tensor,
    poses: Tensor,
    targets: Tensor,
    positives: Tensor,
    *,
    margin_weight: float = 1.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
    sparse_grad: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The hinge on the most violated of all candidates, for every query:

        max(0, max over n of (<q, x_n> + margin_weight * MPJPE(y_n, target)) - <q, positive>)

    Args:
        queries: [B, D]. float32, float64, float16 or bfloat16, and so all tensors; where one of
            queries, candidates and positives is float64 the hinge and its gradients are computed in
            float64, else in float32 (sums always in float64). The search runs on float32 rows.
        candidates: [N, D]; poses: [N, J, 3] mm, J >= 1; targets: [B, J, 3] mm, as for
            `max_margin_topk`.
        positives: [B, D], the embedding of every query's true pose.
        margin_weight: finite and not negative.
        reduction: of the B hinges: "mean" (NaN for B = 0), "sum" or "none".
        sparse_grad: the gradient of candidates becomes a sparse COO tensor that holds only the
            violators' rows, each once, ascending (for torch.optim.SparseAdam and SGD; not under
            torch.compile). False: a dense tensor [N, D].
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        loss: one number, or [B] for reduction "none"; float64 or float32, as computed.
        violators: [B] int64, the row of the most violated candidate; -1 where N = 0 (loss 0).

    Gradients (once differentiable) flow to queries, positives and candidates where the hinge is
    not 0: g (x_v - p), -g q and, into the rows of violators, g q. None flow to poses or targets,
    which are refused if they require one. A NaN loss hands NaN on. Deterministic. Autocast changes
    nothing.

    Source: Li, Zhang, Chan, Maximum-Margin Structured Learning with Deep Networks for 3D Human
    Pose Estimation, ICCV 2015.

    Raises:
        TypeError: an argument is no tensor or has another dtype.
        ValueError: shapes or devices do not fit; margin_weight is negative or not finite; poses or
            targets require a gradient; `reduction` is unknown.
    """
    require_embeddings(queries, candidates)
    require_margin(poses, targets, margin_weight, queries, candidates)
    require_rows("positives", positives, "[B, D]", queries, B=queries.shape[0], D=queries.shape[1])
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    refuse_gradients("max_margin_loss", poses=poses, targets=targets)
    embeddings = (queries, candidates, positives)
    wide = any(t.dtype == torch.float64 for t in embeddings)
    dtype = torch.float64 if wide else torch.float32
    chosen = _backend.choose(backend, queries.device, "max_margin_loss")
    query_rows, positive_rows = queries.to(dtype), positives.to(dtype)
    margin = (poses.float(), targets.float(), float(margin_weight), chosen)
    if torch.is_grad_enabled() and any(t.requires_grad for t in embeddings):
        losses, violators = _MaxMarginLoss.apply(  # type: ignore[no-untyped-call]
            query_rows, candidates, positive_rows, *margin, sparse_grad
        )
    else:
        losses, violators = _losses(query_rows, candidates.to(dtype), positive_rows, *margin)
    if reduction == "none":
        return losses, violators
    # In float64: whatever the order of torch's sum, it does not show.
    total = losses.sum(dtype=torch.float64)
    if reduction == "mean":
        total = total / losses.shape[0] if losses.shape[0] else total * torch.nan
    return total.to(dtype), violators


def _losses(
    queries: Tensor,
    candidates: Tensor,
    positives: Tensor,
    poses: Tensor,
    targets: Tensor,
    margin_weight: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """losses [B] and violators [B]; poses and targets float32, queries, candidates and positives
    float32 or float64."""
    search = _backend.implementation(backend, "max_margin_topk", search_reference.max_margin_topk)
    _, indices = search(queries.float(), candidates.float(), poses, targets, 1, margin_weight)
    violators = indices[:, 0].contiguous()
    hinge = _backend.implementation(backend, "max_margin_loss", reference.max_margin_loss)
    losses = hinge(queries, candidates, poses, targets, positives, violators, margin_weight)
    return losses, violators


class _MaxMarginLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        candidates: Tensor,
        positives: Tensor,
        poses: Tensor,
        targets: Tensor,
        margin_weight: float,
        backend: str,
        sparse_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        # Cast here: autograd cannot take a sparse gradient through a cast.
        rows = candidates.to(queries.dtype)
        losses, violators = _losses(
            queries, rows, positives, poses, targets, margin_weight, backend
        )
        ctx.mark_non_differentiable(violators)
        ctx.save_for_backward(queries, rows, positives, violators, losses)
        ctx.backend, ctx.sparse_grad, ctx.dtype = backend, sparse_grad, candidates.dtype
        return losses, violators

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        queries, candidates, positives, violators, losses = ctx.saved_tensors
        grad_queries = grad_positives = grad_candidates = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
            run = _backend.implementation(
                ctx.backend, "max_margin_loss_backward", reference.max_margin_loss_backward
            )
            grad_queries, grad_positives = run(
                grad, queries, candidates, positives, violators, losses
            )
        if ctx.needs_input_grad[1]:
            run = _backend.implementation(
                ctx.backend,
                "max_margin_loss_backward_candidates",
                reference.max_margin_loss_backward_candidates,
            )
            if ctx.sparse_grad:
                rows, places = _compact_rows(violators, losses)
                values = run(grad, queries, places, losses, len(rows))
                grad_candidates = torch.sparse_coo_tensor(
                    rows[None], values.to(ctx.dtype), candidates.shape,
                    is_coalesced=True, check_invariants=False,
                )  # fmt: skip
            else:
                grad_candidates = run(grad, queries, violators, losses, candidates.shape[0])
                grad_candidates = grad_candidates.to(ctx.dtype)
        return grad_queries, grad_candidates, grad_positives, *(None,) * 5


def _compact_rows(violators: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """The rows with a gradient, ascending, and the place of each violator among them, or -1."""
    active = (violators >= 0) & ~(losses <= 0)
    rows, found = torch.unique(violators[active], return_inverse=True)
    places = torch.full_like(violators, -1)
    places[active] = found
    return rows, places


@_fake.register("max_margin_loss")
def _(
    queries: Tensor,
    candidates: Tensor,
    poses: Tensor,
    targets: Tensor,
    positives: Tensor,
    violators: Tensor,
    margin_weight: float,
) -> Tensor:
    return queries.new_empty((queries.shape[0],))


@_fake.register("max_margin_loss_backward")
def _(
    grad_losses: Tensor,
    queries: Tensor,
    candidates: Tensor,
    positives: Tensor,
    violators: Tensor,
    losses: Tensor,
) -> tuple[Tensor, Tensor]:
    return queries.new_empty(queries.shape), queries.new_empty(queries.shape)


@_fake.register("max_margin_loss_backward_candidates")
def _(
    grad_losses: Tensor, queries: Tensor, violators: Tensor, losses: Tensor, count: int
) -> Tensor:
    return queries.new_empty((count, queries.shape[1]))
