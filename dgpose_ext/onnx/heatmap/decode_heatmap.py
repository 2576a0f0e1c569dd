"""decode_heatmap as ONNX operators. Maths: csrc/heatmap/decode_heatmap.h.

As in the compiled op, dark blurs the pixels around the peaks alone, and in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from onnxscript.ir import DataType

from dgpose_ext.onnx._build import (
    Value,
    constant,
    inside,
    integers,
    is_finite,
    numbers,
    op,
    size,
    to_float,
)
from dgpose_ext.ops.heatmap.decode_heatmap import METHODS
from dgpose_ext.reference.heatmap.decode_heatmap import blur_taps


def translate(heatmaps: Value, method: int, blur_kernel: int, beta: float) -> tuple[Value, Value]:
    """coords [B, K, 2] and scores [B, K]; arguments as torch.ops.dgpose.decode_heatmap."""
    maps, dtype = to_float(heatmaps)
    peak = _peak(maps, dtype)
    coords = op.Cast(op.Concat(peak.x, peak.y, axis=1), to=dtype)
    name = METHODS[method]
    if name == "quarter":
        coords = op.Add(coords, _quarter_shift(peak, dtype))
    elif name == "dark":
        shift = _dark_shift(peak, np.array(blur_taps(blur_kernel)))
        coords = op.Cast(op.Add(op.Cast(coords, to=DataType.DOUBLE), shift), to=dtype)
    elif name == "softargmax":
        mean = _mean_pixel(maps, peak, beta, dtype)
        coords = op.Where(is_finite(peak.score, dtype), mean, coords)
    shape = op.Shape(maps, start=0, end=2)
    coords = op.Reshape(coords, op.Concat(shape, integers(2), axis=0), allowzero=1)
    return coords, op.Reshape(peak.score, shape, allowzero=1)


class _Peak(NamedTuple):
    """The peaks of N = B K maps."""

    flat: Value  # the maps, [N, HW]
    without_nan: Value  # -Inf in the place of NaN
    height: Value  # int64 [1]
    width: Value
    x: Value  # int64 [N, 1]
    y: Value
    score: Value  # [N, 1]


def _peak(maps: Value, dtype: DataType) -> _Peak:
    height, width = size(maps, 2), size(maps, 3)
    # No Flatten: onnxscript's optimizer breaks two of them on one value.
    count, pixels = op.Mul(size(maps, 0), size(maps, 1)), op.Mul(height, width)
    flat = op.Reshape(maps, op.Concat(count, pixels, axis=0), allowzero=1)
    # ONNX leaves open what ReduceMax makes of a NaN.
    without_nan = op.Where(op.IsNaN(flat), constant(-math.inf, dtype), flat)
    largest = op.ReduceMax(without_nan, integers(1), keepdims=1)
    first = op.ArgMax(op.Cast(op.Equal(flat, largest), to=DataType.UINT8), axis=1, keepdims=1)
    score = op.GatherElements(flat, first, axis=1)
    x, y = op.Mod(first, width), op.Div(first, width)
    return _Peak(flat, without_nan, height, width, x, y, score)


def _beside_peak(peak: _Peak, dx: Value, dy: Value) -> Value:
    """The values [N, P] at peak + (dx, dy), int64 [P]; coordinates are brought inside."""

    def bring_inside(at: Value, length: Value) -> Value:
        return op.Min(op.Max(at, integers(0)), op.Sub(length, integers(1)))

    x = bring_inside(op.Add(peak.x, dx), peak.width)
    y = bring_inside(op.Add(peak.y, dy), peak.height)
    return op.GatherElements(peak.flat, op.Add(op.Mul(y, peak.width), x), axis=1)


def _quarter_shift(peak: _Peak, dtype: DataType) -> Value:
    """[N, 2]"""
    after = _beside_peak(peak, integers(1, 0), integers(0, 1))
    before = _beside_peak(peak, integers(-1, 0), integers(0, -1))
    sign = op.Sub(
        op.Cast(op.Greater(after, before), to=dtype), op.Cast(op.Less(after, before), to=dtype)
    )
    moves_x = op.And(inside(peak.x, 2, peak.width, 1), op.Greater(peak.y, integers(0)))
    moves_y = op.And(inside(peak.y, 2, peak.height, 1), op.Greater(peak.x, integers(0)))
    moves = op.Concat(moves_x, moves_y, axis=1)
    return op.Where(moves, op.Mul(sign, constant(0.25, dtype)), constant(0, dtype))


def _dark_shift(peak: _Peak, taps: np.ndarray) -> Value:
    """[N, 2] in float64"""
    around = np.arange(-2 - len(taps) // 2, 3 + len(taps) // 2)
    grid_x, grid_y = np.meshgrid(around, around)
    dx, dy = constant(grid_x.ravel(), DataType.INT64), constant(grid_y.ravel(), DataType.INT64)
    in_map = op.And(
        inside(op.Add(peak.x, dx), 0, peak.width, 0), inside(op.Add(peak.y, dy), 0, peak.height, 0)
    )
    values = op.Cast(_beside_peak(peak, dx, dy), to=DataType.DOUBLE)
    patch = op.Where(in_map, values, constant(0, DataType.DOUBLE))
    patch = op.Reshape(patch, integers(0, len(around), len(around)))
    # Windows, and not a matrix with zeros, in which a NaN would reach beyond the taps.
    window = constant(np.arange(5)[:, None] + np.arange(len(taps)), DataType.INT64)
    weight = constant(taps[:, None], DataType.DOUBLE)
    rows = op.Mul(op.Gather(patch, window, axis=1), weight)  # [N, 5, taps, columns]
    rows = op.ReduceSum(rows, integers(2), keepdims=0)
    blurred = op.MatMul(op.Gather(rows, window, axis=2), weight)  # [N, 5, 5, 1]
    floor = constant(1e-10, DataType.DOUBLE)
    log = op.Log(op.Where(op.Less(blurred, floor), floor, blurred))  # a NaN stays
    log = op.Flatten(log)

    def at(*offsets: tuple[int, int]) -> Value:
        return op.Gather(log, integers(*(5 * (2 + y) + 2 + x for x, y in offsets)), axis=1)

    half, quarter, two = (constant(value, DataType.DOUBLE) for value in (0.5, 0.25, 2.0))
    gradient = op.Mul(half, op.Sub(at((1, 0), (0, 1)), at((-1, 0), (0, -1))))
    outer = op.Sub(at((2, 0), (0, 2)), op.Mul(two, at((0, 0))))
    hessian = op.Mul(quarter, op.Add(outer, at((-2, 0), (0, -2))))  # hxx, hyy
    falling = op.Sub(op.Sub(at((1, 1)), at((1, -1))), at((-1, 1)))
    hxy = op.Mul(quarter, op.Add(falling, at((-1, -1))))

    hyy_hxx, gy_gx = (op.Gather(both, integers(1, 0), axis=1) for both in (hessian, gradient))
    det = op.Sub(op.ReduceProd(hessian, integers(1), keepdims=1), op.Mul(hxy, hxy))
    shift = op.Div(op.Sub(op.Mul(hxy, gy_gx), op.Mul(hyy_hxx, gradient)), det)
    moves = op.And(inside(peak.x, 2, peak.width, 2), inside(peak.y, 2, peak.height, 2))
    finite = is_finite(op.ReduceSum(shift, integers(1), keepdims=1), DataType.DOUBLE)
    return op.Where(op.And(moves, finite), shift, constant(0, DataType.DOUBLE))


def _mean_pixel(maps: Value, peak: _Peak, beta: float, dtype: DataType) -> Value:
    """[N, 2], the mean under softmax(beta * maps)."""
    below = op.Sub(peak.without_nan, peak.score)
    weights = op.Exp(op.Mul(below, constant(beta, dtype)))
    weights = op.Reshape(weights, op.Shape(maps), allowzero=1)
    by_column = op.Flatten(op.ReduceSum(weights, integers(2), keepdims=0), axis=2)
    by_row = op.Flatten(op.ReduceSum(weights, integers(3), keepdims=0), axis=2)
    moments = [
        op.ReduceSum(op.Mul(sums, numbers(length, dtype)), integers(1), keepdims=1)
        for sums, length in ((by_column, peak.width), (by_row, peak.height))
    ]
    total = op.ReduceSum(by_column, integers(1), keepdims=1)
    return op.Div(op.Concat(*moments, axis=1), total)
