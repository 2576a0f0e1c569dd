"""limb_heatmap: renders limbs as maps of the distance to a segment.

Maths: csrc/heatmap/limb_heatmap.h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import (
    limb_tensor,
    require_device,
    require_dtype,
    require_number,
    require_shape,
    require_size,
    require_tensor,
    visible_mask,
)
from dgpose_ext.reference.heatmap import limb_heatmap as reference

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def limb_heatmap(
    keypoints: Tensor,
    limbs: Sequence[tuple[int, int]] | Tensor,
    size: tuple[int, int],
    sigma: float | Tensor,
    *,
    visible: Tensor | None = None,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    """Renders every limb as a map: exp(-d² / 2 sigma²), d the distance to the limb.

    A limb is the segment between two joints. These are the rigid parts of deformable pose models;
    `maps.amax(1)` is the whole body.

    Args:
        keypoints: [B, K, 2], (x, y) in pixels of the map, the centre of the first pixel at (0, 0).
            float32, float64, float16 or bfloat16.
        limbs: L pairs of joints in 0 .. K-1, or an int64 tensor [L, 2] of them.
        size: (H, W) of a map.
        sigma: standard deviation in pixels: a number, or a tensor [L] or [B, L].
        visible: [B, K], bool or numbers: limbs with an end of 0 are 0. None: all are visible.
        dtype: of the maps; None for that of `keypoints`. Maps of float64 are computed in float64,
            all others in float32.
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        [B, L, H, W]. A map is 0 where a joint of its limb is invisible or not finite, or a sigma
        of a tensor is not finite and positive. A limb whose joints are in one place is the map of
        `gaussian_heatmap`. In float32 values below 2^-63 count as 0.

    Gradients flow to keypoints and sigma (once differentiable): beyond an end of the limb to that
    joint alone, between them shared as the foot of the pixel lies between the joints; in equal
    parts where both are in one place. Autocast changes nothing. Deterministic; the maps are
    bit-identical on every instruction set and for a limb given from either end, gradients within
    rounding.

    Raises:
        TypeError: an argument is of another type, or a tensor of another dtype; a joint of limbs is
            no integer.
        ValueError: shapes, devices or limbs do not fit; sigma is not positive. (The values of a
            tensor of limbs are looked at on the CPU only; on a GPU a limb outside 0 .. K-1 is 0.)
    """
    keypoints = require_tensor("keypoints", keypoints)
    require_dtype("keypoints", keypoints, _DTYPES)
    require_shape("keypoints", keypoints, "[B, K, 2]")
    pairs = limb_tensor(limbs, keypoints)
    height, width = require_size("size", size)
    if dtype is None:
        dtype = keypoints.dtype
    elif dtype not in _DTYPES:
        raise TypeError(f"dtype must be float32, float64, float16 or bfloat16, got {dtype!r}")
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    sigmas = _sigma_tensor(sigma, keypoints, pairs.shape[0], compute)
    visible = visible_mask(visible, keypoints)
    chosen = _backend.choose(backend, keypoints.device, "limb_heatmap")
    arguments = keypoints.to(compute), pairs, sigmas, visible, height, width, dtype
    if torch.is_grad_enabled() and (keypoints.requires_grad or sigmas.requires_grad):
        maps: Tensor = _LimbHeatmap.apply(*arguments, chosen)  # type: ignore[no-untyped-call]
        return maps
    run = _backend.implementation(chosen, "limb_heatmap", reference.limb_heatmap)
    maps = run(*arguments)
    return maps


def _sigma_tensor(
    sigma: float | Tensor, keypoints: Tensor, limbs: int, dtype: torch.dtype
) -> Tensor:
    """sigma as [B, L] of `dtype` beside the keypoints, or ValueError."""
    batch = keypoints.shape[0]
    if not isinstance(sigma, Tensor):
        require_number("sigma", sigma, or_tensor=True)
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be finite and positive, got {sigma}")
        return keypoints.new_full((batch, limbs), sigma, dtype=dtype)
    require_dtype("sigma", sigma, _DTYPES)
    require_device("sigma", sigma, "keypoints", keypoints)
    if sigma.shape not in ((limbs,), (batch, limbs)):
        raise ValueError(
            f"sigma must be a number or have shape [L] or [B, L] with B = {batch}, L = {limbs}, "
            f"got {list(sigma.shape)}"
        )
    return sigma.to(dtype).expand(batch, limbs)


class _LimbHeatmap(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        keypoints: Tensor,
        limbs: Tensor,
        sigma: Tensor,
        visible: Tensor | None,
        height: int,
        width: int,
        dtype: torch.dtype,
        backend: str,
    ) -> Tensor:
        ctx.save_for_backward(keypoints, limbs, sigma, visible)
        ctx.backend = backend
        run = _backend.implementation(backend, "limb_heatmap", reference.limb_heatmap)
        maps: Tensor = run(keypoints, limbs, sigma, visible, height, width, dtype)
        return maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_maps: Tensor) -> tuple[Tensor | None, ...]:
        run = _backend.implementation(
            ctx.backend, "limb_heatmap_backward", reference.limb_heatmap_backward
        )
        grad_keypoints, grad_sigma = run(grad_maps, *ctx.saved_tensors)
        return grad_keypoints, None, grad_sigma, *(None,) * 5


@_fake.register("limb_heatmap")
def _(
    keypoints: Tensor,
    limbs: Tensor,
    sigma: Tensor,
    visible: Tensor | None,
    height: int,
    width: int,
    dtype: torch.dtype,
) -> Tensor:
    shape = (keypoints.shape[0], limbs.shape[0], height, width)
    return keypoints.new_empty(shape, dtype=dtype)


@_fake.register("limb_heatmap_backward")
def _(
    grad_maps: Tensor,
    keypoints: Tensor,
    limbs: Tensor,
    sigma: Tensor,
    visible: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return keypoints.new_empty(keypoints.shape), sigma.new_empty(sigma.shape)
