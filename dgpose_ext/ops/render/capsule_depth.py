"""capsule_depth: depth maps of bodies made of tapered capsules (csrc/render/capsule_depth.h)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import (
    camera_tensor,
    refuse_gradients,
    require_device,
    require_dtype,
    require_number,
    require_shape,
    require_size,
    require_tensor,
)
from dgpose_ext.reference.render import capsule_depth as reference

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def capsule_depth(
    joints: Tensor,
    edges: Tensor,
    radii: Tensor,
    camera: Sequence[float] | Tensor,
    size: tuple[int, int],
    *,
    background: float = 0.0,
    return_normals: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
    """Renders spheres joined by cones: exact ray intersection, perspective, nearest surface.

    Args:
        joints: [B, J, 3] mm in camera space, x right, y DOWN, z forward. float32, float64, or
            float16/bfloat16 (computed and returned in float32: 700 mm in bfloat16 has 4 mm steps).
        edges: [E, 2] int64 joint indices, one tapered capsule each; (j, j) is a sphere; E < 2^15.
        radii: [B, J] or [1, J] mm, the radius at each joint. A capsule with a radius <= 0 or a
            non-finite joint is not drawn.
        camera: (fx, fy, cx, cy) in pixels, or a tensor [4], [1, 4] or [B, 4]. Pixel centres are
            integers, (0, 0) the first. The values of a tensor are not looked at: with NaN in it
            nothing is drawn, a focal length that is not positive has no meaning.
        size: (H, W).
        background: depth where nothing is hit.
        return_normals: also return the outward unit normals.
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        depth [B, H, W] mm along z; part [B, H, W] int16, the index of the visible edge, -1 on the
        background (equal depths: the lower index); with return_normals also normals [B, 3, H, W]
        (0 on the background).

    Gradients of depth flow to joints and radii through the visible surface (once differentiable;
    moving silhouettes and occlusion borders have none). Part and normals have none. Under
    autocast the op computes in float32. Deterministic; depth and part are bit-identical on every
    instruction set and on GPUs.

    Raises:
        TypeError: an argument is of another type, or a tensor of another dtype.
        ValueError: shapes, devices or the camera do not fit; an edge names no joint (on a
            GPU, where nobody reads the edges beforehand, it is not drawn instead).
    """
    joints = require_tensor("joints", joints)
    require_dtype("joints", joints, _DTYPES)
    require_shape("joints", joints, "[B, J, 3]")
    batch, joint_count, _ = joints.shape
    require_shape("edges", require_tensor("edges", edges), "[E, 2]")
    require_dtype("edges", edges, (torch.int64,))
    radii = require_tensor("radii", radii)
    require_dtype("radii", radii, _DTYPES)
    require_shape("radii", radii, "[B, J]", J=joint_count)
    if radii.shape[0] not in (1, batch):
        raise ValueError(
            f"radii must have shape [B, J] or [1, J] with B = {batch}, got {list(radii.shape)}"
        )
    require_device("edges", edges, "joints", joints)
    require_device("radii", radii, "joints", joints)
    refuse_gradients("capsule_depth", camera=camera)
    height, width = require_size("size", size)
    require_number("background", background)
    if edges.shape[0] > 32767:
        raise ValueError(f"edges must have at most 32767 rows, got {edges.shape[0]}")
    if edges.device.type == "cpu" and not torch.compiler.is_compiling() and edges.numel():
        low, high = (int(v) for v in edges.aminmax())
        if low < 0 or high >= joint_count:
            raise ValueError(
                f"edges must lie in [0, {joint_count}), got {low if low < 0 else high}"
            )

    dtype = torch.float64 if joints.dtype == torch.float64 else torch.float32
    cameras = camera_tensor(camera, like=joints, dtype=dtype, batch=batch)
    joints, radii = joints.to(dtype), radii.to(dtype)
    chosen = _backend.choose(backend, joints.device, "capsule_depth")
    if torch.is_grad_enabled() and (joints.requires_grad or radii.requires_grad):
        depth, part = _CapsuleDepth.apply(  # type: ignore[no-untyped-call]
            joints, edges, radii, cameras, height, width, background, chosen
        )
    else:
        forward = _backend.implementation(chosen, "capsule_depth", reference.capsule_depth)
        depth, part = forward(joints, edges, radii, cameras, height, width, background)
    if not return_normals:
        return depth, part
    normals = _backend.implementation(
        chosen, "capsule_depth_normals", reference.capsule_depth_normals
    )
    with torch.no_grad():
        return depth, part, normals(joints, edges, radii, cameras, depth, part)


class _CapsuleDepth(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        joints: Tensor,
        edges: Tensor,
        radii: Tensor,
        cameras: Tensor,
        height: int,
        width: int,
        background: float,
        backend: str,
    ) -> tuple[Tensor, Tensor]:
        run = _backend.implementation(backend, "capsule_depth", reference.capsule_depth)
        depth, part = run(joints, edges, radii, cameras, height, width, background)
        ctx.save_for_backward(joints, edges, radii, cameras, depth, part)
        ctx.mark_non_differentiable(part)
        ctx.backend = backend
        return depth, part

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_depth: Tensor, _grad_part: Tensor) -> tuple[Tensor | None, ...]:
        radii = ctx.saved_tensors[2]
        run = _backend.implementation(
            ctx.backend, "capsule_depth_backward", reference.capsule_depth_backward
        )
        grad_joints, grad_radii = run(grad_depth, *ctx.saved_tensors)
        if radii.shape[0] == 1:
            grad_radii = grad_radii.sum(0, keepdim=True)
        return grad_joints, None, grad_radii, None, None, None, None, None


@_fake.register("capsule_depth")
def _(
    joints: Tensor,
    edges: Tensor,
    radii: Tensor,
    cameras: Tensor,
    height: int,
    width: int,
    background: float,
) -> tuple[Tensor, Tensor]:
    shape = (joints.shape[0], height, width)
    return joints.new_empty(shape), joints.new_empty(shape, dtype=torch.int16)


@_fake.register("capsule_depth_normals")
def _(
    joints: Tensor, edges: Tensor, radii: Tensor, cameras: Tensor, depth: Tensor, part: Tensor
) -> Tensor:
    return joints.new_empty((joints.shape[0], 3, *depth.shape[1:]))


@_fake.register("capsule_depth_backward")
def _(
    grad_depth: Tensor,
    joints: Tensor,
    edges: Tensor,
    radii: Tensor,
    cameras: Tensor,
    depth: Tensor,
    part: Tensor,
) -> tuple[Tensor, Tensor]:
    return joints.new_empty(joints.shape), joints.new_empty(joints.shape[:2])
