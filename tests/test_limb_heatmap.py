"""limb_heatmap against the distance to a segment, gaussian_heatmap, and its laws.

What holds for every op stands in test_every_op.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dgpose_ext import _loader, gaussian_heatmap, limb_heatmap
from dgpose_ext.testing.limb_heatmap import BODY_LIMBS, LIMBS, bodies, random_limbs

needs_core = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())

#: float32 places pixels to 2^-23 of the size of the map: errors grow with size / sigma.
DTYPES = {
    torch.float64: 1e-13,
    torch.float32: 4e-6,
    torch.float16: 5e-4,
    torch.bfloat16: 4e-3,
}


def direct(keypoints: Tensor, limbs: Tensor, size: tuple[int, int], sigma: Tensor) -> Tensor:
    """The Gaussian of the distance to the segment in float64; sigma [B, L]."""
    height, width = size
    a, b = keypoints.double()[:, limbs][..., None, None].unbind(2)  # [B, L, 2, 1, 1]
    x = torch.arange(width, dtype=torch.float64).expand(size)
    y = torch.arange(height, dtype=torch.float64)[:, None].expand(size)
    p, e = torch.stack([x, y]), b - a
    length2 = e.square().sum(2, keepdim=True)
    t = ((p - a) * e).sum(2, keepdim=True) / torch.where(length2 > 0, length2, 1)
    d2 = (p - a - t.clamp(0, 1) * e).square().sum(2)
    return torch.exp(-d2 / (2 * sigma.double()[..., None, None] ** 2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_direct_expression(dtype: torch.dtype) -> None:
    limbs = torch.tensor(LIMBS)
    for size, sigma in (((40, 37), (0.7, 2.0, 5.0, 3.0)), ((9, 150), (4.0, 2.0, 30.0, 6.0))):
        sigmas = torch.tensor(sigma).expand(3, 4)
        for seed in range(4):
            keypoints = random_limbs(3, size, seed=seed)["keypoints"]
            maps = limb_heatmap(keypoints, limbs, size, sigmas, dtype=dtype)
            assert maps.dtype == dtype
            want = direct(keypoints, limbs, size, sigmas)
            assert (maps.double() - want).abs().max() < DTYPES[dtype]


def test_bodies_against_the_direct_expression() -> None:
    call = bodies(2, (128, 96))
    maps = limb_heatmap(**call)
    want = direct(call["keypoints"], torch.tensor(BODY_LIMBS), (128, 96), torch.full((2, 17), 2.0))
    assert (maps - want).abs().max() < 2e-6
    assert ((maps > 0) == (want > 2**-63)).float().mean() > 0.999


def test_values_by_hand() -> None:
    keypoints = torch.tensor([[[2.0, 1.0], [6.0, 1.0]]])
    maps = limb_heatmap(keypoints, [(0, 1)], (4, 9), 2.0)
    assert (maps[0, 0, 1, 2:7] == 1).all()
    assert maps[0, 0, 3, 4].item() == pytest.approx(math.exp(-0.5), rel=1e-6)
    assert maps[0, 0, 3, 0].item() == pytest.approx(math.exp(-1), rel=1e-6)
    assert maps[0, 0, 1, 8].item() == pytest.approx(math.exp(-0.5), rel=1e-6)


def test_limbs_as_pairs_and_as_a_tensor() -> None:
    call = random_limbs(2, (9, 12))
    assert torch.equal(limb_heatmap(**call), limb_heatmap(**call | {"limbs": torch.tensor(LIMBS)}))


def test_sigma_shapes_agree() -> None:
    call = random_limbs(2, (9, 8))
    per_limb = torch.tensor([1.0, 2.0, 3.0, 4.0])
    want = limb_heatmap(**call | {"sigma": per_limb})
    assert torch.equal(limb_heatmap(**call | {"sigma": per_limb.expand(2, 4)}), want)
    assert torch.equal(limb_heatmap(**call | {"sigma": 2.0})[:, 1], want[:, 1])


def test_what_is_not_there_is_zero() -> None:
    keypoints = torch.tensor([[[3.0, 3.0], [5.0, 4.0], [math.nan, 1.0], [2.0, math.inf]]])
    keypoints.requires_grad_()
    sigma = torch.tensor([2.0, 2.0, 2.0, math.nan, -1.0, 2.0], requires_grad=True)
    limbs = [(0, 1), (0, 2), (3, 1), (0, 1), (0, 1), (2, 2)]
    maps = limb_heatmap(keypoints, limbs, (7, 7), sigma)
    maps.square().sum().backward()
    assert maps[0, 0].max() > 0.9
    assert (maps[0, 1:] == 0).all()
    assert keypoints.grad is not None
    assert sigma.grad is not None
    assert keypoints.grad.isfinite().all()
    assert (keypoints.grad[0, 2:] == 0).all()
    assert (sigma.grad[1:] == 0).all()
    assert sigma.grad[0] > 0


def test_both_joints_must_be_visible() -> None:
    call = random_limbs(1, (9, 9))
    maps = limb_heatmap(**call | {"visible": torch.tensor([[1, 1, 0, 1]])})
    want = limb_heatmap(**call)
    want[:, [1, 3]] = 0  # the limbs of joint 2
    assert torch.equal(maps, want)


def test_no_value_is_denormal() -> None:
    for seed in range(3):
        maps = limb_heatmap(**bodies(2, (96, 96), seed))
        assert maps[maps > 0].min() >= 2**-63
        assert (maps == 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_joints_in_one_place_are_a_gaussian(dtype: torch.dtype) -> None:
    """In value and in gradient, whether one joint or two."""
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    keypoints = torch.tensor([[[4.3, 5.9], [4.3, 5.9]]], dtype=dtype, requires_grad=True)
    sigma = torch.tensor([1.7], dtype=dtype, requires_grad=True)
    weight = torch.linspace(-1, 1, 11 * 13, dtype=dtype).view(1, 1, 11, 13)
    want = gaussian_heatmap(keypoints[:, :1], (11, 13), sigma)
    want_grads = torch.autograd.grad(want, (keypoints, sigma), weight)
    for limb, shares in (((0, 0), (1.0, 0.0)), ((0, 1), (0.5, 0.5))):
        maps = limb_heatmap(keypoints, [limb], (11, 13), sigma)
        torch.testing.assert_close(maps, want, rtol=tolerance, atol=tolerance)
        got = torch.autograd.grad(maps, (keypoints, sigma), weight)
        of_joints = want_grads[0][:, :1] * torch.tensor(shares, dtype=dtype)[None, :, None]
        torch.testing.assert_close(got[0], of_joints, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(got[1], want_grads[1], rtol=tolerance, atol=tolerance)


def test_the_gradient_of_a_pixel_is_shared_by_its_foot() -> None:
    """A quarter of the way along the limb: 3/4 and 1/4; beyond an end all to that joint."""
    given = torch.tensor([[[2.0, 3.0], [10.0, 3.0]]], dtype=torch.float64)
    for (x, y), share in (((4, 5), 0.25), ((0, 2), 0.0), ((12, 4), 1.0), ((10, 1), 1.0)):
        keypoints = given.clone().requires_grad_()
        maps = limb_heatmap(keypoints, [(0, 1)], (8, 14), 2.0)
        maps[0, 0, y, x].backward()
        foot = torch.tensor([min(max(x, 2), 10), 3], dtype=torch.float64)
        whole = maps[0, 0, y, x].detach() * (torch.tensor([x, y]) - foot) / 4
        want = torch.stack([(1 - share) * whole, share * whole])[None]
        assert keypoints.grad is not None
        torch.testing.assert_close(keypoints.grad, want, rtol=1e-12, atol=1e-15)


def test_gradients_where_the_map_is_zero_do_not_count() -> None:
    keypoints = torch.tensor([[[8.0, 8.0], [12.0, 9.0]]], requires_grad=True)
    maps = limb_heatmap(keypoints, [(0, 1)], (40, 40), 0.5)
    weight = torch.ones(40, 40).where(maps[0, 0] > 0, torch.tensor(math.nan))
    (got,) = torch.autograd.grad(maps, keypoints, weight[None, None], retain_graph=True)
    (want,) = torch.autograd.grad(maps.sum(), keypoints)
    assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradient_of_half_maps(dtype: torch.dtype) -> None:
    """The incoming gradient is read in its own dtype; sums are those of float32."""
    call = random_limbs(2, (19, 21))
    keypoints = call["keypoints"].requires_grad_()
    weight = torch.linspace(-1, 1, 2 * 4 * 19 * 21).reshape(2, 4, 19, 21).to(dtype)
    (got,) = torch.autograd.grad(limb_heatmap(**call, dtype=dtype), keypoints, weight)
    (want,) = torch.autograd.grad(limb_heatmap(**call), keypoints, weight.float())
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_large_maps_are_written_past_the_caches() -> None:
    """32 MiB and more take another path, with the same values."""
    keypoints = torch.tensor([[[100.0, 200.0], [1900.5, 1.25], [5.0, 2047.0], [700.0, 30.0]]])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        maps = limb_heatmap(keypoints, LIMBS, (2048, 2112), 7.0, dtype=dtype)
        odd = limb_heatmap(keypoints, LIMBS, (2048, 2111), 7.0, dtype=dtype)
        assert torch.equal(maps[..., :2111], odd)


def test_far_joints() -> None:
    """A limb through the image that ends far outside, at one or both ends."""
    keypoints = torch.tensor([[[5.0, 4.0], [1e5, 1e5 - 1], [-1e5, 4.0]]])
    maps = limb_heatmap(keypoints, [(0, 1), (0, 2), (2, 1)], (16, 20), 1.0)
    assert (maps[0, 0].diagonal(1)[4:] > 0.99).all()
    assert (maps[0, 1, 4, :6] == 1).all()
    assert maps[0, 1, 4, 7].item() == pytest.approx(math.exp(-2), rel=1e-5)
    sigmas = torch.ones(1, 3)
    want = direct(keypoints, torch.tensor([[0, 1], [0, 2], [2, 1]]), (16, 20), sigmas)
    assert (maps - want).abs().max() < 1e-2


def test_fits_keypoints_by_gradient_descent() -> None:
    target = torch.tensor([[[5.3, 7.6], [15.1, 11.2]]])
    maps = limb_heatmap(target, [(0, 1)], (20, 20), 3.0)
    keypoints = torch.tensor([[[8.0, 8.0], [13.0, 14.0]]], requires_grad=True)
    optimizer = torch.optim.SGD([keypoints], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (limb_heatmap(keypoints, [(0, 1)], (20, 20), 3.0) - maps).square().sum().backward()
        optimizer.step()
    assert (keypoints - target).abs().max() < 1e-2


@needs_core
def test_the_registered_op_refuses_limbs_outside() -> None:
    keypoints, sigma = torch.zeros((1, 3, 2)), torch.ones((1, 1))
    maps = torch.zeros((1, 1, 4, 4))
    for pair in ([0, 3], [-1, 0]):
        limbs = torch.tensor([pair])
        with pytest.raises(RuntimeError, match=r"limbs must lie in 0 .. K-1 with K = 3, got"):
            torch.ops.dgpose.limb_heatmap(keypoints, limbs, sigma, None, 4, 4, torch.float32)
        with pytest.raises(RuntimeError, match=r"limbs must lie in 0 .. K-1 with K = 3, got"):
            torch.ops.dgpose.limb_heatmap_backward(maps, keypoints, limbs, sigma, None)


COORDINATES = st.floats(-20, 60)


@settings(max_examples=40, deadline=None)
@given(COORDINATES, COORDINATES, COORDINATES, COORDINATES, st.floats(0.2, 20))
def test_a_limb_is_the_same_from_either_end(
    ax: float, ay: float, bx: float, by: float, sigma: float
) -> None:
    keypoints = torch.tensor([[[ax, ay], [bx, by]]])
    maps = limb_heatmap(keypoints, [(0, 1), (1, 0)], (33, 35), sigma)
    assert torch.equal(maps[:, 0], maps[:, 1])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 12), st.integers(0, 12), st.floats(0.3, 6), st.floats(0, 40), st.floats(0, 40),
    st.floats(0, 40), st.floats(0, 40),
)  # fmt: skip
def test_a_translated_limb_translates_its_map(
    dx: int, dy: int, sigma: float, ax: float, ay: float, bx: float, by: float
) -> None:
    """Coordinates in sixteenths: exact in float32, so the maps are equal bit for bit.

    They are positive: the nearer end, from which the limb is measured, stays the nearer one.
    """
    ends = (torch.tensor([[ax, ay], [bx, by]]) * 16).round() / 16
    keypoints = torch.stack([ends, ends + torch.tensor([dx, dy])])
    maps = limb_heatmap(keypoints, [(0, 1)], (35, 43), sigma)
    assert torch.equal(maps[1, 0, dy:, dx:], maps[0, 0, : 35 - dy, : 43 - dx])


@settings(max_examples=40, deadline=None)
@given(COORDINATES, COORDINATES, COORDINATES, COORDINATES, st.floats(0.4, 10))
def test_the_halves_of_a_limb_make_the_whole(
    ax: float, ay: float, bx: float, by: float, sigma: float
) -> None:
    """The distance to the whole is the smaller one of the two, so its map is the greater one."""
    a, b = torch.tensor([[ax, ay], [bx, by]], dtype=torch.float64)
    keypoints = torch.stack([a, (a + b) / 2, b])[None]
    whole, *halves = limb_heatmap(keypoints, [(0, 2), (0, 1), (1, 2)], (33, 35), sigma)[0]
    torch.testing.assert_close(torch.maximum(*halves), whole, rtol=1e-9, atol=1e-12)
