"""disk_heatmap: a disk of ones around each keypoint. Maths: csrc/heatmap/disk_heatmap.h."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import require_number, require_size
from dgpose_ext.ops.heatmap._binary import keypoints_and_visible, map_dtype
from dgpose_ext.reference.heatmap import disk_heatmap as reference


def disk_heatmap(
    keypoints: Tensor,
    size: tuple[int, int],
    radius: float,
    *,
    visible: Tensor | None = None,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    """Draws one map a keypoint: 1 inside a disk around it, 0 elsewhere.

    These are the pose maps of Disentangled Person Image Generation (CVPR 2018): 18 of them with
    radius 4 (49 pixels each); their values -1 and 1 are 2 * x - 1. A pixel is 1 where
    sqrt(i^2 + j^2) <= radius, i and j its distance in rows and columns from the pixel
    (int(x), int(y)) of the keypoint, cut toward zero. The disk is clipped at the border.

    Args:
        keypoints: [B, K, 2] (x, y) in pixels, the first pixel's centre at (0, 0). float16,
            bfloat16, float32, float64, int16, int32 or int64.
        size: (H, W).
        radius: in pixels, 0 to 4096. 0 draws a single pixel.
        visible: [B, K], any dtype: 0 gives a map of zeros. None: all are visible.
        dtype: float32, float64, float16, bfloat16, uint8 or bool; None: that of keypoints (float32
            for integers).
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        [B, K, H, W] of zeros and ones. A keypoint that is NaN, Inf or so far outside that its disk
        does not reach the image gives zeros.

    No gradients: the maps are steps. Autocast changes nothing. Bit-identical on every backend and
    for any number of threads.

    Raises:
        TypeError: an argument is of another type, or a tensor of another dtype.
        ValueError: shapes, devices, size or radius do not fit; keypoints requires a gradient.
    """
    centers, seen = keypoints_and_visible("disk_heatmap", keypoints, visible)
    height, width = require_size("size", size)
    require_number("radius", radius)
    if not 0 <= radius <= 4096:
        raise ValueError(f"radius must be in 0 .. 4096 pixels, got {radius}")
    result = map_dtype(dtype, keypoints)
    chosen = _backend.choose(backend, keypoints.device, "disk_heatmap")
    run = _backend.implementation(chosen, "disk_heatmap", reference.disk_heatmap)
    maps: Tensor = run(centers, seen, height, width, float(radius), result)
    return maps


@_fake.register("disk_heatmap")
def _(
    keypoints: Tensor,
    visible: Tensor | None,
    height: int,
    width: int,
    radius: float,
    dtype: torch.dtype,
) -> Tensor:
    return keypoints.new_empty((*keypoints.shape[:2], height, width), dtype=dtype)
