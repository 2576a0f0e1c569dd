"""disk_heatmap beside torch expressions and OpenCV.

Limit: the maps written once, as zero_ does. The first limit writes memory that is there, the second
(torch.zeros) asks for new memory as every op must.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import dgpose_ext
from dgpose_ext.testing.disk_heatmap import people

from .gpu import GpuCase
from .harness import Case

SHAPES = {"64 people of 128x128": (64, (128, 128)), "16 people of 128x64": (16, (128, 64))}


def _ours(batch: int, size: tuple[int, int], dtype: torch.dtype | None = None) -> Callable[[], Any]:
    call = people(batch, size=size)
    return lambda: dgpose_ext.disk_heatmap(**call, dtype=dtype, backend="cpu")


def _broadcast(batch: int, size: tuple[int, int], compiled: bool = False) -> Callable[[], Any]:
    """Squared distances by broadcasting, compared with the squared radius."""
    call = people(batch, size=size)
    x, y = call["keypoints"].trunc()[..., None, None].unbind(2)
    columns, rows = torch.arange(float(size[1])), torch.arange(float(size[0]))[:, None]

    def draw() -> torch.Tensor:
        return ((columns - x) ** 2 + (rows - y) ** 2 <= call["radius"] ** 2).float()

    return torch.compile(draw) if compiled else draw


def _scatter(batch: int, size: tuple[int, int]) -> Callable[[], Any]:
    """The 49 pixels of every disk written into a padded map by one index_put."""
    call = people(batch, size=size)
    keypoints, pad = call["keypoints"], 4
    at = torch.arange(-pad, pad + 1)
    i, j = torch.meshgrid(at, at, indexing="ij")
    disk = i**2 + j**2 <= pad**2
    i, j = i[disk], j[disk]
    person = torch.arange(batch)[:, None, None]
    joint = torch.arange(keypoints.shape[1])[None, :, None]

    def draw() -> torch.Tensor:
        maps = torch.zeros((*keypoints.shape[:2], size[0] + 2 * pad, size[1] + 2 * pad))
        x, y = keypoints.long()[..., None].unbind(2)
        maps[person, joint, y + i + pad, x + j + pad] = 1.0
        return maps[..., pad:-pad, pad:-pad].contiguous()

    return draw


def _opencv(batch: int, size: tuple[int, int]) -> Callable[[], Any]:
    """cv2.circle into NumPy maps (its disk differs in a few pixels)."""
    import cv2

    call = people(batch, size=size)
    centers = call["keypoints"].int().reshape(-1, 2).tolist()

    def draw() -> np.ndarray:
        maps = np.zeros((len(centers), *size), np.float32)
        for image, center in zip(maps, centers, strict=True):
            cv2.circle(image, center, 4, 1.0, -1)
        return maps

    return draw


def _zero(batch: int, size: tuple[int, int], fresh: bool) -> Callable[[], Any]:
    shape = (batch, 18, *size)
    if fresh:
        return lambda: torch.zeros(shape)
    out = torch.empty(shape)
    return lambda: out.zero_()


def _case(name: str, threads: int) -> Case:
    batch, size = SHAPES[name]
    contenders = {
        "dgpose_ext": lambda: _ours(batch, size),
        "zero_ of the maps": lambda: _zero(batch, size, False),
        "torch.zeros": lambda: _zero(batch, size, True),
        "torch scatter": lambda: _scatter(batch, size),
        "torch broadcast": lambda: _broadcast(batch, size),
        "torch broadcast, compiled": lambda: _broadcast(batch, size, True),
        "OpenCV circle": lambda: _opencv(batch, size),
        "dgpose_ext, uint8": lambda: _ours(batch, size, torch.uint8),
    }
    return Case(
        name, "maps", batch * 18, threads, contenders, "dgpose_ext", "zero_ of the maps",
        call=lambda: (dgpose_ext.disk_heatmap, people(batch, size=size)),
        traffic=batch * 18 * size[0] * size[1] * 4,
    )  # fmt: skip


CASES = [_case(name, threads) for name, threads in zip(SHAPES, (2, 1), strict=True)]

GPU_CASES = [
    GpuCase(
        "18 maps of 128x128", "people", 64,
        lambda batch: (dgpose_ext.disk_heatmap, people(batch, size=(128, 128))), 18 * 128 * 128 * 4,
    ),
]  # fmt: skip
