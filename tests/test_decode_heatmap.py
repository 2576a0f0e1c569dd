"""decode_heatmap against NumPy and OpenCV expressions, MMPose's and kornia's code, and its laws.

What holds for every op stands in test_every_op.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpose_oracle import mmpose_codec

from dgpose_ext import decode_heatmap
from dgpose_ext.testing.decode_heatmap import METHODS, gaussians

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def peak_of(image: np.ndarray) -> tuple[int, int]:
    y, x = np.unravel_index(np.argmax(image), image.shape)
    return int(x), int(y)


def quarter_of(image: np.ndarray) -> list[float]:
    """SimpleBaseline's shift with the borders of MMPose."""
    (x, y), (height, width) = peak_of(image), image.shape
    out = [float(x), float(y)]
    if 1 < x < width - 1 and y > 0:
        out[0] += 0.25 * np.sign(float(image[y, x + 1]) - float(image[y, x - 1]))
    if 1 < y < height - 1 and x > 0:
        out[1] += 0.25 * np.sign(float(image[y + 1, x]) - float(image[y - 1, x]))
    return out


def dark_of(image: np.ndarray, kernel: int) -> list[float]:
    """Equations 8 to 10 of the paper, on the whole map as OpenCV blurs it."""
    cv2 = pytest.importorskip("cv2")
    (x, y), (height, width) = peak_of(image), image.shape
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return [float(x), float(y)]
    padded = np.pad(image.astype(np.float64), kernel)
    blurred = cv2.GaussianBlur(padded, (kernel, kernel), 0)[kernel:-kernel, kernel:-kernel]
    blurred *= image.max() / blurred.max()
    log = np.log(np.maximum(blurred, 1e-10))
    dy, dx = np.gradient(log)
    hxx, hyy = np.gradient(dx, axis=1)[y, x], np.gradient(dy, axis=0)[y, x]
    hxy = np.gradient(dx, axis=0)[y, x]
    gradient = np.array([dx[y, x], dy[y, x]])
    shift = -np.linalg.solve(np.array([[hxx, hxy], [hxy, hyy]]), gradient)
    return [x + float(shift[0]), y + float(shift[1])]


def decoded(maps: torch.Tensor, method: str, **options: Any) -> np.ndarray:
    return decode_heatmap(maps, method, **options)[0].numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("height", "width"), [(64, 48), (7, 33), (1, 5), (130, 131)])
def test_argmax_and_quarter_equal_numpy(dtype: torch.dtype, height: int, width: int) -> None:
    maps = gaussians(3, 7, height, width, seed=height).to(dtype)
    images = maps.double().numpy()
    coords, scores = decode_heatmap(maps)
    quarter = decoded(maps, "quarter")
    for b, k in np.ndindex(3, 7):
        assert tuple(coords[b, k].tolist()) == peak_of(images[b, k])
        assert scores[b, k].item() == images[b, k].max()
        assert quarter[b, k].tolist() == quarter_of(images[b, k])


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, 11, 17])
def test_dark_equals_numpy(kernel: int) -> None:
    maps = gaussians(4, 9, 40, 36, seed=kernel)
    coords = decoded(maps, "dark", blur_kernel=kernel)
    moved = 0
    for b, k in np.ndindex(4, 9):
        want = dark_of(maps[b, k].numpy(), kernel)
        np.testing.assert_allclose(coords[b, k], want, rtol=0, atol=2e-4)
        moved += int(want != list(peak_of(maps[b, k].numpy())))
    assert moved > 20


@pytest.mark.parametrize(("height", "width"), [(64, 48), (7, 33), (5, 5), (130, 131)])
def test_argmax_and_quarter_equal_mmpose(height: int, width: int) -> None:
    find = mmpose_codec("post_processing").get_heatmap_maximum
    refine = mmpose_codec("refinement").refine_keypoints
    maps = gaussians(3, 7, height, width, seed=width)
    locations, values = find(maps.numpy())
    coords, scores = decode_heatmap(maps)
    assert np.array_equal(coords, locations)
    assert np.array_equal(scores, values)
    quarter = decoded(maps, "quarter")
    for b in range(3):
        want = refine(locations[b : b + 1].copy(), maps[b].numpy())
        assert np.array_equal(quarter[b : b + 1], want)


