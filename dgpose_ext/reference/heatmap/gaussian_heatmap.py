"""gaussian_heatmap in plain torch: the oracle of the tests and the fallback.

Maths: csrc/heatmap/gaussian_heatmap.h. Arguments as torch.ops.dgpose.gaussian_heatmap.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: A factor exp(-a) is 0 from this a on.
_LARGEST_EXPONENT = {torch.float32: 43.66827, torch.float64: 700.0}


def _drawn(keypoints: Tensor, sigma: Tensor, visible: Tensor | None) -> Tensor:
    """[B, K] bool: maps that are not zero throughout."""
    drawn = (keypoints.isfinite() & sigma.isfinite() & (sigma > 0)).all(-1)
    return drawn if visible is None else drawn & visible


def _axis(
    centre: Tensor,
    sigma: Tensor,
    drawn: Tensor,
    size: int,
    cutoff: float,
    round_centers: bool,
    normalize_sum: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Factors f, offsets p = (i - origin) / sigma, both [B, K, size], and q_origin [B, K, 1]."""
    centre = torch.where(drawn, centre, 0)[..., None]
    sigma = torch.where(drawn, sigma, 1)[..., None]
    if round_centers:
        centre = (centre + 0.5).trunc()
    pixels = torch.arange(size, dtype=centre.dtype, device=centre.device)
    # Factors relative to the nearest pixel: their sum is at least 1 where that is in the window.
    origin = (centre + 0.5).floor().clamp(0, size - 1) if normalize_sum else centre
    q_origin = (origin - centre) / sigma
    p = (pixels - origin) / sigma
    d = pixels - centre
    exponent = 0.5 * (p * (d / sigma + q_origin))
    inside = (exponent < _LARGEST_EXPONENT[centre.dtype]) & (d.abs() <= cutoff * sigma)
    f = torch.where(inside & drawn[..., None], torch.exp(-exponent), 0)
    if normalize_sum:
        total = f.sum(-1, keepdim=True)
        f = torch.where(total > 0, f / total, 0)
    return f, p, q_origin


def _axes(
    keypoints: Tensor,
    sigma: Tensor,
    visible: Tensor | None,
    height: int,
    width: int,
    cutoff: float,
    round_centers: bool,
    normalize_sum: bool,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    drawn = _drawn(keypoints, sigma, visible)
    return [
        _axis(keypoints[..., i], sigma[..., i], drawn, size, cutoff, round_centers, normalize_sum)
        for i, size in enumerate((width, height))
    ]


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
    (fx, _, _), (fy, _, _) = _axes(
        keypoints, sigma, visible, height, width, cutoff, round_centers, normalize_sum
    )
    return (fy[..., :, None] * fx[..., None, :]).to(dtype)


def _derivatives(
    f: Tensor, p: Tensor, q_origin: Tensor, normalize_sum: bool
) -> tuple[Tensor, Tensor]:
    """sigma df/dcentre and sigma df/dsigma, from q = p + q_origin; constants cancel in the sum."""
    p = torch.where(f == 0, 0, p)
    if not normalize_sum:
        return f * p, f * p.square()
    centred = p - (f * p).sum(-1, keepdim=True)
    spread = p.square() - (f * p.square()).sum(-1, keepdim=True)
    spread = spread + 2 * q_origin * centred  # q_origin may be Inf where f is 0
    return f * centred, torch.where(f == 0, 0, f * spread)


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
    height, width = grad_maps.shape[2:]
    x, y = _axes(keypoints, sigma, visible, height, width, cutoff, round_centers, normalize_sum)
    grad = grad_maps.to(keypoints.dtype)
    over_x = [(grad @ w[..., None])[..., 0] for w in (x[0], *_derivatives(*x, normalize_sum))]
    wy = (y[0], *_derivatives(*y, normalize_sum))
    pairs = ((wy[0], over_x[1]), (wy[1], over_x[0]), (wy[0], over_x[2]), (wy[2], over_x[0]))
    sums = torch.stack([(a * b).sum(-1) for a, b in pairs], -1)
    drawn = _drawn(keypoints, sigma, visible)[..., None]
    grad_keypoints, grad_sigma = (
        torch.where(drawn, part / sigma, 0) for part in (sums[..., :2], sums[..., 2:])
    )
    return torch.zeros_like(grad_keypoints) if round_centers else grad_keypoints, grad_sigma
