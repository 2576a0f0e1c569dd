"""depth_crop of one 640x480 frame beside what people write with OpenCV, NumPy and torch.

Limit: the crop written once, the touched rows of the window read once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import dgpose_ext
from dgpose_ext.testing.depth_crop import full_frame

from .gpu import GpuCase
from .harness import Case

SIZE = 128


def _window() -> tuple[float, float, float, float, float, float]:
    """u, v, mm, half window in x and y (pixels), half cube (mm) of the benchmarked frame."""
    call = full_frame(torch.uint16)
    u, v, mm = call["centers"][0].tolist()
    half = call["cube_mm"] / 2
    return u, v, mm, half * call["camera"][0] / mm, half * call["camera"][1] / mm, half


def _ours(dtype: torch.dtype, backend: str = "cpu", **options: str) -> Callable[[], Any]:
    call = full_frame(dtype)
    return lambda: dgpose_ext.depth_crop(**call, **options, backend=backend)


def _normalised(z: np.ndarray, mm: float, half: float) -> np.ndarray:
    x = np.clip((z - mm) / half, -1, 1)
    x[z == 0] = 1
    return x


def _opencv_resize(dtype: torch.dtype) -> Callable[[], Any]:
    """Slice an integer window, cv2.resize, then NumPy: the commonest form in hand pose code."""
    import cv2

    cv2.setNumThreads(1)
    depth = full_frame(dtype)["depth"][0].numpy()
    u, v, mm, hw_x, hw_y, half = _window()

    def crop() -> np.ndarray:
        x0, x1 = round(u - hw_x), round(u + hw_x)
        y0, y1 = round(v - hw_y), round(v + hw_y)
        height, width = depth.shape
        window = depth[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        pad = max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)
        if any(pad):
            window = cv2.copyMakeBorder(window, *pad, cv2.BORDER_CONSTANT, value=0)
        z = cv2.resize(window, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST).astype(np.float32)
        return _normalised(z, mm, half)[None, None]

    return crop


def _opencv_warp(dtype: torch.dtype) -> Callable[[], Any]:
    import cv2

    cv2.setNumThreads(1)
    depth = full_frame(dtype)["depth"][0].numpy()
    u, v, mm, hw_x, hw_y, half = _window()

    def crop() -> np.ndarray:
        sx, sy = 2 * hw_x / SIZE, 2 * hw_y / SIZE
        matrix = np.array([[sx, 0, u - hw_x + 0.5 * sx], [0, sy, v - hw_y + 0.5 * sy]])
        z = cv2.warpAffine(
            depth, matrix, (SIZE, SIZE), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        ).astype(np.float32)
        return _normalised(z, mm, half)[None, None]

    return crop


def _opencv_remap(dtype: torch.dtype) -> Callable[[], Any]:
    import cv2

    cv2.setNumThreads(1)
    depth = full_frame(dtype)["depth"][0].numpy()
    u, v, mm, hw_x, hw_y, half = _window()
    at = ((np.arange(SIZE) + 0.5) * (2 / SIZE) - 1).astype(np.float32)

    def crop() -> np.ndarray:
        x, y = np.meshgrid(
            np.float32(u) + np.float32(hw_x) * at, np.float32(v) + np.float32(hw_y) * at
        )
        z = cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderValue=0).astype(np.float32)
        return _normalised(z, mm, half)[None, None]

    return crop


def _grid_sample(batch: int, compiled: bool = False) -> Callable[[], Any]:
    """F.grid_sample takes float32 only: the frame is float32 from the start."""
    depth = full_frame(torch.float32)["depth"][:, None].expand(batch, -1, -1, -1).contiguous()
    u, v, mm, hw_x, hw_y, half = _window()
    height, width = depth.shape[2:]
    at = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1

    def crop() -> torch.Tensor:
        x = (u + hw_x * at + 0.5) * (2 / width) - 1
        y = (v + hw_y * at + 0.5) * (2 / height) - 1
        grid = torch.stack([x.expand(SIZE, SIZE), y[:, None].expand(SIZE, SIZE)], -1)
        z = F.grid_sample(
            depth, grid.expand(batch, -1, -1, -1), mode="nearest", align_corners=False
        )
        return torch.where(z > 0, ((z - mm) / half).clamp(-1, 1), 1.0)

    return torch.compile(crop) if compiled else crop


def _frames(batch: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    call = full_frame(dtype)
    call["depth"] = call["depth"].expand(batch, -1, -1).contiguous()
    call["centers"] = call["centers"].expand(batch, -1).contiguous()
    return call


def _ours_batch(batch: int) -> Callable[[], Any]:
    call = _frames(batch)
    return lambda: dgpose_ext.depth_crop(**call, backend="cpu")


def _limit(dtype: torch.dtype, batch: int = 1) -> Callable[[], Any]:
    """Memory traffic only: fill of the crop, copy of the touched rows (about every second one)."""
    u, v, _, hw_x, hw_y, _ = _window()
    depth = full_frame(dtype)["depth"].expand(batch, -1, -1).contiguous()
    window = depth[:, int(v - hw_y) : int(v + hw_y) : 2, int(u - hw_x) : int(u + hw_x)]
    read, out = torch.empty(window.shape, dtype=dtype), torch.empty((batch, 1, SIZE, SIZE))
    return lambda: (out.fill_(1.0), read.copy_(window))


CASES = [
    Case(
        "one uint16 frame", "frames", 1, 1,
        {
            "dgpose_ext": lambda: _ours(torch.uint16),
            "fill of the crop + copy of its rows": lambda: _limit(torch.uint16),
            "OpenCV resize + NumPy": lambda: _opencv_resize(torch.uint16),
            "OpenCV warpAffine + NumPy": lambda: _opencv_warp(torch.uint16),
            "OpenCV remap + NumPy": lambda: _opencv_remap(torch.uint16),
            "dgpose_ext, nearest_pixel": lambda: _ours(torch.uint16, normalize="nearest_pixel"),
            "dgpose_ext, bilinear": lambda: _ours(torch.uint16, interpolation="bilinear"),
            "dgpose_ext reference (torch)": lambda: _ours(torch.uint16, "reference"),
        },
        "dgpose_ext", "fill of the crop + copy of its rows",
        note="640x480 -> 128x128, from Python",
        call=lambda: (dgpose_ext.depth_crop, full_frame(torch.uint16)), traffic=SIZE * SIZE * 6,
    ),
    Case(
        "one float32 frame", "frames", 1, 1,
        {
            "dgpose_ext": lambda: _ours(torch.float32),
            "fill of the crop + copy of its rows": lambda: _limit(torch.float32),
            "OpenCV resize + NumPy": lambda: _opencv_resize(torch.float32),
            "F.grid_sample": lambda: _grid_sample(1),
            "F.grid_sample, torch.compile": lambda: _grid_sample(1, True),
        },
        "dgpose_ext", "fill of the crop + copy of its rows",
        note="640x480 -> 128x128, from Python",
        call=lambda: (dgpose_ext.depth_crop, full_frame(torch.float32)), traffic=SIZE * SIZE * 8,
    ),
    Case(
        "32 float32 frames", "frames", 32, 2,
        {
            "dgpose_ext": lambda: _ours_batch(32),
            "fill of the crops + copy of their rows": lambda: _limit(torch.float32, 32),
            "F.grid_sample": lambda: _grid_sample(32),
        },
        "dgpose_ext", "fill of the crops + copy of their rows",
        note="640x480 -> 128x128",
        call=lambda: (dgpose_ext.depth_crop, _frames(32)), traffic=32 * SIZE * SIZE * 8,
    ),
]  # fmt: skip


def _gpu_case(dtype: torch.dtype, interpolation: str) -> GpuCase:
    _, _, _, hw_x, hw_y, _ = _window()
    rows = min(SIZE, 2 * hw_y) if interpolation == "nearest" else 2 * hw_y
    return GpuCase(
        f"640x480 {str(dtype).removeprefix('torch.')} -> {SIZE}x{SIZE}, {interpolation}",
        "frames", 1024,
        lambda batch: (
            dgpose_ext.depth_crop, _frames(batch, dtype) | {"interpolation": interpolation}
        ),
        int(rows * 2 * hw_x) * dtype.itemsize + SIZE * SIZE * 4,  # whole rows of the window
    )  # fmt: skip


GPU_CASES = [
    _gpu_case(dtype, interpolation)
    for dtype in (torch.uint16, torch.float32)
    for interpolation in ("nearest", "bilinear")
]
