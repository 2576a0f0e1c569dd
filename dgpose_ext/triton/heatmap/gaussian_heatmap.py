"""gaussian_heatmap in Triton: one program a tile of a map (backward: a map).

Maths: csrc/heatmap/gaussian_heatmap.h. Arguments as torch.ops.dgpose.gaussian_heatmap.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpose_ext.triton._launch import ceil_divide, divide, is_finite, launch, tile_shape, truncate

#: Pixels of a tile (half of them in float64): its factors cost little beside them.
TILE = 8192
#: Pixels of a tile of the backward, which keeps three sums for each.
BACKWARD_TILE = 1024

_AXIS_BLOCK = tl.constexpr(128)


@triton.jit
def _drawn(keypoints, sigma, visible, n):
    drawn = True
    for i in tl.static_range(2):
        s = tl.load(sigma + 2 * n + i)
        drawn = drawn & is_finite(tl.load(keypoints + 2 * n + i)) & is_finite(s) & (s > 0)
    if visible is not None:
        drawn = drawn & tl.load(visible + n)
    return drawn


@triton.jit
def _axis(keypoints, sigma, n, drawn, size, cutoff, AXIS: tl.constexpr, ROUND: tl.constexpr,
          SUM: tl.constexpr):  # fmt: skip
    """centre, sigma, origin, q_origin, and the pixels [first, last) that have all factors != 0."""
    centre = tl.where(drawn, tl.load(keypoints + 2 * n + AXIS), 0)
    s = tl.where(drawn, tl.load(sigma + 2 * n + AXIS), 1)
    if ROUND:
        centre = truncate(centre + 0.5)
    origin = centre
    if SUM:
        origin = tl.minimum(tl.maximum(tl.floor(centre + 0.5), 0), size - 1).to(centre.dtype)
    q_origin = divide(origin - centre, s)
    reach: tl.constexpr = 37.5 if centre.dtype == tl.float64 else 9.4  # sigmas; factors end before
    radius = tl.minimum(tl.full((), cutoff, centre.dtype) * s, tl.abs(origin - centre) + reach * s)
    first, last = tl.floor(centre - radius) - 1, tl.ceil(centre + radius) + 2
    # In floating point until clamped: huge values must not reach the conversion.
    first = tl.minimum(tl.where(first > 0, first, 0), size).to(tl.int64)
    last = tl.where(last < size, tl.maximum(last, 0), size).to(tl.int64)
    return centre, s, origin, q_origin, first, tl.where(drawn, last, 0)


@triton.jit
def _factors(pixel, size, centre, s, origin, q_origin, drawn, cutoff, SUM: tl.constexpr):
    """f before normalisation, and p = (pixel - origin) / sigma."""
    at = pixel.to(centre.dtype)
    d = at - centre
    q = divide(d, s)
    p = q
    if SUM:
        p = divide(at - origin, s)
    a = 0.5 * (p * (q + q_origin))
    limit: tl.constexpr = 700.0 if centre.dtype == tl.float64 else 43.66827
    inside = (a < limit) & (tl.abs(d) <= tl.full((), cutoff, centre.dtype) * s)
    return tl.where(inside & drawn & (pixel < size), tl.exp(-a), 0), p


@triton.jit
def _sums(size, centre, s, origin, q_origin, first, last, drawn, cutoff):
    """Sums of f, f p and f p^2 over an axis."""
    sum_0 = tl.zeros((_AXIS_BLOCK,), centre.dtype)
    sum_1 = tl.zeros((_AXIS_BLOCK,), centre.dtype)
    sum_2 = tl.zeros((_AXIS_BLOCK,), centre.dtype)
    for start in range(first, last, _AXIS_BLOCK):
        pixel = start + tl.arange(0, _AXIS_BLOCK)
        f, p = _factors(pixel, size, centre, s, origin, q_origin, drawn, cutoff, True)
        p = tl.where(f == 0, 0, p)
        sum_0 += f
        sum_1 += f * p
        sum_2 += f * p * p
    return tl.sum(sum_0), tl.sum(sum_1), tl.sum(sum_2)


@triton.jit
def _tile_factors(keypoints, sigma, n, drawn, start, size, cutoff, AXIS: tl.constexpr,
                  COUNT: tl.constexpr, ROUND: tl.constexpr, SUM: tl.constexpr):  # fmt: skip
    """The factors of COUNT pixels from `start` on."""
    centre, s, origin, q_origin, first, last = _axis(
        keypoints, sigma, n, drawn, size, cutoff, AXIS, ROUND, SUM
    )
    pixel = start + tl.arange(0, COUNT)
    f, _ = _factors(pixel, size, centre, s, origin, q_origin, drawn, cutoff, SUM)
    if SUM:
        total, _, _ = _sums(size, centre, s, origin, q_origin, first, last, drawn, cutoff)
        f = divide(f, tl.where(total > 0, total, 1))  # all f are 0 where total is
    return f, pixel


@triton.jit
def gaussian_heatmap_kernel(
    keypoints, sigma, visible, out, height, width, pixels, tiles, tiles_across, cutoff: tl.float64,
    ROUND: tl.constexpr, SUM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    row = (tile // tiles_across).to(tl.int64) * ROWS
    column = (tile % tiles_across).to(tl.int64) * COLUMNS
    drawn = _drawn(keypoints, sigma, visible, n)
    fx, x = _tile_factors(keypoints, sigma, n, drawn, column, width, cutoff, 0, COLUMNS, ROUND, SUM)
    fy, y = _tile_factors(keypoints, sigma, n, drawn, row, height, cutoff, 1, ROWS, ROUND, SUM)
    to = out + n * pixels + (y * width)[:, None] + x[None, :]
    value = (fy[:, None] * fx[None, :]).to(out.dtype.element_ty)
    tl.store(to, value, (y < height)[:, None] & (x < width)[None, :])


def gaussian_heatmap(
    keypoints: Tensor,
    sigma: Tensor,
    visible: Tensor | None,
    height: int,
    width: int,
    cutoff: float,
    round_centers: bool,
    normalize_sum: bool,
    dtype: torch.dtype,
) -> Tensor:
    """maps [B, K, H, W] of `dtype`; keypoints and sigma [B, K, 2], visible [B, K] bool."""
    out = keypoints.new_empty((*keypoints.shape[:2], height, width), dtype=dtype)
    rows, columns = tile_shape(height, width, TILE if dtype != torch.float64 else TILE // 2)
    tiles_across = ceil_divide(width, columns)
    tiles = ceil_divide(height, rows) * tiles_across
    launch(
        gaussian_heatmap_kernel, out.shape[0] * out.shape[1] * tiles, out,
        keypoints.contiguous(), sigma.contiguous(),
        None if visible is None else visible.contiguous(),
        out, height, width, height * width, tiles, tiles_across, cutoff,
        ROUND=round_centers, SUM=normalize_sum, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return out


@triton.jit
def _moments(size, centre, s, origin, q_origin, first, last, drawn, cutoff, SUM: tl.constexpr):
    """1 / sum f, E[p] and E[p^2] of an axis; 1, 0, 0 without normalisation."""
    one = tl.full((), 1, centre.dtype)
    zero = tl.full((), 0, centre.dtype)
    if SUM:
        total, sum_1, sum_2 = _sums(size, centre, s, origin, q_origin, first, last, drawn, cutoff)
        scale = tl.where(total > 0, divide(one, tl.where(total > 0, total, 1)), 0)
        return scale, sum_1 * scale, sum_2 * scale
    else:
        return one, zero, zero


@triton.jit
def _derivatives(pixel, size, centre, s, origin, q_origin, drawn, cutoff, scale, mean, mean_square,
                 SUM: tl.constexpr):  # fmt: skip
    """F, sigma dF/dcentre and sigma dF/dsigma at pixels."""
    f, p = _factors(pixel, size, centre, s, origin, q_origin, drawn, cutoff, SUM)
    f *= scale
    p = tl.where(f == 0, 0, p)
    if SUM:
        centred = p - mean
        return f, f * centred, f * ((p * p - mean_square) + 2 * q_origin * centred)
    else:
        return f, f * p, f * p * p


@triton.jit
def gaussian_heatmap_backward_kernel(
    grad_maps, stride_b, stride_k, stride_y, stride_x, keypoints, sigma, visible,
    grad_keypoints, grad_sigma, joints, height, width, cutoff: tl.float64,
    ROUND: tl.constexpr, SUM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Reads what lies in the window of nonzero factors. Sums by columns, then along the rows."""
    n = tl.program_id(0).to(tl.int64)
    grad = grad_maps + (n // joints) * stride_b + (n % joints) * stride_k
    drawn = _drawn(keypoints, sigma, visible, n)
    cx, sx, ox, qx, first_x, last_x = _axis(
        keypoints, sigma, n, drawn, width, cutoff, 0, ROUND, SUM
    )
    cy, sy, oy, qy, first_y, last_y = _axis(
        keypoints, sigma, n, drawn, height, cutoff, 1, ROUND, SUM
    )
    scale_x, mean_x, square_x = _moments(width, cx, sx, ox, qx, first_x, last_x, drawn, cutoff, SUM)
    scale_y, mean_y, square_y = _moments(
        height, cy, sy, oy, qy, first_y, last_y, drawn, cutoff, SUM
    )
    by_x = tl.zeros((COLUMNS,), cx.dtype)
    by_sx = tl.zeros((COLUMNS,), cx.dtype)
    by_y = tl.zeros((COLUMNS,), cx.dtype)
    by_sy = tl.zeros((COLUMNS,), cx.dtype)
    for left in range(first_x // 16 * 16, last_x, COLUMNS):
        x = left + tl.arange(0, COLUMNS)
        fx, dx, ddx = _derivatives(
            x, width, cx, sx, ox, qx, drawn, cutoff, scale_x, mean_x, square_x, SUM
        )
        sum_f = tl.zeros((ROWS, COLUMNS), cx.dtype)
        sum_d = tl.zeros((ROWS, COLUMNS), cx.dtype)
        sum_dd = tl.zeros((ROWS, COLUMNS), cx.dtype)
        for top in range(first_y, last_y, ROWS):
            y = top + tl.arange(0, ROWS)
            fy, dy, ddy = _derivatives(
                y, height, cy, sy, oy, qy, drawn, cutoff, scale_y, mean_y, square_y, SUM
            )
            inside = (y < height)[:, None] & (x < width)[None, :]
            at = grad + (y * stride_y)[:, None] + (x * stride_x)[None, :]
            g = tl.load(at, inside, 0).to(cx.dtype)
            sum_f += g * fy[:, None]
            sum_d += g * dy[:, None]
            sum_dd += g * ddy[:, None]
        sum_f_by_column = tl.sum(sum_f, 0)
        by_x += dx * sum_f_by_column
        by_sx += ddx * sum_f_by_column
        by_y += fx * tl.sum(sum_d, 0)
        by_sy += fx * tl.sum(sum_dd, 0)
    to_x, to_y = divide(tl.sum(by_x), sx), divide(tl.sum(by_y), sy)
    if ROUND:
        to_x, to_y = tl.full((), 0, cx.dtype), tl.full((), 0, cx.dtype)
    tl.store(grad_keypoints + 2 * n, tl.where(drawn, to_x, 0))
    tl.store(grad_keypoints + 2 * n + 1, tl.where(drawn, to_y, 0))
    tl.store(grad_sigma + 2 * n, tl.where(drawn, divide(tl.sum(by_sx), sx), 0))
    tl.store(grad_sigma + 2 * n + 1, tl.where(drawn, divide(tl.sum(by_sy), sy), 0))


def gaussian_heatmap_backward(
    grad_maps: Tensor,
    keypoints: Tensor,
    sigma: Tensor,
    visible: Tensor | None,
    cutoff: float,
    round_centers: bool,
    normalize_sum: bool,
) -> tuple[Tensor, Tensor]:
    """grad_keypoints, grad_sigma, both [B, K, 2]."""
    batch, joints, height, width = grad_maps.shape
    grad_keypoints = keypoints.new_empty(keypoints.shape)
    grad_sigma = keypoints.new_empty(keypoints.shape)
    rows, columns = tile_shape(height, width, BACKWARD_TILE, 64)
    launch(
        gaussian_heatmap_backward_kernel, batch * joints, grad_maps,
        grad_maps, *grad_maps.stride(), keypoints.contiguous(), sigma.contiguous(),
        None if visible is None else visible.contiguous(),
        grad_keypoints, grad_sigma, joints, height, width, cutoff,
        ROUND=round_centers, SUM=normalize_sum, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return grad_keypoints, grad_sigma
