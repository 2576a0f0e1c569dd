"""depth_crop against a loop over pixels, and laws of cropping."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgpose_ext import crop_to_uvd, depth_crop
from dgpose_ext.testing.depth_crop import frames, full_frame

CAMERA = (300.0, 310.0, 80.0, 60.0)
modes = pytest.mark.parametrize("normalize", ["cube", "nearest_pixel"])
interpolations = pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])


def nearest_by_loop(depth: torch.Tensor, center: list[float], cube: float, size: int) -> np.ndarray:
    """The contract written as a loop, in Python floats."""
    u, v, mm = center
    hw_x, hw_y = cube / 2 * CAMERA[0] / mm, cube / 2 * CAMERA[1] / mm
    image = depth.float().numpy()
    out = np.ones((size, size))
    for j in range(size):
        for i in range(size):
            x = math.floor(u - hw_x + (i + 0.5) * 2 * hw_x / size + 0.5)
            y = math.floor(v - hw_y + (j + 0.5) * 2 * hw_y / size + 0.5)
            if 0 <= x < image.shape[1] and 0 <= y < image.shape[0]:
                z = float(image[y, x])
                if z > 0 and math.isfinite(z) and z <= mm + cube / 2:
                    out[j, i] = max((z - mm) / (cube / 2), -1.0)
    return out


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-20, 180), st.floats(-20, 140), st.floats(100, 1500), st.floats(20, 600),
    st.integers(1, 40), st.integers(0, 99), st.sampled_from([torch.uint16, torch.float32]),
)  # fmt: skip
def test_equals_the_loop(
    u: float, v: float, mm: float, cube: float, size: int, seed: int, dtype: torch.dtype
) -> None:
    depth = frames(dtype, 1, 120, 160, seed)
    center = torch.tensor([[u, v, mm]], dtype=torch.float64)
    got = depth_crop(depth, center, CAMERA, cube, size)
    np.testing.assert_allclose(
        got[0, 0].numpy(), nearest_by_loop(depth[0], [u, v, mm], cube, size), atol=1e-5
    )


@interpolations
@modes
def test_uint16_equals_float32(normalize: str, interpolation: str) -> None:
    call = full_frame(torch.uint16) | {"normalize": normalize, "interpolation": interpolation}
    as_float = call | {"depth": call["depth"].to(torch.int32).float()}
    assert torch.equal(depth_crop(**call), depth_crop(**as_float))


@interpolations
@settings(max_examples=25, deadline=None)
@given(dx=st.integers(0, 12), dy=st.integers(0, 12), seed=st.integers(0, 99))
def test_moving_frame_and_center_changes_nothing(
    interpolation: str, dx: int, dy: int, seed: int
) -> None:
    depth = frames(torch.float32, 1, 100, 120, seed)
    center = torch.tensor([[60.25, 50.5, 370.0]])
    still = depth_crop(depth, center, CAMERA, 60.0, 33, interpolation=interpolation)
    moved = torch.roll(depth, (dy, dx), (1, 2))
    shift = torch.tensor([[dx, dy, 0.0]])
    assert torch.equal(
        depth_crop(moved, center + shift, CAMERA, 60.0, 33, interpolation=interpolation), still
    )


@interpolations
@pytest.mark.parametrize("scale", [0.25, 0.5, 2, 4])
def test_scaling_the_scene_changes_nothing(interpolation: str, scale: float) -> None:
    """Depth, centre and cube times s: the same window, the same normalised depth; exactly so for
    powers of two, which round nothing."""
    depth = frames(torch.float32, 1, 100, 120)
    center = torch.tensor([[60.25, 50.5, 370.0]])
    still = depth_crop(depth, center, CAMERA, 110.0, 33, interpolation=interpolation)
    scaled = depth_crop(
        depth * scale,
        center * torch.tensor([1, 1, scale]),
        CAMERA,
        110.0 * scale,
        33,
        interpolation=interpolation,
    )
    assert torch.equal(scaled, still)


@interpolations
def test_nearest_pixel_is_minus_one_and_keeps_the_order(interpolation: str) -> None:
    call = full_frame(torch.float32) | {"interpolation": interpolation}
    plain = depth_crop(**call)
    stretched = depth_crop(**call, normalize="nearest_pixel")
    assert stretched.min() == -1
    assert torch.equal(stretched == 1, plain == 1)
    hand = plain < 1
    slope = 2 / (1 - plain.min())
    torch.testing.assert_close(stretched[hand], 1 - (1 - plain[hand]) * slope)


@modes
@interpolations
def test_no_hand_is_background(normalize: str, interpolation: str) -> None:
    nothing = torch.zeros((1, 60, 80))
    options = {"normalize": normalize, "interpolation": interpolation}
    for depth in (nothing, nothing + 1e6, nothing * math.nan, nothing + math.inf, nothing - 5):
        crop = depth_crop(depth, torch.tensor([[40.0, 30, 400]]), CAMERA, 250.0, **options)
        assert (crop == 1).all()
    for center in ([math.nan, 0, 400], [40.0, 30, 0], [40.0, 30, -400], [40, 30, math.inf]):
        crop = depth_crop(nothing + 400, torch.tensor([center]), CAMERA, 250.0, **options)
        assert (crop == 1).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), mm=st.floats(200, 900))
def test_bilinear_makes_no_flying_pixels(seed: int, mm: float) -> None:
    """Every value is background, or lies between values of the hand in the four pixels around."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([0.0, 350.0, 380.0, 410.0, 2000.0])
    depth = values[torch.randint(0, 5, (1, 24, 24), generator=generator)]
    center = torch.tensor([[11.3, 12.1, mm]], dtype=torch.float64)
    size, camera, cube = 29, (60.0, 60.0, 0.0, 0.0), 150.0
    got = depth_crop(depth, center, camera, cube, size, interpolation="bilinear")[0, 0]
    nearest = depth_crop(depth, center, camera, cube, size)[0, 0]
    assert torch.equal(got == 1, nearest == 1)
    hw = cube / 2 * camera[0] / mm
    x = ((depth[0].double() - mm) / (cube / 2)).clamp(-1, 1)
    x[depth[0] == 0] = 1
    for j, i in (got < 1).nonzero().tolist():
        u = 11.3 - hw + (i + 0.5) * 2 * hw / size
        v = 12.1 - hw + (j + 0.5) * 2 * hw / size
        rows = [r for r in (math.floor(v), math.floor(v) + 1) if 0 <= r < 24]
        columns = [c for c in (math.floor(u), math.floor(u) + 1) if 0 <= c < 24]
        hand = [float(x[r, c]) for r in rows for c in columns if x[r, c] < 1]
        assert min(hand) - 1e-5 <= float(got[j, i]) <= max(hand) + 1e-5


