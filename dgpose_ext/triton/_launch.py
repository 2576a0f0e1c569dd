"""How every Triton kernel is launched, and the maths that they share."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_MAX_PROGRAMS = 2**31 - 1


def _launch(kernel: Any, programs: int, out: Tensor, *arguments: Any, **constants: Any) -> None:
    """Runs `programs` programs of a kernel on the device of `out`; none at all for 0."""
    if programs > _MAX_PROGRAMS:
        raise ValueError(f"a Triton kernel must have at most {_MAX_PROGRAMS} tiles, got {programs}")
    if programs == 0:
        return
    # Fused multiply-adds would change the last bit of what must be equal on every backend.
    constants["enable_fp_fusion"] = False
    if out.is_cuda:
        with torch.cuda.device(out.device):
            kernel[(programs,)](*arguments, **constants)
    else:
        kernel[(programs,)](*arguments, **constants)


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

#: In the interpreter NumPy does the work, which torch.compile must not trace.
launch = torch.compiler.disable(_launch) if INTERPRETED else _launch


def ceil_divide(a: int, b: int) -> int:
    """a / b, rounded up (torch.compile does not trace triton.cdiv)."""
    return -(-a // b)


def power_of_2(size: int, most: int) -> int:
    """The least power of 2 that is `size` or more, but at most `most`, itself a power of 2."""
    return min(1 << max(size - 1, 0).bit_length(), most)


def tile_shape(height: int, width: int, elements: int, most_columns: int = 128) -> tuple[int, int]:
    """Rows and columns of tiles of at most `elements` pixels: whole rows where they are short."""
    columns = power_of_2(width, min(most_columns, elements))
    return power_of_2(height, elements // columns), columns


#: The bits of a one, of every dtype that an op draws zeros and ones in.
_ONE = {
    torch.float32: (torch.int32, 0x3F800000),
    torch.float64: (torch.int64, 0x3FF0000000000000),
    torch.float16: (torch.int16, 0x3C00),
    torch.bfloat16: (torch.int16, 0x3F80),
    torch.uint8: (torch.uint8, 1),
    torch.bool: (torch.uint8, 1),
}


def as_bits(out: Tensor) -> tuple[Tensor, int]:
    """The tensor as integers of the same width, and the integer whose bits are those of a one."""
    integer, one = _ONE[out.dtype]
    return out.view(integer), one


def on_device(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A few numbers as a tensor, copied to the device once."""
    # torch.compile looks through a cache with a warning, and traces this once anyway.
    make = _on_device if torch.compiler.is_compiling() else _on_device_once
    return make(tuple(values), dtype, device)


def _on_device(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


_on_device_once = functools.lru_cache(maxsize=256)(_on_device)


@triton.jit
def divide(a, b):
    """a / b, correctly rounded."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def truncate(x):
    """x without its fraction."""
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))


@triton.jit
def is_finite(x):
    return tl.abs(x) < float("inf")
