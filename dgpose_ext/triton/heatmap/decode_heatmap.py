"""decode_heatmap in Triton: one program a map, which is read once where it fits a tile.

Maths: csrc/heatmap/decode_heatmap.h. Arguments as torch.ops.dgpose.decode_heatmap.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpose_ext.reference.heatmap.decode_heatmap import blur_taps
from dgpose_ext.triton._launch import divide, is_finite, launch, on_device, power_of_2

#: Float32 pixels of a map that is held in registers and so read once, and of a tile of larger maps,
#: which softargmax reads twice.
WHOLE = 16384
TILE = 4096

_QUARTER = tl.constexpr(1)
_DARK = tl.constexpr(2)
_SOFTARGMAX = tl.constexpr(3)


@triton.jit
def _load(map, start, pixels, T: tl.constexpr, INDEX: tl.constexpr, TILE: tl.constexpr):
    """The numbers of TILE pixels, and their values, NaN beyond the map."""
    at = start + tl.arange(0, TILE).to(INDEX)
    return at, tl.load(map + at, at < pixels, float("nan")).to(T)


@triton.jit
def _peak(map, pixels, at, value, T: tl.constexpr, INDEX: tl.constexpr, TILE: tl.constexpr,
          WHOLE: tl.constexpr):  # fmt: skip
    """The first maximum and its pixel: NaN ranks last, -Inf behind NaN is found.

    `at` and `value` are the map where it fits a tile.
    """
    none: tl.constexpr = 9223372036854775807 if INDEX == tl.int64 else 2147483647  # noqa: SIM300
    if WHOLE:
        most = tl.max(tl.where(value == value, value, float("-inf")), 0)
        first = tl.min(tl.where(value == most, at, none), 0)
    else:
        best = tl.full((TILE,), float("-inf"), T)
        index = tl.full((TILE,), none, INDEX)
        for start in range(0, pixels, TILE):
            at, value = _load(map, start, pixels, T, INDEX, TILE)
            better = (value == value) & ((value > best) | (index == none))
            best = tl.where(better, value, best)
            index = tl.where(better, at, index)
        most = tl.max(best, 0)
        first = tl.min(tl.where(best == most, index, none), 0)
    first = tl.where(first == none, 0, first)  # a map of NaN
    return tl.load(map + first).to(T), first


@triton.jit
def _weights(value, score, beta):
    """exp(beta (h - score)), 0 for NaN."""
    w = tl.exp(tl.full((), beta, value.dtype) * (value - score))
    return tl.where(w == w, w, 0)


@triton.jit
def _at(map, x, y, width, height, T: tl.constexpr):
    """The value at (x, y), brought inside the map."""
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    return tl.load(map + y * width + x).to(T)


@triton.jit
def _toward(after, before, moves):
    return tl.where(moves & (after > before), 0.25, tl.where(moves & (after < before), -0.25, 0.0))


@triton.jit
def _blurred_log(columns, offset: tl.constexpr, taps, RADIUS: tl.constexpr, PATCH: tl.constexpr):
    """log of the blurred map `offset` pixels right of the peak, from columns blurred along y."""
    tap = tl.arange(0, PATCH) - 2 - offset
    inside = (tap >= 0) & (tap <= 2 * RADIUS)
    g = tl.load(taps + tap, inside, 0)
    blurred = tl.sum(tl.where(inside, g * columns, 0), 0)
    return tl.log(tl.where(blurred < 1e-10, 1e-10, blurred))  # a NaN stays one


@triton.jit
def _dark_shift(map, x, y, width, height, taps, RADIUS: tl.constexpr, PATCH: tl.constexpr):
    """The step of Newton from the peak, 0 where it is not finite or the peak is at the border."""
    row = y - RADIUS - 2 + tl.arange(0, PATCH)
    column = x - RADIUS - 2 + tl.arange(0, PATCH)
    inside = ((row >= 0) & (row < height))[:, None] & ((column >= 0) & (column < width))[None, :]
    h = tl.load(map + (row * width)[:, None] + column[None, :], inside, 0).to(tl.float64)
    # The map blurred along y, 2 rows above the peak to 2 below.
    tap = tl.arange(0, PATCH)
    above_2 = _blur_rows(h, tap, taps, RADIUS)
    above = _blur_rows(h, tap - 1, taps, RADIUS)
    same = _blur_rows(h, tap - 2, taps, RADIUS)
    below = _blur_rows(h, tap - 3, taps, RADIUS)
    below_2 = _blur_rows(h, tap - 4, taps, RADIUS)
    center = _blurred_log(same, 0, taps, RADIUS, PATCH)
    right = _blurred_log(same, 1, taps, RADIUS, PATCH)
    left = _blurred_log(same, -1, taps, RADIUS, PATCH)
    down = _blurred_log(below, 0, taps, RADIUS, PATCH)
    up = _blurred_log(above, 0, taps, RADIUS, PATCH)
    gx, gy = 0.5 * (right - left), 0.5 * (down - up)
    right_2 = _blurred_log(same, 2, taps, RADIUS, PATCH)
    left_2 = _blurred_log(same, -2, taps, RADIUS, PATCH)
    down_2 = _blurred_log(below_2, 0, taps, RADIUS, PATCH)
    up_2 = _blurred_log(above_2, 0, taps, RADIUS, PATCH)
    hxx = 0.25 * (right_2 - 2 * center + left_2)
    hyy = 0.25 * (down_2 - 2 * center + up_2)
    hxy = 0.25 * (
        _blurred_log(below, 1, taps, RADIUS, PATCH)
        - _blurred_log(above, 1, taps, RADIUS, PATCH)
        - _blurred_log(below, -1, taps, RADIUS, PATCH)
        + _blurred_log(above, -1, taps, RADIUS, PATCH)
    )
    det = hxx * hyy - hxy * hxy
    dx, dy = -(hyy * gx - hxy * gy) / det, -(hxx * gy - hxy * gx) / det
    moves = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2) & is_finite(dx) & is_finite(dy)
    return tl.where(moves, dx, 0), tl.where(moves, dy, 0)


@triton.jit
def _blur_rows(h, tap, taps, RADIUS: tl.constexpr):
    inside = (tap >= 0) & (tap <= 2 * RADIUS)
    g = tl.load(taps + tap, inside, 0)
    return tl.sum(tl.where(inside[:, None], g[:, None] * h, 0), 0)


@triton.jit
def decode_heatmap_kernel(
    heatmaps, stride_b, stride_k, taps, coords, scores, joints, height, width, pixels,
    beta: tl.float64, METHOD: tl.constexpr, RADIUS: tl.constexpr, PATCH: tl.constexpr,
    INDEX: tl.constexpr, TILE: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = coords.dtype.element_ty
    n = tl.program_id(0).to(tl.int64)
    map = heatmaps + (n // joints) * stride_b + (n % joints) * stride_k
    at, value = _load(map, 0, pixels, T, INDEX, TILE)  # of the whole map, or of its first tile
    score, peak = _peak(map, pixels, at, value, T, INDEX, TILE, WHOLE)
    x, y = peak.to(tl.int64) % width, peak.to(tl.int64) // width
    at_x, at_y = x.to(T), y.to(T)
    if METHOD == _QUARTER:
        right, left = _at(map, x + 1, y, width, height, T), _at(map, x - 1, y, width, height, T)
        below, above = _at(map, x, y + 1, width, height, T), _at(map, x, y - 1, width, height, T)
        at_x += _toward(right, left, (x > 1) & (x < width - 1) & (y > 0)).to(T)
        at_y += _toward(below, above, (y > 1) & (y < height - 1) & (x > 0)).to(T)
    if METHOD == _DARK:
        dx, dy = _dark_shift(map, x, y, width, height, taps, RADIUS, PATCH)
        at_x = (at_x.to(tl.float64) + dx).to(T)
        at_y = (at_y.to(tl.float64) + dy).to(T)
    if METHOD == _SOFTARGMAX:
        if WHOLE:
            w = _weights(value, score, beta)
            total = tl.sum(w, 0)
            mean_x = divide(tl.sum(w * (at % width).to(T), 0), total)
            mean_y = divide(tl.sum(w * (at // width).to(T), 0), total)
        else:
            sum_w = tl.zeros((TILE,), T)
            sum_x = tl.zeros((TILE,), T)
            sum_y = tl.zeros((TILE,), T)
            for start in range(0, pixels, TILE):
                at, value = _load(map, start, pixels, T, INDEX, TILE)
                w = _weights(value, score, beta)
                sum_w += w
                sum_x += w * (at % width).to(T)
                sum_y += w * (at // width).to(T)
            total = tl.sum(sum_w, 0)
            mean_x, mean_y = divide(tl.sum(sum_x, 0), total), divide(tl.sum(sum_y, 0), total)
        at_x = tl.where(is_finite(score), mean_x, at_x)
        at_y = tl.where(is_finite(score), mean_y, at_y)
    tl.store(coords + 2 * n, at_x)
    tl.store(coords + 2 * n + 1, at_y)
    tl.store(scores + n, score)


def _sizes(height: int, width: int, dtype: torch.dtype) -> dict[str, object]:
    """How a map is cut into tiles, and what numbers its pixels."""
    whole_size, tile_size = (WHOLE, TILE) if dtype != torch.float64 else (WHOLE // 2, TILE // 2)
    whole = height * width <= whole_size
    tile = power_of_2(height * width, whole_size if whole else tile_size)
    index = tl.int32 if height * width + tile < 2**31 else tl.int64
    warps = min(max(tile // 1024, 4), 16)
    return {"INDEX": index, "TILE": tile, "WHOLE": whole, "num_warps": warps}


def decode_heatmap(
    heatmaps: Tensor, method: int, blur_kernel: int, beta: float
) -> tuple[Tensor, Tensor]:
    """coords [B, K, 2] and scores [B, K] of heatmaps [B, K, H, W]."""
    batch, joints, height, width = heatmaps.shape
    dtype = torch.float64 if heatmaps.dtype == torch.float64 else torch.float32
    coords = heatmaps.new_empty((batch, joints, 2), dtype=dtype)
    scores = heatmaps.new_empty((batch, joints), dtype=dtype)
    if heatmaps.stride()[2:] != (width, 1):
        heatmaps = heatmaps.contiguous()
    taps = None
    if method == _DARK.value:
        taps = on_device(blur_taps(blur_kernel), torch.float64, heatmaps.device)
    launch(
        decode_heatmap_kernel, batch * joints, coords,
        heatmaps, *heatmaps.stride()[:2], taps, coords, scores, joints, height, width,
        height * width, beta, METHOD=method, RADIUS=blur_kernel // 2,
        PATCH=power_of_2(blur_kernel + 4, 128),
        **_sizes(height, width, dtype),
    )  # fmt: skip
    return coords, scores


@triton.jit
def _grad(at, w, width, scale, center_x, center_y, gx, gy, score, peak, at_peak):
    """The gradient at pixels of weight w; scale is beta / sum w."""
    x, y = (at % width).to(w.dtype), (at // width).to(w.dtype)
    grad = scale * w * (gx * (x - center_x) + gy * (y - center_y))
    return tl.where(is_finite(score), grad, 0) + tl.where(at == peak, at_peak, 0)


@triton.jit
def decode_heatmap_backward_kernel(
    grad_coords, grad_scores, heatmaps, coords, grad_heatmaps, width, pixels, beta: tl.float64,
    INDEX: tl.constexpr, TILE: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = coords.dtype.element_ty
    n = tl.program_id(0).to(tl.int64)
    map, grad_map = heatmaps + n * pixels, grad_heatmaps + n * pixels
    at, value = _load(map, 0, pixels, T, INDEX, TILE)  # of the whole map, or of its first tile
    score, peak = _peak(map, pixels, at, value, T, INDEX, TILE, WHOLE)
    center_x, center_y = tl.load(coords + 2 * n), tl.load(coords + 2 * n + 1)
    gx, gy = tl.load(grad_coords + 2 * n), tl.load(grad_coords + 2 * n + 1)
    at_peak = tl.where(score == score, tl.load(grad_scores + n), 0)
    if WHOLE:
        w = _weights(value, score, beta)
        scale = divide(tl.full((), beta, T), tl.sum(w, 0))
        grad = _grad(at, w, width, scale, center_x, center_y, gx, gy, score, peak, at_peak)
        tl.store(grad_map + at, grad, at < pixels)
    else:
        sum_w = tl.zeros((TILE,), T)
        for start in range(0, pixels, TILE):
            at, value = _load(map, start, pixels, T, INDEX, TILE)
            sum_w += _weights(value, score, beta)
        scale = divide(tl.full((), beta, T), tl.sum(sum_w, 0))
        for start in range(0, pixels, TILE):
            at, value = _load(map, start, pixels, T, INDEX, TILE)
            w = _weights(value, score, beta)
            grad = _grad(at, w, width, scale, center_x, center_y, gx, gy, score, peak, at_peak)
            tl.store(grad_map + at, grad, at < pixels)


def decode_heatmap_backward(
    grad_coords: Tensor, grad_scores: Tensor, heatmaps: Tensor, coords: Tensor, beta: float
) -> Tensor:
    """grad_heatmaps [B, K, H, W] of softargmax."""
    batch, joints, height, width = heatmaps.shape
    grad_heatmaps = heatmaps.new_empty(heatmaps.shape)
    launch(
        decode_heatmap_backward_kernel, batch * joints, grad_heatmaps,
        grad_coords.contiguous(), grad_scores.contiguous(), heatmaps.contiguous(),
        coords.contiguous(), grad_heatmaps, width, height * width, beta,
        **_sizes(height, width, heatmaps.dtype),
    )  # fmt: skip
    return grad_heatmaps
