"""find_hand_center: the hand nearest to the camera. Method: csrc/crop/find_hand_center.h."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import (
    camera_numbers,
    require_dtype,
    require_integer,
    require_number,
    require_search_range,
    require_shape,
    require_tensor,
)
from dgpose_ext.reference.crop import find_hand_center as reference


def find_hand_center(
    depth: Tensor,
    camera: Sequence[float] | Tensor,
    *,
    near: float = 10.0,
    far: float = 1500.0,
    min_pixels: int = 200,
    cube_mm: float = 250.0,
    slabs: int = 20,
    refinements: int = 5,
    backend: str | None = None,
) -> tuple[float, float, float] | None:
    """Finds the centre of the hand, given that the hand is what is nearest to the camera.

    [near, far] is cut into equal slabs; the nearest one with a connected component of more than
    `min_pixels` pixels gives the start, the component's mean. Then, `refinements` times, the mean
    position of all pixels in a cube of `cube_mm` around the centre. The defaults are the published
    ones (Crossing Nets, CVPR 2017). What else is near and large is found instead: a face before a
    raised hand.

    Args:
        depth: [H, W] uint16 or float32 mm. 0, negative, NaN, Inf and 65536 or more are missing.
        camera: (fx, fy, cx, cy) in pixels, or a tensor [4] or [1, 4]. cx and cy have no effect.
        near, far: mm, 0 <= near < far <= 65535.
        min_pixels: components up to this size are noise. A count of pixels in the image, whatever
            the resolution.
        cube_mm: edge of the cube in mm.
        slabs: number of slabs. refinements: number of refinements.
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        (u, v, mm): pixels (centres at integers) and mm, as depth_crop takes them; None if there is
        no such component. Depth counts in units of 1/16 mm and all sums are integers: every backend
        gives the same bits. Under torch.compile the call is a graph break (it returns numbers).
        Autocast changes nothing.

    Raises:
        TypeError: an argument is of another type, or depth of another dtype.
        ValueError: a shape, the camera or a number does not fit.
    """
    depth = require_tensor("depth", depth)
    require_dtype("depth", depth, (torch.uint16, torch.float32))
    require_shape("depth", depth, "[H, W]")
    require_search_range(near, far)
    require_number("cube_mm", cube_mm)
    if not 0 < cube_mm < math.inf:
        raise ValueError(f"cube_mm must be positive and finite, got {cube_mm}")
    for name, value, least in (
        ("min_pixels", min_pixels, 0), ("slabs", slabs, 1), ("refinements", refinements, 0),
    ):  # fmt: skip
        require_integer(name, value)
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    for name, value in (("slabs", slabs), ("refinements", refinements)):
        if value > 100_000:  # a search, not a hang
            raise ValueError(f"{name} must be at most 100000, got {value}")
    fx, fy, _, _ = camera_numbers(
        camera.flatten().tolist() if isinstance(camera, Tensor) else camera
    )
    chosen = _backend.choose(backend, depth.device, "find_hand_center")
    run = _backend.implementation(chosen, "find_hand_center", reference.find_hand_center)
    result: Tensor = run(depth.detach(), fx, fy, near, far, min_pixels, cube_mm, slabs, refinements)
    found, u, v, mm = result.tolist()
    return (u, v, mm) if found else None


@_fake.register("find_hand_center")
def _(
    depth: Tensor,
    fx: float,
    fy: float,
    near: float,
    far: float,
    min_pixels: int,
    cube_mm: float,
    slabs: int,
    refinements: int,
) -> Tensor:
    return depth.new_empty((4,), dtype=torch.float64)
