"""Sample inputs of decode_heatmap."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dgpose_ext import decode_heatmap
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample

METHODS = ("argmax", "quarter", "dark", "softargmax")


def gaussians(
    batch: int, keypoints: int, height: int, width: int, *, sigma: float = 2.0, seed: int = 0
) -> Tensor:
    """Gaussians of height 1 around random points, and a little noise: [B, K, H, W] float32."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height])
    points = torch.rand((batch, keypoints, 2), generator=generator) * (size - 1)
    x = torch.arange(width) - points[..., :1]
    y = torch.arange(height) - points[..., 1:]
    scale = -0.5 / sigma**2
    maps = (scale * y * y).exp()[..., None] * (scale * x * x).exp()[..., None, :]
    return maps + 0.01 * torch.rand(maps.shape, generator=generator)


def _call(
    dtype: torch.dtype, height: int = 17, width: int = 24, seed: int = 0, **changes: Any
) -> Sample:
    return {"heatmaps": gaussians(2, 3, height, width, seed=seed).to(dtype)} | changes


def _samples(dtype: torch.dtype) -> list[Sample]:
    calls = [_call(dtype, method=method, beta=9.0) for method in METHODS]
    for seed, size in enumerate(ODD_SIZES):
        calls += [_call(dtype, size, 98 - size, seed, method=m, blur_kernel=5) for m in METHODS[:3]]
        calls.append(_call(dtype, size, 33, seed, method="softargmax", beta=25.0))
        calls.append(_call(dtype, 3, size, seed, method="softargmax"))
    # Few values, and so many equal maxima.
    generator = torch.Generator().manual_seed(1)
    ties = torch.randint(-3, 3, (3, 5, 40, 67), generator=generator).to(dtype)
    return [
        *calls,
        {"heatmaps": ties, "method": "argmax"},
        {"heatmaps": ties, "method": "quarter"},
        _call(dtype, 40, 40, method="dark", blur_kernel=17),
        _call(dtype, 12, 40, method="dark", blur_kernel=63),
        # More than a CUDA block reads at once.
        _call(dtype, 80, 64, method="softargmax", beta=20.0),
        {"heatmaps": torch.zeros((1, 2, 9, 20), dtype=dtype), "method": "softargmax"},
    ]


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    maps = _call(torch.float32)["heatmaps"]
    coords, scores = decode_heatmap(maps, "softargmax")
    backward = (torch.ones_like(coords), torch.ones_like(scores), maps, coords, 2.0)
    return [
        *(("decode_heatmap", (maps, method, 11, 2.0)) for method in range(4)),
        ("decode_heatmap_backward", backward),
    ]


def _empty() -> list[Sample]:
    return [
        {"heatmaps": torch.zeros(shape), "method": method}
        for shape in ((0, 3, 4, 5), (2, 0, 4, 5))
        for method in METHODS
    ]


def _hostile() -> list[Sample]:
    calls = []
    for value in (math.nan, math.inf, -math.inf, 3e38, -1e30, 1e-40, -0.0):
        for method in METHODS:
            call = _call(torch.float32, 16, 20, 3, method=method, beta=10.0)
            call["heatmaps"][0, 0, 7, 9] = value
            call["heatmaps"][0, 1] = value
            call["heatmaps"][0, 2, :, 3:] = value
            call["heatmaps"][1, 0, 0, 0] = value
            call["heatmaps"][1, 1, 15, 19] = value
            calls.append(call)
    for method in METHODS:  # -Inf behind NaN is the peak
        maps = torch.full((1, 2, 9, 13), math.nan)
        maps[0, 0, 4, 5:] = -math.inf
        maps[0, 1, 4, 5] = -3.0
        calls.append({"heatmaps": maps, "method": method})
    return calls


def _gradient_samples() -> list[Sample]:
    calls = [
        _call(torch.float64, height, width, seed, method="softargmax", beta=beta)
        for seed, (height, width, beta) in enumerate([(4, 5, 3.0), (3, 17, 1.0), (9, 16, 12.0)])
    ]
    # More than a CUDA block writes at once.
    large = gaussians(1, 1, 36, 64).double()
    return [*calls, {"heatmaps": large, "method": "softargmax", "beta": 5.0}]


_CLOSE = (1e-5, 1e-5)  # dark and softargmax sum in another order than torch; the others are equal

SPEC = OpSpec(
    name="decode_heatmap",
    family="heatmap",
    function=decode_heatmap,
    samples=_samples,
    dtypes=(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    differentiable=("heatmaps",),
    gradient_samples=_gradient_samples,
    tolerance={
        torch.float32: _CLOSE,
        torch.float64: (1e-10, 1e-10),
        torch.float16: _CLOSE,
        torch.bfloat16: _CLOSE,
    },
    bad=(
        BadInput({"heatmaps": [[0.0]]}, TypeError, "heatmaps must be a torch.Tensor, got list"),
        BadInput(
            {"heatmaps": torch.zeros((2, 3, 4))},
            ValueError,
            r"heatmaps must have shape \[B, K, H, W\], got \[2, 3, 4\]",
        ),
        BadInput(
            {"heatmaps": torch.zeros((1, 2, 0, 4))},
            ValueError,
            r"heatmaps must have H, W >= 1, got \[1, 2, 0, 4\]",
        ),
        BadInput(
            {"heatmaps": torch.zeros((1, 1, 4, 4), dtype=torch.int32)},
            TypeError,
            "heatmaps must be of dtype float32, .*, got int32",
        ),
        BadInput(
            {"heatmaps": torch.zeros((1, 1, 4, 4), requires_grad=True), "method": "dark"},
            ValueError,
            'heatmaps must not require a gradient: method "dark" has none; detach it',
        ),
        BadInput(
            {"method": "mean"},
            ValueError,
            "method must be one of argmax, quarter, dark, softargmax, got 'mean'",
        ),
        BadInput({"blur_kernel": 4}, ValueError, r"blur_kernel must be odd .* \[1, 63\], got 4"),
        BadInput({"blur_kernel": 65}, ValueError, r"blur_kernel must be odd .* \[1, 63\], got 65"),
        BadInput({"blur_kernel": 5.0}, TypeError, "blur_kernel must be an integer, got 5.0"),
        BadInput({"beta": "1"}, TypeError, "beta must be a number, got '1'"),
        BadInput({"beta": 0.0}, ValueError, r"beta must lie in \(0, 1e30\], got 0.0"),
        BadInput({"beta": math.nan}, ValueError, r"beta must lie in \(0, 1e30\], got nan"),
    ),
)
