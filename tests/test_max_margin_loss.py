"""max_margin_loss against its expression in torch, its gradients, and its laws.

What holds for every op stands in test_every_op.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgpose_ext import _loader, max_margin_loss, max_margin_topk
from dgpose_ext.testing import Sample
from dgpose_ext.testing.max_margin_loss import loss_call

needs_core = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())
EMBEDDINGS = ("queries", "candidates", "positives")


def direct(call: Sample, weight: float) -> Tensor:
    """All N values of every query in torch, and autograd: [B]."""
    scores = call["queries"] @ call["candidates"].T
    distances = (call["poses"][None] - call["targets"][:, None]).norm(dim=-1).mean(-1)
    positive = (call["queries"] * call["positives"]).sum(1)
    return ((scores + weight * distances).amax(1) - positive).clamp(min=0)


def with_leaves(call: Sample) -> Sample:
    return {n: t.clone().requires_grad_(n in EMBEDDINGS) for n, t in call.items()}


@pytest.mark.parametrize("weight", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_direct_expression(weight: float, dtype: torch.dtype) -> None:
    ours, theirs = (with_leaves(loss_call(dtype, 17, 300, 24, 5)) for _ in range(2))
    losses, violators = max_margin_loss(**ours, margin_weight=weight, reduction="none")
    want = direct(theirs, weight)
    tolerance = {"rtol": 1e-4, "atol": 1e-3} if dtype == torch.float32 else {}
    torch.testing.assert_close(losses, want, **tolerance)
    assert losses.dtype == dtype
    search = {n: t.detach() for n, t in ours.items() if n != "positives"}
    assert torch.equal(violators, max_margin_topk(**search, margin_weight=weight)[1][:, 0])
    factors = torch.linspace(-1, 1, 17, dtype=dtype)
    (losses * factors).sum().backward()
    (want * factors).sum().backward()
    for name in EMBEDDINGS:
        torch.testing.assert_close(ours[name].grad, theirs[name].grad, rtol=1e-5, atol=1e-5)


def test_by_hand() -> None:
    queries = torch.tensor([[1.0, 2.0], [1.0, 0.0]], requires_grad=True)
    candidates = torch.tensor([[3.0, 1.0], [0.0, 0.0]], requires_grad=True)
    positives = torch.tensor([[1.0, 0.0], [99.0, 0.0]], requires_grad=True)
    poses = torch.tensor([[[0.0, 0, 0]], [[0, 3.0, 4]]])
    targets = torch.tensor([[[0.0, 0, 0]], [[0, 0, 0]]])
    losses, violators = max_margin_loss(
        queries, candidates, poses, targets, positives, margin_weight=2, reduction="none"
    )
    assert violators.tolist() == [1, 1]  # 10 against 5 + 0, 10 against 3
    assert losses.tolist() == [9.0, 0.0]
    (3 * losses[0] + 5 * losses[1]).backward()
    assert queries.grad is not None
    assert candidates.grad is not None
    assert positives.grad is not None
    assert queries.grad.tolist() == [[-3, 0], [0, 0]]
    assert positives.grad.tolist() == [[-3, -6], [0, 0]]
    assert candidates.grad.tolist() == [[0, 0], [3, 6]]


def test_reductions() -> None:
    call = loss_call(torch.float32, 9, 50, 8, 3)
    losses, _ = max_margin_loss(**call, reduction="none")
    assert losses.shape == (9,)
    for reduction in ("mean", "sum"):
        loss, _ = max_margin_loss(**call, reduction=reduction)  # type: ignore[arg-type]
        want = getattr(losses.double(), reduction)().float()
        assert torch.equal(loss, want)
    assert torch.equal(max_margin_loss(**call)[0], max_margin_loss(**call, reduction="mean")[0])


def shared_violators() -> Sample:
    """Many queries with few violators."""
    call = loss_call(torch.float32, 40, 30, 12, 2)
    call["candidates"][[3, 4]] *= 20
    return call


def test_sparse_gradient() -> None:
    dense, sparse = with_leaves(shared_violators()), with_leaves(shared_violators())
    _, violators = max_margin_loss(**dense, margin_weight=0.01)
    max_margin_loss(**dense, margin_weight=0.01)[0].backward()
    loss, _ = max_margin_loss(**sparse, margin_weight=0.01, sparse_grad=True)
    (once,) = torch.autograd.grad(loss, sparse["candidates"], retain_graph=True)
    assert once.is_coalesced()
    assert torch.equal(once.indices()[0], once.indices()[0].unique())
    loss.backward()
    grad = sparse["candidates"].grad
    assert grad.is_sparse
    grad = grad.coalesce()
    assert torch.equal(grad.to_dense(), dense["candidates"].grad)
    assert 0 < grad._nnz() < len(violators)
    rows = grad.indices()[0]
    assert set(rows.tolist()) <= set(violators.tolist())
    assert torch.equal(sparse["queries"].grad, dense["queries"].grad)


def test_sparse_gradient_of_nothing() -> None:
    for call in (loss_call(torch.float32, 4, 0, 5, 2), loss_call(torch.float32, 0, 4, 5, 2)):
        leaves = with_leaves(call)
        max_margin_loss(**leaves, reduction="sum", sparse_grad=True)[0].backward()
        assert leaves["candidates"].grad._nnz() == 0
        assert leaves["candidates"].grad.shape == call["candidates"].shape


@pytest.mark.parametrize("sparse", [False, True])
def test_training_lowers_the_loss(sparse: bool) -> None:
    call = with_leaves(loss_call(torch.float32, 16, 100, 8, 3))
    optimizer: torch.optim.Optimizer
    if sparse:
        optimizer = torch.optim.SparseAdam([call["candidates"]], lr=0.3)
    else:
        optimizer = torch.optim.Adam([call["candidates"]], lr=0.3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = max_margin_loss(**call, margin_weight=0.01, sparse_grad=sparse)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sparse", [False, True])
def test_halves(dtype: torch.dtype, sparse: bool) -> None:
    """Computed in float32; gradients come back in their dtype."""
    half = with_leaves(loss_call(dtype, 8, 60, 12, 3))
    full = with_leaves({name: t.detach().float() for name, t in half.items()})
    losses = [max_margin_loss(**c, sparse_grad=sparse)[0] for c in (half, full)]
    assert losses[0].dtype == torch.float32
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for name in EMBEDDINGS:
        grad, want = half[name].grad, full[name].grad
        assert grad.dtype == dtype
        if grad.is_sparse:
            grad, want = grad.to_dense(), want.to_dense()
        assert torch.equal(grad, want.to(dtype))


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_one_gradient_alone(name: str) -> None:
    call, other = (
        loss_call(torch.float32, 6, 40, 8, 3),
        with_leaves(loss_call(torch.float32, 6, 40, 8, 3)),
    )
    call[name].requires_grad_()
    max_margin_loss(**call)[0].backward()
    max_margin_loss(**other)[0].backward()
    assert torch.equal(call[name].grad, other[name].grad)


def test_no_candidates() -> None:
    call = with_leaves(loss_call(torch.float32, 3, 0, 5, 2))
    loss, violators = max_margin_loss(**call)
    loss.backward()
    assert (loss.item(), violators.tolist()) == (0.0, [-1, -1, -1])
    assert all((call[name].grad == 0).all() for name in EMBEDDINGS)


def test_no_queries() -> None:
    call = loss_call(torch.float32, 0, 4, 5, 2)
    assert math.isnan(max_margin_loss(**call)[0].item())
    assert max_margin_loss(**call, reduction="sum")[0].item() == 0


def test_nan_is_handed_on() -> None:
    call = loss_call(torch.float32, 3, 20, 5, 2)
    call["queries"][1, 2] = math.nan
    call = with_leaves(call)
    losses, _ = max_margin_loss(**call, reduction="none")
    assert losses.isnan().tolist() == [False, True, False]
    losses.sum().backward()
    assert call["positives"].grad.isnan().any(1).tolist() == [False, True, False]


def test_candidates_that_are_a_slice_of_columns() -> None:
    call = loss_call(torch.float32, 6, 40, 8, 3)
    wide = torch.zeros(40, 20)
    wide[:, 5:13] = call["candidates"]
    leaves = with_leaves(call)
    want, _ = max_margin_loss(**leaves)
    want.backward()
    wide.requires_grad_()
    got, _ = max_margin_loss(**call | {"candidates": wide[:, 5:13]})
    got.backward()
    assert torch.equal(got, want)
    assert wide.grad is not None
    assert torch.equal(wide.grad[:, 5:13], leaves["candidates"].grad)


def test_gradients_on_any_number_of_threads() -> None:
    call = loss_call(torch.float32, 200, 50, 300, 3)
    grads = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            leaves = with_leaves(call)
            max_margin_loss(**leaves)[0].backward()
            grads.append([leaves[name].grad for name in EMBEDDINGS])
    finally:
        torch.set_num_threads(threads)
    for other in grads[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, grads[0], strict=True))


@needs_core
def test_gradients_under_compile() -> None:
    compiled = torch.compile(max_margin_loss, fullgraph=True, dynamic=True, backend="aot_eager")
    ours, theirs = (with_leaves(loss_call(torch.float32, 7, 40, 8, 3)) for _ in range(2))
    compiled(**ours)[0].backward()
    max_margin_loss(**theirs)[0].backward()
    assert all(torch.equal(ours[name].grad, theirs[name].grad) for name in EMBEDDINGS)
    torch.compiler.reset()


@needs_core
def test_a_violator_that_is_no_row_has_no_loss() -> None:
    """For who calls torch.ops directly: no index reaches memory unchecked."""
    call = loss_call(torch.float32, 4, 9, 5, 2)
    violators = torch.tensor([2, -1, 9, 2**62])
    tensors = [call[n] for n in ("queries", "candidates", "poses", "targets", "positives")]
    losses = torch.ops.dgpose.max_margin_loss(*tensors, violators, 1.0)
    assert (losses[1:] == 0).all()
    losses = torch.ones(4)
    rows = torch.ops.dgpose.max_margin_loss_backward_candidates(
        losses, call["queries"], violators, losses, 9
    )
    assert (rows.any(1).nonzero() == torch.tensor([[2]])).all()
