"""crop_and_resize: boxes of an image, resampled bilinearly to one size.

Maths: csrc/crop/crop_and_resize.h.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import (
    refuse_gradients,
    require_device,
    require_dtype,
    require_shape,
    require_size,
    require_tensor,
)
from dgpose_ext.reference.crop import crop_and_resize as reference

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def crop_and_resize(
    features: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    sampling: Literal["corners", "half_pixel"] = "corners",
    mask: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Crops every box of every image, resampled bilinearly to one size.

    Args:
        features: [B, C, H, W], contiguous or channels_last (other strides are copied). float32,
            float64, float16 or bfloat16.
        boxes: [B, P, 4] (x1, y1, x2, y2) in pixels, anywhere. float32, float64, float16 or
            bfloat16; computed in float64 for float64 features, else in float32.
        size: (h, w) of a crop.
        sampling: where the samples lie, for rows (columns alike):
            "corners": y = y1 (H-1)/H + i (y2-y1) (H-1)/(H (h-1)), for h = 1 the middle;
            0 outside [0, H-1]. TensorFlow's crop_and_resize with boxes divided by (H, W).
            "half_pixel": y = y1 - 0.5 + (i + 0.5) (y2-y1)/h, held to [0, H-1]; 0 outside [-1, H].
            torchvision's roi_align with aligned=True and sampling_ratio=1.
        mask: [B, 1, H, W], bool or floating: the result is that of features * mask, which is
            never stored. It is cast to the dtype of the features.
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        [B, P, C, h, w]; channels_last where the features are (and are not contiguous as well):
        then result.flatten(0, 1) is a channels_last tensor. x2 < x1 or y2 < y1 mirrors. A box
        with NaN or Inf gives a crop of 0, as an image without pixels does. A sample reads the
        pixel at or before it and the next one on both axes: NaN or Inf in one of these four
        shows, also at weight 0.

    Gradients flow to features and boxes (once differentiable), none to the mask. At whole pixels
    the gradient for boxes is the slope to the right (down). Autocast changes nothing.
    Deterministic; crops and the gradient for features have the same bits on every instruction
    set, for boxes within rounding.

    Raises:
        TypeError: an argument is no tensor or has another dtype.
        ValueError: shapes, devices or size do not fit; `sampling` is unknown; mask requires a
            gradient.
    """
    features = require_tensor("features", features)
    require_dtype("features", features, _DTYPES)
    require_shape("features", features, "[B, C, H, W]")
    boxes = require_tensor("boxes", boxes)
    require_dtype("boxes", boxes, _DTYPES)
    require_shape("boxes", boxes, "[B, P, 4]", B=features.shape[0])
    require_device("boxes", boxes, "features", features)
    height, width = require_size("size", size)
    if sampling not in ("corners", "half_pixel"):
        raise ValueError(f"sampling must be 'corners' or 'half_pixel', got {sampling!r}")
    if mask is not None:
        mask = _mask_like(mask, features)
    compute = torch.float64 if features.dtype == torch.float64 else torch.float32
    chosen = _backend.choose(backend, features.device, "crop_and_resize")
    arguments = (features, boxes.to(compute), mask, height, width, sampling == "corners")
    if torch.is_grad_enabled() and (features.requires_grad or boxes.requires_grad):
        crops: Tensor = _CropAndResize.apply(*arguments, chosen)  # type: ignore[no-untyped-call]
        return crops
    run = _backend.implementation(chosen, "crop_and_resize", reference.crop_and_resize)
    crops = run(*arguments)
    return crops


def _mask_like(mask: Tensor, features: Tensor) -> Tensor:
    """mask in the dtype of the features, or an error."""
    mask = require_tensor("mask", mask)
    require_dtype("mask", mask, (torch.bool, *_DTYPES))
    batch, _, height, width = features.shape
    require_shape("mask", mask, "[B, 1, H, W]", B=batch, H=height, W=width)
    require_device("mask", mask, "features", features)
    refuse_gradients("crop_and_resize", mask=mask)
    return mask.to(features.dtype)


class _CropAndResize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        boxes: Tensor,
        mask: Tensor | None,
        height: int,
        width: int,
        corners: bool,
        backend: str,
    ) -> Tensor:
        ctx.save_for_backward(features, boxes, mask)
        ctx.corners = corners
        ctx.backend = backend
        run = _backend.implementation(backend, "crop_and_resize", reference.crop_and_resize)
        crops: Tensor = run(features, boxes, mask, height, width, corners)
        return crops

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        run = _backend.implementation(
            ctx.backend, "crop_and_resize_backward", reference.crop_and_resize_backward
        )
        need_features, need_boxes = ctx.needs_input_grad[:2]
        grad_features, grad_boxes = run(
            grad, *ctx.saved_tensors, ctx.corners, need_features, need_boxes
        )
        return (
            grad_features if need_features else None,
            grad_boxes if need_boxes else None,
            *(None,) * 5,
        )


def _is_channels_last(features: Tensor) -> bool:
    last = features.is_contiguous(memory_format=torch.channels_last)
    return last and not features.is_contiguous()


@_fake.register("crop_and_resize")
def _(
    features: Tensor, boxes: Tensor, mask: Tensor | None, height: int, width: int, corners: bool
) -> Tensor:
    batch, parts = boxes.shape[:2]
    channels = features.shape[1]
    if _is_channels_last(features):
        return features.new_empty((batch, parts, height, width, channels)).permute(0, 1, 4, 2, 3)
    return features.new_empty((batch, parts, channels, height, width))


@_fake.register("crop_and_resize_backward")
def _(
    grad: Tensor,
    features: Tensor,
    boxes: Tensor,
    mask: Tensor | None,
    corners: bool,
    need_features: bool,
    need_boxes: bool,
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = features.shape
    if not need_features:
        grad_features = features.new_empty(0)
    elif _is_channels_last(features):
        grad_features = features.new_empty((batch, height, width, channels)).permute(0, 3, 1, 2)
    else:
        grad_features = features.new_empty(features.shape)
    return grad_features, boxes.new_empty(boxes.shape if need_boxes else (0,))
