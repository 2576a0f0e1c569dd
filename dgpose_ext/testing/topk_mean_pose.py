"""Sample inputs of topk_mean_pose."""

from __future__ import annotations

import math

import torch

from dgpose_ext import topk_mean_pose
from dgpose_ext.testing import BadInput, OpSpec, Sample
from dgpose_ext.testing.inner_product_topk import (
    BAD_EMBEDDINGS,
    BAD_K,
    FLOATS,
    bad_gradients,
    hostile_embeddings,
    random_embeddings,
)


def random_poses(count: int, joints: int, seed: int = 0) -> torch.Tensor:
    """Poses [N, J, 3] in mm around the root."""
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn((count, joints, 3), generator=generator) * 300


def _call(
    dtype: torch.dtype, batch: int, count: int, dim: int, joints: int, k: int, seed: int = 0
) -> Sample:
    embeddings = random_embeddings(batch, count, dim, seed)
    embeddings["poses"] = random_poses(count, joints, seed)
    return {name: value.to(dtype) for name, value in embeddings.items()} | {"k": k}


def _samples(dtype: torch.dtype) -> list[Sample]:
    sizes = [
        (3, 200, 33, 17, 7), (1, 1, 1, 1, 1), (7, 65, 16, 5, 30), (2, 20, 8, 3, 50),
        (2, 2500, 31, 17, 500),
    ]  # fmt: skip
    return [_call(dtype, *size, seed=seed) for seed, size in enumerate(sizes)]


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    call = _call(torch.float32, 3, 40, 9, 4, 5)
    return [("topk_mean_pose", tuple(call.values()))]


def _empty() -> list[Sample]:
    sizes = [(0, 5, 4, 2, 3), (2, 0, 4, 2, 3), (2, 5, 0, 2, 3), (2, 5, 4, 0, 3)]
    return [_call(torch.float32, *size) for size in sizes]


def _hostile() -> list[Sample]:
    calls = []
    for embeddings in hostile_embeddings():
        poses = random_poses(len(embeddings["candidates"]), 3)
        poses[::5, 1, 2] = math.nan
        poses[1::5, 0, 1] = math.inf
        poses[2::5] = 3e38
        calls += [embeddings | {"poses": poses, "k": k} for k in (1, 9)]
    return calls


SPEC = OpSpec(
    name="topk_mean_pose",
    family="scoring",
    function=topk_mean_pose,
    samples=_samples,
    dtypes=FLOATS,
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    bad=(
        *BAD_EMBEDDINGS, *BAD_K, *bad_gradients("topk_mean_pose"),
        BadInput({"poses": None}, TypeError, "poses must be a torch.Tensor, got NoneType"),
        BadInput(
            {"poses": torch.zeros((199, 17, 3))}, ValueError,
            r"poses must have shape \[N, J, 3\] with N = 200, got \[199, 17, 3\]",
        ),
        BadInput(
            {"poses": torch.zeros((200, 17, 2))}, ValueError,
            r"poses must have shape \[N, J, 3\] with N = 200, got \[200, 17, 2\]",
        ),
        BadInput(
            {"poses": torch.zeros((200, 17, 3), requires_grad=True)}, ValueError,
            "poses must not require a gradient: topk_mean_pose has none for it; detach it",
        ),
    ),
)  # fmt: skip
