"""Sample inputs of depth_crop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpose_ext import depth_crop
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample

CAMERA = (60.0, 62.0, 15.5, 11.5)


def frames(dtype: torch.dtype, batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    """A ball on a far wall, noise and holes: [B, H, W] mm."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(height).view(-1, 1) - height / 2
    x = torch.arange(width) - width / 2
    ball = 400 - (1 - (x * x + y * y) / (0.35 * width) ** 2).clamp(min=0).sqrt() * 80
    depth = torch.where(ball < 400, ball, 1200.0)
    depth = depth + torch.rand((batch, height, width), generator=generator) * 20
    depth[torch.rand(depth.shape, generator=generator) < 0.05] = 0
    return depth.to(torch.int32).to(dtype) if dtype == torch.uint16 else depth.to(dtype)


def _call(dtype: torch.dtype, batch: int = 2, seed: int = 0, **changes: Any) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    center = torch.tensor([16.0, 12.0, 370.0])
    centers = center + torch.randn((batch, 3), generator=generator) * torch.tensor([4.0, 4, 15])
    call: Sample = {
        "depth": frames(dtype, batch, 24, 32, seed),
        "centers": centers,
        "camera": CAMERA,
        "cube_mm": 150.0,
        "size": 20,
    }
    return call | changes


def full_frame(dtype: torch.dtype) -> Sample:
    """One 640x480 frame with a hand-sized ball, and its 128x128 crop. For benchmarks and
    examples."""
    return {
        "depth": frames(dtype, 1, 480, 640),
        "centers": torch.tensor([[320.0, 240.0, 370.0]]),
        "camera": (588.03, 587.07, 320.0, 240.0),
        "cube_mm": 150.0,
    }


def _samples(dtype: torch.dtype) -> list[Sample]:
    modes: list[Sample] = [
        {"normalize": n, "interpolation": i}
        for n in ("cube", "nearest_pixel")
        for i in ("nearest", "bilinear")
    ]
    calls = [_call(dtype, **mode) for mode in modes]
    for seed, size in enumerate(ODD_SIZES):
        calls.append(_call(dtype, 1, seed, size=size, **modes[seed % 4]))
    calls.append(
        _call(dtype, 1, size=300, interpolation="bilinear")
    )  # more than a block of columns
    odd = frames(dtype, 3, 13, 33, 5)
    corners = torch.tensor([[0.0, 0, 380], [32, 12, 380], [-30, 40, 380]], dtype=torch.float64)
    per_frame: Sample = {
        "centers": corners,
        "camera": torch.tensor([CAMERA, (90.0, 90.0, 10.0, 20.0), (300.0, 31.0, 16.0, 12.0)]),
        "cube_mm": torch.tensor([150.0, 30.0, 2000.0]),
    }
    return calls + [_call(dtype, 3, depth=odd, **per_frame, **mode) for mode in modes]


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    cameras, cubes = torch.tensor([CAMERA]), torch.tensor([150.0, 120.0], dtype=torch.float64)
    calls: list[tuple[str, tuple[object, ...]]] = []
    for dtype in (torch.float32, torch.uint16):
        call = _call(dtype)
        inputs = call["depth"], call["centers"]
        calls.append(("depth_crop", (*inputs, None, 60.0, 62.0, None, 150.0, 20, False, True)))
        calls.append(("depth_crop", (*inputs, cameras, 0.0, 0.0, cubes, 0.0, 20, True, False)))
    return calls


def _empty() -> list[Sample]:
    call = _call(torch.float32)
    return [
        call | {"depth": call["depth"][:0], "centers": call["centers"][:0]},
        call | {"depth": call["depth"][:, :0]},
        call | {"depth": call["depth"][:, :, :0], "interpolation": "bilinear"},
    ]


def _hostile() -> list[Sample]:
    calls = []
    values = (float("nan"), float("inf"), -float("inf"), 3e38, -1e30, 1e-38, 0.0)
    for value in values:
        for interpolation in ("nearest", "bilinear"):
            call = _call(torch.float32, interpolation=interpolation, normalize="nearest_pixel")
            call["depth"][0, 8:12] = value
            call["depth"][1] = value
            calls.append(call)
            for column in range(3):
                call = _call(torch.float32, interpolation=interpolation)
                call["centers"][0, column] = value
                calls.append(call)
            cube = torch.tensor([value, 150.0])
            camera = torch.tensor([[value, 60.0, 16.0, 12.0], [60.0, value, 16.0, 12.0]])
            calls.append(_call(torch.float32, interpolation=interpolation, cube_mm=cube))
            calls.append(_call(torch.float32, interpolation=interpolation, camera=camera))
    return calls


SPEC = OpSpec(
    name="depth_crop",
    family="crop",
    function=depth_crop,
    samples=_samples,
    dtypes=(torch.float32, torch.uint16),
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    bad=(
        BadInput({"depth": [[0.0]]}, TypeError, "depth must be a torch.Tensor, got list"),
        BadInput(
            {"depth": torch.zeros((4, 4))}, ValueError,
            r"depth must have shape \[B, H, W\], got \[4, 4\]",
        ),
        BadInput(
            {"depth": torch.zeros((2, 4, 4), dtype=torch.int32)}, TypeError,
            "depth must be of dtype uint16, float32, got int32",
        ),
        BadInput(
            {"depth": torch.zeros((2, 4, 4), requires_grad=True)}, ValueError,
            "depth must not require a gradient: depth_crop has none",
        ),
        BadInput(
            {"centers": torch.zeros((2, 3), requires_grad=True)}, ValueError,
            "centers must not require a gradient",
        ),
        BadInput(
            {"centers": torch.zeros((3, 3))}, ValueError,
            r"centers must have shape \[B, 3\] with B = 2, got \[3, 3\]",
        ),
        BadInput(
            {"centers": torch.zeros((2, 3), dtype=torch.int64)}, TypeError,
            "centers must be of dtype float32, float64, got int64",
        ),
        BadInput({"camera": (0.0, 0.0, 0.0, 0.0)}, ValueError, "camera .* must be finite"),
        BadInput(
            {"centers": torch.zeros((2, 3), device="meta")}, ValueError,
            r"centers must be on the device of depth \(cpu\), got meta",
        ),
        BadInput({"camera": "nyu"}, TypeError, r"camera must be \(fx, fy, cx, cy\), got 'nyu'"),
        BadInput({"camera": torch.zeros(3, 4)}, ValueError, r"camera must .* B = 2, got \[3, 4\]"),
        BadInput({"cube_mm": 0.0}, ValueError, "cube_mm must be positive and finite, got 0.0"),
        BadInput({"cube_mm": "1"}, TypeError, "cube_mm must be a number or a .*, got '1'"),
        BadInput({"cube_mm": float("nan")}, ValueError, "cube_mm must be positive and finite"),
        BadInput(
            {"cube_mm": torch.ones(3)}, ValueError,
            r"cube_mm must be a number or have shape \[B\] with B = 2, got \[3\]",
        ),
        BadInput({"size": 0}, ValueError, "size must be at least 1, got 0"),
        BadInput(
            {"normalize": "max"}, ValueError,
            "normalize must be one of cube, nearest_pixel, got 'max'",
        ),
        BadInput(
            {"interpolation": "cubic"}, ValueError,
            "interpolation must be one of nearest, bilinear, got 'cubic'",
        ),
    ),
)  # fmt: skip
