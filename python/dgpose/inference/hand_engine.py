"""What runs a hand network: the options that estimators share, and the engine they come to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

import dgpose_ext
from dgpose.inference.depth_input import require_option
from dgpose_ext.hand_net import PRECISIONS, HandNet

__all__ = ["Engine", "Hand", "Precision", "check_options", "chosen_engine", "compiled", "described"]

Hand = Literal["right", "left"]
Engine = Literal["auto", "native", "torch"]
Precision = Literal["float32", "bfloat16", "int8"]
Network = Callable[[Tensor], Tensor]


def check_options(hand: str, engine: str, precision: str, cube_mm: float) -> None:
    """ValueError for an unknown option, or a cube that is not positive."""
    require_option("hand", hand, ("right", "left"))
    require_option("engine", engine, ("auto", "native", "torch"))
    require_option("precision", precision, PRECISIONS)
    if not (math.isfinite(cube_mm) and cube_mm > 0):
        raise ValueError(f"cube_mm must be positive, got {cube_mm}")


def chosen_engine(engine: Engine, precision: Precision) -> Literal["native", "torch"]:
    """What "auto" comes to: the native engine where the compiled core is there, or is needed."""
    if engine != "auto":
        return engine
    return "torch" if dgpose_ext.why_no_core() and precision == "float32" else "native"


def compiled(
    module: nn.Module,
    engine: Literal["native", "torch"],
    precision: Precision,
    size: int,
    calibration: Callable[[], Tensor],
) -> Network:
    """The network of an engine, for crops [B, 1, S, S] with S = `size`.

    Args:
        calibration: makes the crops that int8 is calibrated with.

    Raises:
        ValueError: a precision that engine "torch" does not have, or a layer that "native" has not.
        RuntimeError: engine "native" and the compiled core is missing.
    """
    if engine == "torch":
        if precision != "float32":
            raise ValueError(f"precision must be float32 for engine 'torch', got {precision!r}")
        return module
    if why := dgpose_ext.why_no_core():
        raise RuntimeError(f"engine 'native' is not available. {why}")
    crops = calibration() if precision == "int8" else None
    return HandNet.from_module(module, precision, input_shape=(1, size, size), calibration=crops)


def described(
    name: str,
    engine: str,
    precision: str,
    module: nn.Module,
    joints: str,
    hand: str,
    cube_mm: float,
) -> dict[str, Any]:
    """What `info()` of an estimator says."""
    return {
        "model": name,
        "engine": engine,
        "precision": precision,
        "device": "cpu",
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "joints": joints,
        "hand": hand,
        "cube_mm": cube_mm,
        "cpu_capability": dgpose_ext.cpu_capability(),
        "dgpose_ext": dgpose_ext.__version__,
    }