def test_bilinear_of_a_plane_is_the_plane() -> None:
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(100.0), indexing="ij")
    depth = (400 + 0.5 * (x - 50) - 0.25 * (y - 40))[None]
    center = torch.tensor([[50.0, 40.0, 400.0]])
    size, cube = 24, 60.0
    got = depth_crop(depth, center, CAMERA, cube, size, interpolation="bilinear")[0, 0]
    hw_x, hw_y = cube / 2 * CAMERA[0] / 400, cube / 2 * CAMERA[1] / 400
    at = (torch.arange(size) + 0.5) * 2 / size - 1
    want = (0.5 * hw_x * at - 0.25 * hw_y * at[:, None]) / (cube / 2)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_remap_of_opencv_agrees() -> None:
    call = full_frame(torch.float32)
    (u, v, mm), (fx, fy, *_), cube = call["centers"][0].tolist(), call["camera"], call["cube_mm"]
    hw_x, hw_y = cube / 2 * fx / mm, cube / 2 * fy / mm
    at = (np.arange(128) + 0.5) / 64 - 1
    grid_x, grid_y = np.meshgrid(u + hw_x * at, v + hw_y * at)
    # cv2.remap rounds a sample to 1/32 pixel first: nearest of exact integers is compared.
    z = cv2.remap(
        call["depth"][0].numpy(),
        np.floor(grid_x + 0.5).astype(np.float32),
        np.floor(grid_y + 0.5).astype(np.float32),
        cv2.INTER_NEAREST,
    )
    want = np.where(z > 0, np.clip((z - mm) / (cube / 2), -1, 1), 1)
    np.testing.assert_allclose(depth_crop(**call)[0, 0].numpy(), want, atol=1e-6)


def test_a_window_of_a_larger_picture_is_cropped_in_place() -> None:
    picture = frames(torch.float32, 2, 100, 120)
    part = picture[:, 20:80, 30:110]
    center = torch.tensor([[30.0, 30.0, 370.0], [10.0, 50.0, 380.0]])
    assert torch.equal(
        depth_crop(part, center, CAMERA, 60.0), depth_crop(part.contiguous(), center, CAMERA, 60.0)
    )


def test_gradient_is_refused_only_where_one_is_asked_for() -> None:
    depth = torch.full((1, 20, 20), 400.0, requires_grad=True)
    center = torch.tensor([[10.0, 10, 400]])
    with pytest.raises(ValueError, match="depth must not require a gradient"):
        depth_crop(depth, center, CAMERA, 50.0)
    with torch.no_grad():
        assert not depth_crop(depth, center, CAMERA, 50.0).requires_grad


def test_crop_to_uvd_is_the_inverse_of_the_crop() -> None:
    """A bright pixel of the crop comes from the pixel of the frame that crop_to_uvd names."""
    depth = torch.full((1, 120, 160), 450.0)
    depth[0, 47, 91] = 380.0
    centers = torch.tensor([[83.3, 55.2, 400.0]])
    size, cube = 200, 120.0
    crop = depth_crop(depth, centers, CAMERA, cube, size)[0, 0]
    j, i = (crop < 0).nonzero().double().mean(0).tolist()
    c = crop.min().item()
    coords = torch.tensor([[[(i + 0.5) * 2 / size - 1, (j + 0.5) * 2 / size - 1, c]]])
    u, v, d = crop_to_uvd(coords, centers, CAMERA, cube)[0, 0].tolist()
    assert (round(u), round(v)) == (91, 47)
    assert d == pytest.approx(380, abs=1e-3)


def test_crop_to_uvd_corners_and_gradient() -> None:
    coords = torch.tensor([[[-1.0, -1, -1], [1, 1, 1], [0, 0, 0]]]).repeat(2, 1, 1)
    centers = torch.tensor([[100.0, 50, 300], [10, 20, 600]])
    coords.requires_grad_()
    uvd = crop_to_uvd(coords, centers, CAMERA, torch.tensor([60.0, 120.0]))
    assert uvd[0].tolist() == [[70, 19, 270], [130, 81, 330], [100, 50, 300]]
    assert uvd[1].tolist() == [[-20, -11, 540], [40, 51, 660], [10, 20, 600]]
    uvd.sum().backward()
    assert coords.grad is not None
    assert coords.grad[0, 0].tolist() == [30, 31, 30]
    with pytest.raises(ValueError, match=r"coords must have shape \[B, J, 3\], got \[3, 3\]"):
        crop_to_uvd(coords[0], centers, CAMERA, 60.0)
