"""crop_and_resize beside F.grid_sample on a batched grid and kornia.

Limit: the output written once and the features read once (for the gradients, the other way round):
a copy_ and a fill_ (or sum) of those sizes on tensors that exist. Memory is kept between calls, as
in bench_gaussian_heatmap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

import dgpose_ext
from dgpose_ext.testing.crop_and_resize import random_crops

from .gpu import GpuCase
from .harness import Case, kept_memory
from .onnx_graph import exported

BATCH, CHANNELS, HEIGHT, WIDTH, PARTS, SIDE = 16, 128, 128, 64, 7, 48
Crop = Callable[..., torch.Tensor]


def _inputs(channels_last: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and boxes of body parts: a quarter to all of the image, whole or partly inside."""
    call = random_crops((BATCH, CHANNELS, HEIGHT, WIDTH), PARTS, (SIDE, SIDE))
    features = call["features"]
    if channels_last:
        features = features.to(memory_format=torch.channels_last)
    return features, call["boxes"]


def _mask() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand((BATCH, 1, HEIGHT, WIDTH), generator=generator) > 0.5).float()


def _crop(features: torch.Tensor, boxes: torch.Tensor, **options: Any) -> torch.Tensor:
    return dgpose_ext.crop_and_resize(features, boxes, (SIDE, SIDE), **options, backend="cpu")


def _call(channels_last: bool = False, **options: Any) -> tuple[Crop, dict[str, Any]]:
    features, boxes = _inputs(channels_last)
    arguments = {"features": features, "boxes": boxes, "size": (SIDE, SIDE)}
    return dgpose_ext.crop_and_resize, arguments | options