@pytest.mark.filterwarnings("ignore:Passing more than 2:DeprecationWarning")
@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 11, 17])
def test_dark_equals_mmpose(kernel: int) -> None:
    find = mmpose_codec("post_processing").get_heatmap_maximum
    refine = mmpose_codec("refinement").refine_keypoints_dark
    maps = gaussians(4, 9, 40, 36, seed=kernel)
    locations, _ = find(maps.numpy())
    coords = decoded(maps, "dark", blur_kernel=kernel)
    for b in range(4):
        want = refine(locations[b : b + 1].copy(), maps[b].numpy().copy(), kernel)
        # MMPose takes logarithms and differences in float32.
        np.testing.assert_allclose(coords[b : b + 1], want, rtol=0, atol=5e-4)


def test_where_mmpose_differs() -> None:
    """It puts keypoints of maps that are nowhere positive at (-1, -1)."""
    locations, values = mmpose_codec("post_processing").get_heatmap_maximum(
        np.zeros((1, 4, 5), np.float32)
    )
    coords, scores = decode_heatmap(torch.zeros((1, 1, 4, 5)))
    assert locations.tolist() == [[-1, -1]]
    assert coords.tolist() == [[[0, 0]]]
    assert scores.item() == values.item() == 0


@pytest.mark.parametrize("beta", [0.5, 1.0, 20.0])
def test_softargmax_and_its_gradient_equal_kornia(beta: float) -> None:
    """spatial_soft_argmax2d, and dsnt's softmax and expectation."""
    geometry = pytest.importorskip("kornia.geometry")
    maps = gaussians(2, 5, 23, 37, seed=3).double().requires_grad_()
    coords, _ = decode_heatmap(maps, "softargmax", beta=beta)
    # Its temperature multiplies up to 0.8 and divides since 0.9: scaled maps say the same to both.
    soft = geometry.subpix.spatial_soft_argmax2d(beta * maps, normalized_coordinates=False)
    p = geometry.subpix.spatial_softmax2d(beta * maps)
    expectation = geometry.subpix.spatial_expectation2d(p, normalized_coordinates=False)
    torch.testing.assert_close(coords, soft, rtol=0, atol=1e-9)
    torch.testing.assert_close(coords, expectation, rtol=0, atol=1e-9)
    weight = torch.tensor([1.0, -0.5], dtype=torch.float64)
    (ours,) = torch.autograd.grad((coords * weight).sum(), maps)
    (theirs,) = torch.autograd.grad((soft * weight).sum(), maps)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_dark_finds_the_centre_of_a_gaussian() -> None:
    """Of an exact Gaussian the logarithm is a parabola: exact but for the end of the blur."""
    at = np.array([20.37, 17.81])
    y, x = np.mgrid[:40, :44]
    image = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 8)
    maps = torch.from_numpy(image)[None, None]
    np.testing.assert_allclose(decoded(maps, "dark")[0, 0], at, rtol=0, atol=1e-3)
    np.testing.assert_allclose(decoded(maps, "dark", blur_kernel=1)[0, 0], at, rtol=0, atol=1e-9)
    assert np.abs(decoded(maps, "argmax")[0, 0] - at).max() > 0.3
    np.testing.assert_allclose(decoded(maps, "quarter")[0, 0], [20.25, 17.75])


def test_softargmax_is_the_mean_under_softmax() -> None:
    maps = gaussians(2, 5, 23, 37).double()
    for beta in (0.1, 1.0, 30.0, 1e4):
        p = (beta * maps).flatten(2).softmax(-1).view(maps.shape)
        x = (p * torch.arange(37)).sum((2, 3))
        y = (p * torch.arange(23)[:, None]).sum((2, 3))
        for dtype, atol in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
            coords, scores = decode_heatmap(maps.to(dtype), "softargmax", beta=beta)
            torch.testing.assert_close(
                coords.double(), torch.stack([x, y], -1), rtol=0, atol=atol * max(1, beta / 100)
            )
            assert torch.equal(scores, maps.to(dtype).amax((2, 3)))


