"""topk_mean_pose in Triton: the search, then one program some coordinates of a mean.

Maths: csrc/scoring/topk_mean_pose.h. Arguments as torch.ops.dgpose.topk_mean_pose; candidates may
be halves.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpose_ext.triton._launch import ceil_divide, launch, power_of_2
from dgpose_ext.triton.scoring._search import search

#: Coordinates of a program.
COORDINATES = 64


@triton.jit
def topk_mean_pose_kernel(poses, rows, means, size, k, tiles, COORDINATES: tl.constexpr):
    """Sums in float64, by rank."""
    b = (tl.program_id(0) // tiles).to(tl.int64)
    at = (tl.program_id(0) % tiles).to(tl.int64) * COORDINATES + tl.arange(0, COORDINATES)
    total = tl.zeros((COORDINATES,), tl.float64)
    for rank in range(k):
        row = tl.load(rows + b * k + rank)
        total += tl.load(poses + row * size + at, at < size, 0).to(tl.float64)
    tl.store(means + b * size + at, (total / k).to(tl.float32), at < size)


def topk_mean_pose(queries: Tensor, candidates: Tensor, poses: Tensor, k: int) -> Tensor:
    """means [B, J, 3] float32; poses [N, J, 3] float32."""
    batch, count, size = len(queries), len(candidates), 3 * poses.shape[1]
    means = poses.new_full((batch, *poses.shape[1:]), torch.nan)
    if count == 0 or size == 0:
        return means
    k = min(k, count)
    _, rows = search(queries, candidates, k)
    columns = power_of_2(size, COORDINATES)
    tiles = ceil_divide(size, columns)
    launch(
        topk_mean_pose_kernel, batch * tiles, means,
        poses.contiguous(), rows, means, size, k, tiles, COORDINATES=columns,
    )  # fmt: skip
    return means
