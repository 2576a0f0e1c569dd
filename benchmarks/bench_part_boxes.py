"""part_boxes beside torch and NumPy expressions.

Limit: keypoints and visibility read once, boxes and presence written once, as two copies do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import dgpose_ext
from dgpose_ext.testing.part_boxes import people

from .gpu import GpuCase
from .harness import Case


def _ours(batch: int, backend: str = "cpu") -> Callable[[], Any]:
    call = people(batch)
    return lambda: dgpose_ext.part_boxes(**call, backend=backend)


def _gather(batch: int, compiled: bool = False) -> Callable[[], Any]:
    """One padded gather over all parts, amin and amax."""
    call = people(batch)
    keypoints, visible = call["keypoints"], call["visible"]
    longest = max(len(part) for part in call["parts"])
    members = torch.tensor([[*p, *[p[0]] * (longest - len(p))] for p in call["parts"]])
    real = torch.tensor([[i < len(p) for i in range(longest)] for p in call["parts"]])
    extent = torch.tensor([call["size"][1] - 1.0, call["size"][0] - 1.0])
    absent = torch.tensor([0.0, 0.0, 1.0, 1.0])

    def boxes() -> tuple[torch.Tensor, torch.Tensor]:
        points, seen = keypoints[:, members], visible[:, members] & real
        count = seen.sum(-1, keepdim=True)
        m = torch.where(count == 1, call["lone_margin"], call["margin"])
        low = torch.where(seen[..., None], points, torch.inf).amin(2) - m
        high = torch.where(seen[..., None], points, -torch.inf).amax(2) + m
        box = torch.cat([low.clamp(min=0).minimum(extent), high.clamp(min=0).minimum(extent)], -1)
        return torch.where(count > 0, box, absent), count[..., 0] > 0

    return torch.compile(boxes) if compiled else boxes


def _numpy(batch: int) -> Callable[[], Any]:
    """Part by part with NaN for what is not visible."""
    call = people(batch)
    keypoints, visible = call["keypoints"].numpy(), call["visible"].numpy()
    right, bottom = call["size"][1] - 1, call["size"][0] - 1

    def boxes() -> tuple[np.ndarray, np.ndarray]:
        out = np.empty((batch, len(call["parts"]), 4), np.float32)
        present = np.empty(out.shape[:2], bool)
        for p, part in enumerate(call["parts"]):
            joints = list(part)
            points, seen = keypoints[:, joints], visible[:, joints]
            count = seen.sum(1)
            m = np.where(count == 1, call["lone_margin"], call["margin"])[:, None]
            out[:, p, :2] = np.where(seen[..., None], points, np.inf).min(1) - m
            out[:, p, 2:] = np.where(seen[..., None], points, -np.inf).max(1) + m
            present[:, p] = count > 0
        np.clip(out[..., 0::2], 0, right, out=out[..., 0::2])
        np.clip(out[..., 1::2], 0, bottom, out=out[..., 1::2])
        out[~present] = 0, 0, 1, 1
        return out, present

    return boxes


def _copies(batch: int) -> Callable[[], Any]:
    call = people(batch)
    keypoints, visible = call["keypoints"], call["visible"]
    read = torch.empty_like(keypoints), torch.empty_like(visible)
    boxes, present = torch.empty((batch, 7, 4)), torch.empty((batch, 7), dtype=torch.bool)

    def copy() -> None:
        read[0].copy_(keypoints)
        read[1].copy_(visible)
        boxes.zero_()
        present.zero_()

    return copy


def _case(name: str, batch: int, threads: int) -> Case:
    contenders = {
        "dgpose_ext": lambda: _ours(batch),
        "copies of keypoints, zero_ of boxes": lambda: _copies(batch),
        "torch gather": lambda: _gather(batch),
        "torch gather, compiled": lambda: _gather(batch, True),
        "NumPy": lambda: _numpy(batch),
        "dgpose_ext reference (torch)": lambda: _ours(batch, "reference"),
    }
    limit = "copies of keypoints, zero_ of boxes"
    return Case(
        name, "people", batch, threads, contenders, "dgpose_ext", limit,
        call=lambda: (dgpose_ext.part_boxes, people(batch)),
        traffic=batch * (18 * (2 * 4 + 1) + 7 * (4 * 4 + 1)),
    )  # fmt: skip


CASES = [_case("12,936 people", 12936, 2), _case("16 people", 16, 1)]

GPU_CASES = [
    GpuCase(
        "7 boxes of 18 joints", "people", 1 << 18,
        lambda batch: (dgpose_ext.part_boxes, people(batch)), 18 * (2 * 4 + 1) + 7 * (4 * 4 + 1),
    ),
]  # fmt: skip
