"""body_mask: the mask of a body drawn along its limbs. Maths: csrc/heatmap/body_mask.h."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import limb_list, require_number, require_size
from dgpose_ext.ops.heatmap._binary import keypoints_and_visible, map_dtype
from dgpose_ext.reference.heatmap import body_mask as reference


def body_mask(
    keypoints: Tensor,
    limbs: Sequence[tuple[int, int]],
    size: tuple[int, int],
    radius: float,
    *,
    visible: Tensor | None = None,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    """Draws the mask of each body: disks along its limbs, then a closing.

    This is the mask by which Disentangled Person Image Generation (CVPR 2018) splits an image into
    foreground and background, with the limbs `dgpose.skeletons.DPIG_LIMBS` and radius 4 or 7
    (images of 128x64), 4 or 8 (256x256). A limb of length d is drawn where both its joints are
    visible: disks as in `disk_heatmap` at both ends and at int(d/radius) - 1 points between them,
    cut to pixels; then dilation and erosion by a 5x5 square (the border adds nothing to either).

    Args:
        keypoints: [B, K, 2] (x, y) in pixels, the first pixel's centre at (0, 0), cut toward zero.
            float16, bfloat16, float32, float64, int16, int32 or int64.
        limbs: L pairs of joints in 0 .. K-1.
        size: (H, W).
        radius: in pixels, 1 to 4096.
        visible: [B, K], any dtype: limbs with an end of 0 are not drawn. None: all are visible.
        dtype: float32, float64, float16, bfloat16, uint8 or bool; None: that of keypoints (float32
            for integers).
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        [B, 1, H, W] of zeros and ones. A joint that is NaN, Inf, or 2^20 pixels or further from
        the origin in x or y counts as not visible.

    No gradients: the mask is a step. Autocast changes nothing. Bit-identical on every backend,
    instruction set and number of threads.

    Raises:
        TypeError: an argument is of another type, or a tensor of another dtype; a joint of limbs is
            no integer.
        ValueError: shapes, devices, limbs, size or radius do not fit; keypoints requires a
            gradient.
    """
    points, seen = keypoints_and_visible("body_mask", keypoints, visible)
    pairs = limb_list(limbs, keypoints.shape[1])
    height, width = require_size("size", size)
    require_number("radius", radius)
    if not 1 <= radius <= 4096:
        raise ValueError(f"radius must be in 1 .. 4096 pixels, got {radius}")
    result = map_dtype(dtype, keypoints)
    chosen = _backend.choose(backend, keypoints.device, "body_mask")
    run = _backend.implementation(chosen, "body_mask", reference.body_mask)
    mask: Tensor = run(points, seen, pairs, height, width, float(radius), result)
    return mask


@_fake.register("body_mask")
def _(
    keypoints: Tensor,
    visible: Tensor | None,
    limbs: list[int],
    height: int,
    width: int,
    radius: float,
    dtype: torch.dtype,
) -> Tensor:
    return keypoints.new_empty((keypoints.shape[0], 1, height, width), dtype=dtype)
