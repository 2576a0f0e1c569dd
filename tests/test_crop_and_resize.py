"""crop_and_resize against TensorFlow's and torchvision's rules, transcribed, and its laws.

What holds for every op stands in test_every_op.py.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dgpose_ext import _loader, crop_and_resize
from dgpose_ext.testing.crop_and_resize import SPEC, random_crops

SAMPLINGS = ("corners", "half_pixel")
Crop = Callable[[np.ndarray, np.ndarray, tuple[int, int]], np.ndarray]


def tensorflow(image: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """TensorFlow's CPU kernel for one image [C, H, W], on a box divided by (H, W), as DPIG calls
    it: normalised corners, ceil for the second pixel, extrapolation value 0."""
    channels, height, width = image.shape
    h, w = size
    x1, x2 = box[0] / width, box[2] / width
    y1, y2 = box[1] / height, box[3] / height
    height_scale = (y2 - y1) * (height - 1) / (h - 1) if h > 1 else 0
    width_scale = (x2 - x1) * (width - 1) / (w - 1) if w > 1 else 0
    out = np.zeros((channels, h, w))
    for y in range(h):
        in_y = y1 * (height - 1) + y * height_scale if h > 1 else 0.5 * (y1 + y2) * (height - 1)
        if in_y < 0 or in_y > height - 1:
            continue
        top, bottom = math.floor(in_y), math.ceil(in_y)
        for x in range(w):
            in_x = x1 * (width - 1) + x * width_scale if w > 1 else 0.5 * (x1 + x2) * (width - 1)
            if in_x < 0 or in_x > width - 1:
                continue
            left, right = math.floor(in_x), math.ceil(in_x)
            upper = image[:, top, left] + (image[:, top, right] - image[:, top, left]) * (
                in_x - left
            )
            lower = image[:, bottom, left] + (image[:, bottom, right] - image[:, bottom, left]) * (
                in_x - left
            )
            out[:, y, x] = upper + (lower - upper) * (in_y - top)
    return out


def roi_align(image: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """roi_align(aligned=True, sampling_ratio=1) for one image [C, H, W]."""
    channels, height, width = image.shape
    h, w = size
    start_x, start_y, end_x, end_y = box - 0.5
    bin_h, bin_w = (end_y - start_y) / h, (end_x - start_x) / w
    out = np.zeros((channels, h, w))
    for i in range(h):
        for j in range(w):
            y, x = start_y + i * bin_h + 0.5 * bin_h, start_x + j * bin_w + 0.5 * bin_w
            if y < -1 or y > height or x < -1 or x > width:
                continue
            y, x = max(y, 0.0), max(x, 0.0)
            y_low, x_low = int(y), int(x)
            y_high, x_high = y_low + 1, x_low + 1
            if y_low >= height - 1:
                y_low = y_high = height - 1
                y = float(y_low)
            if x_low >= width - 1:
                x_low = x_high = width - 1
                x = float(x_low)
            ly, lx = y - y_low, x - x_low
            out[:, i, j] = (
                (1 - ly) * (1 - lx) * image[:, y_low, x_low]
                + (1 - ly) * lx * image[:, y_low, x_high]
                + ly * (1 - lx) * image[:, y_high, x_low]
                + ly * lx * image[:, y_high, x_high]
            )
    return out


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(("sampling", "rule"), [("corners", tensorflow), ("half_pixel", roi_align)])
@pytest.mark.parametrize("size", [(5, 7), (1, 4), (6, 1), (1, 1), (20, 33)])
def test_against_the_transcribed_rule(sampling: str, rule: Crop, size: tuple[int, int]) -> None:
    """In float64, with mirrored, tiny, empty and far boxes beside the random ones."""
    call = random_crops((2, 3, 11, 14), 9, size, torch.float64)
    boxes = call["boxes"]
    boxes[0, 0] = torch.tensor([3.3, 2.2, 3.9, 2.4])
    boxes[0, 1] = torch.tensor([5.5, 4.5, 5.5, 4.5])
    boxes[0, 2] = torch.tensor([50.0, 50.0, 60.0, 70.0])
    boxes[1, 0] = torch.tensor([-30.1, -20.2, 40.3, 33.4])
    boxes[1, 1] = torch.tensor([13.7, 10.6, -0.9, -0.8])
    boxes[1, 2] = torch.tensor([13.2, 9.9, 14.4, 11.3])
    got = crop_and_resize(**call, sampling=sampling)
    for image in range(2):
        for part in range(9):
            want = rule(call["features"][image].numpy(), boxes[image, part].numpy(), size)
            np.testing.assert_allclose(got[image, part].numpy(), want, rtol=1e-10, atol=1e-12)


def test_by_hand() -> None:
    features = torch.tensor([[[[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]]])
    # corners: rows 0 .. 2 of 2 rows are (H-1)/H = 1/2 as far: 0 and 1; columns 1.5 * 2/3 = 1.
    got = crop_and_resize(features, torch.tensor([[[1.5, 0.0, 3.0, 2.0]]]), (2, 2))
    assert got.flatten().tolist() == [1.0, 2.0, 11.0, 12.0]
    # half_pixel: two bins of 1.5 pixels; centres 0.75 - 0.5 and 2.25 - 0.5.
    box = torch.tensor([[[0.0, 0.0, 3.0, 2.0]]])
    got = crop_and_resize(features, box, (2, 2), sampling="half_pixel")
    assert got.flatten().tolist() == [0.25, 1.75, 10.25, 11.75]
    # Beyond the first pixel by at most one: held to it. Further: 0.
    box = torch.tensor([[[-2.0, 0.0, 2.0, 2.0]]])
    got = crop_and_resize(features, box, (2, 4), sampling="half_pixel")
    assert got[0, 0, 0, 0].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert got[0, 0, 0, 1].tolist() == [0.0, 10.0, 10.0, 11.0]


@pytest.mark.parametrize("size", [(1, 9), (13, 1), (37, 61), (128, 64), (48, 47), (1000, 999)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_whole_image_is_itself(size: tuple[int, int], dtype: torch.dtype) -> None:
    """Also its last row and column, where rounding could step outside; mirrored, too."""
    height, width = size
    features = torch.randn((1, 1, height, width), dtype=dtype)
    whole = torch.tensor([[0, 0, width, height], [width, height, 0, 0]], dtype=dtype)[None]
    for sampling in SAMPLINGS:
        crops = crop_and_resize(features, whole, size, sampling=sampling)
        if sampling == "corners" and 1 in size:  # one row is the middle: that row
            whole_row = crops[0, 0]
            torch.testing.assert_close(whole_row, features[0], rtol=1e-5, atol=1e-5)
            continue
        torch.testing.assert_close(crops[0, 0], features[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(crops[0, 1], features[0].flip(1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [2, 7, 48, 96, 255])
def test_the_last_sample_is_the_last_row(count: int) -> None:
    """For whole corners no rounding error puts it outside, where it would be 0."""
    for extent in (2, 31, 128, 1000):
        features = torch.ones((1, 1, extent, 3))
        box = torch.tensor([[[0.0, 0.0, 3.0, extent]]])
        assert (crop_and_resize(features, box, (count, 3)) == 1).all()


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-5, 30), st.floats(-5, 30), st.floats(-5, 30), st.floats(-5, 30),
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(SAMPLINGS), st.booleans(),
)  # fmt: skip
def test_a_ramp_gives_its_sample_positions(
    x1: float, y1: float, x2: float, y2: float, h: int, w: int, sampling: str, last: bool
) -> None:
    height, width = 19, 23
    ramp_x = torch.arange(width, dtype=torch.float64).expand(height, width)
    ramp_y = torch.arange(height, dtype=torch.float64)[:, None].expand(height, width)
    features = torch.stack([ramp_x, ramp_y, torch.ones_like(ramp_x)])[None].contiguous()
    if last:
        features = channels_last(features)
    boxes = torch.tensor([[[x1, y1, x2, y2]]], dtype=torch.float64)
    got_x, got_y, got_one = crop_and_resize(features, boxes, (h, w), sampling=sampling)[0, 0]

    def positions(first: float, second: float, n: int, count: int) -> tuple[Tensor, Tensor]:
        k = torch.arange(count, dtype=torch.float64)
        if sampling == "half_pixel":
            p = first - 0.5 + (k + 0.5) * (second - first) / count
            return p.clamp(0, n - 1), ((p + 1).abs() < 1e-9) | ((p - n).abs() < 1e-9)
        t = k / (count - 1) if count > 1 else torch.full_like(k, 0.5)
        p = (first + t * (second - first)) * (n - 1) / n
        return p, (p.abs() < 1e-9) | ((p - (n - 1)).abs() < 1e-9)

    (x, edge_x), (y, edge_y) = positions(x1, x2, width, w), positions(y1, y2, height, h)
    x, y = x.expand(h, w), y[:, None].expand(h, w)
    there = got_one > 0.5
    torch.testing.assert_close(got_x[there], x[there], rtol=0, atol=1e-9)
    torch.testing.assert_close(got_y[there], y[there], rtol=0, atol=1e-9)
    assert (got_x[~there] == 0).all()
    if sampling == "corners":
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        sure = ~(edge_x.expand(h, w) | edge_y[:, None].expand(h, w))
        assert torch.equal(there[sure], inside[sure])


@pytest.mark.parametrize("dtype", SPEC.dtypes)
def test_equals_the_reference_to_the_bit(dtype: torch.dtype) -> None:
    for call in SPEC.samples(dtype):
        got = crop_and_resize(**call, backend="cpu")
        assert torch.equal(got, crop_and_resize(**call, backend="reference"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mask_is_the_product_to_the_bit(dtype: torch.dtype, layout: torch.memory_format) -> None:
    call = random_crops((2, 19, 17, 40), 5, (9, 21), dtype)
    features = call["features"].to(memory_format=layout)
    for mask in (torch.rand(2, 1, 17, 40) > 0.5, torch.rand(2, 1, 17, 40).to(dtype)):
        got = crop_and_resize(features, call["boxes"], (9, 21), mask=mask)
        want = crop_and_resize(features * mask, call["boxes"], (9, 21))
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_halves_are_computed_in_float32_and_rounded_once(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    call = random_crops((2, 19, 17, 40), 5, (9, 21), dtype)
    features = call["features"].to(memory_format=layout)
    features[0, 0, 3] = 1e-6  # denormal in float16
    features[0, 1, 3] = -6e4
    features.requires_grad_()
    boxes = call["boxes"].requires_grad_()
    crops = crop_and_resize(features, boxes, (9, 21))
    wide = features.detach().float().requires_grad_()
    want = crop_and_resize(wide, boxes, (9, 21))
    assert torch.equal(crops, want.to(dtype))
    weight = torch.randn(crops.shape).to(dtype)
    got = torch.autograd.grad(crops, (features, boxes), weight)
    expected = torch.autograd.grad(want, (wide, boxes), weight.float())
    assert torch.equal(got[0], expected[0].to(dtype))
    torch.testing.assert_close(got[1], expected[1], rtol=1e-4, atol=1e-1)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_layout_is_kept(backend: str) -> None:
    call = random_crops((2, 5, 9, 8), 3, (4, 6))
    for features in (call["features"], channels_last(call["features"])):
        last = features is not call["features"]
        leaf = features.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        crops = crop_and_resize(leaf, call["boxes"], (4, 6), backend=backend)
        want = (360, 120, 1, 30, 5) if last else (360, 120, 24, 6, 1)
        assert crops.stride() == want
        if last:
            assert crops.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        (grad,) = torch.autograd.grad(crops.square().sum(), leaf)
        assert grad.stride() == leaf.stride()


def test_layout_is_kept_when_compiled() -> None:
    call = random_crops((2, 5, 9, 8), 3, (4, 6))
    features = channels_last(call["features"]).requires_grad_()

    def run(features: Tensor, boxes: Tensor) -> Tensor:
        return crop_and_resize(features, boxes, (4, 6)) * 2

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    got, want = compiled(features, call["boxes"]), run(features, call["boxes"])
    assert got.stride() == want.stride()
    assert torch.equal(got, want)
    (grad,) = torch.autograd.grad(got.square().sum(), features)
    (expected,) = torch.autograd.grad(want.square().sum(), features)
    assert torch.equal(grad, expected)
    assert grad.stride() == features.stride()
    torch.compiler.reset()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 3, 40, 150), (30, 70)), ((1, 20, 24, 20), (48, 48)), ((2, 3, 9, 64), (5, 64)),
     ((1, 2, 12, 12), (100, 100))],
)  # fmt: skip
def test_gradients_of_both_layouts(
    sampling: str, shape: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    """Narrow and wide windows, enlarged and reduced, against the reference in float64."""
    call = random_crops(shape, 6, size, torch.float64)
    mask = torch.rand((shape[0], 1, *shape[2:])) > 0.3

    def gradients(dtype: torch.dtype, layout: torch.memory_format, backend: str) -> list[Tensor]:
        features = call["features"].to(dtype).to(memory_format=layout).requires_grad_()
        boxes = call["boxes"].to(dtype).requires_grad_()
        crops = crop_and_resize(
            features, boxes, size, sampling=sampling, mask=mask, backend=backend
        )
        weight = torch.linspace(-1, 1, crops.numel(), dtype=torch.float64).sin()
        weight = weight.reshape(crops.shape).to(dtype)
        return list(torch.autograd.grad(crops, (features, boxes), weight))

    contiguous, last = torch.contiguous_format, torch.channels_last
    want = gradients(torch.float64, contiguous, "reference")
    for layout in (contiguous, last):
        for a, b in zip(gradients(torch.float64, layout, "cpu"), want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        got = gradients(torch.float32, layout, "cpu")
        for a, b in zip(got, want, strict=True):
            error = (a.double() - b).norm() / b.norm()
            assert error < 2e-3  # a position that moves over a pixel changes its slope
        again = gradients(torch.float32, layout, "cpu")
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


GRADIENT_BITS = """
import hashlib, torch
from dgpose_ext import crop_and_resize
from dgpose_ext.testing.crop_and_resize import random_crops

