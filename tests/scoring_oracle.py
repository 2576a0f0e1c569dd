"""The scores that csrc/scoring/exact_score.h defines, in NumPy, all of them at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


def score_matrix(queries: Tensor, candidates: Tensor) -> Array:
    """[B, N] float64: 16 partial sums, each in the order of its elements, then folded."""
    q, x = (t.float().double().numpy() for t in (queries, candidates))
    lanes = np.zeros((len(q), len(x), 16))
    with np.errstate(all="ignore"):
        for i in range(q.shape[1]):
            lanes[:, :, i % 16] += q[:, i, None] * x[None, :, i]
        for width in (8, 4, 2, 1):
            lanes = lanes[..., :width] + lanes[..., width:]
    return lanes[..., 0]


def distance_matrix(poses: Tensor, targets: Tensor) -> Array:
    """[B, N] float64: the mean joint distance of every target and pose."""
    y, t = (p.float().double().numpy() for p in (poses, targets))
    total = np.zeros((len(t), len(y)))
    with np.errstate(all="ignore"):
        for joint in range(y.shape[1]):
            d = y[None, :, joint] - t[:, None, joint]
            total += np.sqrt((d[..., 0] ** 2 + d[..., 1] ** 2) + d[..., 2] ** 2)
        return total / y.shape[1]


def best(scores: Array, k: int) -> tuple[Tensor, Tensor]:
    """values [B, k] float32 and indices [B, k] by rank: descending, NaN last, ties by index."""
    with np.errstate(all="ignore"):
        values = scores.astype(np.float32) + np.float32(0)
    top = np.full((len(values), k), -np.inf, dtype=np.float32)
    rows = np.full((len(values), k), -1, dtype=np.int64)
    for b, row in enumerate(values):
        key = np.where(np.isnan(row), np.inf, -row)
        order = np.lexsort((np.arange(len(row)), key, np.isnan(row)))[:k]
        top[b, : len(order)], rows[b, : len(order)] = row[order], order
    return torch.from_numpy(top), torch.from_numpy(rows)


def assert_same(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor]) -> None:
    """Equal to the bit, NaN included."""
    assert torch.equal(got[1], want[1])
    torch.testing.assert_close(got[0], want[0], rtol=0, atol=0, equal_nan=True)
