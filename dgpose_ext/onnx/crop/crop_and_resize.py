"""crop_and_resize as ONNX operators. Maths: csrc/crop/crop_and_resize.h.

Pixels are looked up in a table [B H W + 1, C] whose last row is 0: that of samples outside. ONNX's
RoiAlign has the borders of "half_pixel" and is faster in ONNX Runtime, but it computes positions in
float32, and leaves open what it makes of NaN in boxes.
"""

from __future__ import annotations

from typing import NamedTuple

from onnxscript.ir import DataType

from dgpose_ext.onnx._build import Value, constant, integers, numbers, op, size, to_float


def translate(
    features: Value,
    boxes: Value,
    mask: Value | None,
    height: int | Value,
    width: int | Value,
    corners: bool,
) -> Value:
    """crops [B, P, C, h, w]; arguments as torch.ops.dgpose.crop_and_resize."""
    values, dtype = to_float(features)
    if mask is not None:
        values = op.Mul(values, to_float(mask)[0])
    images, rows, columns = size(values, 0), size(values, 2), size(values, 3)
    pixels = op.Mul(rows, columns)
    outside = op.Mul(images, pixels)  # index of the last row
    shape = op.Concat(outside, size(values, 1), axis=0)
    table = op.Reshape(op.Transpose(values, perm=[0, 2, 3, 1]), shape, allowzero=1)
    table = op.Pad(table, integers(0, 0, 1, 0), constant(0, dtype))

    boxes_64 = op.Cast(boxes, to=DataType.DOUBLE)
    x1, y1, x2, y2 = (op.Gather(boxes_64, integers(i), axis=2) for i in range(4))
    # Rows become [B, P, h, 1], columns [B, P, 1, w], and colours an axis behind both.
    y = _axis(y1, y2, rows, height, corners, dtype, 3)
    x = _axis(x1, x2, columns, width, corners, dtype, 2)
    image = op.Mul(numbers(images, DataType.INT64), pixels)
    image = op.Unsqueeze(image, integers(1, 2, 3))
    inside = op.And(y.inside, x.inside)

    def corner(row: Value, weight_y: Value, column: Value, weight_x: Value) -> Value:
        index = op.Add(op.Add(image, op.Mul(row, columns)), column)
        picked = op.Gather(table, op.Where(inside, index, outside))  # [B, P, h, w, C]
        weight = op.Unsqueeze(op.Mul(weight_y, weight_x), integers(4))
        return op.Mul(picked, weight)

    left = op.Add(
        corner(y.lo, y.weight_lo, x.lo, x.weight_lo), corner(y.hi, y.weight_hi, x.lo, x.weight_lo)
    )
    right = op.Add(
        corner(y.lo, y.weight_lo, x.hi, x.weight_hi), corner(y.hi, y.weight_hi, x.hi, x.weight_hi)
    )
    crops = op.Transpose(op.Add(left, right), perm=[0, 1, 4, 2, 3])
    return op.Cast(crops, to=features.dtype) if features.dtype != dtype else crops


class _Axis(NamedTuple):
    """The samples of one axis of all crops."""

    lo: Value  # pixels, int64
    hi: Value
    weight_lo: Value
    weight_hi: Value
    inside: Value


def _axis(
    first: Value,
    second: Value,
    length: Value,
    count: int | Value,
    corners: bool,
    dtype: DataType,
    unit_axis: int,
) -> _Axis:
    """Samples for box coordinates [B, P, 1] in float64 on an axis of `length` pixels (int64 [1]).

    All have the shape [B, P, count] with an axis of 1 put in at `unit_axis`.
    """

    def real(value: Value) -> Value:
        return op.Cast(value, to=DataType.DOUBLE)

    count = integers(count) if isinstance(count, int) else op.Reshape(count, integers(1))
    half, one = constant(0.5, DataType.DOUBLE), constant(1, DataType.DOUBLE)
    k, extent = numbers(count, DataType.DOUBLE), op.Sub(second, first)
    if corners:
        # One sample lies in the middle, as half the way along one step.
        k = op.Add(k, op.Mul(half, real(op.Equal(count, integers(1)))))
        steps = op.Max(op.Sub(real(count), one), one)
        last = op.Sub(real(length), one)
        scale = op.Mul(op.Max(real(length), one), steps)
        along = op.Add(op.Mul(first, steps), op.Mul(k, extent))
        position = op.Div(op.Mul(along, last), scale)
        low, high = constant(0, dtype), op.Cast(last, to=dtype)
    else:
        along = op.Div(op.Mul(op.Add(k, half), extent), real(count))
        position = op.Add(op.Sub(first, half), along)
        low, high = constant(-1, dtype), op.Cast(length, to=dtype)
    position = op.Unsqueeze(op.Cast(position, to=dtype), integers(unit_axis))
    within = op.And(op.GreaterOrEqual(position, low), op.LessOrEqual(position, high))
    inside = op.And(within, op.Greater(length, integers(0)))
    zero = constant(0, dtype)
    clamped = op.Max(op.Where(inside, position, zero), zero)
    end = op.Sub(length, integers(1))
    lo = op.Min(op.Cast(clamped, to=DataType.INT64), end)
    hi = op.Min(op.Add(lo, integers(1)), end)
    weight = op.Where(op.Equal(lo, hi), zero, op.Sub(clamped, op.Cast(lo, to=dtype)))
    return _Axis(lo, hi, op.Sub(constant(1, dtype), weight), weight, inside)
