"""decode_heatmap beside torch, and beside a loop over maps in NumPy and OpenCV as MMPose's codecs.

Limit: the maps read once. torch's sum is the fastest read that torch has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import dgpose_ext
from dgpose_ext.testing.decode_heatmap import gaussians

from .gpu import GpuCase
from .harness import Case
from .onnx_graph import exported

Shape = tuple[int, int, int, int]
LARGE: Shape = (64, 18, 128, 128)
SMALL: Shape = (1, 17, 64, 48)
BETA = 10.0


def _call(
    shape: Shape, method: str, dtype: torch.dtype = torch.float32
) -> tuple[Callable[..., Any], dict[str, Any]]:
    maps = gaussians(*shape).to(dtype)
    return dgpose_ext.decode_heatmap, {"heatmaps": maps, "method": method, "beta": BETA}


def _ours(
    shape: Shape, method: str, backend: str = "cpu", dtype: torch.dtype = torch.float32
) -> Callable[[], Any]:
    function, arguments = _call(shape, method, dtype)
    return lambda: function(**arguments, backend=backend)


def _onnx(shape: Shape, method: str) -> Callable[[], Any]:
    return exported(
        lambda maps: dgpose_ext.decode_heatmap(maps, method, beta=BETA), gaussians(*shape)
    )


def _read(shape: Shape, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    # Two float16 are read as one float32: torch's sum of halves is slower than the memory.
    maps = gaussians(*shape).to(dtype).view(torch.float32)
    return lambda: maps.sum()


def _read_and_fill(shape: Shape) -> Callable[[], Any]:
    maps = gaussians(*shape)
    return lambda: (maps.sum(), torch.full_like(maps, 0.5))


def _amax(shape: Shape) -> Callable[[], Any]:
    flat = gaussians(*shape).flatten(2)
    return lambda: flat.amax(2)


def _max(shape: Shape) -> Callable[[], Any]:
    flat = gaussians(*shape).flatten(2)
    width = shape[3]

    def decode() -> Any:
        scores, index = flat.max(2)
        return torch.stack([index % width, index // width], -1).float(), scores

    return decode


def _softmax(shape: Shape, compiled: bool = False) -> Callable[[], Any]:
    maps = gaussians(*shape)
    x, y = torch.arange(shape[3]).float(), torch.arange(shape[2]).float()

    def decode() -> Any:
        p = (BETA * maps).flatten(2).softmax(2).view(maps.shape)
        coords = torch.stack([(p.sum(2) * x).sum(2), (p.sum(3) * y).sum(2)], -1)
        return coords, maps.flatten(2).amax(2)

    return torch.compile(decode) if compiled else decode


def _backward(shape: Shape, ours: bool) -> Callable[[], Any]:
    maps = gaussians(*shape).requires_grad_()
    x, y = torch.arange(shape[3]).float(), torch.arange(shape[2]).float()

    def step() -> Any:
        if ours:
            coords, _ = dgpose_ext.decode_heatmap(maps, "softargmax", beta=BETA, backend="cpu")
        else:
            p = (BETA * maps).flatten(2).softmax(2).view(maps.shape)
            coords = torch.stack([(p.sum(2) * x).sum(2), (p.sum(3) * y).sum(2)], -1)
        return torch.autograd.grad(coords.sum(), maps)

    return step


def _numpy_loop(shape: Shape, method: str) -> Callable[[], Any]:
    """One map after another, as MMPose decodes: argmax, then the shift; dark blurs whole maps."""
    import cv2

    cv2.setNumThreads(1)
    frames = gaussians(*shape).numpy()
    height, width = shape[2:]

    def dark(image: np.ndarray, x: int, y: int) -> np.ndarray:
        if not (1 < x < width - 2 and 1 < y < height - 2):
            return np.zeros(2)
        v = image[y - 2 : y + 3, x - 2 : x + 3]
        gradient = 0.5 * np.array([v[2, 3] - v[2, 1], v[3, 2] - v[1, 2]])
        xy = 0.25 * (v[3, 3] - v[1, 3] - v[3, 1] + v[1, 1])
        xx = 0.25 * (v[2, 4] - 2 * v[2, 2] + v[2, 0])
        yy = 0.25 * (v[4, 2] - 2 * v[2, 2] + v[0, 2])
        return -np.linalg.inv(np.array([[xx, xy], [xy, yy]])) @ gradient

    def quarter(image: np.ndarray, x: int, y: int) -> np.ndarray:
        dx = dy = 0.0
        if 1 < x < width - 1 and y > 0:
            dx = image[y, x + 1] - image[y, x - 1]
        if 1 < y < height - 1 and x > 0:
            dy = image[y + 1, x] - image[y - 1, x]
        return 0.25 * np.sign([dx, dy])

    def blurred_log(image: np.ndarray) -> np.ndarray:
        blurred = cv2.GaussianBlur(np.pad(image, 5), (11, 11), 0)[5:-5, 5:-5]
        return np.log(np.maximum(blurred * (image.max() / blurred.max()), 1e-10))

    def decode() -> Any:
        coords, scores = np.empty((*shape[:2], 2), np.float32), np.empty(shape[:2], np.float32)
        for b, k in np.ndindex(*shape[:2]):
            image = frames[b, k]
            y, x = (int(v) for v in np.unravel_index(np.argmax(image), image.shape))
            scores[b, k] = image.max()
            shift = quarter(image, x, y) if method == "quarter" else dark(blurred_log(image), x, y)
            coords[b, k] = x + shift[0], y + shift[1]
        return coords, scores

    return decode


def _case(name: str, shape: Shape, threads: int) -> Case:
    return Case(
        f"{name}: argmax, quarter, dark", "maps", shape[0] * shape[1], threads,
        {
            "dgpose_ext, argmax": lambda: _ours(shape, "argmax"),
            "dgpose_ext, quarter": lambda: _ours(shape, "quarter"),
            "dgpose_ext, dark": lambda: _ours(shape, "dark"),
            "read of the maps (torch sum)": lambda: _read(shape),
            "read of the maps (torch amax)": lambda: _amax(shape),
            "torch max, argmax": lambda: _max(shape),
            "loop in NumPy, quarter": lambda: _numpy_loop(shape, "quarter"),
            "loop in NumPy + OpenCV, dark": lambda: _numpy_loop(shape, "dark"),
            "dgpose_ext reference (torch), argmax": lambda: _ours(shape, "argmax", "reference"),
            "exported, ONNX Runtime, argmax": lambda: _onnx(shape, "argmax"),
            "exported, ONNX Runtime, dark": lambda: _onnx(shape, "dark"),
        },
        "dgpose_ext, argmax", "read of the maps (torch sum)",
        call=lambda: _call(shape, "argmax"), traffic=math.prod(shape) * 4,
    )  # fmt: skip


CASES = [
    _case("64x18 maps of 128x128", LARGE, 2),
    _case("17 maps of 64x48", SMALL, 1),
    Case(
        "64x18 maps of 128x128, float16: argmax", "maps", LARGE[0] * LARGE[1], 2,
        {
            "dgpose_ext": lambda: _ours(LARGE, "argmax", dtype=torch.float16),
            "read of the maps (torch sum)": lambda: _read(LARGE, torch.float16),
        },
        "dgpose_ext", "read of the maps (torch sum)",
        call=lambda: _call(LARGE, "argmax", torch.float16), traffic=math.prod(LARGE) * 2,
    ),
    Case(
        "64x18 maps of 128x128: softargmax", "maps", LARGE[0] * LARGE[1], 2,
        {
            "dgpose_ext": lambda: _ours(LARGE, "softargmax"),
            "read of the maps (torch sum)": lambda: _read(LARGE),
            "torch softmax": lambda: _softmax(LARGE),
            "torch softmax, torch.compile": lambda: _softmax(LARGE, True),
            "exported, ONNX Runtime": lambda: _onnx(LARGE, "softargmax"),
        },
        "dgpose_ext", "read of the maps (torch sum)",
        call=lambda: _call(LARGE, "softargmax"), traffic=math.prod(LARGE) * 4,
    ),
    Case(
        "64x18 maps of 128x128: softargmax, forward and backward", "maps", LARGE[0] * LARGE[1], 2,
        {
            "dgpose_ext": lambda: _backward(LARGE, True),
            "torch softmax": lambda: _backward(LARGE, False),
            "read of the maps + a new map filled": lambda: _read_and_fill(LARGE),
        },
        "dgpose_ext", "read of the maps + a new map filled",
    ),
]  # fmt: skip


def _people(method: str, dtype: torch.dtype = torch.float32) -> Callable[[int], Any]:
    return lambda batch: _call((batch, *LARGE[1:]), method, dtype)


_PERSON = math.prod(LARGE[1:]) * 4  # bytes of the float32 maps of one

GPU_CASES = [
    *(
        GpuCase(f"18 maps of 128x128, {method}", "people", LARGE[0], _people(method), _PERSON)
        for method in ("argmax", "quarter", "dark", "softargmax")
    ),
    GpuCase(
        "18 float16 maps, argmax", "people", LARGE[0], _people("argmax", torch.float16),
        _PERSON // 2,
    ),
    GpuCase(
        "softargmax, forward and backward", "people", LARGE[0], _people("softargmax"), 3 * _PERSON,
        ("heatmaps",),
    ),
]  # fmt: skip