bits = hashlib.sha256()
cases = ((1, 3, 30, 40), (48, 48)), ((1, 18, 12, 150), (9, 70)), ((1, 2, 9, 70), (5, 130))
for shape, size in cases:
    for layout in (torch.contiguous_format, torch.channels_last):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            call = random_crops(shape, 5, size, dtype)
            features = call["features"].to(memory_format=layout).requires_grad_()
            crops = crop_and_resize(features, call["boxes"], size)
            (grad,) = torch.autograd.grad(crops.square().sum(), features)
            bits.update(grad.float().contiguous().numpy().tobytes())
print(bits.hexdigest())
"""


@pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())
def test_gradient_of_features_is_bit_identical_on_every_instruction_set() -> None:
    assert _loader.core is not None
    levels = ("scalar", "avx2", "avx512")
    detected = levels.index(_loader.core.detected_cpu_capability())
    results = {
        subprocess.run(
            [sys.executable, "-c", GRADIENT_BITS],
            env=os.environ | {"DGPOSE_CPU_CAPABILITY": level},
            check=True, capture_output=True, text=True,
        ).stdout
        for level in levels[: detected + 1]
    }  # fmt: skip
    assert len(results) == 1


def test_only_what_is_wanted_is_computed() -> None:
    call = random_crops((2, 3, 7, 6), 4, (5, 4))
    features, boxes = call["features"], call["boxes"]
    for name in ("features", "boxes"):
        leaf = call[name].clone().requires_grad_()
        crops = crop_and_resize(**(call | {name: leaf}))
        (alone,) = torch.autograd.grad(crops.square().sum(), leaf)
        both = [features.clone().requires_grad_(), boxes.clone().requires_grad_()]
        crops = crop_and_resize(both[0], both[1], (5, 4))
        together = torch.autograd.grad(crops.square().sum(), both)
        assert torch.equal(alone, together[name == "boxes"])


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_no_gradient_from_outside(sampling: str) -> None:
    features = torch.full((1, 1, 4, 4), 3.0, requires_grad=True)
    boxes = torch.tensor(
        [[[10.0, 10.0, 20.0, 20.0], [float("nan"), 0.0, 2.0, 2.0]]], requires_grad=True
    )
    crops = crop_and_resize(features, boxes, (3, 3), sampling=sampling)
    assert (crops == 0).all()
    crops.sum().backward()
    assert features.grad is not None
    assert boxes.grad is not None
    assert (features.grad == 0).all()
    assert (boxes.grad == 0).all()


def test_large_results_are_written_past_the_caches() -> None:
    """32 MiB and more take another path, with the same values."""
    call = random_crops((2, 96, 20, 24), 12, (64, 64))
    for layout in (torch.contiguous_format, torch.channels_last):
        for dtype in (torch.float32, torch.bfloat16):
            features = call["features"].to(dtype).to(memory_format=layout)
            large = crop_and_resize(features, call["boxes"], (64, 64))
            for part in (0, 2, 11):
                small = crop_and_resize(features, call["boxes"][:, part : part + 1], (64, 64))
                assert torch.equal(large[:, part : part + 1], small)


def test_fits_a_box_by_gradient_descent() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    features = torch.stack([(x / 6).sin(), (y / 5).cos(), (x + y) / 32])[None]
    target_box = torch.tensor([[[8.0, 6.0, 22.0, 25.0]]])
    target = crop_and_resize(features, target_box, (16, 16))
    boxes = torch.tensor([[[6.0, 8.0, 25.0, 23.0]]], requires_grad=True)
    optimizer = torch.optim.Adam([boxes], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        (crop_and_resize(features, boxes, (16, 16)) - target).square().mean().backward()
        optimizer.step()
    assert (boxes - target_box).abs().max() < 0.05
