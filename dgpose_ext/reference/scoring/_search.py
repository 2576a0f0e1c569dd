"""The exact search of the scoring ops in plain torch. Maths: csrc/scoring/exact_score.h, search.h.

Candidates are taken a chunk at a time, so that nothing of size B x N is stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PAIRS_AT_ONCE = 1 << 17  # each takes 16 float64


def inner_products(queries: Tensor, candidates: Tensor) -> Tensor:
    """The defined sums [B, N] in float64: 16 partial sums, each in the order of its elements."""
    batch, dim = queries.shape
    groups = -(-dim // 16)
    q, x = (
        torch.nn.functional.pad(t.double(), (0, 16 * groups - dim)).view(len(t), groups, 16)
        for t in (queries, candidates)
    )
    sums = q.new_zeros((batch, len(candidates), 16))
    for group in range(groups):
        sums += q[:, None, group] * x[None, :, group]
    for width in (8, 4, 2, 1):
        sums = sums[..., :width] + sums[..., width : 2 * width]
    return sums[..., 0]


def mean_joint_distances(poses: Tensor, targets: Tensor) -> Tensor:
    """The mean distance over the joints in float64, joint by joint: [..., J, 3] twice -> [...].

    torch's square root of float64 is off by an ulp now and then, which shows in float32 about once
    in 10^9 values.
    """
    joints = poses.shape[-2]
    total: Tensor | float = 0.0
    for joint in range(joints):
        dx, dy, dz = (poses[..., joint, :].double() - targets[..., joint, :].double()).unbind(-1)
        total = total + ((dx * dx + dy * dy) + dz * dz).sqrt()
    return torch.as_tensor(total) / joints


def search(
    queries: Tensor,
    candidates: Tensor,
    k: int,
    poses: Tensor | None = None,
    targets: Tensor | None = None,
    margin_weight: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """values [B, k] float32 and indices [B, k], by rank; -inf and -1 where k > N."""
    batch, count = len(queries), len(candidates)
    values = queries.new_empty((batch, 0), dtype=torch.float32)
    indices = torch.empty((batch, 0), dtype=torch.int64, device=queries.device)
    step = max(1, _PAIRS_AT_ONCE // max(batch, 1))
    for first in range(0, count, step):
        rows = slice(first, min(first + step, count))
        chunk = inner_products(queries, candidates[rows])
        if poses is not None and targets is not None:
            chunk += margin_weight * mean_joint_distances(poses[None, rows], targets[:, None])
        row = torch.arange(rows.start, rows.stop, device=queries.device).expand(batch, -1)
        values = torch.cat([values, chunk.float() + 0.0], 1)
        indices = torch.cat([indices, row], 1)
        # Ascending by the negative: NaN comes last, equal values stay in the order of their rows.
        order = (-values).sort(dim=1, stable=True).indices[:, :k]
        values, indices = values.gather(1, order), indices.gather(1, order)
    missing = (0, max(0, k - values.shape[1]))
    pad = torch.nn.functional.pad
    return pad(values, missing, value=-torch.inf), pad(indices, missing, value=-1)
