"""find_hand_center: scenes with a known answer, OpenCV's components, any input, real frames."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dgpose_ext import find_hand_center
from dgpose_ext.testing.find_hand_center import full_frame, scene

CAMERA = (240.0, 240.0, 160.0, 120.0)


def blank(value: float = 0.0) -> torch.Tensor:
    return torch.full((240, 320), float(value))


def test_box_before_a_body() -> None:
    depth = blank(2000)
    depth[100:, 50:300] = 1200
    depth[60:110, 100:140] = 600
    assert find_hand_center(depth, CAMERA) == (119.5, 84.5, 600.0)


def test_fingertip_in_the_nearest_slab() -> None:
    """A slab's boundary (679.75, 754.25 mm) cuts the hand; a tip of 150 pixels lies before it. The
    tip is too small, the palm behind it is found, and the cube takes the tip in again."""
    depth = blank()
    depth[50:100, 100:150] = 700
    depth[40:50, 110:125] = 670
    got = find_hand_center(depth, CAMERA)
    assert got is not None
    pixels = depth.nonzero().double()
    assert got == pytest.approx((*pixels.mean(0).flip(0).tolist(), depth[depth > 0].mean().item()))


def test_forearm_is_left_out_by_the_cube() -> None:
    depth = blank()
    for y in range(20, 240):  # a bar that leaves the cube downward and away from the camera
        depth[y, 140:180] = 500 + y
    got = find_hand_center(depth, CAMERA)
    assert got is not None
    _, v, mm = got
    rows = torch.arange(20, 240).double()
    hw_y = 125 * CAMERA[1] / mm
    inside = ((500 + rows) - mm).abs().le(125) & (rows - v).abs().le(hw_y)
    assert v < rows.mean()
    assert v == pytest.approx(rows[inside].mean().item(), abs=3)  # after 5 refinements


def test_noise_is_skipped() -> None:
    depth = blank()
    depth[::3, ::3] = 100  # pixels that touch nothing
    assert find_hand_center(depth, CAMERA) is None
    depth[100:120, 100:120] = 800
    got = find_hand_center(depth, CAMERA)
    assert got is not None
    assert got[2] == 800


def test_a_frame_around_nothing_is_no_hand() -> None:
    depth = blank()
    depth[10:230, 10:310] = 300
    depth[13:227, 13:307] = 0
    assert find_hand_center(depth, CAMERA, cube_mm=60) is None
    depth[100:140, 20:60] = 800
    assert find_hand_center(depth, CAMERA, cube_mm=60) == (39.5, 119.5, 800.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.integers(1, 40), st.integers(1, 60))
def test_components_are_those_of_opencv(seed: int, density: float, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    _, _, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    depth = torch.from_numpy(np.where(mask, 500, 0).astype(np.uint16))
    got = find_hand_center(depth, CAMERA, min_pixels=3, refinements=0)
    if not len(areas) or areas.max() <= 3:
        assert got is None
        return
    assert got is not None
    largest = centroids[1:][areas == areas.max()]
    assert np.abs(largest - np.array(got[:2])).sum(1).min() < 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 99))
def test_moving_the_picture_moves_the_center(dx: int, dy: int, seed: int) -> None:
    depth = torch.zeros((120, 140))
    depth[30:78, 30:94] = scene(torch.float32, seed=seed)
    still = find_hand_center(depth, CAMERA)
    moved = find_hand_center(torch.roll(depth, (dy, dx), (0, 1)), CAMERA)
    assert still is not None
    assert moved is not None
    assert moved == pytest.approx((still[0] + dx, still[1] + dy, still[2]), abs=0.2)


def test_uint16_equals_float32_to_the_bit() -> None:
    call = full_frame(torch.uint16)
    as_float = call | {"depth": call["depth"].to(torch.int32).float()}
    assert find_hand_center(**call) == find_hand_center(**as_float)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40),
        elements=st.one_of(st.floats(width=32), st.floats(1, 1500, width=32)),
    ),
    st.floats(0, 1000), st.floats(1, 5000), st.integers(0, 50), st.integers(1, 60),
    st.floats(1e-3, 1e5), st.floats(1e-3, 1e5),
)  # fmt: skip
def test_any_input(
    depth: np.ndarray,
    near: float,
    span: float,
    min_pixels: int,
    slabs: int,
    cube: float,
    focal: float,
) -> None:
    """Whatever the picture: None, or a point in the picture and in the range."""
    got = find_hand_center(
        torch.from_numpy(depth), (focal, focal, 0.0, 0.0), near=near, far=near + span,
        min_pixels=min_pixels, slabs=slabs, cube_mm=cube,
    )  # fmt: skip
    if got is not None:
        u, v, mm = got
        assert 0 <= u <= depth.shape[1] - 1
        assert 0 <= v <= depth.shape[0] - 1
        assert near - 1 / 32 <= mm <= near + span + 1 / 32


def read_depth(path: Path) -> torch.Tensor:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture.ndim == 3:  # NYU packs the high byte in green, the low byte in blue
        picture = picture[..., 1].astype(np.uint16) * 256 + picture[..., 0]
    return torch.from_numpy(picture)


def test_real_nyu_frame(data_dir: Path) -> None:
    """Within 5 cm of the labelled palm (its wrist side and the fingers' spread make the rest)."""
    camera = (588.03, 587.07, 320.0, 240.0)
    depth = read_depth(data_dir / "hand/nyu/depth_real/test_depth_1_0000001.png")
    labels = np.load(data_dir / "hand/nyu/labels/nyu_real_frames36.npz")
    palm = labels["xyz_mm"][list(labels["row"]).index(0), 34]
    got = find_hand_center(depth, camera)
    assert got is not None
    u, v, mm = got
    center = [(u - camera[2]) * mm / camera[0], -(v - camera[3]) * mm / camera[1], mm]
    assert math.dist(center, palm) < 50


def test_real_kinect_frames(data_dir: Path) -> None:
    """In all 60 frames the centre is found and lies on a surface at its own depth."""
    frames = sorted((data_dir / "hand/kinect2_real").glob("*.png"))
    assert len(frames) == 60
    for path in frames:
        depth = read_depth(path)
        got = find_hand_center(depth, (363.9, 363.9, 255.4, 206.3))
        assert got is not None, path.name
        u, v, mm = got
        assert abs(float(depth[round(v), round(u)]) - mm) < 50, path.name
