"""What estimators are given, checked: a depth image, its unit, the hand's centre."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data.depth_io import UNITS

__all__ = ["Depth", "Place", "check_center", "depth_in_mm", "require_option", "why_no_center"]

_FLOAT_DEPTH_M = 20.0
"""No depth camera for hands sees farther, in metres; in millimetres nothing is nearer."""

Depth = npt.NDArray[Any] | Tensor
Place = tuple[float, float, float]
"""(u, v, mm)."""


def require_option(name: str, value: object, options: Sequence[str]) -> None:
    """ValueError for a value that is not one of the options."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")


def depth_in_mm(depth: object, unit: str) -> Tensor:
    """The image as a tensor `[H, W]`, uint16 or float32, mm, without a copy where it can be.

    Raises:
        TypeError: no array or tensor, or of another dtype.
        ValueError: another shape or unit, or values that cannot be in that unit.
    """
    require_option("unit", unit, UNITS)
    if isinstance(depth, Tensor):
        image = depth.detach()
        if image.device.type != "cpu":
            raise ValueError(f"depth must be on the CPU, got {image.device}")
    elif isinstance(depth, np.ndarray):
        if depth.dtype.kind not in "fiub" or depth.dtype.itemsize > 8:
            raise TypeError(f"depth must be of dtype uint16 or float32, got {depth.dtype}")
        native = np.ascontiguousarray(depth, depth.dtype.newbyteorder("="))
        image = torch.from_numpy(native if native.flags.writeable else native.copy())
    else:
        raise TypeError(
            f"depth must be a NumPy array or a torch tensor, got {type(depth).__name__}"
        )
    if image.dtype not in (torch.uint16, torch.float32):
        got = str(image.dtype).removeprefix("torch.")
        hint = " (an 8-bit picture is no depth in mm)" if image.dtype == torch.uint8 else ""
        raise TypeError(f"depth must be of dtype uint16 (mm) or float32, got {got}{hint}")
    if image.dim() != 2 or 0 in image.shape:
        raise ValueError(f"depth must have shape [H, W], H, W >= 1, got {list(image.shape)}")
    image = image.contiguous()
    if image.dtype == torch.uint16:
        if unit != "mm":
            raise ValueError("uint16 depth must be in millimetres (unit='mm'), got unit='m'")
        return image
    _require_plausible_unit(image, unit)
    return image * 1000.0 if unit == "m" else image


def _require_plausible_unit(image: Tensor, unit: str) -> None:
    """ValueError where all depths are absurd in `unit`, and would be sensible in the other one."""

    def valid(values: Tensor) -> npt.NDArray[np.float32]:
        array = values.numpy()
        kept: npt.NDArray[np.float32] = array[(array > 0) & (array < np.inf)]
        return kept

    def absurd(depths: npt.NDArray[np.float32]) -> bool:
        far = depths >= _FLOAT_DEPTH_M
        return bool(far.all() if unit == "m" else not far.any())

    # A coarse grid tells in nearly all cases, and costs nothing.
    if absurd(valid(image[::16, ::16])):
        depths = valid(image)
        if depths.size and absurd(depths):
            other = "mm" if unit == "m" else "m"
            raise ValueError(
                f"depth in {unit} is expected, but all its values lie in "
                f"{depths.min():.4g}..{depths.max():.4g}: pass unit={other!r}?"
            )


def check_center(center: Sequence[float]) -> Place:
    """(u, v, mm) as three floats.

    Raises:
        ValueError: not three finite numbers, or mm not positive.
    """
    try:
        values = tuple(float(value) for value in center)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(math.isfinite(v) for v in values) or values[2] <= 0:
        raise ValueError(f"center must be (u, v, mm), finite, with mm > 0, got {center!r}")
    u, v, mm = values
    return u, v, mm


def why_no_center(image: Tensor) -> str:
    """Why `find_hand_center` found nothing in an image, in one sentence."""
    depths = image.numpy()
    if not bool(((depths > 0) & (depths < np.inf)).any()):
        return "the image holds no depth"
    return "no object of a hand's size between 10 mm and 1500 mm"
