"""crop_and_resize beside torch.

Limit: x read once and y written once, as copy_ does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.harness import Case
from dgpose_ext.testing.crop_and_resize import rows


def _ours(batch: int, size: int) -> Callable[[], Any]:
    from dgpose_ext import crop_and_resize

    call = rows(batch, size)
    return lambda: crop_and_resize(**call, backend="cpu")


def _torch(batch: int, size: int) -> Callable[[], Any]:
    call = rows(batch, size)
    x, scale = call["x"], call["scale"]
    return lambda: scale * x


def _copy(batch: int, size: int) -> Callable[[], Any]:
    x = rows(batch, size)["x"]
    y = torch.empty_like(x)
    return lambda: y.copy_(x)


def _case(name: str, batch: int, size: int, threads: int) -> Case:
    contenders = {
        "dgpose_ext": lambda: _ours(batch, size),
        "torch": lambda: _torch(batch, size),
        "copy of x": lambda: _copy(batch, size),
    }
    return Case(name, "rows", batch, threads, contenders, "dgpose_ext", "copy of x")


CASES = [
    _case("256 rows of 4096", 256, 4096, 2),
    _case("one row of 100", 1, 100, 1),
]
