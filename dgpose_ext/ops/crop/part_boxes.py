"""part_boxes: boxes around groups of keypoints. Maths: csrc/crop/part_boxes.h."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import (
    refuse_gradients,
    require_device,
    require_dtype,
    require_integer,
    require_number,
    require_shape,
    require_size,
    require_tensor,
    visible_mask,
)
from dgpose_ext.reference.crop import part_boxes as reference

_DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16,
)  # fmt: skip


def part_boxes(
    keypoints: Tensor,
    parts: Sequence[Sequence[int]],
    *,
    margin: float | Tensor,
    lone_margin: float | Tensor,
    size: tuple[int, int],
    visible: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Boxes around groups of keypoints, for example the seven body parts of Disentangled Person
    Image Generation (CVPR 2018).

    A box is the least and greatest x and y of its part's visible joints, widened by `margin` on
    every side (by `lone_margin` where one joint alone is visible) and clipped to the image:
    0 .. W-1 and 0 .. H-1. `dgpose.data.dpig_parts.dpig_part_boxes` has DPIG's parts and margins.

    Args:
        keypoints: [B, K, 2] (x, y) in pixels. float16, bfloat16, float32, float64, int16, int32 or
            int64.
        parts: P sequences of joints in 0 .. K-1. The CUDA kernel takes at most 128 with 512 joints
            in all.
        margin, lone_margin: pixels: a number, finite and not negative, or a tensor [B], whose
            values are not looked at (NaN gives boxes of NaN).
        size: (H, W) of the image, at least (1, 1).
        visible: [B, K], any dtype: joints of 0 are left out. None: all are visible.
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        boxes [B, P, 4] (x1, y1, x2, y2), float64 for float64 keypoints and float32 for the others,
        and present [B, P] (bool). Where no joint of a part is visible, present is False and the box
        (0, 0, 1, 1). Joints that are NaN or Inf are left out. A part wholly outside the image has
        an empty box at its border.

    No gradients. Autocast changes nothing. Bit-identical on every backend, instruction set and
    number of threads.

    Raises:
        TypeError: an argument is of another type, or a tensor of another dtype; a joint of parts is
            no integer.
        ValueError: shapes, devices, parts, margins or size do not fit; an argument requires a
            gradient.
    """
    keypoints = require_tensor("keypoints", keypoints)
    require_dtype("keypoints", keypoints, _DTYPES)
    require_shape("keypoints", keypoints, "[B, K, 2]")
    visible = visible_mask(visible, keypoints)
    refuse_gradients("part_boxes", keypoints=keypoints, margin=margin, lone_margin=lone_margin)
    members, part_end = _flat(parts, keypoints.shape[1])
    height, width = require_size("size", size)
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least (1, 1), got {size}")
    points = keypoints.to(torch.float64 if keypoints.dtype == torch.float64 else torch.float32)
    margins, number, lone_number = None, 0.0, 0.0
    if isinstance(margin, Tensor) or isinstance(lone_margin, Tensor):
        columns = [
            _margin_tensor("margin", margin, points),
            _margin_tensor("lone_margin", lone_margin, points),
        ]
        margins = torch.stack(columns, 1)
    else:
        number = _margin_number("margin", margin)
        lone_number = _margin_number("lone_margin", lone_margin)
    chosen = _backend.choose(backend, points.device, "part_boxes")
    run = _backend.implementation(chosen, "part_boxes", reference.part_boxes)
    boxes, present = run(
        points, visible, members, part_end, margins, number, lone_number, height, width
    )
    return boxes, present


def _flat(parts: Sequence[Sequence[int]], joints: int) -> tuple[list[int], list[int]]:
    """The joints of all parts, and where each part ends among them."""
    members: list[int] = []
    part_end = []
    if not isinstance(parts, Sequence):
        raise TypeError(f"parts must be a sequence of sequences of joints, got {parts!r}")
    for part in parts:
        if not isinstance(part, (tuple, list, Sequence)):
            raise ValueError(f"parts must be sequences of joints, got {part!r}")
        for joint in part:
            if type(joint) is not int:  # the check costs more than a box
                require_integer("a joint of parts", joint)
            if not 0 <= joint < joints:
                raise ValueError(f"parts must lie in 0 .. K-1 with K = {joints}, got {joint}")
            members.append(joint)
        part_end.append(len(members))
    return members, part_end


def _margin_number(name: str, value: float) -> float:
    require_number(name, value, or_tensor=True)
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {value}")
    return float(value)


def _margin_tensor(name: str, value: float | Tensor, keypoints: Tensor) -> Tensor:
    """[B] beside the keypoints. A number is checked; the values of a tensor are not looked at."""
    batch = keypoints.shape[0]
    if not isinstance(value, Tensor):
        return keypoints.new_full((batch,), _margin_number(name, value))
    require_shape(name, value, "[B]", B=batch)
    require_device(name, value, "keypoints", keypoints)
    return value.to(keypoints.dtype)


@_fake.register("part_boxes")
def _(
    keypoints: Tensor,
    visible: Tensor | None,
    members: list[int],
    part_end: list[int],
    margins: Tensor | None,
    margin: float,
    lone_margin: float,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    shape = (keypoints.shape[0], len(part_end))
    return keypoints.new_empty((*shape, 4)), keypoints.new_empty(shape, dtype=torch.bool)
