"""part_boxes in plain torch: the oracle of the tests and the fallback."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """boxes [B, P, 4] and present [B, P]; arguments as torch.ops.dgpose.part_boxes."""
    batch = keypoints.shape[0]
    if margins is None:
        margins = keypoints.new_tensor([[margin, lone_margin]]).expand(batch, 2)
    seen = torch.isfinite(keypoints).all(-1)
    if visible is not None:
        seen = seen & visible
    boxes = keypoints.new_empty((batch, len(part_end), 4))
    present = torch.empty((batch, len(part_end)), dtype=torch.bool, device=keypoints.device)
    extent = keypoints.new_tensor([width - 1, height - 1])
    absent = keypoints.new_tensor([0, 0, 1, 1])
    for p, (begin, end) in enumerate(zip([0, *part_end], part_end, strict=False)):
        if begin == end:
            boxes[:, p], present[:, p] = absent, False
            continue
        joints = members[begin:end]
        points, there = keypoints[:, joints], seen[:, joints, None]
        m = torch.where(there.sum((1, 2)) == 1, margins[:, 1], margins[:, 0])[:, None]
        low = torch.where(there, points, torch.inf).amin(1) - m
        high = torch.where(there, points, -torch.inf).amax(1) + m
        box = torch.cat([x.maximum(torch.zeros_like(x)).minimum(extent) for x in (low, high)], 1)
        present[:, p] = there.any(1)[:, 0]
        boxes[:, p] = torch.where(present[:, p, None], box, absent)
    return boxes, present
