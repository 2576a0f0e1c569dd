"""Sample inputs of disk_heatmap."""

from __future__ import annotations

from typing import Any

import torch

from dgpose_ext import disk_heatmap
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample, bad_keypoints

MAP_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.bool)


def _call(
    dtype: torch.dtype, batch: int = 2, joints: int = 3, seed: int = 0, **changes: Any
) -> Sample:
    """Keypoints inside and around a picture of 13 x 17."""
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand((batch, joints, 2), generator=generator) * 30 - 6
    return {"keypoints": keypoints.to(dtype), "size": (13, 17), "radius": 4.0} | changes


def people(batch: int, joints: int = 18, size: tuple[int, int] = (128, 128)) -> Sample:
    """Keypoints anywhere in the picture, radius 4. For benchmarks and examples."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([size[1], size[0]])
    keypoints = torch.rand((batch, joints, 2), generator=generator) * scale
    return {"keypoints": keypoints, "size": size, "radius": 4.0}


def _samples(dtype: torch.dtype) -> list[Sample]:
    calls = [_call(dtype)]
    visible = torch.tensor([[1, 0, 1], [0, 1, 1]])
    for flags in (visible, visible.bool(), visible / 2):
        calls.append(_call(dtype, visible=flags))
    calls += [_call(dtype) | {"dtype": out} for out in MAP_DTYPES]
    calls += [_call(dtype, radius=radius) for radius in (0, 0.5, 1, 2.5, 7, 40.0)]
    calls += [_call(dtype, 1, 4, n, size=(n, 7)) for n in ODD_SIZES]
    calls += [_call(dtype, 1, 4, n, size=(5, n)) for n in ODD_SIZES]
    # Several bands of the CUDA kernel, and rows that are longer than its blocks.
    calls += [_call(dtype, size=(300, 64), radius=160), _call(dtype, size=(5, 2100), radius=1900)]
    return calls


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    keypoints = _call(torch.float64)["keypoints"]
    visible = torch.tensor([[True, False, True], [False, True, True]])
    return [
        ("disk_heatmap", (keypoints, None, 13, 17, 4.0, torch.float32)),
        ("disk_heatmap", (keypoints, visible, 13, 17, 2.5, torch.bfloat16)),
    ]


def _empty() -> list[Sample]:
    return [
        _call(torch.float32, 0),
        _call(torch.float32, 2, 0),
        _call(torch.float32, size=(0, 5)),
        _call(torch.float32, size=(5, 0)),
    ]


def _hostile() -> list[Sample]:
    calls = []
    for value in (float("nan"), float("inf"), -float("inf"), 1e308, -1e30, 2.0**63, -0.9, 1e-300):
        for axis in (0, 1):
            call = _call(torch.float64)
            call["keypoints"][:, 0, axis] = value
            calls += [call, call | {"radius": 4096}]
    return calls


SPEC = OpSpec(
    name="disk_heatmap",
    family="heatmap",
    function=disk_heatmap,
    samples=_samples,
    dtypes=(
        torch.float32, torch.float64, torch.float16, torch.bfloat16,
        torch.int64, torch.int32, torch.int16,
    ),
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    bad=(
        *bad_keypoints(3),
        BadInput(
            {"keypoints": torch.zeros((1, 3, 2), requires_grad=True)}, ValueError,
            "keypoints must not require a gradient: disk_heatmap has none",
        ),
        BadInput({"size": (-1, 7)}, ValueError, "size must not be negative"),
        BadInput({"radius": -1.0}, ValueError, "radius must be in 0 .. 4096 pixels, got -1.0"),
        BadInput({"radius": "4"}, TypeError, "radius must be a number, got '4'"),
        BadInput({"radius": float("nan")}, ValueError, "radius must be in 0 .. 4096 pixels"),
        BadInput({"dtype": torch.int32}, TypeError, "dtype must be one of .*, got torch.int32"),
    ),
)  # fmt: skip
