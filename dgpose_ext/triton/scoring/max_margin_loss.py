"""max_margin_loss in Triton: one program some queries; gradients are gathered.

Maths: csrc/scoring/max_margin_loss.h. Arguments as torch.ops.dgpose.max_margin_loss and its
backward ops.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from dgpose_ext.triton._launch import ceil_divide, launch, power_of_2
from dgpose_ext.triton.scoring._exact import dense_rows, inner_products, mean_joint_distances

#: Queries of a program of the forward.
QUERIES = 16
#: Columns of a program of the backward, and how many violators it compares at a time.
COLUMNS = 256
VIOLATORS = 1024


@triton.jit
def max_margin_loss_kernel(
    queries, candidates, stride, poses, targets, positives, violators, losses, batch, count, dim,
    joints, weight: tl.float64, QUERIES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    own = tl.minimum(b, batch - 1)
    row = tl.load(violators + own)
    there = (row >= 0) & (row < count)
    row = tl.where(there, row, 0)
    query = queries + own * dim
    distance = mean_joint_distances(
        poses + row * (3 * joints), targets + own * (3 * joints), joints, QUERIES
    )
    value = inner_products(query, candidates + row * stride, dim, QUERIES) + weight * distance
    hinge = value - inner_products(query, positives + own * dim, dim, QUERIES)
    loss = tl.where(there & ((hinge > 0) | (hinge != hinge)), hinge, 0)
    tl.store(losses + b, loss.to(losses.dtype.element_ty), b < batch)


def max_margin_loss(
    queries: Tensor,
    candidates: Tensor,
    poses: Tensor,
    targets: Tensor,
    positives: Tensor,
    violators: Tensor,
    margin_weight: float,
) -> Tensor:
    """losses [B] in the dtype of queries; 0 where a violator is none of the candidates."""
    batch, dim = queries.shape
    losses = queries.new_zeros(batch)
    if len(candidates) == 0:
        return losses
    candidates = dense_rows(candidates)
    some = power_of_2(batch, QUERIES)
    launch(
        max_margin_loss_kernel, ceil_divide(batch, some), losses,
        queries.contiguous(), candidates, candidates.stride(0), poses.contiguous(),
        targets.contiguous(), positives.contiguous(), violators.contiguous(), losses,
        batch, len(candidates), dim, poses.shape[1], margin_weight, QUERIES=some,
    )  # fmt: skip
    return losses


@triton.jit
def _is_active(violators, losses, b, there, count):
    """Whether queries have a violator and a loss that is not 0 (NaN hands NaN on)."""
    row, loss = tl.load(violators + b, there, -1), tl.load(losses + b, there, 0)
    # True stands first since the interpreter combines comparisons of scalars as numbers.
    return True & (row >= 0) & (row < count) & ((loss > 0) | (loss != loss)), row


@triton.jit
def max_margin_loss_backward_kernel(
    grad_losses, queries, candidates, stride, positives, violators, losses,
    grad_queries, grad_positives, count, dim, tiles, COLUMNS: tl.constexpr,
):  # fmt: skip
    b = (tl.program_id(0) // tiles).to(tl.int64)
    at = (tl.program_id(0) % tiles).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = at < dim
    active, row = _is_active(violators, losses, b, True, count)
    grad = tl.load(grad_losses + b)
    read = inside & active
    query = tl.load(queries + b * dim + at, read, 0)
    positive = tl.load(positives + b * dim + at, read, 0)
    candidate = tl.load(candidates + tl.where(active, row, 0) * stride + at, read, 0)
    to_query = tl.where(active, grad * (candidate - positive), 0)
    tl.store(grad_queries + b * dim + at, to_query, inside)
    tl.store(grad_positives + b * dim + at, tl.where(active, -(grad * query), 0), inside)


def max_margin_loss_backward(
    grad_losses: Tensor,
    queries: Tensor,
    candidates: Tensor,
    positives: Tensor,
    violators: Tensor,
    losses: Tensor,
) -> tuple[Tensor, Tensor]:
    """grad_queries, grad_positives [B, D]."""
    batch, dim = queries.shape
    grad_queries, grad_positives = (queries.new_empty(queries.shape) for _ in range(2))
    candidates = dense_rows(candidates)
    columns = power_of_2(dim, COLUMNS)
    tiles = ceil_divide(dim, columns)
    launch(
        max_margin_loss_backward_kernel, batch * tiles, grad_queries,
        grad_losses.contiguous(), queries.contiguous(), candidates, candidates.stride(0),
        positives.contiguous(), violators.contiguous(), losses.contiguous(),
        grad_queries, grad_positives, len(candidates), dim, tiles, COLUMNS=columns,
    )  # fmt: skip
    return grad_queries, grad_positives


@triton.jit
def max_margin_loss_candidates_kernel(
    grad_losses, queries, violators, losses, grad_candidates, batch, count, dim, tiles,
    COLUMNS: tl.constexpr, VIOLATORS: tl.constexpr,
):  # fmt: skip
    """The first query of a violator adds up the gradients of all that share it, in their order."""
    b = (tl.program_id(0) // tiles).to(tl.int64)
    active, row = _is_active(violators, losses, b, True, count)
    if active:
        earlier = tl.full((), 0, tl.int32)
        for start in range(0, b, VIOLATORS):
            other = start + tl.arange(0, VIOLATORS)
            shares, its_row = _is_active(violators, losses, other, other < b, count)
            earlier += tl.sum((shares & (its_row == row)).to(tl.int32), 0)
        if earlier == 0:
            at = (tl.program_id(0) % tiles).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
            total = tl.zeros((COLUMNS,), queries.dtype.element_ty)
            for other in range(b, batch):
                shares, its_row = _is_active(violators, losses, other, True, count)
                if shares & (its_row == row):
                    query = tl.load(queries + other * dim + at, at < dim, 0)
                    total += tl.load(grad_losses + other) * query
            tl.store(grad_candidates + row * dim + at, total, at < dim)


def max_margin_loss_backward_candidates(
    grad_losses: Tensor, queries: Tensor, violators: Tensor, losses: Tensor, count: int
) -> Tensor:
    """grad_candidates [N, D], N = count."""
    batch, dim = queries.shape
    grad_candidates = queries.new_zeros((count, dim))
    columns = power_of_2(dim, COLUMNS)
    tiles = ceil_divide(dim, columns)
    launch(
        max_margin_loss_candidates_kernel, batch * tiles, grad_candidates,
        grad_losses.contiguous(), queries.contiguous(), violators.contiguous(),
        losses.contiguous(), grad_candidates, batch, count, dim, tiles,
        COLUMNS=columns, VIOLATORS=power_of_2(batch, VIOLATORS),
    )  # fmt: skip
    return grad_candidates
