"""Sample inputs of body_mask."""

from __future__ import annotations

from typing import Any

import torch

from dgpose_ext import body_mask
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample, bad_keypoints

MAP_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.bool)

#: A tree over five joints, one limb of no length.
LIMBS = ((0, 1), (1, 2), (3, 1), (3, 4), (2, 2))

#: Limbs of DPIG between OpenPose-18 joints (dgpose.skeletons.DPIG_LIMBS).
PERSON_LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12)),
    *((12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (1, 16), (1, 17), (8, 11), (11, 5)),
    *((8, 2), (16, 17)),
)

#: A standing person in a picture of 128x64: OpenPose-18.
PERSON = (
    *((35, 11), (35, 25), (21, 24), (15, 42), (28, 57), (48, 25), (54, 44), (56, 59), (32, 65)),
    *((18, 86), (13, 109), (48, 65), (49, 94), (55, 117), (32, 8), (38, 8), (27, 10), (43, 9)),
)


def _call(dtype: torch.dtype, batch: int = 2, seed: int = 0, **changes: Any) -> Sample:
    """Keypoints inside and around a picture of 33 x 29."""
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand((batch, 5, 2), generator=generator) * 60 - 15
    sample = {"keypoints": keypoints.to(dtype), "limbs": LIMBS, "size": (33, 29), "radius": 3.0}
    return sample | changes


def people(batch: int, size: tuple[int, int] = (128, 64), radius: float = 7.0) -> Sample:
    """Standing people, each joint a few pixels away from the next one's. For benchmarks and
    examples."""
    generator = torch.Generator().manual_seed(0)
    keypoints = torch.tensor(PERSON, dtype=torch.float32)
    keypoints = keypoints + torch.randint(-4, 5, (batch, 18, 2), generator=generator)
    keypoints = keypoints * torch.tensor([size[1] / 64, size[0] / 128])
    return {"keypoints": keypoints, "limbs": PERSON_LIMBS, "size": size, "radius": radius}


def _samples(dtype: torch.dtype) -> list[Sample]:
    calls = [_call(dtype)]
    visible = torch.tensor([[1, 0, 1, 1, 1], [1, 1, 1, 0, 1]])
    calls += [_call(dtype, visible=flags) for flags in (visible, visible.bool(), visible / 2)]
    calls += [_call(dtype) | {"dtype": out} for out in MAP_DTYPES]
    calls += [_call(dtype, 3, 1) | {"dtype": out, "size": (9, 150)} for out in MAP_DTYPES]
    calls += [_call(dtype, radius=radius) for radius in (1, 1.5, 2.5, 7, 40.0)]
    calls += [_call(dtype, 1, n, size=(n, 30)) for n in ODD_SIZES]
    calls += [_call(dtype, 1, n, size=(30, n)) for n in (*ODD_SIZES, 64, 127, 128, 129)]
    calls += [_call(dtype, 5, limbs=())]
    # More than one tile of the CUDA kernel in either direction, and more limbs and points than it
    # takes at once.
    far = _call(torch.float32, 2, 5)["keypoints"] * 9
    calls += [_call(dtype, keypoints=far.to(dtype), limbs=LIMBS * 8, size=(450, 600), radius=1.5)]
    return calls


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    keypoints = _call(torch.float64)["keypoints"]
    visible = torch.tensor([[True, False, True, True, True], [False, True, True, True, True]])
    return [
        ("body_mask", (keypoints, None, [0, 1, 1, 2], 33, 29, 4.0, torch.float32)),
        ("body_mask", (keypoints, visible, [2, 4], 33, 29, 2.5, torch.bfloat16)),
    ]


def _empty() -> list[Sample]:
    return [
        _call(torch.float32, 0),
        _call(torch.float32, keypoints=torch.zeros((2, 0, 2)), limbs=()),
        _call(torch.float32, size=(0, 5)),
        _call(torch.float32, size=(5, 0)),
    ]


def _hostile() -> list[Sample]:
    calls = []
    far = (2.0**20 - 1, 1 - 2.0**20, 2.0**20, 70000.0, -3000.0)
    for value in (*far, float("nan"), float("inf"), -float("inf"), 1e308, 2.0**63, -0.9, 1e-300):
        for axis in (0, 1):
            call = _call(torch.float64)
            call["keypoints"][:, 1, axis] = value
            calls.append(call)
    both = _call(torch.float64, radius=1)
    both["keypoints"][0, :2] = torch.tensor([[-1e6, -9e5], [1e6, 9e5 + 31]])
    return [*calls, both]


SPEC = OpSpec(
    name="body_mask",
    family="heatmap",
    function=body_mask,
    samples=_samples,
    dtypes=(
        torch.float32, torch.float64, torch.float16, torch.bfloat16,
        torch.int64, torch.int32, torch.int16,
    ),
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    bad=(
        *bad_keypoints(5),
        BadInput(
            {"keypoints": torch.zeros((1, 5, 2), requires_grad=True)}, ValueError,
            "keypoints must not require a gradient: body_mask has none",
        ),
        BadInput(
            {"limbs": ((0, 5),)}, ValueError,
            r"limbs must lie in 0 .. K-1 with K = 5, got \(0, 5\)",
        ),
        BadInput({"limbs": ((0, -1),)}, ValueError, "limbs must lie in 0 .. K-1"),
        BadInput(
            {"limbs": None}, TypeError, "limbs must be a sequence of pairs of joints, got None"
        ),
        BadInput({"limbs": (0, 1)}, ValueError, "limbs must be pairs of joints, got 0"),
        BadInput({"limbs": ((0, 1.0),)}, TypeError, "a joint of limbs must be an integer, got 1.0"),
        BadInput({"size": (-1, 7)}, ValueError, "size must not be negative"),
        BadInput({"radius": 0.5}, ValueError, "radius must be in 1 .. 4096 pixels, got 0.5"),
        BadInput({"radius": "4"}, TypeError, "radius must be a number, got '4'"),
        BadInput({"radius": float("nan")}, ValueError, "radius must be in 1 .. 4096 pixels"),
        BadInput({"dtype": torch.int32}, TypeError, "dtype must be one of .*, got torch.int32"),
    ),
)  # fmt: skip
