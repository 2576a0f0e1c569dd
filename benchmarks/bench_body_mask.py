"""body_mask beside OpenCV and the reference.

Limit: the masks written once, as zero_ does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import dgpose_ext
from dgpose_ext.testing.body_mask import people

from .gpu import GpuCase
from .harness import Case

SIZE = (128, 64)


def _ours(batch: int, backend: str = "cpu", dtype: torch.dtype | None = None) -> Callable[[], Any]:
    call = people(batch)
    return lambda: dgpose_ext.body_mask(**call, dtype=dtype, backend=backend)


def _opencv(batch: int) -> Callable[[], Any]:
    """The same steps with cv2: circles along the limbs, then the closing (its disks differ)."""
    import cv2

    cv2.setNumThreads(1)
    call = people(batch)
    keypoints = call["keypoints"].long().tolist()
    radius, square = call["radius"], np.ones((5, 5), np.uint8)

    def draw() -> np.ndarray:
        masks = np.zeros((batch, *SIZE), np.uint8)
        for mask, joints in zip(masks, keypoints, strict=True):
            for a, b in call["limbs"]:
                (x0, y0), (x1, y1) = joints[a], joints[b]
                parts = int(np.hypot(x1 - x0, y1 - y0) / radius)
                for i in range(max(1, parts)):
                    k = max(1, parts)
                    center = int(x0 + (x1 - x0) * i / k), int(y0 + (y1 - y0) * i / k)
                    cv2.circle(mask, center, int(radius), 1, -1)
                cv2.circle(mask, (x1, y1), int(radius), 1, -1)
            cv2.morphologyEx(mask, cv2.MORPH_CLOSE, square, dst=mask)
        return masks.astype(np.float32)

    return draw


def _opencv_lines(batch: int) -> Callable[[], Any]:
    """What is quickest in cv2: one thick line a limb, no disks, then the closing."""
    import cv2

    cv2.setNumThreads(1)
    call = people(batch)
    keypoints = call["keypoints"].long().tolist()
    thickness, square = 2 * int(call["radius"]) + 1, np.ones((5, 5), np.uint8)

    def draw() -> np.ndarray:
        masks = np.zeros((batch, *SIZE), np.uint8)
        for mask, joints in zip(masks, keypoints, strict=True):
            for a, b in call["limbs"]:
                cv2.line(mask, joints[a], joints[b], 1, thickness)
            cv2.morphologyEx(mask, cv2.MORPH_CLOSE, square, dst=mask)
        return masks.astype(np.float32)

    return draw


def _zero(batch: int, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    out = torch.empty((batch, 1, *SIZE), dtype=dtype)
    return lambda: out.zero_()


def _case(name: str, batch: int, threads: int) -> Case:
    contenders = {
        "dgpose_ext": lambda: _ours(batch),
        "zero_ of the masks": lambda: _zero(batch),
        "OpenCV thick lines": lambda: _opencv_lines(batch),
        "OpenCV circles": lambda: _opencv(batch),
        "dgpose_ext reference (torch)": lambda: _ours(batch, "reference"),
        "dgpose_ext, uint8": lambda: _ours(batch, dtype=torch.uint8),
        "zero_ of uint8 masks": lambda: _zero(batch, torch.uint8),
    }
    return Case(
        name, "masks", batch, threads, contenders, "dgpose_ext", "zero_ of the masks",
        call=lambda: (dgpose_ext.body_mask, people(batch)), traffic=batch * SIZE[0] * SIZE[1] * 4,
    )  # fmt: skip


CASES = [_case("64 people of 128x64", 64, 2), _case("one person of 128x64", 1, 1)]

GPU_CASES = [
    GpuCase(
        "masks of 128x64", "people", 2048, lambda batch: (dgpose_ext.body_mask, people(batch)),
        SIZE[0] * SIZE[1] * 4,
    ),
]  # fmt: skip
