"""gaussian_heatmap against closed forms, MMPose's and kornia's definitions, and its laws.

What holds for every op stands in test_every_op.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpose_oracle import mmpose_codec
from torch import Tensor

from dgpose_ext import gaussian_heatmap
from dgpose_ext.testing.gaussian_heatmap import random_keypoints

DTYPES = {
    torch.float64: 1e-14,
    torch.float32: 1e-6,
    torch.float16: 5e-4,
    torch.bfloat16: 4e-3,
}


def direct(keypoints: Tensor, size: tuple[int, int], sigma: Tensor) -> Tensor:
    """The Gaussian in float64, not separated; sigma [B, K, 2]."""
    height, width = size
    u, v = keypoints.double()[..., None, None].unbind(2)
    su, sv = sigma.double()[..., None, None].unbind(2)
    x = torch.arange(width, dtype=torch.float64)
    y = torch.arange(height, dtype=torch.float64)[:, None]
    return torch.exp(-((x - u) ** 2 / (2 * su**2) + (y - v) ** 2 / (2 * sv**2)))


def msra(keypoints: Tensor, visible: Tensor, size: tuple[int, int], sigma: int) -> Tensor:
    """MMPose's MSRA codec for one person, pixel by pixel.

    The centre is int(x + 0.5), int(y + 0.5); the Gaussian has peak 1 and is cut to the square of
    3 sigma pixels to each side; keypoints with visibility below 0.5 are left out.
    """
    height, width = size
    maps = torch.zeros((*keypoints.shape[:2], height, width), dtype=torch.float64)
    for b, k in torch.nonzero(visible >= 0.5).tolist():
        u, v = (int(c + 0.5) for c in keypoints[b, k].tolist())
        for y in range(max(v - 3 * sigma, 0), min(v + 3 * sigma + 1, height)):
            for x in range(max(u - 3 * sigma, 0), min(u + 3 * sigma + 1, width)):
                maps[b, k, y, x] = math.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))
    return maps


@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_direct_expression(dtype: torch.dtype) -> None:
    call = random_keypoints(2, 4, (40, 37))
    sigma = torch.tensor([[1.0, 2.0], [0.7, 5.0], [30.0, 3.0], [2.0, 2.0]]).expand(2, 4, 2)
    keypoints = call["keypoints"]
    maps = gaussian_heatmap(keypoints, (40, 37), sigma, dtype=dtype)
    assert maps.dtype == dtype
    want = direct(keypoints, (40, 37), sigma)
    assert (maps.double() - want).abs().max() < DTYPES[dtype]


def test_values_by_hand() -> None:
    maps = gaussian_heatmap(torch.tensor([[[2.0, 1.0]]]), (3, 5), 2.0)
    assert maps[0, 0, 1, 2] == 1
    assert maps[0, 0, 1, 4].item() == pytest.approx(math.exp(-0.5), rel=1e-6)
    assert maps[0, 0, 0, 0].item() == pytest.approx(math.exp(-5 / 8), rel=1e-6)


@pytest.mark.parametrize("sigma", [1, 2, 3])
def test_msra_codec(sigma: int) -> None:
    call = random_keypoints(3, 7, (48, 36), seed=sigma)
    keypoints = call["keypoints"]
    keypoints[0, :4] = torch.tensor([[-0.4, -1.4], [10.5, 11.49], [200.0, 5.0], [35.4, 47.6]])
    visible = (torch.arange(21).reshape(3, 7) % 5 > 0).float()
    maps = gaussian_heatmap(
        keypoints, (48, 36), float(sigma), visible=visible, cutoff=3, round_centers=True
    )
    want = msra(keypoints, visible, (48, 36), sigma)
    assert torch.equal(maps > 0, want > 0)
    assert (maps - want).abs().max() < 1e-6


def people_around_the_border(seed: int) -> tuple[Tensor, Tensor]:
    """4 people of 7 keypoints on maps of 48x36, some outside, and who of them is visible."""
    keypoints = random_keypoints(4, 7, (48, 36), seed=seed)["keypoints"]
    keypoints[0] = torch.tensor(
        [[-0.4, -1.4], [10.5, 11.49], [200.0, 5.0], [35.4, 47.6], [-9.6, 20], [44, 3], [0, 53.4]]
    )
    return keypoints, (torch.arange(28).reshape(4, 7) % 5 > 0).float()


@pytest.mark.parametrize("sigma", [1, 2, 3, 4])
def test_equals_the_msra_codec_of_mmpose(sigma: int) -> None:
    """The real code: each person alone, and the maximum over all of them."""
    codec = mmpose_codec("gaussian_heatmap")
    keypoints, visible = people_around_the_border(sigma)
    maps = gaussian_heatmap(
        keypoints, (48, 36), float(sigma), visible=visible, cutoff=3, round_centers=True
    ).numpy()
    points, seen = keypoints.numpy(), visible.numpy()
    persons = [
        codec.generate_gaussian_heatmaps((36, 48), points[n : n + 1], seen[n : n + 1], sigma)[0]
        for n in range(4)
    ]
    together, _ = codec.generate_gaussian_heatmaps((36, 48), points, seen, sigma)
    for got, want in ((maps, np.stack(persons)), (maps.max(0), together)):
        assert np.array_equal(got > 0, want > 0)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("sigma", [1.5, 2.0, 3.0])
def test_equals_the_unbiased_codec_of_mmpose(sigma: float) -> None:
    """The full map. MMPose leaves out keypoints whose 3 sigmas lie outside the image; ours draws
    their tails."""
    codec = mmpose_codec("gaussian_heatmap")
    keypoints, visible = people_around_the_border(7)
    want = np.zeros((4, 7, 48, 36))
    drawn = np.zeros((4, 7), bool)
    for n in range(4):
        person = keypoints[n : n + 1].numpy(), visible[n : n + 1].numpy()
        want[n], weights = codec.generate_unbiased_gaussian_heatmaps((36, 48), *person, sigma)
        drawn[n] = weights[0] > 0
    maps = gaussian_heatmap(
        keypoints, (48, 36), sigma, visible=torch.from_numpy(drawn) & (visible > 0)
    )
    assert drawn.sum() > 10
    # MMPose adds both squares in float32 before one exponential.
    np.testing.assert_allclose(maps, want, rtol=3e-5, atol=1e-18)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cutoff", [None, 2.5])
def test_sum_is_one(dtype: torch.dtype, cutoff: float | None) -> None:
    """Also for keypoints outside, as long as the window touches the image."""
    keypoints = torch.tensor([[[10.3, 7.1], [-4.0, 5.0], [33.0, 21.0]]])
    maps = gaussian_heatmap(keypoints, (20, 31), 3.0, cutoff=cutoff, normalize="sum", dtype=dtype)
    sums = maps.double().sum((2, 3))
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=10 * DTYPES[dtype], atol=0)


def test_sum_far_outside_lies_on_the_border() -> None:
    """As kornia has it: no underflow, the mass of a far keypoint is on the nearest pixels."""
    maps = gaussian_heatmap(torch.tensor([[[-1e4, 5.0]]]), (11, 9), 1.0, normalize="sum")
    assert maps.sum().item() == pytest.approx(1, rel=1e-5)
    assert maps[0, 0, :, 1:].sum() == 0
    windowed = gaussian_heatmap(
        torch.tensor([[[-9.0, 5.0]]]), (11, 9), 1.0, normalize="sum", cutoff=3
    )
    assert (windowed == 0).all()


def test_sum_equals_kornia() -> None:
    subpix = pytest.importorskip("kornia.geometry.subpix")
    keypoints = random_keypoints(2, 5, (30, 41), torch.float64)["keypoints"]
    sigma = torch.full_like(keypoints, 2.5)
    want = subpix.render_gaussian2d(keypoints, sigma, (30, 41), False)
    got = gaussian_heatmap(keypoints, (30, 41), sigma, normalize="sum")
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-15)


def test_sigma_shapes_agree() -> None:
    keypoints = random_keypoints(2, 3, (9, 8))["keypoints"]
    per_joint = torch.tensor([1.0, 2.0, 3.0])
    want = gaussian_heatmap(keypoints, (9, 8), per_joint)
    full = per_joint[:, None].expand(2, 3, 2)
    assert torch.equal(gaussian_heatmap(keypoints, (9, 8), per_joint.expand(2, 3)), want)
    assert torch.equal(gaussian_heatmap(keypoints, (9, 8), full), want)
    assert torch.equal(gaussian_heatmap(keypoints, (9, 8), 2.0)[:, 1], want[:, 1])


def test_what_is_not_there_is_zero() -> None:
    keypoints = torch.full((1, 4, 2), 3.0)
    keypoints[0, 1, 0] = float("nan")
    keypoints[0, 2, 1] = float("inf")
    keypoints.requires_grad_()
    sigma = torch.full((4,), 2.0, requires_grad=True)
    visible = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    maps = gaussian_heatmap(keypoints, (7, 7), sigma, visible=visible)
    maps.square().sum().backward()
    assert maps[0, 0].max() == 1
    assert (maps[0, 1:] == 0).all()
    assert keypoints.grad is not None
    assert sigma.grad is not None
    assert keypoints.grad.isfinite().all()
    assert (keypoints.grad[0, 1:] == 0).all()
    assert (sigma.grad[1:] == 0).all()
    assert sigma.grad[0] > 0


def test_no_gradient_through_rounding() -> None:
    keypoints = torch.tensor([[[3.2, 4.7]]], requires_grad=True)
    sigma = torch.tensor([2.0], requires_grad=True)
    maps = gaussian_heatmap(keypoints, (9, 9), sigma, round_centers=True)
    maps[0, 0, 2, 2].backward()
    assert keypoints.grad is not None
    assert sigma.grad is not None
    assert (keypoints.grad == 0).all()
    assert sigma.grad.item() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradient_of_half_maps(dtype: torch.dtype) -> None:
    """The incoming gradient is read in its own dtype; sums are those of float32."""
    keypoints = random_keypoints(2, 3, (19, 21))["keypoints"].requires_grad_()
    weight = torch.linspace(-1, 1, 2 * 3 * 19 * 21).reshape(2, 3, 19, 21).to(dtype)
    half = gaussian_heatmap(keypoints, (19, 21), 2.0, dtype=dtype)
    (got,) = torch.autograd.grad(half, keypoints, weight)
    full = gaussian_heatmap(keypoints, (19, 21), 2.0)
    (want,) = torch.autograd.grad(full, keypoints, weight.float())
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_large_maps_are_written_past_the_caches() -> None:
    """32 MiB and more take another path, with the same values."""
    keypoints = torch.tensor([[[100.0, 200.0], [1900.5, 1.25], [5.0, 2047.0]]])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        maps = gaussian_heatmap(keypoints, (2048, 2816), 40.0, dtype=dtype)
        odd = gaussian_heatmap(keypoints, (2048, 2815), 40.0, dtype=dtype)
        assert torch.equal(maps[..., :2815], odd)


def test_fits_keypoints_by_gradient_descent() -> None:
    target = torch.tensor([[[12.3, 7.6]]])
    maps = gaussian_heatmap(target, (20, 20), 3.0)
    keypoints = torch.tensor([[[9.0, 10.0]]], requires_grad=True)
    optimizer = torch.optim.SGD([keypoints], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        (gaussian_heatmap(keypoints, (20, 20), 3.0) - maps).square().sum().backward()
        optimizer.step()
    assert (keypoints - target).abs().max() < 1e-3


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 12), st.integers(0, 12), st.floats(0.3, 6), st.floats(-20, 40),
    st.floats(-20, 40), st.sampled_from([None, 1.5, 3.0]), st.booleans(),
)  # fmt: skip
def test_a_translated_keypoint_translates_its_map(
    dx: int, dy: int, sigma: float, x: float, y: float, cutoff: float | None, rounded: bool
) -> None:
    """Coordinates in sixteenths: exact in float32, so the maps are equal bit for bit."""
    x, y = round(x * 16) / 16 + 8, round(y * 16) / 16 + 8
    if rounded:  # int(x + 0.5) rounds towards 0: the law holds on either side of it
        x, y = abs(x), abs(y)
    keypoints = torch.tensor([[[x, y], [x + dx, y + dy]]])
    maps = gaussian_heatmap(keypoints, (35, 43), sigma, cutoff=cutoff, round_centers=rounded)
    assert torch.equal(maps[0, 1, dy:, dx:], maps[0, 0, : 35 - dy, : 43 - dx])


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-30, 60), st.floats(-30, 60), st.floats(0.1, 20), st.floats(0.1, 20),
    st.floats(0.5, 4),
)  # fmt: skip
def test_window(x: float, y: float, sx: float, sy: float, cutoff: float) -> None:
    """Inside the window the full map, outside nothing; the window is exact."""
    keypoints = torch.tensor([[[x, y]]])
    sigma = torch.tensor([[[sx, sy]]])
    cut = gaussian_heatmap(keypoints, (33, 31), sigma, cutoff=cutoff)
    full = gaussian_heatmap(keypoints, (33, 31), sigma)
    radius = torch.tensor(cutoff) * sigma[0, 0]
    inside_x = (torch.arange(31) - keypoints[0, 0, 0]).abs() <= radius[0]
    inside_y = (torch.arange(33) - keypoints[0, 0, 1]).abs() <= radius[1]
    assert torch.equal(cut[0, 0], full[0, 0] * (inside_y[:, None] & inside_x))
