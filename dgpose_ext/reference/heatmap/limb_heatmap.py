"""limb_heatmap in plain torch: the oracle of the tests and the fallback.

Maths: csrc/heatmap/limb_heatmap.h. Arguments as torch.ops.dgpose.limb_heatmap.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

#: The map is 0 from this s² + o² on.
_EXPONENT_OF_ZERO = {torch.float32: 63.0, torch.float64: 1000.0}
#: The distance in sigmas where a map is 1/2.
_HALF_WIDTH = (2 * math.log(2)) ** 0.5


class _Limbs(NamedTuple):
    """Limbs from a to b; distances in half widths."""

    drawn: Tensor  #: [B, L] bool: maps that are not zero throughout
    swapped: Tensor  #: [B, L] bool: a is the second joint of the limb
    u: Tensor  #: [B, L, 2] float64, from a to b
    sigma: Tensor  #: [B, L] float64
    length: Tensor  #: [B, L, 1, 1] of the keypoints' dtype
    across: Tensor  #: [B, L, H, W], s: distances to the line
    along: Tensor  #: [B, L, H, W], u (p - a)


def _limbs(
    keypoints: Tensor, limbs: Tensor, sigma: Tensor, visible: Tensor | None, height: int, width: int
) -> _Limbs:
    ends = keypoints.double()[:, limbs]
    sigma = sigma.double()
    drawn = ends.isfinite().all(3).all(2) & (sigma > 0) & sigma.isfinite()
    drawn = drawn & (2 / sigma).isfinite()
    if visible is not None:
        drawn = drawn & visible[:, limbs].all(2)

    # From the joint nearer to the first pixel.
    (ax, ay), (bx, by) = ends[..., 0, :].unbind(-1), ends[..., 1, :].unbind(-1)
    near_a, near_b = ax.abs() + ay.abs(), bx.abs() + by.abs()
    lower = (bx < ax) | ((bx == ax) & (by < ay))
    swapped = (near_b < near_a) | ((near_b == near_a) & lower)
    a = torch.where(swapped[..., None], ends[..., 1, :], ends[..., 0, :])
    b = torch.where(swapped[..., None], ends[..., 0, :], ends[..., 1, :])

    # The length without over- or underflow of squares.
    e = b - a
    longer = e.abs().amax(-1)
    scaled = e / torch.where(longer > 0, longer, 1)[..., None]
    norm = scaled.square().sum(-1).sqrt()
    length = longer * norm
    drawn = drawn & length.isfinite()
    forward = torch.tensor([1.0, 0.0], dtype=e.dtype, device=e.device)
    u = torch.where((norm > 0)[..., None], scaled / norm[..., None], forward)

    a = torch.where(drawn[..., None], a, 0)
    u = torch.where(drawn[..., None], u, forward)
    sigma = torch.where(drawn, sigma, 1)
    length = torch.where(drawn, length, 0)
    scale = 1 / (_HALF_WIDTH * sigma)

    # s and u (p - a) as sums of a term of x and one of y, each rounded once.
    dtype = keypoints.dtype
    x = torch.arange(width, dtype=e.dtype, device=e.device) - a[..., 0, None]
    y = torch.arange(height, dtype=e.dtype, device=e.device) - a[..., 1, None]
    ux, uy = (u * scale[..., None]).unsqueeze(-1).unbind(-2)
    across = (y * ux).to(dtype)[..., :, None] + (x * -uy).to(dtype)[..., None, :]
    along = (y * uy).to(dtype)[..., :, None] + (x * ux).to(dtype)[..., None, :]
    length = (length * scale).clamp(max=torch.finfo(dtype).max).to(dtype)
    return _Limbs(drawn, swapped, u, sigma, length[..., None, None], across, along)


def _maps(limbs: _Limbs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """h, and s, c, o where h is not 0, all [B, L, H, W]."""
    foot = torch.minimum(limbs.along.clamp(min=0), limbs.length)
    across, beyond = limbs.across, limbs.along - foot
    exponent = across.square() + beyond.square()
    inside = (exponent < _EXPONENT_OF_ZERO[exponent.dtype]) & limbs.drawn[..., None, None]
    h = torch.where(inside, torch.exp2(-exponent), 0)
    return h, torch.where(inside, across, 0), torch.where(inside, foot, 0), beyond.where(inside, 0)


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
    return _maps(_limbs(keypoints, limbs, sigma, visible, height, width))[0].to(dtype)


def limb_heatmap_backward(
    grad_maps: Tensor, keypoints: Tensor, limbs: Tensor, sigma: Tensor, visible: Tensor | None
) -> tuple[Tensor, Tensor]:
    """grad_keypoints [B, K, 2], grad_sigma [B, L]."""
    height, width = grad_maps.shape[2:]
    geometry = _limbs(keypoints, limbs, sigma, visible, height, width)
    h, across, foot, beyond = _maps(geometry)
    weight = torch.where(h > 0, grad_maps.to(h.dtype) * h, 0)
    # The share of b; joints in one place share equally.
    length = geometry.length
    t = torch.where(length >= torch.finfo(h.dtype).tiny, foot / length, 0.5)
    shares = torch.stack([1 - t, t])
    u = geometry.u[None]
    n = torch.stack([-u[..., 1], u[..., 0]], -1)
    # [2, B, L, 2], of a and b: sums of h (p - F) / sigma^2
    s, o = ((shares * (weight * d)).sum((3, 4)).double() for d in (across, beyond))
    scale = _HALF_WIDTH / geometry.sigma
    of_a, of_b = (scale[..., None] * (s[..., None] * n + o[..., None] * u)).unbind(0)
    swapped = geometry.swapped[..., None]
    of_ends = torch.cat([torch.where(swapped, of_b, of_a), torch.where(swapped, of_a, of_b)], 1)
    zeros = torch.zeros_like(keypoints, dtype=torch.float64)
    grad_keypoints = zeros.index_add(1, torch.cat([limbs[:, 0], limbs[:, 1]]), of_ends)
    exponent = across.square() + beyond.square()
    grad_sigma = _HALF_WIDTH * scale * (weight * exponent).sum((2, 3)).double()
    return grad_keypoints.to(keypoints.dtype), grad_sigma.to(sigma.dtype)
