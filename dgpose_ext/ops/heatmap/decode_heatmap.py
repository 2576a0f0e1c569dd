"""decode_heatmap: keypoints from their heatmaps. Maths: csrc/heatmap/decode_heatmap.h."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import (
    require_dtype,
    require_integer,
    require_number,
    require_shape,
    require_tensor,
)
from dgpose_ext.reference.heatmap import decode_heatmap as reference

#: In the order of HeatmapDecoding in csrc/heatmap/decode_heatmap.h.
METHODS = ("argmax", "quarter", "dark", "softargmax")
MAX_BLUR_KERNEL = 63

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def decode_heatmap(
    heatmaps: Tensor,
    method: str = "argmax",
    *,
    blur_kernel: int = 11,
    beta: float = 1.0,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The pixel coordinates and the score of each keypoint.

    Args:
        heatmaps: [B, K, H, W], at least one pixel. float32, float64, or float16/bfloat16 (read as
            they are, computed and returned in float32). Maps whose pixels are dense are read in
            place, wherever they lie; others (channels_last) are copied.
        method: "argmax", the pixel of the maximum (equal ones: the first in row-major order);
            "quarter", moved a quarter pixel toward the larger neighbour in x and in y (MMPose's
            refine_keypoints); "dark", moved to the top of the logarithm of the blurred map (Zhang
            et al., Distribution-Aware Coordinate Representation, CVPR 2020; MMPose's
            refine_keypoints_dark); "softargmax", the mean pixel under softmax(beta * heatmap).
        blur_kernel: dark: taps of the Gaussian, odd, at most 63; 11 fits maps of sigma 2, 17 of 3.
        beta: softargmax: inverse temperature, in (0, 1e30].
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        coords [B, K, 2], (x, y) in pixels, pixel centres integers; scores [B, K], the maximum of
        each map. Nothing marks a keypoint as absent: that is a threshold on the scores.

    NaN ranks behind every number: it is no peak and has no weight. A map of NaN gives (0, 0) and
    the score NaN. Where the maximum is infinite, softargmax is argmax.

    Only softargmax has gradients (once differentiable): coords and scores flow to heatmaps, the
    score to the first maximum. Under autocast the op computes in float32. Deterministic and
    bit-identical on every instruction set.

    Raises:
        TypeError: heatmaps is no tensor or has another dtype; blur_kernel is no integer or beta no
            number.
        ValueError: heatmaps has another shape or no pixels, or requires a gradient that the method
            has not; an unknown method; blur_kernel or beta is out of range.
    """
    heatmaps = require_tensor("heatmaps", heatmaps)
    require_dtype("heatmaps", heatmaps, _DTYPES)
    require_shape("heatmaps", heatmaps, "[B, K, H, W]")
    if heatmaps.shape[2] == 0 or heatmaps.shape[3] == 0:
        raise ValueError(f"heatmaps must have H, W >= 1, got {list(heatmaps.shape)}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    require_integer("blur_kernel", blur_kernel)
    if not (1 <= blur_kernel <= MAX_BLUR_KERNEL and blur_kernel % 2 == 1):
        raise ValueError(
            f"blur_kernel must be odd and lie in [1, {MAX_BLUR_KERNEL}], got {blur_kernel}"
        )
    require_number("beta", beta)
    if not 0 < beta <= 1e30:
        raise ValueError(f"beta must lie in (0, 1e30], got {beta}")
    chosen = _backend.choose(backend, heatmaps.device, "decode_heatmap")
    if torch.is_grad_enabled() and heatmaps.requires_grad:
        if method != "softargmax":
            raise ValueError(
                f'heatmaps must not require a gradient: method "{method}" has none; detach it, '
                'or use "softargmax"'
            )
        if heatmaps.dtype != torch.float64:
            heatmaps = heatmaps.float()
        result: tuple[Tensor, Tensor] = _Softargmax.apply(  # type: ignore[no-untyped-call]
            heatmaps, blur_kernel, beta, chosen
        )
        return result
    run = _backend.implementation(chosen, "decode_heatmap", reference.decode_heatmap)
    coords, scores = run(heatmaps, METHODS.index(method), blur_kernel, beta)
    return coords, scores


class _Softargmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, heatmaps: Tensor, blur_kernel: int, beta: float, backend: str
    ) -> tuple[Tensor, Tensor]:
        run = _backend.implementation(backend, "decode_heatmap", reference.decode_heatmap)
        coords, scores = run(heatmaps, METHODS.index("softargmax"), blur_kernel, beta)
        ctx.save_for_backward(heatmaps, coords)
        ctx.beta = beta
        ctx.backend = backend
        return coords, scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_coords: Tensor, grad_scores: Tensor) -> tuple[Tensor | None, ...]:
        run = _backend.implementation(
            ctx.backend, "decode_heatmap_backward", reference.decode_heatmap_backward
        )
        return run(grad_coords, grad_scores, *ctx.saved_tensors, ctx.beta), None, None, None


@_fake.register("decode_heatmap")
def _(heatmaps: Tensor, method: int, blur_kernel: int, beta: float) -> tuple[Tensor, Tensor]:
    batch, keypoints = heatmaps.shape[:2]
    dtype = torch.float64 if heatmaps.dtype == torch.float64 else torch.float32
    coords = heatmaps.new_empty((batch, keypoints, 2), dtype=dtype)
    return coords, heatmaps.new_empty((batch, keypoints), dtype=dtype)


@_fake.register("decode_heatmap_backward")
def _(
    grad_coords: Tensor, grad_scores: Tensor, heatmaps: Tensor, coords: Tensor, beta: float
) -> Tensor:
    return heatmaps.new_empty(heatmaps.shape)
