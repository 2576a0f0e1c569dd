"""Shared by the ops that draw 0 and 1 around keypoints: their checks and dtypes."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpose_ext._validate import (
    refuse_gradients,
    require_dtype,
    require_shape,
    require_tensor,
    visible_mask,
)

KEYPOINT_DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16,
)  # fmt: skip
MAP_DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.bool,
)  # fmt: skip


def keypoints_and_visible(
    op: str, keypoints: Tensor, visible: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """keypoints as float64 [B, K, 2] and visible as bool [B, K], or the error of the public op.

    float64 holds every value of the other dtypes, so that pixels do not depend on the dtype.
    """
    keypoints = require_tensor("keypoints", keypoints)
    require_dtype("keypoints", keypoints, KEYPOINT_DTYPES)
    require_shape("keypoints", keypoints, "[B, K, 2]")
    refuse_gradients(op, keypoints=keypoints)
    return keypoints.double(), visible_mask(visible, keypoints)


def map_dtype(dtype: torch.dtype | None, keypoints: Tensor) -> torch.dtype:
    """The dtype of the result: `dtype`, or that of the keypoints (float32 for integers)."""
    if dtype is None:
        return keypoints.dtype if keypoints.dtype.is_floating_point else torch.float32
    if dtype not in MAP_DTYPES:
        wanted = ", ".join(str(d).removeprefix("torch.") for d in MAP_DTYPES)
        raise TypeError(f"dtype must be one of {wanted}, got {dtype!r}")
    return dtype
