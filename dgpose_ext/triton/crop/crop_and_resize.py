"""crop_and_resize in Triton: the positions of all samples, then tiles of channels and columns.

Tiles are [channels, columns], or [columns, channels] where the features are channels_last.
Maths: csrc/crop/crop_and_resize.h. Arguments as torch.ops.dgpose.crop_and_resize.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpose_ext.triton._launch import ceil_divide, is_finite, launch, power_of_2

#: Samples of a program that computes positions.
POSITIONS = 128
#: Elements of a tile, and how many rows of a crop one program fills with the same columns.
TILE = 2048
ROWS = 8
#: Elements of a tile of the backward, which keeps up to three sums for each.
BACKWARD_TILE = 1024


@triton.jit
def _position(first, second, k, size, count, CORNERS: tl.constexpr):
    """Where sample k of `count` between two coordinates of a box lies, in float64."""
    if CORNERS:
        scale = tl.maximum(size, 1) * tl.maximum(count - 1, 1)
        spread = (first * (count - 1) + k * (second - first)) * (size - 1) / scale
        middle = (first + second) * 0.5 * (size - 1) / tl.maximum(size, 1)
        return tl.where(count > 1, spread, middle)
    else:
        return first - 0.5 + (k + 0.5) * (second - first) / count


@triton.jit
def crop_and_resize_positions_kernel(
    boxes, positions, height, width, rows, columns, tiles,
    CORNERS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """positions [B P, rows + columns] of the samples of all crops, NaN where not inside."""
    T: tl.constexpr = boxes.dtype.element_ty
    n = (tl.program_id(0) // tiles).to(tl.int64)
    sample = (tl.program_id(0) % tiles).to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)
    there = sample < rows + columns
    is_row = sample < rows
    size = tl.where(is_row, height, width).to(tl.float64)
    count = tl.where(is_row, rows, columns).to(tl.float64)
    k = tl.where(is_row, sample, sample - rows).to(tl.float64)
    box = boxes + 4 * n + tl.where(is_row, 1, 0)
    first = tl.load(box, there, 0).to(tl.float64)
    second = tl.load(box + 2, there, 0).to(tl.float64)
    position = _position(first, second, k, size, count, CORNERS).to(T)
    low: tl.constexpr = 0 if CORNERS else -1
    high = (size - 1 if CORNERS else size).to(T)
    inside = (position >= low) & (position <= high) & (size > 0)
    position = tl.where(inside, position, float("nan"))
    tl.store(positions + n * (rows + columns) + sample, position, there)


@triton.jit
def _axis(position, size):
    """lo, hi, the weight of hi, and whether a sample is inside."""
    # True stands first since the interpreter broadcasts a comparison of scalars as numbers.
    inside = True & (position == position)
    clamped = tl.where(inside & (position > 0), position, 0)
    lo = tl.minimum(clamped.to(tl.int64), size - 1)
    hi = tl.minimum(lo + 1, size - 1)
    return lo, hi, tl.where(lo == hi, 0, clamped - lo.to(position.dtype)), inside


@triton.jit
def _columns(v, LAST: tl.constexpr):
    """A vector of columns, to be combined with one of channels."""
    return v[:, None] if LAST else v[None, :]


@triton.jit
def _channels(v, LAST: tl.constexpr):
    return v[None, :] if LAST else v[:, None]


@triton.jit
def _pixels(image, y, stride_y, x, stride_x, mask, mask_y, mask_x, inside, column_inside,
            T: tl.constexpr):  # fmt: skip
    """features (times mask) in row y at columns x; `image` has the offsets of the channels."""
    value = tl.load(image + y * stride_y + x * stride_x, inside, 0).to(T)
    if mask is not None:
        value *= tl.load(mask + y * mask_y + x * mask_x, column_inside, 0).to(T)
    return value


@triton.jit
def crop_and_resize_kernel(
    features, feature_b, feature_c, feature_y, feature_x, mask, mask_b, mask_y, mask_x, positions,
    out, out_n, out_c, out_y, out_x, parts, channels, height, width, rows, columns,
    channel_tiles, row_tiles, column_tiles, LAST: tl.constexpr,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = positions.dtype.element_ty
    id = tl.program_id(0)
    column = (id % column_tiles).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    id = id // column_tiles
    top = (id % row_tiles).to(tl.int64) * ROWS
    id = id // row_tiles
    channel = (id % channel_tiles).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    n = (id // channel_tiles).to(tl.int64)
    positions += n * (rows + columns)
    b = n // parts
    image = features + b * feature_b + _channels(channel * feature_c, LAST)
    if mask is not None:
        mask += b * mask_b
    to = out + n * out_n + _channels(channel * out_c, LAST) + _columns(column * out_x, LAST)
    stored = _channels(channel < channels, LAST) & _columns(column < columns, LAST)
    x = tl.load(positions + rows + column, column < columns, float("nan"))
    left, right, weight_x, inside_x = _axis(x, width)
    left, right = _columns(left, LAST), _columns(right, LAST)
    weight_x, inside_x = _columns(weight_x, LAST), _columns(inside_x, LAST)
    for row in range(top, tl.minimum(top + ROWS, rows)):
        lo, hi, weight_y, inside_y = _axis(tl.load(positions + row), height)
        read = inside_x & inside_y
        inside = read & stored
        at_left = (1 - weight_y) * _pixels(
            image, lo, feature_y, left, feature_x, mask, mask_y, mask_x, inside, read, T
        ) + weight_y * _pixels(
            image, hi, feature_y, left, feature_x, mask, mask_y, mask_x, inside, read, T
        )
        at_right = (1 - weight_y) * _pixels(
            image, lo, feature_y, right, feature_x, mask, mask_y, mask_x, inside, read, T
        ) + weight_y * _pixels(
            image, hi, feature_y, right, feature_x, mask, mask_y, mask_x, inside, read, T
        )
        value = (1 - weight_x) * at_left + weight_x * at_right
        value = tl.where(inside, value, 0).to(out.dtype.element_ty)
        tl.store(to + row * out_y, value, stored)


def _is_channels_last(features: Tensor) -> bool:
    last = features.is_contiguous(memory_format=torch.channels_last)
    return last and not features.is_contiguous()


def _positions(
    features: Tensor, boxes: Tensor, rows: int, columns: int, corners: bool
) -> tuple[Tensor, Tensor]:
    """boxes, dense, and the positions [B, P, rows + columns] of their samples."""
    height, width = features.shape[2:]
    boxes = boxes.contiguous()
    positions = boxes.new_empty((*boxes.shape[:2], rows + columns))
    block = power_of_2(rows + columns, POSITIONS)
    tiles = ceil_divide(rows + columns, block)
    launch(
        crop_and_resize_positions_kernel, boxes.shape[0] * boxes.shape[1] * tiles, positions,
        boxes, positions, height, width, rows, columns, tiles, CORNERS=corners, POSITIONS=block,
    )  # fmt: skip
    return boxes, positions


def _tile(columns: int, channels: int, elements: int, last: bool) -> dict[str, Any]:
    """COLUMNS and CHANNELS of a tile: whole vectors of the dense axis, few idle lanes."""
    if last:
        wide = power_of_2(channels, min(128, elements))
        return {"LAST": True, "CHANNELS": wide, "COLUMNS": power_of_2(columns, elements // wide)}
    wide = power_of_2(columns, min(64, elements))
    for narrower in (32, 16):
        if narrower < wide and -columns % narrower < -columns % wide:
            wide = narrower
    return {"LAST": False, "COLUMNS": wide, "CHANNELS": power_of_2(channels, elements // wide)}


def _mask_arguments(mask: Tensor | None) -> tuple[Tensor | None, int, int, int]:
    """The mask [B, 1, H, W] and its strides of images, rows and columns."""
    if mask is None:
        return None, 0, 0, 0
    b, _, y, x = mask.stride()
    return mask, b, y, x


def crop_and_resize(
    features: Tensor, boxes: Tensor, mask: Tensor | None, height: int, width: int, corners: bool
) -> Tensor:
    """crops [B, P, C, h, w]; boxes [B, P, 4] in the compute dtype, mask [B, 1, H, W]."""
    batch, channels, image_height, image_width = features.shape
    parts = boxes.shape[1]
    last = _is_channels_last(features)
    if last:
        out = features.new_empty((batch, parts, height, width, channels)).permute(0, 1, 4, 2, 3)
    else:
        out = features.new_empty((batch, parts, channels, height, width))
    _, positions = _positions(features, boxes, height, width, corners)
    tile = _tile(width, channels, TILE, last)
    channel_tiles = ceil_divide(channels, tile["CHANNELS"])
    column_tiles = ceil_divide(width, tile["COLUMNS"])
    rows = power_of_2(height, ROWS)
    row_tiles = ceil_divide(height, rows)
    launch(
        crop_and_resize_kernel, batch * parts * channel_tiles * row_tiles * column_tiles, out,
        features, *features.stride(), *_mask_arguments(mask), positions, out, *out.stride()[1:],
        parts, channels, image_height, image_width, height, width,
        channel_tiles, row_tiles, column_tiles, ROWS=rows, **tile,
    )  # fmt: skip
    return out


@triton.jit
def _samples_at(pixel, first, second, size, count, CORNERS: tl.constexpr):
    """The samples [begin, end) of an axis that may read a pixel; all where the box is a line."""
    zero = tl.full((), 0, tl.float64)
    start = _position(first, second, zero, size, count, CORNERS)
    step = _position(first, second, zero + 1, size, count, CORNERS) - start
    known = is_finite(start) & is_finite(step) & (step != 0)
    divisor = tl.where(known, step, 1)
    # Positions were rounded; quotients are not exact.
    at = pixel.to(tl.float64)
    reach = 1.00001 + 1e-6 * at
    one, other = (at - reach - start) / divisor, (at + reach - start) / divisor
    begin = tl.ceil(tl.minimum(one, other) - 1e-6)
    end = tl.floor(tl.maximum(one, other) + 1e-6) + 1
    begin = tl.where(known, tl.minimum(tl.maximum(begin, 0), count), 0)
    end = tl.where(known, tl.minimum(tl.maximum(end, 0), count), count)
    return begin.to(tl.int64), end.to(tl.int64)


@triton.jit
def _weight_of(pixel, position, size):
    """The weight with which a sample reads a pixel, and whether it does."""
    lo, hi, weight, inside = _axis(position, size)
    reads = inside & ((lo == pixel) | (hi == pixel))
    # At the last pixel lo is hi: the whole weight is that of lo.
    return tl.where(reads, tl.where(lo == pixel, 1 - weight, weight), 0), reads


@triton.jit
def crop_and_resize_features_kernel(
    grad, grad_b, grad_p, grad_c, grad_y, grad_x, mask, mask_b, mask_y, mask_x, boxes, positions,
    out, out_b, out_c, out_y, out_x, parts, channels, height, width, rows, columns,
    channel_tiles, column_tiles, CORNERS: tl.constexpr, LAST: tl.constexpr,
    CHANNELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient for features: a row of pixels gathers from all samples that read it."""
    T: tl.constexpr = positions.dtype.element_ty
    id = tl.program_id(0)
    x = (id % column_tiles).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    id = id // column_tiles
    channel = (id % channel_tiles).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    id = id // channel_tiles
    y = (id % height).to(tl.int64)
    b = (id // height).to(tl.int64)
    stored = _channels(channel < channels, LAST) & _columns(x < width, LAST)
    size_y, count_y = tl.full((), height, tl.float64), tl.full((), rows, tl.float64)
    size_x, count_x = tl.full((), width, tl.float64), tl.full((), columns, tl.float64)
    total = tl.zeros((COLUMNS, CHANNELS) if LAST else (CHANNELS, COLUMNS), T)
    for part in range(parts):
        n = b * parts + part
        part = n - b * parts  # as int64
        box = boxes + 4 * n
        x_1, y_1 = tl.load(box).to(tl.float64), tl.load(box + 1).to(tl.float64)
        x_2, y_2 = tl.load(box + 2).to(tl.float64), tl.load(box + 3).to(tl.float64)
        at = positions + n * (rows + columns)
        from_y, to_y = _samples_at(y, y_1, y_2, size_y, count_y, CORNERS)
        from_x, to_x = _samples_at(x, x_1, x_2, size_x, count_x, CORNERS)
        most = tl.where(to_y > from_y, tl.max(to_x - from_x, 0), 0)
        crop = grad + b * grad_b + part * grad_p + _channels(channel * grad_c, LAST)
        for k in range(0, most):
            j = from_x + k
            position = tl.load(at + rows + j, j < to_x, float("nan"))
            weight_x, reads_x = _weight_of(x, position, width)
            reads_x = _columns(reads_x, LAST) & stored
            here = crop + _columns(j * grad_x, LAST)
            column_sum = tl.zeros((COLUMNS, CHANNELS) if LAST else (CHANNELS, COLUMNS), T)
            for i in range(from_y, to_y):
                weight_y, reads_y = _weight_of(y, tl.load(at + i), height)
                value = tl.load(here + i * grad_y, reads_x & reads_y, 0).to(T)
                column_sum += weight_y * value
            total += _columns(weight_x, LAST) * column_sum
    if mask is not None:
        scale = tl.load(mask + b * mask_b + y * mask_y + x * mask_x, x < width, 0).to(T)
        total *= _columns(scale, LAST)
    to = out + b * out_b + y * out_y
    to += _channels(channel * out_c, LAST) + _columns(x * out_x, LAST)
    tl.store(to, total.to(out.dtype.element_ty), stored)


@triton.jit
def _slopes(position, k, size, count, CORNERS: tl.constexpr):
    """The slopes of a sample's position by the box's first and second coordinate; 0 where it does
    not move."""
    T: tl.constexpr = position.dtype
    k = k.to(tl.float64)
    size = tl.full((), size, tl.float64)
    count = tl.full((), count, tl.float64)
    if CORNERS:
        scale = tl.maximum(size, 1) * tl.maximum(count - 1, 1)
        middle = 0.5 * (size - 1) / tl.maximum(size, 1)
        slope_1 = tl.where(count > 1, (count - 1 - k) * (size - 1) / scale, middle)
        slope_2 = tl.where(count > 1, k * (size - 1) / scale, middle)
    else:
        slope_2 = (k + 0.5) / count
        slope_1 = 1 - slope_2
    moves = position >= 0  # not so NaN, outside
    return tl.where(moves, slope_1, 0).to(T), tl.where(moves, slope_2, 0).to(T)


@triton.jit
def crop_and_resize_boxes_kernel(
    grad, grad_b, grad_p, grad_c, grad_y, grad_x, features, feature_b, feature_c, feature_y,
    feature_x, mask, mask_b, mask_y, mask_x, positions, out, parts, channels, height, width,
    rows, columns, channel_tiles, CORNERS: tl.constexpr, LAST: tl.constexpr,
    CHANNELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out [B P, channel tiles, 4] float64: what a box gets of some channels."""
    T: tl.constexpr = positions.dtype.element_ty
    n = (tl.program_id(0) // channel_tiles).to(tl.int64)
    tile = (tl.program_id(0) % channel_tiles).to(tl.int64)
    b, part = n // parts, n % parts
    channel = tile * CHANNELS + tl.arange(0, CHANNELS)
    positions += n * (rows + columns)
    image = features + b * feature_b + _channels(channel * feature_c, LAST)
    crop = grad + b * grad_b + part * grad_p + _channels(channel * grad_c, LAST)
    if mask is not None:
        mask += b * mask_b
    zero = tl.full((), 0, tl.int64)  # rows are counted in int64
    sum_x_1 = tl.full((), 0, tl.float64)
    sum_x_2 = tl.full((), 0, tl.float64)
    sum_y_1 = tl.full((), 0, tl.float64)
    sum_y_2 = tl.full((), 0, tl.float64)
    for start in range(0, columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS).to(tl.int64)
        x = tl.load(positions + rows + column, column < columns, float("nan"))
        slope_x_1, slope_x_2 = _slopes(x, column, width, columns, CORNERS)
        left, right, weight_x, inside_x = _axis(x, width)
        left, right = _columns(left, LAST), _columns(right, LAST)
        weight_x, inside_x = _columns(weight_x, LAST), _columns(inside_x, LAST)
        by_x = tl.zeros((COLUMNS, CHANNELS) if LAST else (CHANNELS, COLUMNS), T)
        by_y_1 = tl.zeros((COLUMNS, CHANNELS) if LAST else (CHANNELS, COLUMNS), T)
        by_y_2 = tl.zeros((COLUMNS, CHANNELS) if LAST else (CHANNELS, COLUMNS), T)
        for index in range(rows):
            row = zero + index
            y = tl.load(positions + row)
            slope_y_1, slope_y_2 = _slopes(y, row, height, rows, CORNERS)
            lo, hi, weight_y, inside_y = _axis(y, height)
            read = inside_x & inside_y
            inside = read & _channels(channel < channels, LAST)
            lo_left = _pixels(
                image, lo, feature_y, left, feature_x, mask, mask_y, mask_x, inside, read, T
            )
            hi_left = _pixels(
                image, hi, feature_y, left, feature_x, mask, mask_y, mask_x, inside, read, T
            )
            lo_right = _pixels(
                image, lo, feature_y, right, feature_x, mask, mask_y, mask_x, inside, read, T
            )
            hi_right = _pixels(
                image, hi, feature_y, right, feature_x, mask, mask_y, mask_x, inside, read, T
            )
            at = crop + row * grad_y + _columns(column * grad_x, LAST)
            g = tl.load(at, inside, 0).to(T)
            at_left = (1 - weight_y) * lo_left + weight_y * hi_left
            at_right = (1 - weight_y) * lo_right + weight_y * hi_right
            by_x += tl.where(inside, g * (at_right - at_left), 0)
            down = (1 - weight_x) * (hi_left - lo_left) + weight_x * (hi_right - lo_right)
            down = tl.where(inside, g * down, 0)
            by_y_1 += down * slope_y_1
            by_y_2 += down * slope_y_2
        sum_x_1 += _total(by_x * _columns(slope_x_1, LAST))
        sum_x_2 += _total(by_x * _columns(slope_x_2, LAST))
        sum_y_1 += _total(by_y_1)
        sum_y_2 += _total(by_y_2)
    to = out + 4 * (n * channel_tiles + tile)
    tl.store(to, sum_x_1)
    tl.store(to + 1, sum_y_1)
    tl.store(to + 2, sum_x_2)
    tl.store(to + 3, sum_y_2)


@triton.jit
def _total(x):
    return tl.sum(tl.sum(x.to(tl.float64), 1), 0)


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
    batch, channels, height, width = features.shape
    parts = boxes.shape[1]
    rows, columns = grad.shape[3:]
    last = _is_channels_last(features)
    boxes, positions = _positions(features, boxes, rows, columns, corners)
    grad_features, grad_boxes = features.new_empty(0), boxes.new_empty(0)
    if need_features:
        if last:
            grad_features = features.new_empty((batch, height, width, channels))
            grad_features = grad_features.permute(0, 3, 1, 2)
        else:
            grad_features = features.new_empty(features.shape)
        tile = _tile(width, channels, BACKWARD_TILE, last)
        channel_tiles = ceil_divide(channels, tile["CHANNELS"])
        column_tiles = ceil_divide(width, tile["COLUMNS"])
        launch(
            crop_and_resize_features_kernel, batch * height * channel_tiles * column_tiles, grad,
            grad, *grad.stride(), *_mask_arguments(mask), boxes, positions,
            grad_features, *grad_features.stride(), parts, channels, height, width, rows, columns,
            channel_tiles, column_tiles, CORNERS=corners, **tile,
        )  # fmt: skip
    if need_boxes:
        tile = _tile(columns, channels, BACKWARD_TILE, last)
        channel_tiles = ceil_divide(channels, tile["CHANNELS"])
        sums = boxes.new_empty((batch, parts, channel_tiles, 4), dtype=torch.float64)
        launch(
            crop_and_resize_boxes_kernel, batch * parts * channel_tiles, grad,
            grad, *grad.stride(), features, *features.stride(), *_mask_arguments(mask), positions,
            sums, parts, channels, height, width, rows, columns, channel_tiles,
            CORNERS=corners, **tile,
        )  # fmt: skip
        grad_boxes = sums.sum(2).to(boxes.dtype)
    return grad_features, grad_boxes
