"""Sample inputs of find_hand_center."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpose_ext import find_hand_center
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample

CAMERA = (60.0, 62.0, 31.5, 23.5)


def scene(dtype: torch.dtype, height: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    """A tilted disk (the hand) before a large slab (the body) and a far wall, noise, holes and near
    specks: [H, W] mm."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.arange(height).view(-1, 1), torch.arange(width)
    depth = torch.full((height, width), 1900.0)
    depth[height // 4 :, width // 3 :] = 900.0
    center = torch.rand(2, generator=generator) * 0.3 + 0.35
    disk = (x - center[0] * width) ** 2 + (y - center[1] * height) ** 2 < (0.22 * width) ** 2
    depth = torch.where(disk, 420.0 + 1.5 * (x - width / 2), depth)
    noise = torch.rand(depth.shape, generator=generator)
    depth = depth + noise * 10
    depth[noise < 0.03] = 0
    depth[noise > 0.99] = 60
    return depth.to(torch.int32).to(dtype) if dtype == torch.uint16 else depth.to(dtype)


def _call(dtype: torch.dtype, **changes: object) -> Sample:
    return {"depth": scene(dtype), "camera": CAMERA} | changes


def full_frame(dtype: torch.dtype) -> Sample:
    """One 640x480 frame. For benchmarks and examples."""
    return {"depth": scene(dtype, 480, 640), "camera": (588.03, 587.07, 320.0, 240.0)}


def snakes(dtype: torch.dtype) -> Tensor:
    """One component that winds through the whole picture, a pixel wide, corners touching."""
    depth = torch.zeros((31, 31), dtype=torch.int32)
    depth[::2] = 500
    depth[1::4, -1] = 500
    depth[3::4, 0] = 500
    depth[:, 1] = torch.where(torch.arange(31) % 4 == 1, 0, depth[:, 1])
    return depth.to(dtype)


def _samples(dtype: torch.dtype) -> list[Sample]:
    calls = [_call(dtype), _call(dtype, far=380.0), _call(dtype, camera=torch.tensor(CAMERA))]
    for seed, size in enumerate(ODD_SIZES):
        depth = scene(dtype, size, size + 3, seed)
        calls.append(_call(dtype, depth=depth, min_pixels=size // 2, cube_mm=300.0))
    generator = torch.Generator().manual_seed(0)
    for density in (0.1, 0.35, 0.45, 0.6, 0.9):  # around the percolation threshold: long components
        noise = torch.rand((40, 57), generator=generator) < density
        depth = torch.where(noise, torch.randint(300, 420, (40, 57), generator=generator), 0)
        calls.append(_call(dtype, depth=depth.to(torch.int32).to(dtype), min_pixels=10))
    ring = torch.zeros((60, 60), dtype=torch.int32)  # nothing within the cube around its mean
    ring[2:-2, 2:-2] = 300
    ring[5:-5, 5:-5] = 0
    ring[25:35, 25:35] = 900  # and something behind
    calls += [
        _call(dtype, depth=snakes(dtype), min_pixels=100, refinements=0),
        _call(dtype, depth=ring.to(dtype), cube_mm=40.0, min_pixels=50),
        _call(dtype, refinements=50, slabs=1),
        _call(dtype, slabs=4000, min_pixels=3),
        _call(dtype, near=0.0, far=65535.0),
    ]
    return calls


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    options = (60.0, 62.0, 10.0, 1500.0, 200, 250.0, 20, 5)
    return [
        ("find_hand_center", (scene(dtype), *options)) for dtype in (torch.float32, torch.uint16)
    ]


def _empty() -> list[Sample]:
    return [_call(torch.float32, depth=torch.zeros(size)) for size in ((0, 4), (4, 0), (0, 0))]


def _hostile() -> list[Sample]:
    calls = []
    for value in (float("nan"), float("inf"), -float("inf"), 3e38, -1e30, 1e-40, -0.0, 65536.0):
        depth = scene(torch.float32)
        depth[::3] = value
        calls += [_call(torch.float32, depth=depth)]
        calls += [_call(torch.float32, depth=torch.full((20, 20), value), near=0.0)]
    # A camera or a cube so large or small that the window leaves every range.
    for value in (1e300, 1e-300):
        calls.append(_call(torch.float32, camera=(value, value, 0.0, 0.0)))
        calls.append(_call(torch.float32, cube_mm=value))
    return calls


_DEPTH = torch.zeros((4, 4))

SPEC = OpSpec(
    name="find_hand_center",
    family="crop",
    function=find_hand_center,
    samples=_samples,
    dtypes=(torch.float32, torch.uint16),
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    devices=("cpu",),  # one frame, one answer on the host: a GPU would only wait
    compilable=False,
    bad=(
        BadInput({"depth": 3}, TypeError, "depth must be a torch.Tensor, got int"),
        BadInput(
            {"depth": _DEPTH[None]}, ValueError, r"depth must have shape \[H, W\], got \[1, 4, 4\]"
        ),
        BadInput(
            {"depth": _DEPTH.double()}, TypeError,
            "depth must be of dtype uint16, float32, got float64",
        ),
        BadInput({"camera": (0.0, 0.0, 0.0, 0.0)}, ValueError, "camera .* must be finite"),
        BadInput({"camera": torch.zeros(4)}, ValueError, "camera .* must be finite"),
        BadInput(
            {"near": 500.0, "far": 400.0}, ValueError, "0 <= near < far <= 65535, got near = 500.0"
        ),
        BadInput({"near": float("nan")}, ValueError, "near and far must fulfil"),
        BadInput({"far": 1e6}, ValueError, "near and far must fulfil"),
        BadInput({"cube_mm": -1.0}, ValueError, "cube_mm must be positive and finite, got -1.0"),
        BadInput({"min_pixels": -1}, ValueError, "min_pixels must be at least 0, got -1"),
        BadInput({"slabs": 0}, ValueError, "slabs must be at least 1, got 0"),
        BadInput({"refinements": -1}, ValueError, "refinements must be at least 0, got -1"),
    ),
)  # fmt: skip
