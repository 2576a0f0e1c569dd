"""crop_and_resize in plain torch: the oracle of the tests and the fallback.

Maths: csrc/crop/crop_and_resize.h. Arguments as torch.ops.dgpose.crop_and_resize.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class _Axis(NamedTuple):
    """The samples [B, P, n] of one axis of all crops."""

    lo: Tensor  #: pixels, int64
    hi: Tensor
    weight_lo: Tensor
    weight_hi: Tensor
    inside: Tensor  #: bool
    slope_1: Tensor  #: of the position by the box's first and second coordinate
    slope_2: Tensor


def _axis(first: Tensor, second: Tensor, size: int, count: int, corners: bool) -> _Axis:
    """Samples for box coordinates [B, P] on an axis of `size` pixels."""
    k = torch.arange(count, dtype=torch.float64, device=first.device)
    a, b = first.double()[..., None], second.double()[..., None]
    if not corners:
        position = a - 0.5 + (k + 0.5) * (b - a) / count
        slope_2 = (k + 0.5) / count
        slope_1 = 1 - slope_2
        low, high = -1, size
    else:
        if count > 1:
            scale = max(size, 1) * (count - 1)
            position = (a * (count - 1) + k * (b - a)) * (size - 1) / scale
            slope_1 = (count - 1 - k) * (size - 1) / scale
            slope_2 = k * (size - 1) / scale
        else:
            position = (a + b) * 0.5 * (size - 1) / max(size, 1) + 0 * k
            slope_1 = slope_2 = torch.full_like(k, 0.5 * (size - 1) / max(size, 1))
        low, high = 0, size - 1
    position = position.to(first.dtype)
    inside = (position >= low) & (position <= high) & (size > 0)
    clamped = torch.where(inside, position, 0).clamp(min=0)
    lo = clamped.long().clamp(max=max(size - 1, 0))
    hi = (lo + 1).clamp(max=max(size - 1, 0))
    weight = torch.where(lo == hi, 0, clamped - lo)
    moves = inside & (position >= 0)
    slopes = (torch.where(moves, s.to(first.dtype), 0) for s in (slope_1, slope_2))
    return _Axis(lo, hi, 1 - weight, weight, inside, *slopes)


def _axes(
    features: Tensor, boxes: Tensor, height: int, width: int, corners: bool
) -> tuple[_Axis, _Axis]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    y = _axis(y1, y2, features.shape[2], height, corners)
    x = _axis(x1, x2, features.shape[3], width, corners)
    return y, x


def _corner(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """values [B, C, H, W] at rows [B, P, h] and columns [B, P, w]: [B, P, h, w, C]."""
    image = torch.arange(values.shape[0], device=values.device)[:, None, None, None]
    return values.permute(0, 2, 3, 1)[image, rows[..., :, None], columns[..., None, :]]


def _weighted(values: Tensor, y: _Axis, x: _Axis, along: str = "") -> Tensor:
    """The crops [B, P, h, w, C], or their derivative by the positions of one axis."""

    def weights(axis: _Axis, name: str) -> tuple[Tensor, Tensor]:
        if along == name:
            one = torch.ones_like(axis.weight_lo)
            return -one, one
        return axis.weight_lo, axis.weight_hi

    (y_lo, y_hi), (x_lo, x_hi) = weights(y, "y"), weights(x, "x")
    y_lo, y_hi = y_lo[..., :, None, None], y_hi[..., :, None, None]
    x_lo, x_hi = x_lo[..., None, :, None], x_hi[..., None, :, None]
    left = y_lo * _corner(values, y.lo, x.lo) + y_hi * _corner(values, y.hi, x.lo)
    right = y_lo * _corner(values, y.lo, x.hi) + y_hi * _corner(values, y.hi, x.hi)
    inside = y.inside[..., :, None, None] & x.inside[..., None, :, None]
    return torch.where(inside, x_lo * left + x_hi * right, 0)


def _values(features: Tensor, boxes: Tensor, mask: Tensor | None) -> Tensor:
    """features * mask in the dtype of the boxes; with at least one pixel, for the look-ups."""
    values = features.to(boxes.dtype)
    if mask is not None:
        values = values * mask.to(boxes.dtype)
    batch, channels, height, width = values.shape
    if height * width == 0:
        return values.new_zeros((batch, channels, max(height, 1), max(width, 1)))
    return values


def _is_channels_last(features: Tensor) -> bool:
    last = features.is_contiguous(memory_format=torch.channels_last)
    return last and not features.is_contiguous()


def crop_and_resize(
    features: Tensor, boxes: Tensor, mask: Tensor | None, height: int, width: int, corners: bool
) -> Tensor:
    """crops [B, P, C, h, w]; boxes [B, P, 4] in the compute dtype, mask [B, 1, H, W]."""
    y, x = _axes(features, boxes, height, width, corners)
    crops = _weighted(_values(features, boxes, mask), y, x).to(features.dtype)
    crops = crops.permute(0, 1, 4, 2, 3)
    return crops if _is_channels_last(features) else crops.contiguous()


def _feature_gradient(grad: Tensor, y: _Axis, x: _Axis, height: int, width: int) -> Tensor:
    """The transposed sum of grad [B, P, C, h, w]: [B, C, H, W]."""

    def matrix(axis: _Axis, size: int) -> Tensor:
        """[B, P, n, size]: which pixel each sample reads with which weight."""
        rows = axis.lo.new_zeros((*axis.lo.shape, size), dtype=grad.dtype)
        if size == 0:
            return rows
        inside = axis.inside.to(grad.dtype)
        rows.scatter_add_(-1, axis.lo[..., None], (axis.weight_lo * inside)[..., None])
        rows.scatter_add_(-1, axis.hi[..., None], (axis.weight_hi * inside)[..., None])
        return rows

    # What lies outside was never read: an Inf there must not meet a weight of 0.
    inside = y.inside[:, :, None, :, None] & x.inside[:, :, None, None, :]
    grad = torch.where(inside, grad, 0)
    by_row = matrix(y, height).transpose(-1, -2)[:, :, None] @ grad
    return (by_row @ matrix(x, width)[:, :, None]).sum(1)


def crop_and_resize_backward(
    grad: Tensor,
    features: Tensor,
    boxes: Tensor,
    mask: Tensor | None,
    corners: bool,
    need_features: bool,
    need_boxes: bool,
) -> tuple[Tensor, Tensor]:
    """grad_features [B, C, H, W] and grad_boxes [B, P, 4]; what is not needed has shape [0]."""
    height, width = features.shape[2:]
    y, x = _axes(features, boxes, grad.shape[3], grad.shape[4], corners)
    grad = grad.to(boxes.dtype)
    grad_features, grad_boxes = features.new_empty(0), boxes.new_empty(0)
    if need_features:
        gathered = _feature_gradient(grad, y, x, height, width)
        if mask is not None:
            gathered = gathered * mask.to(boxes.dtype)
        memory_format = (
            torch.channels_last if _is_channels_last(features) else torch.contiguous_format
        )
        grad_features = gathered.to(features.dtype).contiguous(memory_format=memory_format)
    if need_boxes:
        values = _values(features, boxes, mask)
        products = grad.permute(0, 1, 3, 4, 2)
        by_x = (products * _weighted(values, y, x, "x")).sum((2, 4))
        by_y = (products * _weighted(values, y, x, "y")).sum((3, 4))
        sums = (
            (by_x * x.slope_1).sum(-1),
            (by_y * y.slope_1).sum(-1),
            (by_x * x.slope_2).sum(-1),
            (by_y * y.slope_2).sum(-1),
        )
        grad_boxes = torch.stack(sums, -1)
    return grad_features, grad_boxes
