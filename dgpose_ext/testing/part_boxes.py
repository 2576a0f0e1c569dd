"""Sample inputs of part_boxes."""

from __future__ import annotations

from typing import Any

import torch

from dgpose_ext import part_boxes
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample, bad_keypoints

#: Groups of five joints: overlapping, alone, empty, one joint twice.
PARTS = ((0, 1, 2), (3,), (4, 3), (), (2, 2), (0, 1, 2, 3, 4))

#: DPIG's seven parts of OpenPose-18 (dgpose.skeletons.DPIG_PARTS).
BODY_PARTS = (
    (0, 1, 2, 5, 14, 15, 16, 17),
    (2, 3, 4, 5, 6, 7, 8, 11),
    (8, 9, 10, 11, 12, 13),
    *((5, 6, 7), (2, 3, 4), (11, 12, 13), (8, 9, 10)),
)


def _call(dtype: torch.dtype, batch: int = 2, seed: int = 0, **changes: Any) -> Sample:
    """Keypoints inside and around a picture of 33 x 29."""
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand((batch, 5, 2), generator=generator) * 60 - 15
    sample: Sample = {"keypoints": keypoints.to(dtype), "parts": PARTS, "size": (33, 29)}
    return sample | {"margin": 2.3, "lone_margin": 5.1} | changes


def people(batch: int) -> Sample:
    """OpenPose-18 keypoints anywhere in pictures of 128x64, one in eight invisible, DPIG's parts
    and margins. For benchmarks and examples."""
    generator = torch.Generator().manual_seed(0)
    return {
        "keypoints": torch.rand((batch, 18, 2), generator=generator) * torch.tensor([64.0, 128.0]),
        "parts": BODY_PARTS,
        "margin": 6.0,
        "lone_margin": 10.0,
        "size": (128, 64),
        "visible": torch.rand((batch, 18), generator=generator) > 0.125,
    }


def _samples(dtype: torch.dtype) -> list[Sample]:
    calls = [_call(dtype)]
    visible = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1]])
    calls += [_call(dtype, visible=flags) for flags in (visible, visible.bool(), visible / 2)]
    calls += [_call(dtype, n, n) for n in ODD_SIZES]
    own = torch.tensor([1.1, 7.7])
    calls += [_call(dtype, margin=own), _call(dtype, lone_margin=own.double(), visible=visible)]
    return [*calls, _call(dtype, 600, visible=torch.arange(3000).reshape(600, 5) % 3)]


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    calls: list[tuple[str, tuple[object, ...]]] = []
    for dtype in (torch.float32, torch.float64):
        keypoints = _call(dtype)["keypoints"]
        visible = torch.tensor([[True, False, True, True, True], [False, True, True, True, True]])
        margins = torch.tensor([[1, 2], [3, 4]], dtype=dtype)
        calls.append(("part_boxes", (keypoints, None, [0, 1, 4], [1, 3], None, 6.0, 10.0, 33, 29)))
        calls.append(("part_boxes", (keypoints, visible, [2], [0, 1], margins, 0.0, 0.0, 33, 29)))
    return calls


def _empty() -> list[Sample]:
    return [
        _call(torch.float32, 0),
        _call(torch.float32, parts=()),
        _call(torch.float32, parts=((), ())),
        _call(torch.float32, keypoints=torch.zeros((2, 0, 2)), parts=((),)),
    ]


def _hostile() -> list[Sample]:
    calls = []
    for value in (float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-40, -0.0):
        for axis in (0, 1):
            call = _call(torch.float32)
            call["keypoints"][:, 3, axis] = value
            calls += [call, call | {"margin": 3e38}]
        margins = torch.tensor([value, -3.0])
        calls += [_call(torch.float32, margin=margins), _call(torch.float32, lone_margin=margins)]
    return calls


SPEC = OpSpec(
    name="part_boxes",
    family="crop",
    function=part_boxes,
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
            {"keypoints": torch.zeros((2, 5, 2), requires_grad=True)}, ValueError,
            "keypoints must not require a gradient: part_boxes has none",
        ),
        BadInput(
            {"margin": torch.zeros(2, requires_grad=True)}, ValueError,
            "margin must not require a gradient",
        ),
        BadInput({"parts": ((0, 5),)}, ValueError, "parts must lie in 0 .. K-1 with K = 5, got 5"),
        BadInput(
            {"parts": None}, TypeError, "parts must be a sequence of sequences of joints, got None"
        ),
        BadInput({"parts": (0, 1)}, ValueError, "parts must be sequences of joints, got 0"),
        BadInput({"parts": ((0.5,),)}, TypeError, "a joint of parts must be an integer, got 0.5"),
        BadInput({"margin": -1.0}, ValueError, "margin must be finite and not negative, got -1.0"),
        BadInput({"margin": "6"}, TypeError, "margin must be a number or a torch.Tensor, got '6'"),
        BadInput(
            {"margin": torch.ones(2, device="meta")}, ValueError,
            r"margin must be on the device of keypoints \(cpu\), got meta",
        ),
        BadInput({"lone_margin": float("inf")}, ValueError, "lone_margin must be finite"),
        BadInput(
            {"margin": torch.zeros(3)}, ValueError,
            r"margin must have shape \[B\] with B = 2, got \[3\]",
        ),
        BadInput({"size": (0, 7)}, ValueError, r"size must be at least \(1, 1\), got \(0, 7\)"),
    ),
)  # fmt: skip
