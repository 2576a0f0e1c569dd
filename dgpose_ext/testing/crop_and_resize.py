"""Sample inputs of crop_and_resize."""

from __future__ import annotations

import torch

from dgpose_ext import crop_and_resize
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample


def random_boxes(
    batch: int, parts: int, size: tuple[int, int], dtype: torch.dtype = torch.float32, seed: int = 0
) -> torch.Tensor:
    """Boxes [B, P, 4] of a quarter to the whole image, some partly outside, some mirrored."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    extent = torch.tensor([width, height], dtype=torch.float64)

    def rand() -> torch.Tensor:
        return torch.rand((batch, parts, 2), generator=generator, dtype=torch.float64)

    low = (rand() * 0.9 - 0.2) * extent
    high = low + (rand() * 0.75 + 0.25) * extent
    boxes = torch.cat([low, high], -1)
    boxes[:, 2::4] = boxes[:, 2::4, [2, 1, 0, 3]]
    return boxes.to(dtype)


def random_crops(
    shape: tuple[int, int, int, int],
    parts: int,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Sample:
    """Features [B, C, H, W] and boxes. For benchmarks, examples."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    boxes = random_boxes(shape[0], parts, (shape[2], shape[3]), wide, seed)
    return {"features": features, "boxes": boxes, "size": size}