def test_softargmax_of_a_large_flat_map_is_its_middle() -> None:
    coords, _ = decode_heatmap(torch.zeros((1, 1, 301, 513)), "softargmax")
    np.testing.assert_allclose(coords[0, 0], [256, 150], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_nothing(method: str) -> None:
    maps = torch.full((1, 3, 40, 40), math.nan)
    maps[0, 1] = -math.inf
    maps[0, 2, 30, 31] = -math.inf
    coords, scores = decode_heatmap(maps, method)
    assert coords.tolist() == [[[0, 0], [0, 0], [31, 30]]]
    assert scores[0, 0].isnan()
    assert scores[0, 1:].tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize("dtype", DTYPES)
def test_first_of_equal_maxima_in_and_across_blocks(dtype: torch.dtype) -> None:
    maps = torch.zeros((1, 1, 70, 71), dtype=dtype)
    for at in (4969, 3100, 3099, 1024, 1023, 17, 1, 0):
        maps.view(-1)[at] = 2
        coords, scores = decode_heatmap(maps)
        assert coords[0, 0].tolist() == [at % 71, at // 71]
        assert scores.item() == 2


def test_every_half_is_read_right() -> None:
    """All 65,536 float16 values, also by the scalar tail."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    _, scores = decode_heatmap(bits.view(65536, 1, 1, 1))
    torch.testing.assert_close(scores.view(-1), bits.float(), rtol=0, atol=0, equal_nan=True)
    row = bits.view(-1, 1, 1, 16)
    assert torch.equal(
        decode_heatmap(row)[1].nan_to_num(nan=7.0),
        decode_heatmap(row.float())[1].nan_to_num(nan=7.0),
    )


def test_any_memory_layout() -> None:
    maps = gaussians(3, 6, 20, 19)
    for method in METHODS:
        want = decode_heatmap(maps, method)
        store = maps.new_zeros((3, 6, 21, 40))
        store[:, :, 1:, 3:22] = maps
        for same in (
            maps.to(memory_format=torch.channels_last),
            store[:, :, 1:, 3:22],
            maps.transpose(2, 3).contiguous().transpose(2, 3),
        ):
            got = decode_heatmap(same, method)
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        got = decode_heatmap(maps[::2, 1::2], method)
        assert torch.equal(got[0], want[0][::2, 1::2])
        got = decode_heatmap(maps[:1].expand(4, -1, -1, -1), method)
        assert torch.equal(got[0], want[0][:1].expand(4, -1, -1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_gradient_equals_autograd(dtype: torch.dtype, backend: str) -> None:
    pytest.importorskip("dgpose_ext._C")
    maps = gaussians(2, 3, 11, 21, seed=4).to(dtype)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    coords, scores = decode_heatmap(ours, "softargmax", beta=6.0, backend=backend)
    wide = theirs if dtype == torch.float64 else theirs.float()
    p = (6.0 * wide).flatten(2).softmax(-1).view(maps.shape)
    x, y = (p.sum(2) * torch.arange(21)).sum(-1), (p.sum(3) * torch.arange(11)).sum(-1)
    (coords[..., 0] * 2 - coords[..., 1] * coords[..., 1] + scores).sum().backward()
    (x * 2 - y * y + wide.flatten(2).max(2).values).sum().backward()
    assert ours.grad is not None
    assert ours.grad.dtype == dtype
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    if dtype in (torch.float16, torch.bfloat16):
        tolerance = 2e-2
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=tolerance, atol=tolerance)


def test_gradient_of_maps_with_infinite_maxima_is_that_of_the_score() -> None:
    maps = torch.zeros((1, 3, 4, 5))
    maps[0, 0, 2, 3] = math.inf
    maps[0, 1] = math.nan
    maps[0, 2] = -math.inf
    maps.requires_grad_()
    coords, scores = decode_heatmap(maps, "softargmax")
    (coords.sum() + 3 * scores.sum()).backward()
    assert maps.grad is not None
    want = torch.zeros((1, 3, 4, 5))
    want[0, 0, 2, 3] = 3
    want[0, 2, 0, 0] = 3
    assert torch.equal(maps.grad, want)


def test_methods_without_gradient_work_where_none_is_recorded() -> None:
    maps = gaussians(1, 2, 8, 9).requires_grad_()
    with torch.no_grad():
        for method in METHODS:
            assert not decode_heatmap(maps, method)[0].requires_grad


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 20), st.integers(3, 24), st.integers(0, 10), st.integers(0, 10))
def test_translation_moves_the_keypoint(x: int, y: int, dx: int, dy: int) -> None:
    """A pattern far from the borders, moved by whole pixels."""
    pattern = torch.rand((5, 5), generator=torch.Generator().manual_seed(x))
    pattern[2, 2] = 2.0

    def at(left: int, top: int) -> torch.Tensor:
        maps = torch.zeros((1, 1, 60, 60), dtype=torch.float64)
        maps[0, 0, top + 8 : top + 13, left + 8 : left + 13] = pattern
        return maps

    for method in ("argmax", "quarter", "dark"):
        first, second = decoded(at(x, y), method), decoded(at(x + dx, y + dy), method)
        np.testing.assert_allclose(second - first, [[[dx, dy]]], atol=1e-9)
