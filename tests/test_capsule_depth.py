"""capsule_depth against closed forms, and laws of rendering."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgpose_ext import _loader, capsule_depth
from dgpose_ext.testing.capsule_depth import hand_scene

CAMERA = (100.0, 110.0, 20.0, 15.0)
SIZE = (31, 41)
ONE_EDGE = torch.tensor([[0, 1]])


def render(
    points: list[list[float]], radii: list[float], edges: torch.Tensor = ONE_EDGE, **kwargs: Any
) -> tuple[torch.Tensor, ...]:
    joints = torch.tensor([points], dtype=torch.float64)
    return capsule_depth(
        joints, edges, torch.tensor([radii], dtype=torch.float64), CAMERA, SIZE, **kwargs
    )


def test_sphere_is_hit_at_its_front() -> None:
    depth, part, normals = render([[0, 0, 500]], [30], torch.tensor([[0, 0]]), return_normals=True)
    assert depth[0, 15, 20].item() == pytest.approx(470)
    assert part[0, 15, 20] == 0
    assert normals[0, :, 15, 20].tolist() == pytest.approx([0, 0, -1])
    # The silhouette: tan of the half angle is r / sqrt(z^2 - r^2).
    covered = (part[0, 15] == 0).sum().item()
    assert covered == 2 * math.floor(100 * 30 / math.sqrt(500**2 - 30**2)) + 1


def test_cylinder_across_the_view() -> None:
    depth, _ = render([[-400, 0, 600], [400, 0, 600]], [25, 25])
    assert torch.allclose(depth[0, 15], torch.tensor(575.0, dtype=torch.float64))


def test_cone_lies_on_the_common_tangent() -> None:
    """Between two spheres the profile is the straight line tangent to both circles."""
    a, b, ra, rb = -100.0, 100.0, 60.0, 20.0
    depth, _ = render([[a, 0, 600], [b, 0, 600]], [ra, rb])
    sine = (ra - rb) / (b - a)
    cosine = math.sqrt(1 - sine**2)
    for column in range(17, 24):
        slope = (column - CAMERA[2]) / CAMERA[0]
        # Points p of the tangent line satisfy (p - a).n = ra with n = (sine, -cosine) in (x, z).
        expected = (ra + sine * a + cosine * -600) / (slope * sine - cosine)
        assert depth[0, 15, column].item() == pytest.approx(expected, abs=1e-9)


def test_nearest_surface_wins_and_ties_go_to_the_lower_edge() -> None:
    edges = torch.tensor([[0, 0], [1, 1], [1, 1]])
    _, part = render([[0, 0, 500], [0, 0, 400]], [30, 30], edges)
    assert part[0, 15, 20] == 1


def test_nothing_behind_the_camera() -> None:
    depth, part = render([[0, 0, -500], [0, 0, -400]], [30, 30], background=7.0)
    assert (depth == 7).all()
    assert (part == -1).all()


def test_shared_sphere_belongs_to_the_first_edge() -> None:
    """Chains share the sphere at a joint: the part does not depend on the rounding."""
    scene = hand_scene(2)
    _, part32 = capsule_depth(**scene)
    scene64 = scene | {"joints": scene["joints"].double(), "radii": scene["radii"].double()}
    _, part64 = capsule_depth(**scene64)
    assert (part32 != part64).float().mean() < 1e-3


@settings(max_examples=30, deadline=None)
@given(st.integers(-8, 8), st.integers(-6, 6), st.integers(0, 2**31 - 1))
def test_moving_the_principal_point_moves_the_picture(dx: int, dy: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    joints = torch.randn((1, 3, 3), generator=generator, dtype=torch.float64) * 30
    joints[..., 2] += 400
    radii = torch.rand((1, 3), generator=generator, dtype=torch.float64) * 20 + 2
    edges = torch.tensor([[0, 1], [1, 2]])
    fx, fy, cx, cy = CAMERA
    pad = 10
    big = (SIZE[0] + 2 * pad, SIZE[1] + 2 * pad)
    still, _ = capsule_depth(joints, edges, radii, (fx, fy, cx + pad, cy + pad), big)
    moved, _ = capsule_depth(joints, edges, radii, (fx, fy, cx + dx, cy + dy), SIZE)
    window = still[:, pad - dy : pad - dy + SIZE[0], pad - dx : pad - dx + SIZE[1]]
    torch.testing.assert_close(moved, window, rtol=0, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 5), st.integers(0, 2**31 - 1))
def test_depth_scales_with_the_scene(scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    joints = torch.randn((1, 3, 3), generator=generator, dtype=torch.float64) * 30
    joints[..., 2] += 400
    radii = torch.rand((1, 3), generator=generator, dtype=torch.float64) * 20 + 2
    edges = torch.tensor([[0, 1], [1, 2]])
    depth, part = capsule_depth(joints, edges, radii, CAMERA, SIZE)
    scaled, part_scaled = capsule_depth(joints * scale, edges, radii * scale, CAMERA, SIZE)
    both = (part >= 0) & (part_scaled >= 0)  # a rounding may flip a pixel on the silhouette
    assert (part != part_scaled).sum() <= 4
    torch.testing.assert_close(scaled[both], depth[both] * scale, rtol=1e-7, atol=1e-5)


def test_normals_are_unit_and_face_the_camera() -> None:
    scene = hand_scene(1)
    _, part, normals = capsule_depth(**scene, return_normals=True)
    lengths = normals.norm(dim=1)
    torch.testing.assert_close(lengths, (part >= 0).float(), rtol=0, atol=1e-5)
    fx, fy, cx, cy = scene["camera"]
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    ray = torch.stack([(x - cx) / fx, (y - cy) / fy, torch.ones_like(x)])
    # On the border of a cap the flank can be seen edge-on: allow rounding.
    assert ((normals[0] * ray).sum(0)[part[0] >= 0] < 1e-3).all()


def test_analysis_by_synthesis() -> None:
    """Gradient descent on rendered depth finds a displaced sphere again."""
    edges = torch.tensor([[0, 1]])
    true = torch.tensor([[[-20.0, 5, 400], [25, -8, 420]]], dtype=torch.float64)
    radii = torch.tensor([[18.0, 12.0]], dtype=torch.float64)
    camera, size = (300.0, 300.0, 40.0, 30.0), (61, 81)
    target, target_part = capsule_depth(true, edges, radii, camera, size)
    joints = (true + torch.tensor([3.0, -2.0, 8.0])).requires_grad_()
    optimiser = torch.optim.LBFGS([joints], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        depth, part = capsule_depth(joints, edges, radii, camera, size)
        value = (depth - target)[(part >= 0) & (target_part >= 0)].square().mean()
        value.backward()
        return value

    first = loss().item()
    optimiser.step(loss)
    assert loss().item() < first / 100
    assert (joints - true).norm(dim=-1).max() < 2.0


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_joint_that_overflows_leaves_no_nan_in_gradients(backend: str) -> None:
    """Its capsule is seen as the ball of the other joint; the bare numbers overflow."""
    if backend == "cpu" and _loader.core is None:
        pytest.skip(_loader.why_no_core())
    joints = torch.tensor([[[0.0, 0, 500], [0, 0, 3e38], [30, 0, 500]]], requires_grad=True)
    radii = torch.tensor([[30.0, 20, 10]], requires_grad=True)
    edges = torch.tensor([[0, 1], [2, 2]])
    depth, part = capsule_depth(joints, edges, radii, CAMERA, SIZE, backend=backend)
    assert (part == 0).any()
    assert (part == 1).any()
    depth.sum().backward()
    assert joints.grad.isfinite().all()
    assert radii.grad.isfinite().all()
    assert radii.grad[0, 2] < 0


def test_float32_error_is_microns() -> None:
    scene = hand_scene(2)
    depth, part = capsule_depth(**scene)
    scene64 = scene | {"joints": scene["joints"].double(), "radii": scene["radii"].double()}
    depth64, part64 = capsule_depth(**scene64)
    same = part == part64
    error = (depth.double() - depth64)[same].abs()
    assert error.quantile(0.999) < 0.01  # mm; roots near zero, at silhouettes, lose more
