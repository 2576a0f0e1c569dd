"""gaussian_heatmap beside kornia, what people write in torch, and MMPose's NumPy loop.

Limit: the maps written once, as fill_ does; for the gradients, the incoming maps read once.

glibc returns 75 MB of maps to the kernel after every call, and the page faults of the next call
would cost all contenders more than the maps: here memory is kept, as a caching allocator keeps it.
The case "fresh memory" shows the other side.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import dgpose_ext
from dgpose_ext.testing.gaussian_heatmap import random_keypoints

from .gpu import GpuCase
from .harness import Case, kept_memory

BATCH, COUNT, SIDE, SIGMA = 64, 18, 128, 2.0


def _keypoints() -> torch.Tensor:
    keypoints: torch.Tensor = random_keypoints(BATCH, COUNT, (SIDE, SIDE))["keypoints"]
    return keypoints


def _call(sigma: float = SIGMA, **options: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    arguments = {"keypoints": _keypoints(), "size": (SIDE, SIDE), "sigma": sigma}
    return dgpose_ext.gaussian_heatmap, arguments | options


def _ours(sigma: float = SIGMA, backend: str = "cpu", **options: Any) -> Callable[[], Any]:
    function, arguments = _call(sigma, **options)
    return lambda: function(**arguments, backend=backend)


def _fill(dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    maps = torch.empty((BATCH, COUNT, SIDE, SIDE), dtype=dtype)
    return lambda: maps.fill_(0.5)


def _kornia(compiled: bool = False) -> Callable[[], Any]:
    from kornia.geometry.subpix import render_gaussian2d

    keypoints = _keypoints()
    std = torch.full_like(keypoints, SIGMA)
    run = torch.compile(render_gaussian2d) if compiled else render_gaussian2d
    return lambda: run(keypoints, std, (SIDE, SIDE), False)


def _separable(keypoints: torch.Tensor) -> torch.Tensor:
    pixels = torch.arange(SIDE, dtype=keypoints.dtype)
    factors = torch.exp((pixels - keypoints[..., None]).square() * (-0.5 / SIGMA**2))
    return factors[:, :, 1, :, None] * factors[:, :, 0, None, :]


def _torch_separable(compiled: bool = False) -> Callable[[], Any]:
    keypoints = _keypoints()
    run = torch.compile(_separable) if compiled else _separable
    return lambda: run(keypoints)


def _torch_naive() -> Callable[[], Any]:
    keypoints = _keypoints()
    pixels = torch.arange(SIDE, dtype=torch.float32)

    def run() -> torch.Tensor:
        dx = pixels - keypoints[..., 0, None, None]
        dy = pixels[:, None] - keypoints[..., 1, None, None]
        return torch.exp((dx.square() + dy.square()) * (-0.5 / SIGMA**2))

    return run


def _msra_loop() -> Callable[[], Any]:
    """The MSRA codec as MMPose defines it: a patch a keypoint, pasted, in NumPy."""
    keypoints = _keypoints().numpy()
    radius = int(3 * SIGMA)
    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    patch = np.exp(-(offsets**2 + offsets[:, None] ** 2) / (2 * SIGMA**2))

    def run() -> np.ndarray:
        maps = np.zeros((BATCH, COUNT, SIDE, SIDE), dtype=np.float32)
        for b, k in itertools.product(range(BATCH), range(COUNT)):
            x, y = (keypoints[b, k] + 0.5).astype(np.int64)
            x0, x1 = max(x - radius, 0), min(x + radius + 1, SIDE)
            y0, y1 = max(y - radius, 0), min(y + radius + 1, SIDE)
            if x0 < x1 and y0 < y1:
                maps[b, k, y0:y1, x0:x1] = patch[
                    y0 - y + radius : y1 - y + radius, x0 - x + radius : x1 - x + radius
                ]
        return maps

    return run


def _gradients(run: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], Any]:
    keypoints = _keypoints().requires_grad_()
    maps = run(keypoints)
    weight = torch.rand(maps.shape)
    return lambda: torch.autograd.grad(maps, keypoints, weight, retain_graph=True)


def _ours_gradients(sigma: float) -> Callable[[], Any]:
    return _gradients(lambda k: dgpose_ext.gaussian_heatmap(k, (SIDE, SIDE), sigma, backend="cpu"))


def _kornia_gradients() -> Callable[[], Any]:
    from kornia.geometry.subpix import render_gaussian2d

    return _gradients(
        lambda k: render_gaussian2d(k, torch.full_like(k, SIGMA), (SIDE, SIDE), False)
    )


def _read() -> Callable[[], Any]:
    maps = torch.rand((BATCH, COUNT, SIDE, SIDE))
    return lambda: maps.sum()


_FLOATS = BATCH * COUNT * SIDE * SIDE * 4  # bytes of all maps
_NOTE = f"{BATCH} x {COUNT} maps of {SIDE} x {SIDE}, sigma {SIGMA:g}"

_KEPT_CASES = [
    Case(
        "full maps", "maps", BATCH * COUNT, 2,
        {
            "dgpose_ext": lambda: _ours(),
            "fill": lambda: _fill(),
            "dgpose_ext, sigma 20": lambda: _ours(20.0),
            "dgpose_ext, normalize='sum'": lambda: _ours(normalize="sum"),
            "kornia (normalised)": lambda: _kornia(),
            "kornia, torch.compile": lambda: _kornia(True),
            "torch, separable": lambda: _torch_separable(),
            "torch, separable, torch.compile": lambda: _torch_separable(True),
            "torch, naive": _torch_naive,
            "dgpose_ext reference (torch)": lambda: _ours(backend="reference"),
        },
        "dgpose_ext", "fill", note=_NOTE, call=lambda: _call(), traffic=_FLOATS,
    ),
    Case(
        "truncated windows", "maps", BATCH * COUNT, 2,
        {
            "dgpose_ext": lambda: _ours(cutoff=3.0, round_centers=True),
            "fill": lambda: _fill(),
            "NumPy, MSRA codec": _msra_loop,
        },
        "dgpose_ext", "fill", note=_NOTE + ", cutoff 3, rounded centres",
        call=lambda: _call(cutoff=3.0, round_centers=True), traffic=_FLOATS,
    ),
    Case(
        "bfloat16 maps", "maps", BATCH * COUNT, 2,
        {
            "dgpose_ext": lambda: _ours(dtype=torch.bfloat16),
            "fill": lambda: _fill(torch.bfloat16),
            "dgpose_ext, float16": lambda: _ours(dtype=torch.float16),
        },
        "dgpose_ext", "fill", note=_NOTE,
        call=lambda: _call(dtype=torch.bfloat16), traffic=_FLOATS // 2,
    ),
    Case(
        "gradients", "maps", BATCH * COUNT, 2,
        {
            "dgpose_ext": lambda: _ours_gradients(20.0),
            "read (sum)": _read,
            "dgpose_ext, sigma 2": lambda: _ours_gradients(SIGMA),
            "torch, separable": lambda: _gradients(_separable),
            "kornia": _kornia_gradients,
        },
        "dgpose_ext", "read (sum)", note="backward alone; ours with sigma 20: all is read",
    ),
]  # fmt: skip

CASES = [
    *(
        replace(case, contenders={n: kept_memory(make) for n, make in case.contenders.items()})
        for case in _KEPT_CASES
    ),
    Case(
        "fresh memory", "maps", BATCH * COUNT, 2,
        {
            "dgpose_ext": lambda: _ours(),
            "torch.full": lambda: lambda: torch.full((BATCH, COUNT, SIDE, SIDE), 0.5),
            "torch, separable": lambda: _torch_separable(),
        },
        "dgpose_ext", "torch.full", note=_NOTE + ", glibc as it comes",
    ),
]  # fmt: skip


def _people(sigma: float = SIGMA, **options: Any) -> Callable[[int], Any]:
    def call(batch: int) -> tuple[Callable[..., Any], dict[str, Any]]:
        function, arguments = _call(sigma, **options)
        return function, arguments | {"keypoints": arguments["keypoints"][:batch]}

    return call


_PERSON = _FLOATS // BATCH  # bytes of the float32 maps of one

GPU_CASES = [
    GpuCase("18 maps of 128x128", "people", BATCH, _people(), _PERSON),
    GpuCase("truncated windows", "people", BATCH, _people(cutoff=3.0, round_centers=True), _PERSON),
    GpuCase("normalised to sum 1", "people", BATCH, _people(normalize="sum"), _PERSON),
    GpuCase("bfloat16 maps", "people", BATCH, _people(dtype=torch.bfloat16), _PERSON // 2),
    GpuCase(
        "forward and backward, sigma 20",
        "people",
        BATCH,
        _people(20.0),
        2 * _PERSON,
        ("keypoints",),
    ),
]
