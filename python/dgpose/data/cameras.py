"""Pinhole cameras, and the way between pixels and millimetres.

Pixels follow OpenCV: u to the right, v DOWN, and integers are pixel CENTRES. Joints are in
millimetres from the camera: x right, y UP, z forward. So v = cy - fy * y / z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["CAMERAS", "EVALUATION_CAMERAS", "Camera", "parse_camera", "project", "unproject"]

Points = TypeVar("Points", npt.NDArray[Any], torch.Tensor)


class Camera(NamedTuple):
    """Focal lengths and principal point of a pinhole camera, all in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float


CAMERAS: dict[str, Camera] = {
    "nyu": Camera(588.03, 587.07, 320.0, 240.0),
    "kinect2": Camera(363.9, 363.9, 255.4, 206.3),
    "icvl": Camera(241.42, 241.42, 160.0, 120.0),
    "msra": Camera(241.42, 241.42, 160.0, 120.0),
}
"""Cameras known by name: NYU (Kinect v1, 640x480), Kinect v2 (512x424), ICVL and MSRA (320x240)."""

EVALUATION_CAMERAS: dict[str, Camera] = {
    "nyu": CAMERAS["nyu"],
    "icvl": Camera(240.99, 240.96, 160.0, 120.0),
    "msra": CAMERAS["msra"],
}
"""Cameras with which published errors are computed. ICVL's differ slightly from its sensor's; with
the sensor's, every published ICVL figure comes out about 0.008 mm too small."""


def parse_camera(camera: str | Sequence[float]) -> Camera:
    """Turn a camera's name, `"fx,fy,cx,cy"`, or four numbers into a checked `Camera`.

    The principal point may lie outside the image (a cropped picture), the focal lengths must be
    positive.

    Raises:
        ValueError: unknown name, not four numbers, a NaN or infinite one, or fx, fy not positive.
    """
    values: Sequence[object] = camera
    if isinstance(camera, str):
        known = CAMERAS.get(camera.strip().lower())
        if known is not None:
            return known
        values = camera.split(",")
    try:
        numbers = [float(value) for value in values]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4:
        names = ", ".join(CAMERAS)
        raise ValueError(
            f"camera must be one of {names}, or four numbers fx,fy,cx,cy, got {camera!r}"
        )
    if not all(math.isfinite(number) for number in numbers) or min(numbers[:2]) <= 0:
        raise ValueError(
            f"camera must have fx > 0 and fy > 0 and finite values (fx, fy, cx, cy), got {camera!r}"
        )
    return Camera(*numbers)


def project(joints_mm: Points, camera: Camera) -> Points:
    """Millimetres to pixels.

    Args:
        joints_mm: `[..., 3]`, NumPy or torch; x right, y UP, z forward, mm, from the camera. A
            point with z = 0 has no picture: it gives Inf or NaN.
        camera: the camera.

    Returns:
        `[..., 3]` of the same kind: u, v in pixels, and the depth d = z in mm.

    Raises:
        ValueError: the last dimension is not 3.
    """
    x, y, z = _split("joints_mm", joints_mm)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = camera.cx + camera.fx * x / z
        v = camera.cy - camera.fy * y / z
    return _join(u, v, z)


def unproject(uvd: Points, camera: Camera) -> Points:
    """Pixels and depth to millimetres; the inverse of `project`.

    Args:
        uvd: `[..., 3]`, NumPy or torch; u, v in pixels and the depth d in mm.
        camera: the camera.

    Returns:
        `[..., 3]` of the same kind: x right, y UP, z forward, mm, from the camera.

    Raises:
        ValueError: the last dimension is not 3.
    """
    u, v, d = _split("uvd", uvd)
    return _join((u - camera.cx) * d / camera.fx, (camera.cy - v) * d / camera.fy, d)


def _split(name: str, points: Points) -> tuple[Points, Points, Points]:
    if points.ndim == 0 or points.shape[-1] != 3:
        raise ValueError(f"{name} must have shape [..., 3], got {list(points.shape)}")
    return points[..., 0], points[..., 1], points[..., 2]


def _join(first: Points, second: Points, third: Points) -> Points:
    if isinstance(first, torch.Tensor):
        return torch.stack([first, second, third], dim=-1)
    return np.stack([first, second, third], axis=-1)
