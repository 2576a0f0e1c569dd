"""limb_heatmap in Triton: one program a tile of a map (backward: a map, then a joint).

Maths: csrc/heatmap/limb_heatmap.h. Arguments as torch.ops.dgpose.limb_heatmap.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpose_ext.triton._launch import ceil_divide, is_finite, launch, power_of_2, tile_shape

#: Pixels of a tile (half of them in float64).
TILE = 8192
#: Pixels of a tile of the backward, which keeps five sums for each.
BACKWARD_TILE = 1024
#: Limbs that a joint looks at together.
LIMBS = 64

_HALF_WIDTH = tl.constexpr(1.1774100225154747)  # sqrt(2 ln 2): in sigmas, where a map is 1/2


@triton.jit
def _end(keypoints, limbs, visible, b, limb, end: tl.constexpr, joints):
    """x, y of an end of a limb in float64, and whether it is drawn; no index leaves the tensors."""
    joint = tl.load(limbs + 2 * limb + end)
    known = (joint >= 0) & (joint < joints)
    at = b * joints + joint
    x = tl.load(keypoints + 2 * at, known, 0).to(tl.float64)
    y = tl.load(keypoints + 2 * at + 1, known, 0).to(tl.float64)
    drawn = known & is_finite(x) & is_finite(y)
    if visible is not None:
        drawn = drawn & (tl.load(visible + at, known, 0) != 0)
    return x, y, drawn


@triton.jit
def _limb(keypoints, limbs, sigmas, visible, n, b, limb, joints):
    """A limb from its joint nearer to the first pixel: whether it is drawn and its joints are
    swapped, a, the unit vector u from a to b, 1 / half width, the length, all in float64."""
    ax, ay, a_drawn = _end(keypoints, limbs, visible, b, limb, 0, joints)
    bx, by, b_drawn = _end(keypoints, limbs, visible, b, limb, 1, joints)
    sigma = tl.load(sigmas + n).to(tl.float64)
    drawn = a_drawn & b_drawn & (sigma > 0) & is_finite(sigma) & is_finite(2 / sigma)
    near_a, near_b = tl.abs(ax) + tl.abs(ay), tl.abs(bx) + tl.abs(by)
    lower = (bx < ax) | ((bx == ax) & (by < ay))
    swapped = (near_b < near_a) | ((near_b == near_a) & lower)
    from_x, from_y = tl.where(swapped, bx, ax), tl.where(swapped, by, ay)
    ex, ey = tl.where(swapped, ax, bx) - from_x, tl.where(swapped, ay, by) - from_y
    # The length without over- or underflow of squares.
    longer = tl.maximum(tl.abs(ex), tl.abs(ey))
    divisor = tl.where(longer > 0, longer, 1)
    ex, ey = ex / divisor, ey / divisor
    norm = tl.sqrt(ex * ex + ey * ey)
    length = longer * norm
    drawn = drawn & is_finite(length)
    has_direction = drawn & (norm > 0)
    divisor = tl.where(norm > 0, norm, 1)
    ux, uy = tl.where(has_direction, ex / divisor, 1), tl.where(has_direction, ey / divisor, 0)
    from_x, from_y = tl.where(drawn, from_x, 0), tl.where(drawn, from_y, 0)
    scale = 1 / (_HALF_WIDTH * tl.where(drawn, sigma, 1))
    return drawn, swapped, from_x, from_y, ux, uy, scale, tl.where(drawn, length, 0)


@triton.jit
def _distances(x, y, drawn, ax, ay, ux, uy, scale, length, T: tl.constexpr):
    """s, the foot c, o, and h at a tile of pixels; where h is 0 all of them are."""
    # What depends on one coordinate alone is rounded once.
    dx, dy = x.to(tl.float64) - ax, y.to(tl.float64) - ay
    ux, uy = ux * scale, uy * scale
    across = (dy * ux).to(T)[:, None] + (dx * -uy).to(T)[None, :]
    along = (dy * uy).to(T)[:, None] + (dx * ux).to(T)[None, :]
    foot = tl.minimum(tl.maximum(along, 0), length)
    beyond = along - foot
    exponent = across * across + beyond * beyond
    # Below 0 nothing is: a limb that is not drawn.
    limit: tl.constexpr = 1000.0 if tl.float64 == T else 63.0
    inside = exponent < tl.where(drawn, limit, -1.0)
    h = tl.where(inside, tl.exp2(-exponent), 0)
    zero = tl.zeros_like(h)
    return (
        tl.where(inside, across, zero),
        tl.where(inside, foot, zero),
        tl.where(inside, beyond, zero),
        h,
    )


@triton.jit
def _length_in(length, scale, T: tl.constexpr):
    """The length in half widths; never infinite."""
    most: tl.constexpr = 1.7976931348623157e308 if tl.float64 == T else 3.4028234663852886e38
    return tl.minimum(length * scale, tl.full((), most, tl.float64)).to(T)


@triton.jit
def limb_heatmap_kernel(
    keypoints, limbs, sigmas, visible, out, joints, limb_count, height, width, pixels, tiles,
    tiles_across, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = keypoints.dtype.element_ty
    n = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    x = (tile % tiles_across).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    y = (tile // tiles_across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    drawn, _, ax, ay, ux, uy, scale, length = _limb(
        keypoints, limbs, sigmas, visible, n, n // limb_count, n % limb_count, joints
    )
    length = _length_in(length, scale, T)
    _, _, _, h = _distances(x, y, drawn, ax, ay, ux, uy, scale, length, T)
    to = out + n * pixels + (y * width)[:, None] + x[None, :]
    tl.store(to, h.to(out.dtype.element_ty), (y < height)[:, None] & (x < width)[None, :])


def limb_heatmap(
    keypoints: Tensor,
    limbs: Tensor,
    sigma: Tensor,
    visible: Tensor | None,
    height: int,
    width: int,
    dtype: torch.dtype,
) -> Tensor:
    """maps [B, L, H, W] of `dtype`; keypoints [B, K, 2], limbs [L, 2] int64, sigma [B, L],
    visible [B, K] bool."""
    batch, joints, _ = keypoints.shape
    count = limbs.shape[0]
    out = keypoints.new_empty((batch, count, height, width), dtype=dtype)
    rows, columns = tile_shape(height, width, TILE if dtype != torch.float64 else TILE // 2)
    tiles_across = ceil_divide(width, columns)
    tiles = ceil_divide(height, rows) * tiles_across
    launch(
        limb_heatmap_kernel, batch * count * tiles, out,
        keypoints.contiguous(), limbs.contiguous(), sigma.contiguous(),
        None if visible is None else visible.contiguous(),
        out, joints, count, height, width, height * width, tiles, tiles_across,
        ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return out


@triton.jit
def _window(a, step, reach, size):
    """The pixels [first, last) of an axis within reach of a .. a + step."""
    first = tl.floor(tl.minimum(a, a + step) - reach)
    last = tl.ceil(tl.maximum(a, a + step) + reach) + 1
    # In floating point until clamped: huge values must not reach the conversion.
    first = tl.minimum(tl.where(first > 0, first, 0), size).to(tl.int64)
    return first, tl.where(last < size, tl.maximum(last, 0), size).to(tl.int64)


@triton.jit
def limb_heatmap_backward_kernel(
    grad_maps, stride_b, stride_l, stride_y, stride_x, keypoints, limbs, sigmas, visible,
    grad_ends, grad_sigma, joints, limb_count, height, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """grad_ends [B, L, 2, 2] float64: what each end of a limb gets of its map; grad_sigma."""
    T: tl.constexpr = keypoints.dtype.element_ty
    n = tl.program_id(0).to(tl.int64)
    b, limb = n // limb_count, n % limb_count
    grad = grad_maps + b * stride_b + limb * stride_l
    drawn, swapped, ax, ay, ux, uy, scale, length = _limb(
        keypoints, limbs, sigmas, visible, n, b, limb, joints
    )
    reach: tl.constexpr = 31.7 if tl.float64 == T else 8.0  # half widths; maps end before
    first_x, last_x = _window(ax, ux * length, reach / scale, width)
    first_y, last_y = _window(ay, uy * length, reach / scale, height)
    last_y = tl.where(drawn, last_y, first_y)
    length = _length_in(length, scale, T)
    least: tl.constexpr = 2.2250738585072014e-308 if tl.float64 == T else 1.1754943508222875e-38
    is_long = length >= least
    divisor = tl.where(is_long, length, 1).to(T)
    s_a = tl.zeros((ROWS, COLUMNS), T)
    s_b = tl.zeros((ROWS, COLUMNS), T)
    o_a = tl.zeros((ROWS, COLUMNS), T)
    o_b = tl.zeros((ROWS, COLUMNS), T)
    by_sigma = tl.zeros((ROWS, COLUMNS), T)
    for top in range(first_y, last_y, ROWS):
        y = top + tl.arange(0, ROWS)
        for left in range(first_x // 16 * 16, last_x, COLUMNS):
            x = left + tl.arange(0, COLUMNS)
            across, foot, beyond, h = _distances(x, y, drawn, ax, ay, ux, uy, scale, length, T)
            inside = (y < height)[:, None] & (x < width)[None, :] & (h > 0)
            at = grad + (y * stride_y)[:, None] + (x * stride_x)[None, :]
            weight = tl.load(at, inside, 0).to(T) * h
            t = tl.where(is_long, foot / divisor, 0.5)
            s_a += (1 - t) * (weight * across)
            s_b += t * (weight * across)
            o_a += (1 - t) * (weight * beyond)
            o_b += t * (weight * beyond)
            by_sigma += weight * (across * across + beyond * beyond)
    per_pixel = scale * (_HALF_WIDTH * _HALF_WIDTH)  # half width / sigma
    sa, sb = _total(s_a) * per_pixel, _total(s_b) * per_pixel
    oa, ob = _total(o_a) * per_pixel, _total(o_b) * per_pixel
    # Along n = (-uy, ux) and along u.
    x_a, y_a = oa * ux - sa * uy, sa * ux + oa * uy
    x_b, y_b = ob * ux - sb * uy, sb * ux + ob * uy
    to = grad_ends + 4 * n
    tl.store(to, tl.where(swapped, x_b, x_a))
    tl.store(to + 1, tl.where(swapped, y_b, y_a))
    tl.store(to + 2, tl.where(swapped, x_a, x_b))
    tl.store(to + 3, tl.where(swapped, y_a, y_b))
    tl.store(grad_sigma + n, (_total(by_sigma) * per_pixel * _HALF_WIDTH).to(T))


@triton.jit
def _total(x):
    return tl.sum(tl.sum(x.to(tl.float64), 1), 0)


@triton.jit
def limb_heatmap_joints_kernel(
    grad_ends, limbs, grad_keypoints, joints, limb_count, LIMBS: tl.constexpr
):
    """grad_keypoints [B, K, 2]: what a joint gets from the limbs that end in it, in their order."""
    n = tl.program_id(0).to(tl.int64)
    b, joint = n // joints, n % joints
    sum_x = tl.zeros((LIMBS,), tl.float64)
    sum_y = tl.zeros((LIMBS,), tl.float64)
    for start in range(0, limb_count, LIMBS):
        limb = start + tl.arange(0, LIMBS)
        for end in tl.static_range(2):
            own = tl.load(limbs + 2 * limb + end, limb < limb_count, -1) == joint
            at = grad_ends + 4 * (b * limb_count + limb) + 2 * end
            sum_x += tl.load(at, own, 0)
            sum_y += tl.load(at + 1, own, 0)
    T: tl.constexpr = grad_keypoints.dtype.element_ty
    tl.store(grad_keypoints + 2 * n, tl.sum(sum_x, 0).to(T))
    tl.store(grad_keypoints + 2 * n + 1, tl.sum(sum_y, 0).to(T))


def limb_heatmap_backward(
    grad_maps: Tensor, keypoints: Tensor, limbs: Tensor, sigma: Tensor, visible: Tensor | None
) -> tuple[Tensor, Tensor]:
    """grad_keypoints [B, K, 2], grad_sigma [B, L]."""
    batch, count, height, width = grad_maps.shape
    joints = keypoints.shape[1]
    limbs = limbs.contiguous()
    grad_ends = keypoints.new_empty((batch, count, 2, 2), dtype=torch.float64)
    grad_keypoints = keypoints.new_empty(keypoints.shape)
    grad_sigma = sigma.new_empty(sigma.shape)
    rows, columns = tile_shape(height, width, BACKWARD_TILE, 64)
    launch(
        limb_heatmap_backward_kernel, batch * count, grad_maps,
        grad_maps, *grad_maps.stride(), keypoints.contiguous(), limbs, sigma.contiguous(),
        None if visible is None else visible.contiguous(),
        grad_ends, grad_sigma, joints, count, height, width, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    launch(
        limb_heatmap_joints_kernel, batch * joints, grad_keypoints,
        grad_ends, limbs, grad_keypoints, joints, count, LIMBS=power_of_2(count, LIMBS),
    )  # fmt: skip
    return grad_keypoints, grad_sigma
