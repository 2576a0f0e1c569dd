"""Small pieces of ONNX graphs that several translations use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnxscript import opset18
from onnxscript.ir import DataType, tensor

#: A value of the graph that is being written.
Value = Any

#: The operators. Their annotations are too narrow for values of any dtype.
op: Any = opset18


def constant(values: ArrayLike, dtype: DataType) -> Value:
    """A tensor with these values."""
    return op.Constant(value=tensor(np.asarray(values, dtype.numpy())))


def integers(*values: int) -> Value:
    """int64 [N]"""
    return constant(values, DataType.INT64)


def size(value: Value, axis: int) -> Value:
    """The size of an axis as int64 [1]."""
    return op.Shape(value, start=axis, end=axis + 1)


def to_float(value: Value) -> tuple[Value, DataType]:
    """The value in the dtype that ops compute in: float64 stays, others become float32."""
    dtype = DataType.DOUBLE if value.dtype == DataType.DOUBLE else DataType.FLOAT
    return value if value.dtype == dtype else op.Cast(value, to=dtype), dtype


def is_finite(value: Value, dtype: DataType) -> Value:
    """False for NaN and Inf."""
    return op.Less(op.Abs(value), constant(np.inf, dtype))


def inside(at: Value, before: int, length: Value, after: int) -> Value:
    """before <= at < length - after, of int64."""
    end = op.Sub(length, integers(after))
    return op.And(op.GreaterOrEqual(at, integers(before)), op.Less(at, end))


def numbers(count: Value, dtype: DataType) -> Value:
    """0, 1 .. count - 1; count is int64 [1]."""
    scalar = op.Squeeze(count, integers(0))
    return op.Cast(
        op.Range(constant(0, DataType.INT64), scalar, constant(1, DataType.INT64)), to=dtype
    )
