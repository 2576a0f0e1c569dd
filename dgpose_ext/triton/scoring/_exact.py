"""The defined values, in float64. Maths: csrc/scoring/exact_score.h, search.h.

Pairs are tiles of pointers to their two rows, [PAIRS] each, or [1] where all pairs share one.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def inner_products(a, b, dim, PAIRS: tl.constexpr):
    """[PAIRS] float64: 16 partial sums, each in the order of its elements, then folded."""
    sums = tl.zeros((PAIRS, 16), tl.float64)
    for start in range(0, dim, 16):
        at = start + tl.arange(0, 16)[None, :]
        x = tl.load(a[:, None] + at, at < dim, 0).to(tl.float32 if _is_half(a) else tl.float64)
        y = tl.load(b[:, None] + at, at < dim, 0).to(tl.float32 if _is_half(b) else tl.float64)
        sums += x.to(tl.float64) * y.to(tl.float64)
    return tl.reshape(_fold(_fold(_fold(_fold(sums, 8), 4), 2), 1), (PAIRS,))


@triton.constexpr_function
def _is_half(pointers):
    return pointers.dtype.element_ty.primitive_bitwidth == 16


@triton.jit
def _fold(sums, WIDTH: tl.constexpr):
    """sums[:, :WIDTH] + sums[:, WIDTH:]."""
    return tl.sum(tl.reshape(sums, (sums.shape[0], 2, WIDTH)), 1)


@triton.jit
def mean_joint_distances(poses, targets, joints, PAIRS: tl.constexpr):
    """[PAIRS] float64, joint by joint; a pose is [J, 3] float32."""
    total = tl.zeros((PAIRS,), tl.float64)
    for joint in range(joints):
        squares = tl.zeros((PAIRS,), tl.float64)
        for axis in tl.static_range(3):
            y = tl.load(poses + (3 * joint + axis)).to(tl.float64)
            d = y - tl.load(targets + (3 * joint + axis)).to(tl.float64)
            squares += d * d
        total += tl.sqrt(squares)
    return total / joints


def dense_rows(rows: Tensor) -> Tensor:
    """The tensor, or a copy where the elements of a row are not dense; rows may lie apart."""
    return rows if rows.shape[1] <= 1 or rows.stride(1) == 1 else rows.contiguous()
