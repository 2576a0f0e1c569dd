"""gaussian_heatmap: renders keypoints as Gaussian maps.

Maths: csrc/heatmap/gaussian_heatmap.h.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import (
    require_device,
    require_dtype,
    require_number,
    require_shape,
    require_size,
    require_tensor,
    visible_mask,
)
from dgpose_ext.reference.heatmap import gaussian_heatmap as reference

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def gaussian_heatmap(
    keypoints: Tensor,
    size: tuple[int, int],
    sigma: float | Tensor,
    *,
    visible: Tensor | None = None,
    cutoff: float | None = None,
    round_centers: bool = False,
    normalize: Literal["peak", "sum"] = "peak",
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    """Renders every keypoint as a Gaussian map: exp(-((x - u)² / 2 sx² + (y - v)² / 2 sy²)).

    MMPose's MSRA codec is `cutoff=3, round_centers=True`.

    Args:
        keypoints: [B, K, 2], (x, y) = (u, v) in pixels of the map, the centre of the first pixel
            at (0, 0). float32, float64, float16 or bfloat16.
        size: (H, W) of a map.
        sigma: standard deviation in pixels: a number, or a tensor [K], [B, K] or [B, K, 2]
            (along x, along y).
        visible: [B, K], bool or numbers: where it is 0 the map is 0. None: all are visible.
        cutoff: None, or the half width of a square window in sigmas: pixels with |x - u| or
            |y - v| above cutoff * sigma are 0.
        round_centers: move centres to the pixel int(u + 0.5), int(v + 0.5).
        normalize: "peak" (1 at the centre), or "sum": a map sums to 1 over the image and the
            window, however much of the Gaussian lies outside (kornia's render_gaussian2d).
        dtype: of the maps; None for that of `keypoints`. Maps of float64 are computed in float64,
            all others in float32.
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        [B, K, H, W]. A map is 0 where its keypoint is invisible or not finite, where a sigma of
        a tensor is not finite and positive, or, for "sum", where no pixel lies in the window.
        Keypoints may lie anywhere outside the image. In float32 one axis' exponential below 2^-63
        counts as 0.

    Gradients flow to keypoints and sigma (once differentiable), not through rounding. Autocast
    changes nothing. Deterministic; the maps are bit-identical on every instruction set, gradients
    within rounding.

    Raises:
        TypeError: an argument is of another type, or a tensor of another dtype.
        ValueError: shapes, devices or size do not fit; sigma or cutoff as a number is not positive;
            `normalize` is unknown.
    """
    keypoints = require_tensor("keypoints", keypoints)
    require_dtype("keypoints", keypoints, _DTYPES)
    require_shape("keypoints", keypoints, "[B, K, 2]")
    height, width = require_size("size", size)
    if cutoff is not None:
        require_number("cutoff", cutoff)
        if not cutoff > 0:
            raise ValueError(f"cutoff must be positive or None, got {cutoff}")
    if normalize not in ("peak", "sum"):
        raise ValueError(f"normalize must be 'peak' or 'sum', got {normalize!r}")
    if dtype is None:
        dtype = keypoints.dtype
    elif dtype not in _DTYPES:
        raise TypeError(f"dtype must be float32, float64, float16 or bfloat16, got {dtype!r}")
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    sigmas = _sigma_tensor(sigma, keypoints, compute)
    visible = visible_mask(visible, keypoints)
    chosen = _backend.choose(backend, keypoints.device, "gaussian_heatmap")
    arguments = (
        keypoints.to(compute), sigmas, visible, height, width,
        math.inf if cutoff is None else float(cutoff), round_centers, normalize == "sum", dtype,
    )  # fmt: skip
    if torch.is_grad_enabled() and (keypoints.requires_grad or sigmas.requires_grad):
        maps: Tensor = _GaussianHeatmap.apply(*arguments, chosen)  # type: ignore[no-untyped-call]
        return maps
    run = _backend.implementation(chosen, "gaussian_heatmap", reference.gaussian_heatmap)
    maps = run(*arguments)
    return maps


def _sigma_tensor(sigma: float | Tensor, keypoints: Tensor, dtype: torch.dtype) -> Tensor:
    """sigma as [B, K, 2] of `dtype` beside the keypoints, or ValueError."""
    batch, count, _ = keypoints.shape
    if not isinstance(sigma, Tensor):
        require_number("sigma", sigma, or_tensor=True)
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be finite and positive, got {sigma}")
        return keypoints.new_full((batch, count, 2), sigma, dtype=dtype)
    require_dtype("sigma", sigma, _DTYPES)
    require_device("sigma", sigma, "keypoints", keypoints)
    if sigma.shape not in ((count,), (batch, count), (batch, count, 2)):
        raise ValueError(
            f"sigma must be a number or have shape [K], [B, K] or [B, K, 2] with B = {batch}, "
            f"K = {count}, got {list(sigma.shape)}"
        )
    if sigma.dim() < 3:
        sigma = sigma[..., None]
    return sigma.to(dtype).expand(batch, count, 2)


class _GaussianHeatmap(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        keypoints: Tensor,
        sigma: Tensor,
        visible: Tensor | None,
        height: int,
        width: int,
        cutoff: float,
        round_centers: bool,
        normalize_sum: bool,
        dtype: torch.dtype,
        backend: str,
    ) -> Tensor:
        ctx.save_for_backward(keypoints, sigma, visible)
        ctx.options = cutoff, round_centers, normalize_sum
        ctx.backend = backend
        run = _backend.implementation(backend, "gaussian_heatmap", reference.gaussian_heatmap)
        maps: Tensor = run(
            keypoints, sigma, visible, height, width, cutoff, round_centers, normalize_sum, dtype
        )
        return maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_maps: Tensor) -> tuple[Tensor | None, ...]:
        run = _backend.implementation(
            ctx.backend, "gaussian_heatmap_backward", reference.gaussian_heatmap_backward
        )
        grad_keypoints, grad_sigma = run(grad_maps, *ctx.saved_tensors, *ctx.options)
        return grad_keypoints, grad_sigma, *(None,) * 8


@_fake.register("gaussian_heatmap")
def _(
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
    return keypoints.new_empty((*keypoints.shape[:2], height, width), dtype=dtype)


@_fake.register("gaussian_heatmap_backward")
def _(
    grad_maps: Tensor,
    keypoints: Tensor,
    sigma: Tensor,
    visible: Tensor | None,
    cutoff: float,
    round_centers: bool,
    normalize_sum: bool,
) -> tuple[Tensor, Tensor]:
    return keypoints.new_empty(keypoints.shape), keypoints.new_empty(keypoints.shape)
