"""depth_crop: the image of a metric cube around a hand. Maths: csrc/crop/depth_crop.h."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import (
    camera_numbers,
    camera_tensor,
    refuse_gradients,
    require_device,
    require_dtype,
    require_integer,
    require_number,
    require_shape,
    require_tensor,
)
from dgpose_ext.reference.crop import depth_crop as reference

NORMALIZE = ("cube", "nearest_pixel")
INTERPOLATION = ("nearest", "bilinear")


def depth_crop(
    depth: Tensor,
    centers: Tensor,
    camera: Sequence[float] | Tensor,
    cube_mm: float | Tensor,
    size: int = 128,
    *,
    normalize: str = "cube",
    interpolation: str = "nearest",
    backend: str | None = None,
) -> Tensor:
    """Cuts the cube of edge `cube_mm` around each centre out of its depth frame, resamples it to S
    x S pixels and normalises the depth: one pass, only the window is read.

    The cube covers u +- hw_x, v +- hw_y with hw_x = cube_mm/2 * fx/mm; output column i samples
    u_i = u - hw_x + (i + 0.5) * 2 hw_x / S (pixel centres at integers), rows likewise.

    Args:
        depth: [B, H, W] uint16 or float32 mm. 0, negative, NaN and Inf are missing.
        centers: [B, 3] float32 or float64: u, v (pixels) and depth (mm) of the cube's centre.
        camera: (fx, fy, cx, cy) in pixels, or a tensor [4], [1, 4] or [B, 4]. cx and cy have no
            effect: the centre is given in pixels.
        cube_mm: the cube's edge in mm: a number, or a tensor [B].
        size: S.
        normalize: "cube": (z - mm) / (cube_mm/2), clamped to -1 in front of the cube.
            "nearest_pixel" (Crossing Nets): this stretched linearly so that the nearest pixel of
            each crop is exactly -1; the cube's back stays +1, the absolute depth inside the cube is
            lost.
        interpolation: "nearest": pixel floor(u_i + 0.5), the usual choice for depth. "bilinear":
            mean of the four pixels around, those of the background left out; background where the
            nearest pixel is background. So no depth appears that is neither on the hand nor behind
            it.
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        [B, 1, S, S] float32 in [-1, 1]. Missing depth, depth behind the cube and what lies outside
        the image are exactly +1. A centre that is not finite or not in front of the camera gives a
        crop of background.

    No gradients: depth comes from a sensor. Autocast changes nothing. Bit-identical on every
    instruction set, on GPUs and in the reference.

    Raises:
        TypeError: an argument is of another type, or a tensor of another dtype.
        ValueError: shapes, devices, camera, cube_mm, size or an option do not fit; an argument
            requires a gradient.
    """
    depth = require_tensor("depth", depth)
    require_dtype("depth", depth, (torch.uint16, torch.float32))
    require_shape("depth", depth, "[B, H, W]")
    batch = depth.shape[0]
    centers = require_tensor("centers", centers)
    require_dtype("centers", centers, (torch.float32, torch.float64))
    require_shape("centers", centers, "[B, 3]", B=batch)
    require_device("centers", centers, "depth", depth)
    refuse_gradients("depth_crop", depth=depth, centers=centers, camera=camera, cube_mm=cube_mm)
    require_integer("size", size)
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if normalize not in NORMALIZE:
        raise ValueError(f"normalize must be one of {', '.join(NORMALIZE)}, got {normalize!r}")
    if interpolation not in INTERPOLATION:
        raise ValueError(
            f"interpolation must be one of {', '.join(INTERPOLATION)}, got {interpolation!r}"
        )
    # Numbers go to the op as they are: making tensors of them would take longer than the crop.
    cameras, cubes, fx, fy, edge = None, None, 0.0, 0.0, 0.0
    if isinstance(camera, Tensor):
        cameras = camera_tensor(camera, like=depth, dtype=torch.float64, batch=batch)
    else:
        fx, fy, _, _ = camera_numbers(camera)
    if isinstance(cube_mm, Tensor):
        cubes = _cube_tensor(cube_mm, like=depth, dtype=torch.float64, batch=batch)
    else:
        edge = _cube_number(cube_mm)
    chosen = _backend.choose(backend, depth.device, "depth_crop")
    run = _backend.implementation(chosen, "depth_crop", reference.depth_crop)
    crops: Tensor = run(
        depth,
        centers,
        cameras,
        fx,
        fy,
        cubes,
        edge,
        size,
        normalize == "nearest_pixel",
        interpolation == "bilinear",
    )
    return crops


def _cube_number(cube_mm: float) -> float:
    require_number("cube_mm", cube_mm, or_tensor=True)
    if not 0 < cube_mm < math.inf:
        raise ValueError(f"cube_mm must be positive and finite, got {cube_mm}")
    return float(cube_mm)


def _cube_tensor(
    cube_mm: float | Tensor, *, like: Tensor, dtype: torch.dtype, batch: int
) -> Tensor:
    """[B] or [1] beside `like`. A number is checked; the values of a tensor are not looked at."""
    if not isinstance(cube_mm, Tensor):
        return torch.tensor([_cube_number(cube_mm)], dtype=dtype, device=like.device)
    if tuple(cube_mm.shape) not in ((batch,), (1,), ()):
        raise ValueError(
            f"cube_mm must be a number or have shape [B] with B = {batch}, "
            f"got {list(cube_mm.shape)}"
        )
    return cube_mm.detach().reshape(-1).to(like.device, dtype)


def crop_to_uvd(
    coords: Tensor, centers: Tensor, camera: Sequence[float] | Tensor, cube_mm: float | Tensor
) -> Tensor:
    """From the coordinates of a crop to pixels and depth: where a network's output lies in the
    frame.

    Args:
        coords: [B, J, 3] (a, b, c): (-1, -1, -1) and (1, 1, 1) are the crop's upper left front and
            lower right back corner.
        centers, camera, cube_mm: as given to depth_crop.

    Returns:
        [B, J, 3] u = u_c + a hw_x, v = v_c + b hw_y (pixels, v down), d = mm_c + c cube_mm/2 (mm),
        in the dtype of coords. Plain torch arithmetic: differentiable in coords.

    Raises:
        TypeError: an argument is of another type, or coords of another dtype.
        ValueError: shapes, devices, camera or cube_mm do not fit.
    """
    require_shape("coords", require_tensor("coords", coords), "[B, J, 3]")
    require_dtype("coords", coords, (torch.float32, torch.float64, torch.float16, torch.bfloat16))
    batch = coords.shape[0]
    require_shape("centers", require_tensor("centers", centers), "[B, 3]", B=batch)
    require_device("centers", centers, "coords", coords)
    cameras = camera_tensor(camera, like=coords, dtype=coords.dtype, batch=batch)
    half = _cube_tensor(cube_mm, like=coords, dtype=coords.dtype, batch=batch)[:, None] / 2
    centers = centers.to(coords.dtype)
    half_window = half * cameras[:, :2] / centers[:, 2:]
    half = half.expand(batch, 1)
    return centers[:, None] + coords * torch.cat([half_window, half], 1)[:, None]


@_fake.register("depth_crop")
def _(
    depth: Tensor,
    centers: Tensor,
    cameras: Tensor | None,
    fx: float,
    fy: float,
    cubes: Tensor | None,
    cube_mm: float,
    size: int,
    nearest_pixel: bool,
    bilinear: bool,
) -> Tensor:
    return depth.new_empty((depth.shape[0], 1, size, size), dtype=torch.float32)
