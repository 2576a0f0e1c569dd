"""limb_heatmap beside what people write in torch: a broadcast over limbs and pixels.

Limit: the maps written once, as fill_ does; for the gradients, the incoming maps read once. Memory
is kept between calls, as in bench_gaussian_heatmap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

import dgpose_ext
from dgpose_ext.testing.limb_heatmap import BODY_LIMBS, bodies

from .gpu import GpuCase
from .harness import Case, kept_memory

BATCH, SIDE, SIGMA = 64, 128, 2.0
COUNT = len(BODY_LIMBS)


def _keypoints() -> torch.Tensor:
    keypoints: torch.Tensor = bodies(BATCH, (SIDE, SIDE))["keypoints"]
    return keypoints


def _call(sigma: float = SIGMA, **options: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    limbs = torch.tensor(BODY_LIMBS)
    arguments = {"keypoints": _keypoints(), "limbs": limbs, "size": (SIDE, SIDE), "sigma": sigma}
    return dgpose_ext.limb_heatmap, arguments | options


def _ours(sigma: float = SIGMA, backend: str = "cpu", **options: Any) -> Callable[[], Any]:
    function, arguments = _call(sigma, **options)
    return lambda: function(**arguments, backend=backend)


def _fill(dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    maps = torch.empty((BATCH, COUNT, SIDE, SIDE), dtype=dtype)
    return lambda: maps.fill_(0.5)


def _broadcast(keypoints: torch.Tensor, limbs: torch.Tensor) -> torch.Tensor:
    a, b = keypoints[:, limbs].unbind(2)
    e = b - a
    pixels = torch.arange(SIDE, dtype=keypoints.dtype)
    x = pixels - a[..., 0, None, None]
    y = pixels[:, None] - a[..., 1, None, None]
    ex, ey = e[..., None, None].unbind(2)
    t = ((x * ex + y * ey) / (ex.square() + ey.square())).clamp(0, 1)
    d2 = (x - t * ex).square() + (y - t * ey).square()
    return torch.exp(d2 * (-0.5 / SIGMA**2))


def _torch(compiled: bool = False) -> Callable[[], Any]:
    keypoints, limbs = _keypoints(), torch.tensor(BODY_LIMBS)
    run = torch.compile(_broadcast) if compiled else _broadcast
    return lambda: run(keypoints, limbs)


def _gradients(run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[], Any]:
    keypoints = _keypoints().requires_grad_()
    maps = run(keypoints, torch.tensor(BODY_LIMBS))
    weight = torch.rand(maps.shape)
    return lambda: torch.autograd.grad(maps, keypoints, weight, retain_graph=True)


def _ours_gradients(sigma: float) -> Callable[[], Any]:
    return _gradients(
        lambda k, limbs: dgpose_ext.limb_heatmap(k, limbs, (SIDE, SIDE), sigma, backend="cpu")
    )


def _torch_gradients_compiled() -> Callable[[], Any]:
    # Inductor frees what a retained graph needs, so the forward runs again every time.
    keypoints, limbs = _keypoints().requires_grad_(), torch.tensor(BODY_LIMBS)
    run = torch.compile(_broadcast)
    weight = torch.rand((BATCH, COUNT, SIDE, SIDE))
    return lambda: torch.autograd.grad(run(keypoints, limbs), keypoints, weight)


def _read() -> Callable[[], Any]:
    maps = torch.rand((BATCH, COUNT, SIDE, SIDE))
    return lambda: maps.sum()


_FLOATS = BATCH * COUNT * SIDE * SIDE * 4  # bytes of all maps
_NOTE = f"{BATCH} x {COUNT} limbs of bodies, {SIDE} x {SIDE}, sigma {SIGMA:g}"

_KEPT_CASES = [
    Case(
        "maps", "maps", BATCH * COUNT, 2,
        {
            "dgpose_ext": lambda: _ours(),
            "fill": lambda: _fill(),
            "dgpose_ext, sigma 20": lambda: _ours(20.0),
            "torch, broadcast": lambda: _torch(),
            "torch, broadcast, torch.compile": lambda: _torch(True),
            "dgpose_ext reference (torch)": lambda: _ours(backend="reference"),
        },
        "dgpose_ext", "fill", note=_NOTE, call=lambda: _call(), traffic=_FLOATS,
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
            "torch, broadcast": lambda: _gradients(_broadcast),
            "torch.compile, forward and backward": _torch_gradients_compiled,
        },
        "dgpose_ext", "read (sum)", note="backward alone; ours with sigma 20: all is read",
    ),
]  # fmt: skip

CASES = [
    replace(case, contenders={name: kept_memory(make) for name, make in case.contenders.items()})
    for case in _KEPT_CASES
]


def _people(sigma: float = SIGMA, **options: Any) -> Callable[[int], Any]:
    def call(batch: int) -> tuple[Callable[..., Any], dict[str, Any]]:
        function, arguments = _call(sigma, **options)
        return function, arguments | {"keypoints": arguments["keypoints"][:batch]}

    return call


_PERSON = _FLOATS // BATCH  # bytes of the float32 maps of one

GPU_CASES = [
    GpuCase(f"{COUNT} maps of 128x128", "people", BATCH, _people(), _PERSON),
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
