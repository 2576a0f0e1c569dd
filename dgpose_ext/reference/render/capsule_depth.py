"""capsule_depth in plain torch: the oracle of the tests and the fallback without the core.

The maths, the names and the order of operations are those of csrc/render/capsule_depth.h, so that
float32 results agree with the kernels to the bit (float64 to an ulp).
"""

from __future__ import annotations

import torch
from torch import Tensor

# |n.d| below this is a silhouette seen edge-on, where the depth has no derivative.
GRAZING = 1e-6


def _rays(cameras: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Slopes dx [C, 1, W] and dy [C, H, 1] of the pixels' rays (dx, dy, 1)."""
    fx, fy, cx, cy = (cameras[:, i, None] for i in range(4))
    x = torch.arange(width, dtype=cameras.dtype, device=cameras.device)
    y = torch.arange(height, dtype=cameras.dtype, device=cameras.device)
    return ((x - cx) / fx)[:, None, :], ((y - cy) / fy)[:, :, None]


def _sqrt(x: Tensor) -> Tensor:
    """Correctly rounded in float32; torch's own sqrt is off by one ulp in 19 % of results."""
    return x.double().sqrt().to(x.dtype)


def capsule_depth(
    joints: Tensor,
    edges: Tensor,
    radii: Tensor,
    cameras: Tensor,
    height: int,
    width: int,
    background: float,
) -> tuple[Tensor, Tensor]:
    """depth [B, H, W] and part [B, H, W] int16; arguments as torch.ops.dgpose.capsule_depth."""
    batch = joints.shape[0]
    dx, dy = _rays(cameras, height, width)
    depth = joints.new_full((batch, height, width), float("inf"))
    part = torch.full((batch, height, width), -1, dtype=torch.int16, device=joints.device)
    infinity = joints.new_tensor(float("inf"))
    column = (slice(None), None, None)  # [B] -> [B, 1, 1]
    for index, (ia, ib) in enumerate(edges.tolist()):
        a, b, ra, rb = joints[:, ia], joints[:, ib], radii[:, ia][column], radii[:, ib][column]
        ax, ay, az = (a[:, i][column] for i in range(3))
        bx, by, bz = (b[:, i][column] for i in range(3))
        dd = dx * dx + (dy * dy + 1)
        ox, oy = az * dx - ax, az * dy - ay
        od, oo = ox * dx + oy * dy, ox * ox + oy * oy

        ha = od * od - dd * (oo - ra * ra)
        t = torch.where(ha >= 0, az + (-od - _sqrt(ha)) / dd, infinity)
        if ia != ib:
            ox_b, oy_b = bz * dx - bx, bz * dy - by
            od_b, oo_b = ox_b * dx + oy_b * dy, ox_b * ox_b + oy_b * oy_b
            hb = od_b * od_b - dd * (oo_b - rb * rb)
            tb = torch.where(hb >= 0, bz + (-od_b - _sqrt(hb)) / dd, infinity)
            t = torch.where(tb < t, tb, t)

            gx, gy, gz = bx - ax, by - ay, bz - az
            e = ra - rb
            gg = (gx * gx + gy * gy) + gz * gz
            d_cone = gg - e * e
            e_ra = e * ra
            gd, go = gx * dx + (gy * dy + gz), gx * ox + gy * oy
            k2 = d_cone * dd - gd * gd
            k1 = d_cone * od - go * gd + gd * e_ra
            k0 = d_cone * oo - go * go + go * (2 * e_ra) - gg * (ra * ra)
            h = k1 * k1 - k0 * k2
            root = (-k1 - _sqrt(h)) / k2
            s = go - e_ra + root * gd
            on_cone = (d_cone > 0) & (h >= 0) & (s > 0) & (s < d_cone)
            tc = torch.where(on_cone, az + root, infinity)
            t = torch.where(tc < t, tc, t)
        total = (a.sum(-1) + b.sum(-1))[column] + (ra + rb)
        drawn = (ra > 0) & (rb > 0) & torch.isfinite(total)
        hit = drawn & (t < depth) & (t > 0)
        depth = torch.where(hit, t, depth)
        part = torch.where(hit, part.new_tensor(index), part)
    return torch.where(part < 0, joints.new_tensor(background), depth), part


def _surface(
    joints: Tensor, edges: Tensor, radii: Tensor, cameras: Tensor, depth: Tensor, part: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per pixel: the edge's two joints [B, H, W, 2], s [B, H, W], normal and ray [B, H, W, 3]."""
    batch, height, width = depth.shape
    shown = (part >= 0) & (part < len(edges))
    ends = edges[part.where(shown, 0).long()] if len(edges) else edges.new_zeros((*part.shape, 2))
    frame = torch.arange(batch, device=joints.device)[:, None, None]
    a, b = joints[frame, ends[..., 0]], joints[frame, ends[..., 1]]
    radii = radii.expand(batch, -1)
    ra, rb = radii[frame, ends[..., 0]], radii[frame, ends[..., 1]]
    dx, dy = _rays(cameras, height, width)
    ray = torch.stack([dx.expand_as(depth), dy.expand_as(depth), torch.ones_like(depth)], -1)
    from_a = depth[..., None] * ray - a
    g = b - a
    e = ra - rb
    d_cone = (g * g).sum(-1) - e * e
    inside = torch.where(ra >= rb, 0.0, 1.0).to(depth.dtype)  # one ball holds the other
    s = torch.where(d_cone > 0, (((g * from_a).sum(-1) - ra * e) / d_cone).clamp(0, 1), inside)
    normal = from_a - s[..., None] * g
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(depth.dtype).tiny)
    # Not products: a camera of NaN makes both NaN on the background too.
    return ends, torch.where(shown, s, 0), torch.where(shown[..., None], normal, 0), ray


def capsule_depth_normals(
    joints: Tensor, edges: Tensor, radii: Tensor, cameras: Tensor, depth: Tensor, part: Tensor
) -> Tensor:
    """Outward unit normals [B, 3, H, W] of the visible surface, 0 on the background."""
    if not joints.shape[1]:
        return depth.new_zeros((depth.shape[0], 3, *depth.shape[1:]))
    return _surface(joints, edges, radii, cameras, depth, part)[2].movedim(-1, 1).contiguous()


def capsule_depth_backward(
    grad_depth: Tensor,
    joints: Tensor,
    edges: Tensor,
    radii: Tensor,
    cameras: Tensor,
    depth: Tensor,
    part: Tensor,
) -> tuple[Tensor, Tensor]:
    """grad_joints [B, J, 3] and grad_radii [B, J] (per frame, also for shared radii)."""
    batch, joint_count = joints.shape[:2]
    grad = joints.new_zeros((batch * joint_count, 4), dtype=torch.float64)
    if joint_count:
        ends, s, normal, ray = _surface(joints, edges, radii, cameras, depth, part)
        normal = normal.double()
        facing = (normal * ray).sum(-1)
        valid = facing < -GRAZING  # 0 on the background
        scale = torch.where(valid, grad_depth.double() / torch.where(valid, facing, 1.0), 0.0)
        direction = torch.cat([normal, torch.ones_like(normal[..., :1])], -1) * scale[..., None]
        frame = torch.arange(batch, device=joints.device)[:, None, None] * joint_count
        for end, weight in enumerate((1 - s.double(), s.double())):
            rows = (frame + ends[..., end]).reshape(-1)
            grad.index_add_(0, rows, (direction * weight[..., None]).reshape(-1, 4))
    grad = grad.view(batch, joint_count, 4).to(joints.dtype)
    return grad[..., :3].contiguous(), grad[..., 3].contiguous()
