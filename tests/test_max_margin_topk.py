"""max_margin_topk against the defined values, and its laws.

What holds for every op stands in test_every_op.py.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_oracle import Array, assert_same, best, distance_matrix, score_matrix

from dgpose_ext import _loader, inner_product_topk, max_margin_topk
from dgpose_ext.pose_index import PoseIndex
from dgpose_ext.testing import Sample
from dgpose_ext.testing.max_margin_topk import cancelling_scores, hostile_margins, margin_call

needs_core = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())


def values(call: Sample, weight: float) -> Array:
    scores = score_matrix(call["queries"], call["candidates"])
    return scores + weight * distance_matrix(call["poses"], call["targets"])  # type: ignore[no-any-return]


@pytest.mark.parametrize("weight", [0.0, 0.003, 0.1, 1.0, 1000.0])
@pytest.mark.parametrize("k", [1, 50])
def test_defined_ranking(weight: float, k: int) -> None:
    call = margin_call(torch.float32, 4, 6000, 32, 17)
    got = max_margin_topk(**call, k=k, margin_weight=weight)
    assert_same(got, best(values(call, weight), k))


@pytest.mark.parametrize("index", range(len(hostile_margins())))
def test_hostile_values(index: int) -> None:
    call = hostile_margins()[index]
    weight = call.pop("margin_weight", 1.0)
    for k in (1, 30):
        got = max_margin_topk(**call, k=k, margin_weight=weight)
        assert_same(got, best(values(call, weight), k))


def test_scores_that_cancel_the_margin() -> None:
    """All values are nearly 0: no pair can be ruled out."""
    call = cancelling_scores(3, 4000)
    assert_same(max_margin_topk(**call), best(values(call, 1.0), 20))


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(0, 8), count=st.integers(0, 90), dim=st.integers(0, 20),
    joints=st.integers(1, 6), k=st.integers(1, 100), weight=st.sampled_from([0.0, 0.5, 2.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_equals_sorting(
    batch: int, count: int, dim: int, joints: int, k: int, weight: float, seed: int
) -> None:
    """Of integers along one axis: distances are integers, and many values equal."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"queries": (batch, dim), "candidates": (count, dim)}
    call = {n: torch.randint(-2, 3, s, generator=generator).float() for n, s in shapes.items()}
    for name, rows in (("poses", count), ("targets", batch)):
        call[name] = torch.zeros((rows, joints, 3))
        call[name][..., 1] = torch.randint(0, 3, (rows, joints), generator=generator).float()
    got = max_margin_topk(**call, k=k, margin_weight=weight)
    assert_same(got, best(values(call, weight), k))


def test_without_weight_it_is_inner_product_topk() -> None:
    call = margin_call(torch.float32, 3, 2000, 24, 5)
    want = inner_product_topk(call["queries"], call["candidates"], 30)
    assert_same(max_margin_topk(**call, k=30, margin_weight=0), want)


def test_without_scores_it_is_the_farthest_pose() -> None:
    call = margin_call(torch.float32, 2, 500, 4, 3)
    call["poses"][321] += 5000
    _, indices = max_margin_topk(**call | {"queries": torch.zeros(2, 4)})
    assert indices.tolist() == [[321], [321]]


def test_by_hand() -> None:
    queries, candidates = torch.tensor([[1.0]]), torch.tensor([[7.0], [4.0]])
    poses = torch.tensor([[[0.0, 0, 0], [0, 0, 0]], [[3.0, 4, 0], [0, 0, 6]]])
    targets = torch.zeros(1, 2, 3)
    values, indices = max_margin_topk(queries, candidates, poses, targets, 3)
    assert values.tolist() == [[9.5, 7.0, -torch.inf]]
    assert indices.tolist() == [[1, 0, -1]]
    values, indices = max_margin_topk(queries, candidates, poses, targets, margin_weight=0.5)
    assert (values.tolist(), indices.tolist()) == ([[7.0]], [[0]])


def test_threads_and_batch_split_change_nothing() -> None:
    call = margin_call(torch.float32, 260, 3000, 24, 5, k=4, margin_weight=0.05)
    want = max_margin_topk(**call)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert_same(max_margin_topk(**call), want)
    finally:
        torch.set_num_threads(threads)
    for size in (7, 253):
        pairs = zip(call["queries"].split(size), call["targets"].split(size), strict=True)
        parts = [max_margin_topk(**call | {"queries": q, "targets": t}) for q, t in pairs]
        got = torch.cat([v for v, _ in parts]), torch.cat([rows for _, rows in parts])
        assert_same(got, want)


@needs_core
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_pose_index_agrees(storage: str) -> None:
    call = margin_call(torch.float32, 5, 4000, 32, 17)
    index = PoseIndex(call["candidates"], poses=call["poses"], storage=storage)  # type: ignore[arg-type]
    got = index.most_violated(call["queries"], call["targets"], margin_weight=0.1)
    want = max_margin_topk(**call, margin_weight=0.1)
    assert_same(got, (want[0][:, 0], want[1][:, 0]))
