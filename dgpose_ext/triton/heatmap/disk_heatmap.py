"""disk_heatmap in Triton: one program a tile of a map.

Maths: csrc/heatmap/disk_heatmap.h, on integers. Arguments as torch.ops.dgpose.disk_heatmap.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpose_ext.triton._launch import as_bits, ceil_divide, is_finite, launch, tile_shape, truncate

#: Pixels of a tile.
TILE = 8192


def square_radius(radius: float) -> int:
    """The greatest integer s with sqrt(s) <= radius in float64: what i^2 + j^2 may be."""
    s = int(radius * radius) + 1
    while math.sqrt(s) > radius:
        s -= 1
    return s


@triton.jit
def disk_heatmap_kernel(
    keypoints, visible, out, height, width, pixels, tiles, tiles_across, square_radius, reach,
    ONE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    row = (tile // tiles_across).to(tl.int64) * ROWS
    column = (tile % tiles_across).to(tl.int64) * COLUMNS
    u, v = tl.load(keypoints + 2 * n), tl.load(keypoints + 2 * n + 1)
    drawn = is_finite(u) & is_finite(v)
    if visible is not None:
        drawn = drawn & tl.load(visible + n)
    # Relative to the tile, and never so far away that a square overflows.
    u = tl.where(drawn, truncate(u) - column, 0)
    v = tl.where(drawn, truncate(v) - row, 0)
    u = tl.minimum(tl.maximum(u, -reach - 1), COLUMNS + reach).to(tl.int32)
    v = tl.minimum(tl.maximum(v, -reach - 1), ROWS + reach).to(tl.int32)
    dx = tl.arange(0, COLUMNS) - u
    dy = tl.arange(0, ROWS) - v
    inside = (dy * dy)[:, None] + (dx * dx)[None, :] <= tl.where(drawn, square_radius, -1)
    x, y = column + tl.arange(0, COLUMNS), row + tl.arange(0, ROWS)
    to = out + n * pixels + (y * width)[:, None] + x[None, :]
    value = tl.where(inside, ONE, 0).to(out.dtype.element_ty)
    tl.store(to, value, (y < height)[:, None] & (x < width)[None, :])


def disk_heatmap(
    keypoints: Tensor,
    visible: Tensor | None,
    height: int,
    width: int,
    radius: float,
    dtype: torch.dtype,
) -> Tensor:
    """[B, K, H, W]; keypoints [B, K, 2] float64, visible [B, K] bool."""
    out = keypoints.new_empty((*keypoints.shape[:2], height, width), dtype=dtype)
    rows, columns = tile_shape(height, width, TILE)
    tiles_across = ceil_divide(width, columns)
    tiles = ceil_divide(height, rows) * tiles_across
    bits, one = as_bits(out)
    launch(
        disk_heatmap_kernel, out.shape[0] * out.shape[1] * tiles, out,
        keypoints.contiguous(), None if visible is None else visible.contiguous(),
        bits, height, width, height * width, tiles, tiles_across, square_radius(radius),
        int(radius), ONE=one, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return out
