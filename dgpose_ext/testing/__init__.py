"""Sample inputs and tolerances of every op: shared by the tests, the benchmarks and users.

Each module `dgpose_ext/testing/<op>.py` defines one `SPEC`; `discover()` finds them all, nothing
lists them. `for spec in discover(): spec.function(**spec.samples(torch.float32)[0])` calls every op
once.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: Keyword arguments of one call of an op.
Sample = dict[str, Any]

#: Lengths around vector widths, where loops with tails go wrong.
ODD_SIZES = (1, 3, 15, 16, 17, 31, 33, 63, 65, 97)


@dataclass(frozen=True)
class BadInput:
    """One wrong call: what it changes in the first sample, and the error that it raises."""

    change: Sample
    error: type[Exception]
    message: str  #: regular expression


@dataclass(frozen=True)
class OpSpec:
    """What the tests of all ops need to know about one."""

    name: str  #: public name in dgpose_ext, and the stem of all its files
    family: str  #: folder in csrc/, ops/ and reference/
    function: Callable[..., Any]
    #: Valid calls for a dtype of `dtypes`, small ones, odd sizes among them; deterministic.
    samples: Callable[[torch.dtype], list[Sample]]
    dtypes: tuple[torch.dtype, ...]
    #: Calls of the registered ops: (name in torch.ops.dgpose, positional arguments), for opcheck.
    raw_calls: Callable[[], list[tuple[str, tuple[Any, ...]]]]
    #: Calls with empty tensors (no batch, no items, no pixels).
    empty: Callable[[], list[Sample]]
    #: Calls with NaN, Inf and huge values, which must neither crash nor differ from the reference.
    hostile: Callable[[], list[Sample]]
    bad: tuple[BadInput, ...]
    #: Arguments with gradients, and float64 calls on which gradcheck is run.
    differentiable: tuple[str, ...] = ()
    gradient_samples: Callable[[], list[Sample]] = list
    #: (rtol, atol) against the reference by dtype; no entry: bit-identical.
    tolerance: Mapping[torch.dtype, tuple[float, float]] = field(default_factory=dict)
    #: (rtol, atol) between instruction sets; None: bit-identical.
    isa_tolerance: tuple[float, float] | None = None
    #: The devices with native kernels.
    devices: tuple[str, ...] = ("cpu", "cuda")
    #: Whether torch.compile(fullgraph=True) can hold a call (not where a result is None or float).
    compilable: bool = True


def bad_keypoints(joints: int) -> tuple[BadInput, ...]:
    """What every op refuses of keypoints [2, K, 2] with K = `joints`, of visible and of size."""
    return (
        BadInput({"keypoints": [[0.0]]}, TypeError, "keypoints must be a torch.Tensor, got list"),
        BadInput(
            {"keypoints": torch.zeros((3, 7))},
            ValueError,
            r"keypoints must have shape \[B, K, 2\], got \[3, 7\]",
        ),
        BadInput(
            {"keypoints": torch.zeros((2, joints, 2), dtype=torch.bool)},
            TypeError,
            "keypoints must be of dtype float32, .*, got bool",
        ),
        BadInput(
            {"visible": torch.ones(2)},
            ValueError,
            rf"visible must have shape \[B, K\] with B = 2, K = {joints}, got \[2\]",
        ),
        BadInput(
            {"visible": torch.ones((2, joints), device="meta")},
            ValueError,
            r"visible must be on the device of keypoints \(cpu\), got meta",
        ),
        BadInput({"visible": 1}, TypeError, "visible must be a torch.Tensor, got int"),
        BadInput({"size": 4}, ValueError, r"size must be \(H, W\), got 4"),
    )


def tensors(result: Any) -> list[Tensor]:
    """The result of any op as a flat list of tensors (None as an empty one)."""
    if result is None:
        return [torch.empty(0)]
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, int | float):
        return [torch.tensor(result, dtype=torch.float64)]
    return [t for item in result for t in tensors(item)]


def discover() -> list[OpSpec]:
    """The specs of all ops, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}").SPEC for name in names]
