"""Cameras and projection: the pixel and axis conventions, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dgpose.data.cameras import CAMERAS, Camera, parse_camera, project, unproject


def test_axes_x_right_y_up_z_forward():
    camera = Camera(500.0, 400.0, 320.0, 240.0)
    uvd = project(
        np.array([[0.0, 0.0, 1000.0], [100.0, 0.0, 1000.0], [0.0, 100.0, 1000.0]]), camera
    )
    np.testing.assert_allclose(uvd, [[320, 240, 1000], [370, 240, 1000], [320, 200, 1000]])


@given(
    st.lists(st.tuples(*[st.floats(-500, 500)] * 2, st.floats(100, 2000)), min_size=1, max_size=5),
    st.sampled_from(sorted(CAMERAS)),
)
def test_unproject_inverts_project(points, name):
    joints = np.array(points)
    back = unproject(project(joints, CAMERAS[name]), CAMERAS[name])
    np.testing.assert_allclose(back, joints, atol=1e-9)


def test_torch_and_numpy_agree_and_keep_their_kind():
    joints = np.random.default_rng(0).uniform(100, 900, (2, 4, 3)).astype(np.float32)
    from_numpy = project(joints, CAMERAS["nyu"])
    from_torch = project(torch.from_numpy(joints), CAMERAS["nyu"])
    assert from_numpy.dtype == np.float32
    assert from_torch.dtype == torch.float32
    np.testing.assert_array_equal(from_torch.numpy(), from_numpy)


def test_torch_projection_is_differentiable():
    joints = torch.tensor([[10.0, 20.0, 500.0]], requires_grad=True)
    project(joints, CAMERAS["nyu"])[0, 0].backward()
    assert joints.grad is not None
    assert joints.grad[0, 0] == pytest.approx(588.03 / 500)


def test_point_in_the_camera_plane_is_not_finite_and_warns_nobody():
    with np.testing.assert_no_warnings():
        assert not np.isfinite(project(np.array([1.0, 2.0, 0.0]), CAMERAS["nyu"])[0])


@pytest.mark.parametrize("function", [project, unproject])
def test_last_dimension_must_be_three(function):
    with pytest.raises(ValueError, match=r"must have shape \[\.\.\., 3\], got \[5, 2\]"):
        function(np.zeros((5, 2)), CAMERAS["nyu"])


@pytest.mark.parametrize(
    ("given_camera", "expected"),
    [
        ("nyu", CAMERAS["nyu"]),
        (" Kinect2 ", CAMERAS["kinect2"]),
        ("588.03, 587.07,320,240", CAMERAS["nyu"]),
        ((1, 2, -3, 4), Camera(1.0, 2.0, -3.0, 4.0)),
        (np.array([1.0, 2.0, 3.0, 4.0]), Camera(1.0, 2.0, 3.0, 4.0)),
    ],
)
def test_parse_camera(given_camera, expected):
    assert parse_camera(given_camera) == expected


@pytest.mark.parametrize(
    "bad", ["", "kinect9", "1,2,3", "1,2,3,4,5", "a,b,c,d", (1, 2, 3), (1, 2, 3, None)]
)
def test_parse_camera_refuses_what_is_not_a_camera(bad):
    with pytest.raises(ValueError, match="camera must be one of nyu, kinect2, icvl, msra, or four"):
        parse_camera(bad)


@pytest.mark.parametrize(
    "bad",
    ["0,0,0,0", "0,500,320,240", "500,-1,320,240", (math.nan, 1, 1, 1), (1, 1, math.inf, 1)],
)
def test_parse_camera_refuses_impossible_numbers(bad):
    with pytest.raises(ValueError, match="camera must have fx > 0 and fy > 0 and finite values"):
        parse_camera(bad)
