"""part_boxes in Triton: one program a part of many people.

Maths: csrc/crop/part_boxes.h. Arguments as torch.ops.dgpose.part_boxes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpose_ext.triton._launch import ceil_divide, is_finite, launch, on_device, power_of_2

#: People of a program.
TILE = 128


@triton.jit
def part_boxes_kernel(
    keypoints, visible, members, part_end, margins, boxes, present, batch, joints, parts, height,
    width, margin: tl.float64, lone_margin: tl.float64, PEOPLE: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = keypoints.dtype.element_ty
    part = (tl.program_id(0) % parts).to(tl.int64)
    person = (tl.program_id(0) // parts).to(tl.int64) * PEOPLE + tl.arange(0, PEOPLE)
    there = person < batch
    begin = tl.load(part_end + part - 1, part > 0, 0)
    x_low = tl.full((PEOPLE,), float("inf"), T)
    y_low = tl.full((PEOPLE,), float("inf"), T)
    x_high = tl.full((PEOPLE,), float("-inf"), T)
    y_high = tl.full((PEOPLE,), float("-inf"), T)
    count = tl.zeros((PEOPLE,), tl.int32)
    for k in range(begin, tl.load(part_end + part)):
        at = person * joints + tl.load(members + k)
        x = tl.load(keypoints + 2 * at, there, 0)
        y = tl.load(keypoints + 2 * at + 1, there, 0)
        seen = there & is_finite(x) & is_finite(y)
        if visible is not None:
            seen = seen & tl.load(visible + at, there, 0)
        x_low = tl.where(seen & (x < x_low), x, x_low)
        y_low = tl.where(seen & (y < y_low), y, y_low)
        x_high = tl.where(seen & (x > x_high), x, x_high)
        y_high = tl.where(seen & (y > y_high), y, y_high)
        count += seen.to(tl.int32)
    if margins is not None:
        m = tl.load(margins + 2 * person + (count == 1).to(tl.int32), there, 0)
    else:
        m = tl.where(count == 1, tl.full((), lone_margin, T), tl.full((), margin, T))
    some = count > 0
    right = tl.full((), width - 1, T)
    bottom = tl.full((), height - 1, T)
    box = boxes + 4 * (person * parts + part)
    tl.store(box, tl.where(some, _clip(x_low - m, right), 0), there)
    tl.store(box + 1, tl.where(some, _clip(y_low - m, bottom), 0), there)
    tl.store(box + 2, tl.where(some, _clip(x_high + m, right), 1), there)
    tl.store(box + 3, tl.where(some, _clip(y_high + m, bottom), 1), there)
    tl.store(present + person * parts + part, some.to(tl.uint8), there)


@triton.jit
def _clip(x, most):
    """x within 0 .. most; a NaN (of a margin) stays one."""
    x = tl.where(x < 0, 0, x)
    return tl.where(x > most, most, x)


def part_boxes(
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
    """boxes [B, P, 4] and present [B, P]; keypoints [B, K, 2], visible [B, K], margins [B, 2]."""
    batch, joints, _ = keypoints.shape
    parts = len(part_end)
    boxes = keypoints.new_empty((batch, parts, 4))
    present = keypoints.new_empty((batch, parts), dtype=torch.bool)
    people = power_of_2(batch, TILE)
    launch(
        part_boxes_kernel, ceil_divide(batch, people) * parts, boxes,
        keypoints.contiguous(), None if visible is None else visible.contiguous(),
        on_device(members, torch.int64, keypoints.device),
        on_device(part_end, torch.int64, keypoints.device),
        None if margins is None else margins.contiguous(),
        boxes, present.view(torch.uint8), batch, joints, parts, height, width,
        margin, lone_margin, PEOPLE=people,
    )  # fmt: skip
    return boxes, present
