"""capsule_depth beside torch broadcast expressions and a mesh rasteriser.

Limit: pixels that the capsules touch x one ray-capsule test; the floor that no renderer passes is
writing depth and part once (the fill).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import dgpose_ext
from dgpose_ext.testing.capsule_depth import hand_scene

from .gpu import GpuCase
from .harness import Case


def _ours(batch: int, backend: str) -> Callable[[], Any]:
    scene = hand_scene(batch)
    return lambda: dgpose_ext.capsule_depth(**scene, backend=backend)


def _broadcast(scene: dict[str, Any], compiled: bool) -> Callable[[], Any]:
    """The same maths over [B, E, H, W] at once, as one would write it in torch."""
    joints, edges, radii = scene["joints"], scene["edges"], scene["radii"]
    device = joints.device
    fx, fy, cx, cy = scene["camera"]
    height, width = scene["size"]

    def render() -> tuple[torch.Tensor, torch.Tensor]:
        dx = ((torch.arange(width, device=device) - cx) / fx).view(1, 1, 1, -1)
        dy = ((torch.arange(height, device=device) - cy) / fy).view(1, 1, -1, 1)
        a, b = joints[:, edges[:, 0], :, None, None], joints[:, edges[:, 1], :, None, None]
        ra, rb = radii[:, edges[:, 0], None, None], radii[:, edges[:, 1], None, None]
        (ax, ay, az), (bx, by, bz) = a.unbind(2), b.unbind(2)
        infinity = torch.tensor(float("inf"), device=device)
        dd = dx * dx + dy * dy + 1

        def sphere(x: Any, y: Any, z: Any, r: Any) -> torch.Tensor:
            ox, oy = z * dx - x, z * dy - y
            od = ox * dx + oy * dy
            h = od * od - dd * (ox * ox + oy * oy - r * r)
            return torch.where(h >= 0, z + (-od - h.sqrt()) / dd, infinity)

        gx, gy, gz, e = bx - ax, by - ay, bz - az, ra - rb
        gg = gx * gx + gy * gy + gz * gz
        d = gg - e * e
        ox, oy = az * dx - ax, az * dy - ay
        od, oo = ox * dx + oy * dy, ox * ox + oy * oy
        gd, go = gx * dx + gy * dy + gz, gx * ox + gy * oy
        k2 = d * dd - gd * gd
        k1 = d * od - go * gd + gd * e * ra
        h = k1 * k1 - (d * oo - go * go + 2 * go * e * ra - gg * ra * ra) * k2
        root = (-k1 - h.sqrt()) / k2
        s = go - ra * e + root * gd
        cone = torch.where((h >= 0) & (s > 0) & (s < d), az + root, infinity)
        t = torch.minimum(torch.minimum(sphere(ax, ay, az, ra), sphere(bx, by, bz, rb)), cone)
        depth, part = t.min(1)
        hit = depth < infinity
        return torch.where(hit, depth, 0.0), torch.where(hit, part, -1).to(torch.int16)

    return torch.compile(render) if compiled else render


def _mesh(batch: int) -> Callable[[], Any]:
    """pyrender on OSMesa (Debian: libosmesa6): the same hand as triangles, depth only.

    Meshing and upload are not counted: a hand in motion would pay them every frame as well.
    """
    import os

    os.environ["PYOPENGL_PLATFORM"] = "osmesa"
    import numpy as np

    setattr(np, "infty", np.inf)  # noqa: B010  # pyrender 0.1.45 was written for NumPy 1
    import pyrender
    import trimesh

    scene = hand_scene(batch)
    radii = scene["radii"][0].numpy()
    fx, fy, cx, cy = scene["camera"]
    scenes = []
    for joints in scene["joints"].numpy():
        capsules = []
        for a, b in scene["edges"].tolist():
            bone = joints[b] - joints[a]
            length = float(np.linalg.norm(bone))
            radius = float(radii[a] + radii[b]) / 2
            capsule = trimesh.creation.capsule(height=length, radius=radius, count=[16, 16])
            pose = trimesh.geometry.align_vectors([0, 0, 1], bone / length)
            pose[:3, 3] = joints[a]
            capsules.append(capsule.apply_transform(pose))
        mesh = trimesh.util.concatenate(capsules)
        mesh.vertices[:, 1:] *= -1  # OpenGL: y up, looking along -z
        picture = pyrender.Scene()
        picture.add(pyrender.Mesh.from_trimesh(mesh, smooth=False))
        picture.add(pyrender.IntrinsicsCamera(fx, fy, cx, cy, znear=10, zfar=3000))
        scenes.append(picture)
    renderer = pyrender.OffscreenRenderer(*scene["size"][::-1])
    flags = pyrender.RenderFlags.DEPTH_ONLY
    return lambda: [renderer.render(picture, flags=flags) for picture in scenes]


def _fill(batch: int) -> Callable[[], Any]:
    depth = torch.empty((batch, 128, 128))
    part = torch.empty((batch, 128, 128), dtype=torch.int16)
    return lambda: (depth.fill_(0), part.fill_(-1))


def _case(name: str, batch: int, threads: int, peers: bool) -> Case:
    contenders = {
        "dgpose_ext": lambda: _ours(batch, "cpu"),
        "fill of depth and part": lambda: _fill(batch),
    }
    if peers:
        contenders |= {
            "dgpose_ext reference (torch, edge by edge)": lambda: _ours(batch, "reference"),
            "torch broadcast": lambda: _broadcast(hand_scene(batch), False),
            "torch broadcast, torch.compile": lambda: _broadcast(hand_scene(batch), True),
            "pyrender, OSMesa, 23,552 triangles": lambda: _mesh(batch),
        }
    return Case(
        name, "frames", batch, threads, contenders, "dgpose_ext", "fill of depth and part",
        note="128x128 hand, 46 capsules",
        call=lambda: (dgpose_ext.capsule_depth, hand_scene(batch)), traffic=batch * 128 * 128 * 6,
    )  # fmt: skip


CASES = [
    _case("batch 16", 16, 2, peers=True),
    _case("batch 16, one thread", 16, 1, peers=False),
    _case("one frame", 1, 1, peers=True),
]

GPU_CASES = [
    GpuCase(
        "128x128 hand, 46 capsules", "frames", 4096,
        lambda batch: (dgpose_ext.capsule_depth, hand_scene(batch)), 128 * 128 * 6,
        compiled=False,  # minutes: the reference goes edge by edge
        peers={"torch broadcast, torch.compile": lambda scene: _broadcast(scene, True)},
    ),
]  # fmt: skip