def _grid_sample(features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """One grid an image: the crops of an image lie above each other."""
    steps = torch.linspace(0, 1, SIDE, device=features.device)
    x1, y1, x2, y2 = (boxes[..., k, None] for k in range(4))
    # Pixels of "corners" as grid_sample with align_corners has them: [0, size] is [-1, 1].
    x = (x1 + steps * (x2 - x1)) * (2 / WIDTH) - 1
    y = (y1 + steps * (y2 - y1)) * (2 / HEIGHT) - 1
    shape = (len(features), PARTS, SIDE, SIDE)
    grid = torch.stack([x[:, :, None].expand(shape), y[..., None].expand(shape)], -1)
    crops = torch.nn.functional.grid_sample(
        features, grid.flatten(1, 2), mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return crops.unflatten(2, (PARTS, SIDE))


def _kornia(features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """kornia crops one box an image: the features are repeated as a view."""
    from kornia.geometry.transform import crop_and_resize

    x1, y1, x2, y2 = boxes.flatten(0, 1).unbind(-1)
    corners = torch.stack([torch.stack(p, -1) for p in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], 1)
    repeated = features[:, None].expand(-1, PARTS, -1, -1, -1).flatten(0, 1)
    crops: torch.Tensor = crop_and_resize(repeated, corners, (SIDE, SIDE))
    return crops


def _forward(crop: Crop, channels_last: bool = False, **options: Any) -> Callable[[], Any]:
    features, boxes = _inputs(channels_last)
    return lambda: crop(features, boxes, **options)


def _backward(crop: Crop, channels_last: bool = False, of: str = "features") -> Callable[[], Any]:
    features, boxes = _inputs(channels_last)
    wanted = [{"features": features, "boxes": boxes}[name] for name in of.split()]
    for tensor in wanted:
        tensor.requires_grad_()
    crops = crop(features, boxes)
    weight = torch.rand(crops.shape)
    if channels_last and crops.dim() == 5:
        weight = weight.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return lambda: torch.autograd.grad(crops, wanted, weight, retain_graph=True)


def _product_then_crop() -> Callable[[], Any]:
    features, boxes = _inputs()
    mask = _mask()
    return lambda: _crop(features * mask, boxes)


def _limit(written: int, read: int) -> Callable[[], Any]:
    """Floats written once and read once: a copy of the smaller, and a fill or a sum of the rest."""
    both = min(written, read)
    source, target = torch.rand(both), torch.empty(both)
    rest = torch.rand(max(written, read) - both)

    def run() -> None:
        target.copy_(source)
        if written > read:
            rest.fill_(0.5)
        else:
            rest.sum()

    return run


_FEATURES = BATCH * CHANNELS * HEIGHT * WIDTH
_CROPS = BATCH * PARTS * CHANNELS * SIDE * SIDE
_NOTE = (
    f"{BATCH} images of {CHANNELS} x {HEIGHT} x {WIDTH}, {PARTS} boxes each to {SIDE} x {SIDE}, "
    "float32"
)

_CASES = [
    Case(
        "forward", "crops", BATCH * PARTS, 2,
        {
            "dgpose_ext": lambda: _forward(_crop),
            "write and read": lambda: _limit(_CROPS, _FEATURES),
            "dgpose_ext, half_pixel": lambda: _forward(_crop, sampling="half_pixel"),
            "torch, grid_sample": lambda: _forward(_grid_sample),
            "kornia": lambda: _forward(_kornia),
            "exported, ONNX Runtime": lambda: exported(_crop, *_inputs()),
        },
        "dgpose_ext", "write and read", note=_NOTE,
        call=lambda: _call(), traffic=4 * (_FEATURES + _CROPS),
    ),
    Case(
        "forward, channels_last", "crops", BATCH * PARTS, 2,
        {
            "dgpose_ext": lambda: _forward(_crop, True),
            "write and read": lambda: _limit(_CROPS, _FEATURES),
            "torch, grid_sample": lambda: _forward(_grid_sample, True),
            "kornia": lambda: _forward(_kornia, True),
        },
        "dgpose_ext", "write and read", note=_NOTE,
        call=lambda: _call(True), traffic=4 * (_FEATURES + _CROPS),
    ),
    Case(
        "forward, masked", "crops", BATCH * PARTS, 2,
        {
            "dgpose_ext": lambda: _forward(_crop, mask=_mask()),
            "write and read": lambda: _limit(_CROPS, _FEATURES),
            "dgpose_ext, crop of features * mask": _product_then_crop,
        },
        "dgpose_ext", "write and read", note=_NOTE,
        call=lambda: _call(mask=_mask()), traffic=4 * (_FEATURES + _CROPS),
    ),
    Case(
        "gradient of features", "crops", BATCH * PARTS, 2,
        {
            "dgpose_ext": lambda: _backward(_crop),
            "write and read": lambda: _limit(_FEATURES, _CROPS),
            "torch, grid_sample": lambda: _backward(_grid_sample),
            "kornia": lambda: _backward(_kornia),
        },
        "dgpose_ext", "write and read", note=_NOTE,
    ),
    Case(
        "gradient of features, channels_last", "crops", BATCH * PARTS, 2,
        {
            "dgpose_ext": lambda: _backward(_crop, True),
            "write and read": lambda: _limit(_FEATURES, _CROPS),
            "torch, grid_sample": lambda: _backward(_grid_sample, True),
        },
        "dgpose_ext", "write and read", note=_NOTE,
    ),
    Case(
        "gradient of features and boxes", "crops", BATCH * PARTS, 2,
        {
            "dgpose_ext": lambda: _backward(_crop, of="features boxes"),
            "write and read": lambda: _limit(_FEATURES, _CROPS),
            "dgpose_ext, boxes alone": lambda: _backward(_crop, of="boxes"),
            "torch, grid_sample": lambda: _backward(_grid_sample, of="features boxes"),
        },
        "dgpose_ext", "write and read", note=_NOTE,
    ),
]  # fmt: skip

CASES = [
    replace(case, contenders={name: kept_memory(make) for name, make in case.contenders.items()})
    for case in _CASES
]


def _images(channels_last: bool = False, **options: Any) -> Callable[[int], Any]:
    def call(batch: int) -> tuple[Crop, dict[str, Any]]:
        function, arguments = _call(channels_last, **options)
        return function, arguments | {
            name: arguments[name][:batch] for name in ("features", "boxes")
        }

    return call


def _roi_align(arguments: dict[str, Any]) -> Callable[[], Any]:
    from torchvision.ops import roi_align

    features, boxes = arguments["features"], arguments["boxes"]
    image = torch.arange(len(boxes), device=boxes.device).repeat_interleave(PARTS)
    rois = torch.cat([image[:, None].to(boxes.dtype), boxes.flatten(0, 1)], 1)
    return lambda: roi_align(features, rois, (SIDE, SIDE), sampling_ratio=1, aligned=True)


def _grid(arguments: dict[str, Any]) -> Callable[[], Any]:
    return lambda: _grid_sample(arguments["features"], arguments["boxes"])


_IMAGE = 4 * (_FEATURES + _CROPS) // BATCH  # bytes of the features and crops of one

GPU_CASES = [
    GpuCase("corners", "images", BATCH, _images(), _IMAGE, peers={"torch, grid_sample": _grid}),
    GpuCase("corners, channels_last", "images", BATCH, _images(True), _IMAGE),
    GpuCase(
        "half_pixel", "images", BATCH, _images(sampling="half_pixel"), _IMAGE,
        peers={"torchvision, roi_align": _roi_align},
    ),
    GpuCase(
        "forward and backward", "images", BATCH, _images(), 2 * _IMAGE, ("features",)
    ),
]  # fmt: skip
