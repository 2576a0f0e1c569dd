"""topk_mean_pose against inner_product_topk and a mean taken rank by rank.

What holds for every op stands in test_every_op.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgpose_ext import _loader, inner_product_topk, topk_mean_pose
from dgpose_ext.pose_index import PoseIndex
from dgpose_ext.testing.inner_product_topk import random_embeddings
from dgpose_ext.testing.topk_mean_pose import random_poses

needs_core = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())


def mean_by_rank(poses: Tensor, indices: Tensor) -> Tensor:
    """In float64, one rank after the other, rounded once."""
    means = []
    for rows in indices.tolist():
        rows = [row for row in rows if row >= 0]
        total = torch.zeros(poses.shape[1:], dtype=torch.float64)
        for row in rows:
            total = total + poses[row].double()
        means.append((total / len(rows)).float())
    return torch.stack(means)


@pytest.mark.parametrize("k", [1, 2, 10, 500, 2000])
def test_mean_of_the_best(k: int) -> None:
    call = random_embeddings(4, 1500, 40)
    poses = random_poses(1500, 17)
    _, indices = inner_product_topk(**call, k=k)
    assert torch.equal(topk_mean_pose(**call, poses=poses, k=k), mean_by_rank(poses, indices))


def test_by_hand() -> None:
    candidates = torch.tensor([[1.0], [3.0], [2.0]])
    poses = torch.tensor([[[3.0, 0, 0]], [[0, 6.0, 0]], [[0, 0, 9.0]]])
    queries = torch.tensor([[1.0], [-1.0]])
    means = topk_mean_pose(queries, candidates, poses, 2)
    assert means.tolist() == [[[0, 3, 4.5]], [[1.5, 0, 4.5]]]
    assert topk_mean_pose(queries, candidates, poses, 99).tolist() == [[[1, 2, 3]]] * 2


def test_of_nothing_is_nan() -> None:
    means = topk_mean_pose(torch.ones(2, 3), torch.ones(0, 3), torch.ones(0, 5, 3), 4)
    assert means.shape == (2, 5, 3)
    assert means.isnan().all()


def test_threads_change_nothing() -> None:
    call = random_embeddings(9, 3000, 32) | {"poses": random_poses(3000, 17), "k": 200}
    want = topk_mean_pose(**call)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(topk_mean_pose(**call), want)
    finally:
        torch.set_num_threads(threads)
    split = torch.cat([topk_mean_pose(**call | {"queries": q}) for q in call["queries"].split(2)])
    assert torch.equal(split, want)


@needs_core
@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_pose_index_agrees(storage: str) -> None:
    call = random_embeddings(3, 2000, 32)
    poses = random_poses(2000, 5)
    index = PoseIndex(call["candidates"], poses=poses, storage=storage)  # type: ignore[arg-type]
    want = topk_mean_pose(**call, poses=poses, k=60)
    assert torch.equal(index.search_mean_pose(call["queries"], 60), want)