def _mask(features: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    batch, _, height, width = features.shape
    generator = torch.Generator().manual_seed(height)
    mask = torch.rand((batch, 1, height, width), generator=generator)
    return mask > 0.4 if dtype == torch.bool else mask.to(dtype)


def _last(call: Sample) -> Sample:
    return call | {"features": call["features"].to(memory_format=torch.channels_last)}


def _samples(dtype: torch.dtype) -> list[Sample]:
    half_pixel = {"sampling": "half_pixel"}
    first = random_crops((2, 3, 13, 18), 4, (5, 7), dtype)
    calls: list[Sample] = [first, _last(first), first | half_pixel, _last(first) | half_pixel]
    for n in ODD_SIZES:
        calls.append(random_crops((1, 2, 9, n), 3, (4, 17), dtype, n))
        calls.append(random_crops((1, 2, n, 20), 3, (3, n), dtype, n) | half_pixel)
        calls.append(_last(random_crops((1, n, 6, 7), 3, (4, 5), dtype, n)))
    for mask_dtype in (torch.bool, torch.float32, dtype):
        masked = first | {"mask": _mask(first["features"], mask_dtype)}
        calls += [masked, _last(masked), masked | half_pixel]
    for size in ((1, 1), (1, 40), (33, 1)):
        calls += [first | {"size": size}, first | {"size": size} | half_pixel]
    # Wide, so that columns are looked up in memory; small boxes, enlarged; one row, one column.
    calls.append(random_crops((1, 2, 5, 150), 3, (6, 70), dtype))
    calls.append(first | {"boxes": first["boxes"] * 0.1 + 5, "size": (9, 40)})
    calls.append(random_crops((2, 3, 1, 1), 2, (3, 3), dtype) | half_pixel)
    whole = torch.tensor([[[0, 0, 18, 13], [18, 13, 0, 0]]] * 2).to(first["boxes"].dtype)
    calls.append(first | {"boxes": whole, "size": (13, 18)})
    if dtype == torch.float32:  # enough for several threads
        many = random_crops((2, 24, 40, 32), 5, (24, 24), dtype)
        calls += [many, _last(many)]
    return calls


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    call = random_crops((2, 3, 7, 9), 4, (5, 6))
    features, boxes = call["features"], call["boxes"]
    last = features.to(memory_format=torch.channels_last)
    mask = _mask(features, torch.float32)
    grad = torch.rand(2, 4, 3, 5, 6)
    name = "crop_and_resize_backward"
    return [
        ("crop_and_resize", (features, boxes, mask, 5, 6, True)),
        ("crop_and_resize", (last, boxes, None, 5, 6, False)),
        ("crop_and_resize", (features.half(), boxes, None, 1, 6, True)),
        (name, (grad, features, boxes, mask, True, True, True)),
        (name, (grad, last, boxes, mask, False, True, False)),
        (name, (grad, last, boxes, None, True, False, True)),
        (name, (grad.bfloat16(), features.bfloat16(), boxes, None, True, True, True)),
    ]


def _empty() -> list[Sample]:
    shapes = (
        ((0, 3, 4, 5), 2, (3, 3)),
        ((2, 3, 4, 5), 0, (3, 3)),
        ((2, 0, 4, 5), 2, (3, 3)),
        ((2, 3, 0, 5), 2, (3, 3)),
        ((2, 3, 4, 0), 2, (3, 3)),
        ((2, 3, 4, 5), 2, (0, 3)),
        ((2, 3, 4, 5), 2, (3, 0)),
    )
    return [
        call | {"sampling": sampling}
        for shape in shapes
        for call in (random_crops(*shape), _last(random_crops(*shape)))
        for sampling in ("corners", "half_pixel")
    ]


def _hostile() -> list[Sample]:
    calls: list[Sample] = []
    for value in (float("nan"), float("inf"), -float("inf"), 3e38, -3e38, -1e30, 1e-40, 2.0**31):
        for sampling in ("corners", "half_pixel"):
            call = random_crops((2, 17, 6, 19), 4, (5, 7)) | {"sampling": sampling}
            for k in range(4):
                call["boxes"][0, k, k] = value
            call["boxes"][1, 1] = value
            call["boxes"][1, 2] = torch.tensor([-value, value, value, -value])
            calls += [call, _last(call)]
            call = random_crops((2, 17, 6, 19), 4, (5, 7)) | {"sampling": sampling}
            call["features"][:, 2:9, 2, 3] = value
            calls += [call, _last(call), call | {"mask": _mask(call["features"], torch.bool)}]
    return calls


def _gradient_samples() -> list[Sample]:
    calls: list[Sample] = []
    for sampling in ("corners", "half_pixel"):
        first = random_crops((2, 3, 7, 6), 4, (5, 4), torch.float64, 3) | {"sampling": sampling}
        masked = first | {"mask": _mask(first["features"], torch.float64)}
        calls += [first, masked, _last(first), _last(masked), first | {"size": (1, 3)}]
    return calls


_FEATURES = torch.zeros((2, 3, 4, 5))

SPEC = OpSpec(
    name="crop_and_resize",
    family="crop",
    function=crop_and_resize,
    samples=_samples,
    dtypes=(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    differentiable=("features", "boxes"),
    gradient_samples=_gradient_samples,
    # The CPU's crops equal the reference's to the bit (tests/test_crop_and_resize.py); this leaves
    # other backends fused sums, and in halves a neighbouring value.
    tolerance={
        torch.float32: (1e-5, 1e-6),
        torch.float64: (1e-12, 1e-14),
        torch.float16: (1e-3, 1e-6),
        torch.bfloat16: (8e-3, 1e-6),
    },
    bad=(
        BadInput({"features": [[0.0]]}, TypeError, "features must be a torch.Tensor, got list"),
        BadInput(
            {"features": torch.zeros((3, 7))}, ValueError,
            r"features must have shape \[B, C, H, W\], got \[3, 7\]",
        ),
        BadInput(
            {"features": _FEATURES.int()}, TypeError,
            "features must be of dtype float32, .*, got int32",
        ),
        BadInput({"boxes": None}, TypeError, "boxes must be a torch.Tensor, got NoneType"),
        BadInput(
            {"boxes": torch.zeros((2, 3, 5))}, ValueError,
            r"boxes must have shape \[B, P, 4\] with B = 2, got \[2, 3, 5\]",
        ),
        BadInput(
            {"boxes": torch.zeros((3, 3, 4))}, ValueError,
            r"boxes must have shape \[B, P, 4\] with B = 2, got \[3, 3, 4\]",
        ),
        BadInput(
            {"boxes": torch.zeros((2, 3, 4), dtype=torch.int64)}, TypeError,
            "boxes must be of dtype float32, .*, got int64",
        ),
        BadInput(
            {"mask": torch.zeros((2, 13, 18))}, ValueError,
            r"mask must have shape \[B, 1, H, W\] with B = 2, H = 13, W = 18, got \[2, 13, 18\]",
        ),
        BadInput(
            {"mask": torch.zeros((2, 1, 13, 18), dtype=torch.uint8)}, TypeError,
            "mask must be of dtype bool, .*, got uint8",
        ),
        BadInput({"mask": 1}, TypeError, "mask must be a torch.Tensor, got int"),
        BadInput(
            {"mask": torch.zeros((2, 1, 13, 18), requires_grad=True)}, ValueError,
            "mask must not require a gradient: crop_and_resize has none for it",
        ),
        BadInput(
            {"sampling": "nearest"}, ValueError,
            "sampling must be 'corners' or 'half_pixel', got 'nearest'",
        ),
        BadInput({"size": (-1, 4)}, ValueError, r"size must not be negative, got \(-1, 4\)"),
        BadInput({"size": 4}, ValueError, r"size must be \(H, W\), got 4"),
    ),
)  # fmt: skip
