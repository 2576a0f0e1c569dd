"""Hands in crops that were made elsewhere: any size, millimetres or normalised values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dgpose import model_zoo
from dgpose.data.cameras import Camera
from dgpose.inference.depth_input import Depth, Place, require_option
from dgpose.inference.hand_engine import Hand
from dgpose.inference.hand_pose import HandPose
from dgpose.skeletons import Skeleton

__all__ = [
    "CropOptions",
    "CropPose",
    "CropUnit",
    "CropView",
    "crop_view",
    "estimate_in_view",
    "hand_from_crop",
]

CropUnit = Literal["mm", "m", "normalised"]

_UNITS = ("mm", "m", "normalised")
_DISTANCE_MM = 700.0
"""Of a hand whose crop does not say it; it only sets the perspective."""

_NEAREST = 0.01
"""Share of the depths in a crop that may be specks before the hand."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CropPose:
    """One estimated hand in a crop.

    Attributes:
        joints_px: `[J, 2]` float32, (u, v) in pixels of the crop, v down, (0, 0) the centre of its
            first pixel. NaN where `found` is false.
        joints_mm: `[J, 3]` float32, mm from the centre of the cube, which lies in the middle of the
            crop, `center_mm` from the camera: x right, y UP, z forward. NaN likewise.
        center_mm: the cube's centre, given or estimated.
        found, confidence, reason: as of `HandPose`.
        skeleton: the joints' names and order.
    """

    joints_px: Array
    joints_mm: Array
    center_mm: float
    found: bool
    confidence: float
    reason: str
    skeleton: Skeleton


class CropOptions(TypedDict, total=False):
    """What a crop shows and how; each as for `hand_from_crop`. Without `cube_mm` it shows a cube as
    large as the one that the network looks at."""

    cube_mm: float | None
    center_mm: float | None
    focal_px: float | Sequence[float] | None
    unit: CropUnit | None
    background: float | None


class CropView(NamedTuple):
    """A crop as an image of its own."""

    depth: Array
    """[H, W] mm; 0 = nothing measured."""
    camera: Camera
    """That sees just the crop."""
    center: Place
    """(u, v, mm) of the cube."""
    look_again: bool
    """Whether the centre is only an estimate."""


def hand_from_crop(
    crop: Depth,
    *,
    model: str | Path = "accurate",
    hand: Hand = "right",
    cube_mm: float | None = None,
    center_mm: float | None = None,
    focal_px: float | Sequence[float] | None = None,
    unit: CropUnit | None = None,
    background: float | None = None,
    skeleton: Skeleton | None = None,
) -> CropPose:
    """Joints of the hand in a depth crop that any tool made; the hand is about in its middle.

        pose = dgpose.hand_from_crop(crop)  # 128x128, -1..1 over a cube of 300 mm
        pose = dgpose.hand_from_crop(depth[80:260, 200:340], focal_px=475.0)  # a box of a frame

    The crop is resampled (nearest) to the size of the network, around its middle. What lies outside
    of it is background. For many crops load the model once: `dgpose.load(model).from_crop(crop)`.

    Args:
        crop: `[H, W]`, square or not, NumPy or torch on the CPU: uint16 in mm, or floating point in
            `unit`. 0 (of mm and m), NaN and Inf mean "no depth".
        model: as for `dgpose.load`.
        hand: which hand it is.
        cube_mm: edge of the cube around the hand; less for a child's hand. Normalised values span
            it, and without `focal_px` the crop's longer side does (pixels are square). None: the
            model's own (300 mm for the hand models).
        center_mm: depth of the cube's centre. None: estimated, where the values are depths;
            normalised values need none.
        focal_px: focal length (or fx, fy) in pixels of the crop, where it was cut out of a frame
            and not resampled: tells how many mm the crop shows. None: see cube_mm.
        unit: "mm"; "m"; or "normalised": -1 front of the cube, 0 its centre, 1 its back and
            background. None: uint16 is in mm; floating point is normalised where all of it lies
            in -1..1 and some of it below 0, else in mm.
        background: a value that means "no depth", besides those above.
        skeleton: the joints wanted: MSRA21 or MEDIAPIPE21 of a model with NYU's 36; None: the
            model's own.

    Returns:
        The pose. Where there is no hand, or the estimate contradicts the crop, `found` is false,
        the joints are NaN and `reason` says why.

    Raises:
        TypeError: crop is no array or tensor, or of another dtype.
        ValueError: the shape, an option or a number is wrong; values do not fit the unit, or do not
            tell it.
        FileNotFoundError: there is no such weight file.
    """
    estimator = (_load if model_zoo.model_path(model) == Path(model) else _loaded)(
        model, hand, cube_mm
    )
    return estimator.from_crop(  # type: ignore[no-any-return]
        crop,
        skeleton,
        cube_mm=cube_mm,
        center_mm=center_mm,
        focal_px=focal_px,
        unit=unit,
        background=background,
    )


def _load(model: str | Path, hand: Hand, cube_mm: float | None) -> Any:
    options = {} if cube_mm is None else {"cube_mm": cube_mm}
    return model_zoo.load(model, hand=hand, **options)


_loaded = lru_cache(maxsize=4)(_load)
"""For shipped models, whose files do not change."""


def estimate_in_view(
    estimator: Callable[..., HandPose], view: CropView, skeleton: Skeleton | None
) -> CropPose:
    """The hand in a crop, with an estimator of depth images; joints of `skeleton`, or its own."""
    pose = estimator(view.depth, view.camera, view.center, look_again=view.look_again)
    if skeleton is not None:
        pose = pose.in_skeleton(skeleton)
    center = np.array([0, 0, view.center[2]], np.float32)
    return CropPose(
        pose.joints_px,
        pose.joints_mm - center,
        view.center[2],
        pose.found,
        pose.confidence,
        pose.reason,
        pose.skeleton,
    )


def crop_view(
    crop: Depth,
    own_cube_mm: float,
    *,
    cube_mm: float | None = None,
    center_mm: float | None = None,
    focal_px: float | Sequence[float] | None = None,
    unit: CropUnit | None = None,
    background: float | None = None,
) -> CropView:
    """A crop as an image with a camera and a hand's centre.

    Args:
        own_cube_mm: edge of the cube that it shows where cube_mm is None.
        crop, cube_mm, center_mm, focal_px, unit, background: as of `hand_from_crop`.

    Raises:
        TypeError, ValueError: as there.
    """
    for name, value in (("cube_mm", cube_mm), ("center_mm", center_mm)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive, got {value}")
    cube_mm = own_cube_mm if cube_mm is None else cube_mm
    values, whole = _values(crop)
    if background is not None:
        values[values == background] = np.nan
    if unit is None:
        unit = "mm" if whole else _told_by(values)
    require_option("unit", unit, _UNITS)
    if whole and unit != "mm":
        raise ValueError(f"uint16 crop must be in millimetres (unit='mm'), got unit={unit!r}")
    look_again = False
    if unit == "normalised":
        if focal_px is not None and center_mm is None:
            raise ValueError("center_mm must be given where focal_px is and values are normalised")
        center_mm = _DISTANCE_MM if center_mm is None else center_mm
        depth = _from_normalised(values, center_mm, cube_mm)
    else:
        depth = values * np.float32(1000 if unit == "m" else 1)
        if center_mm is None:
            center_mm = _middle_of_the_nearest(depth, cube_mm)
            look_again = True
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
    height, width = depth.shape
    if focal_px is None:
        fx = fy = center_mm * max(height, width) / cube_mm
    else:
        fx, fy = _focal_lengths(focal_px)
    u, v = (width - 1) / 2, (height - 1) / 2
    return CropView(depth, Camera(fx, fy, u, v), (u, v, center_mm), look_again)


def _values(crop: object) -> tuple[Array, bool]:
    """The crop as float32, a copy, and whether it is of integers."""
    if isinstance(crop, Tensor):
        if crop.device.type != "cpu":
            raise ValueError(f"crop must be on the CPU, got {crop.device}")
        array = crop.detach().float().numpy() if crop.is_floating_point() else crop.numpy()
    elif isinstance(crop, np.ndarray):
        array = crop
    else:
        raise TypeError(f"crop must be a NumPy array or a torch tensor, got {type(crop).__name__}")
    whole = array.dtype == np.uint16
    if not whole and array.dtype.kind != "f":
        hint = " (8-bit grey that spans the cube: crop / 127.5 - 1)" * (array.dtype == np.uint8)
        raise TypeError(
            f"crop must be of dtype uint16 (mm) or floating point, got {array.dtype}{hint}"
        )
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"crop must have shape [H, W], H, W >= 1, got {list(array.shape)}")
    return array.astype(np.float32), whole


def _told_by(values: Array) -> Literal["mm", "normalised"]:
    """The unit of floating point."""
    finite = values[np.isfinite(values)]
    told = finite[(finite != 0) & (finite != 1)]  # "no depth", and background
    if told.size == 0:
        return "normalised" if (finite == 1).any() else "mm"
    if told.max() > 1:
        if told.max() <= 255 and (told == told.round()).all():
            raise ValueError(
                "crop holds whole numbers up to 255: pass crop / 127.5 - 1 of 8-bit grey that "
                "spans the cube, or unit='mm'"
            )
        return "mm"
    if told.min() < -1:
        raise ValueError(
            f"crop must hold depths or values in -1..1, got {told.min():.4g}..{told.max():.4g}"
        )
    if told.min() < 0:
        return "normalised"
    raise ValueError(
        f"crop holds only values in 0..1 ({told.min():.4g}..{told.max():.4g}): "
        "pass unit='m' or unit='normalised'"
    )


def _from_normalised(values: Array, center_mm: float, cube_mm: float) -> Array:
    finite = values[np.isfinite(values)]
    if finite.size and not (finite.min() >= -1 and finite.max() <= 1):
        raise ValueError(
            f"normalised crop must lie in -1..1, got {finite.min():.4g}..{finite.max():.4g}"
        )
    return np.where(values < 1, center_mm + values * np.float32(cube_mm / 2), np.nan)


def _middle_of_the_nearest(depth: Array, cube_mm: float) -> float:
    """Mean depth of what lies in the first `cube_mm` of a crop."""
    there = depth[np.isfinite(depth) & (depth > 0)]
    if there.size == 0:
        return _DISTANCE_MM
    near = float(np.quantile(there, _NEAREST))
    return float(there[(there >= near) & (there < near + cube_mm)].mean())


def _focal_lengths(focal_px: float | Sequence[float]) -> tuple[float, float]:
    try:
        lengths = np.broadcast_to(np.asarray(focal_px, np.float64), (2,)).tolist()
    except (TypeError, ValueError):
        lengths = [math.nan]
    if not all(math.isfinite(length) and length > 0 for length in lengths):
        raise ValueError(f"focal_px must be one positive number, or two (fx, fy), got {focal_px!r}")
    return lengths[0], lengths[1]
