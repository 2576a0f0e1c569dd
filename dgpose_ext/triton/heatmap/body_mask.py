"""body_mask in Triton: one bit a pixel between two kernels, 32 pixels a word.

The first draws the disks as the dilation leaves them: a row of a dilated disk is an interval of
pixels, a few bits of each word. The second erodes by shifts of words, and writes bits as elements.
Maths: csrc/heatmap/body_mask.h. Arguments as torch.ops.dgpose.body_mask.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpose_ext.triton._launch import as_bits, ceil_divide, launch, on_device, tile_shape, truncate
from dgpose_ext.triton.heatmap.disk_heatmap import square_radius

#: Words of a tile while drawing, and while closing.
TILE = 256
CLOSE_TILE = 128

_FAR = tl.constexpr(1048576.0)


@triton.jit
def _joint(keypoints, visible, at):
    """The pixel of a joint, and whether it is drawn."""
    x, y = truncate(tl.load(keypoints + 2 * at)), truncate(tl.load(keypoints + 2 * at + 1))
    drawn = (tl.abs(x) < _FAR) & (tl.abs(y) < _FAR)
    if visible is not None:
        drawn = drawn & tl.load(visible + at)
    return tl.where(drawn, x, 0), tl.where(drawn, y, 0), drawn


@triton.jit
def _keep_near(begin, end, start, step, parts, low, high):
    """[begin, end) without the points far from low .. high: limbs may be longer than the map."""
    divisor = tl.where(step == 0, 1, step)
    from_low, from_high = (low - start) * parts / divisor, (high - start) * parts / divisor
    first = tl.minimum(from_low, from_high) - 1
    last = tl.maximum(from_low, from_high) + 2
    outside = (start < low) | (start > high)
    first = tl.where(step == 0, 0, tl.minimum(tl.maximum(first, 0), parts + 1))
    still = tl.where(outside, 0.0, parts + 1)
    last = tl.where(step == 0, still, tl.minimum(tl.maximum(last, 0), parts + 1))
    return tl.maximum(begin, first.to(tl.int64)), tl.minimum(end, last.to(tl.int64))


@triton.jit
def _half_width(distance, square_radius):
    """The greatest j with distance^2 + j^2 <= square_radius, -1 where there is none."""
    rest = square_radius - distance * distance
    j = tl.sqrt(tl.maximum(rest, 0).to(tl.float32)).to(tl.int32)
    j = tl.where(j * j > rest, j - 1, j)
    j = tl.where((j + 1) * (j + 1) <= rest, j + 1, j)
    return tl.where(rest < 0, -1, j)


@triton.jit
def _low_bits(count):
    """A word whose bits 0 .. count-1 are set; count is clamped to 0 .. 32."""
    one = tl.full((), 1, tl.int64)
    return (one << tl.minimum(tl.maximum(count, 0), 32)) - 1


@triton.jit
def body_mask_draw_kernel(
    keypoints, visible, edges, bits, joints, limbs, height, width, words, image_words, tiles,
    tiles_across, radius: tl.float64, square_radius, reach,
    ROWS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """bits [B, H, words]: the dilated disks. Bits beyond the width are set."""
    b = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    row = (tile // tiles_across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    word = (tile % tiles_across).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    x = word * 32
    # The rows from which the dilation of a row takes its pixels.
    above, below = tl.maximum(row - 2, 0), tl.minimum(row + 2, height - 1)
    top = ((tile // tiles_across).to(tl.int64) * ROWS - reach - 4).to(tl.float64)
    bottom = top + (2 * reach + ROWS + 8)
    left = tl.full((), -reach - 4, tl.float64)
    right = left + (2 * reach + 8) + width
    drawn = tl.zeros((ROWS, WORDS), tl.int64)
    for limb in range(limbs):
        a = b * joints + tl.load(edges + 2 * limb)
        c = b * joints + tl.load(edges + 2 * limb + 1)
        ax, ay, a_drawn = _joint(keypoints, visible, a)
        cx, cy, c_drawn = _joint(keypoints, visible, c)
        dx, dy = cx - ax, cy - ay
        # Point 0 is the one end and point `parts` the other, exactly.
        parts = tl.maximum(tl.floor(tl.sqrt(dy * dy + dx * dx) / radius), 1)
        begin = tl.full((), 0, tl.int64)
        end = tl.where(a_drawn & c_drawn, parts + 1, 0).to(tl.int64)
        begin, end = _keep_near(begin, end, ax, dx, parts, left, right)
        begin, end = _keep_near(begin, end, ay, dy, parts, top, bottom)
        for i in range(begin, end):
            at = tl.full((), 0, tl.float64) + i
            px = truncate(ax + dx * at / parts).to(tl.int64)
            py = truncate(ay + dy * at / parts).to(tl.int64)
            # Half widths fall with the distance, so the nearest of the rows has the widest run.
            distance = tl.abs(tl.minimum(tl.maximum(py, above), below) - py)
            half = _half_width(tl.minimum(distance, reach + 1).to(tl.int32), square_radius)
            first, last = tl.maximum(px - half, 0), tl.minimum(px + half, width - 1)
            some = (half >= 0) & (first <= last)
            first = tl.where(some, first - 2, 0)
            end_x = tl.where(some, last + 3, 0)
            drawn |= _low_bits(end_x[:, None] - x[None, :]) & ~_low_bits(
                first[:, None] - x[None, :]
            )
    drawn |= ~_low_bits(width - x)[None, :]
    to = bits + b * image_words + (row * words)[:, None] + word[None, :]
    tl.store(to, drawn.to(tl.int32), (row < height)[:, None] & (word < words)[None, :])


@triton.jit
def body_mask_close_kernel(
    bits, out, height, width, words, image_words, pixels, tiles, tiles_across,
    ONE: tl.constexpr, ROWS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """out [B, H, W]: the erosion of bits [B, H, words], 1 beyond the border."""
    b = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    row = (tile // tiles_across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    word = (tile % tiles_across).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    here = bits + b * image_words
    middle = tl.full((ROWS, WORDS), -1, tl.int32)
    before = tl.full((ROWS, WORDS), -1, tl.int32)
    after = tl.full((ROWS, WORDS), -1, tl.int32)
    for down in tl.static_range(-2, 3):
        y = row + down
        at = here + (y * words)[:, None] + word[None, :]
        inside = (y >= 0) & (y < height)
        middle &= tl.load(at, inside[:, None] & (word < words)[None, :], -1)
        before &= tl.load(at - 1, inside[:, None] & ((word > 0) & (word <= words))[None, :], -1)
        after &= tl.load(at + 1, inside[:, None] & (word + 1 < words)[None, :], -1)
    middle = middle.to(tl.uint32, bitcast=True)
    before = before.to(tl.uint32, bitcast=True)
    after = after.to(tl.uint32, bitcast=True)
    eroded = middle & (middle << 1 | before >> 31) & (middle << 2 | before >> 30)
    eroded = eroded & (middle >> 1 | after << 31) & (middle >> 2 | after << 30)
    bit = tl.arange(0, 32)
    inside = (eroded[:, :, None] >> bit[None, None, :].to(tl.uint32)) & 1
    x = word[None, :, None] * 32 + bit[None, None, :]
    to = out + b * pixels + (row * width)[:, None, None] + x
    value = tl.where(inside != 0, ONE, 0).to(out.dtype.element_ty)
    tl.store(to, value, (row < height)[:, None, None] & (x < width))


def body_mask(
    keypoints: Tensor,
    visible: Tensor | None,
    limbs: list[int],
    height: int,
    width: int,
    radius: float,
    dtype: torch.dtype,
) -> Tensor:
    """[B, 1, H, W]; keypoints [B, K, 2] float64, visible [B, K] bool, limbs: flat pairs."""
    batch, joints, _ = keypoints.shape
    words = ceil_divide(width, 32)
    bits = keypoints.new_empty((batch, height, words), dtype=torch.int32)
    out = keypoints.new_empty((batch, 1, height, width), dtype=dtype)
    rows, columns = tile_shape(height, words, TILE, 8)
    tiles_across = ceil_divide(words, columns)
    tiles = ceil_divide(height, rows) * tiles_across
    launch(
        body_mask_draw_kernel, batch * tiles, bits,
        keypoints.contiguous(), None if visible is None else visible.contiguous(),
        on_device(limbs, torch.int64, keypoints.device), bits, joints, len(limbs) // 2,
        height, width, words, height * words, tiles, tiles_across,
        radius, square_radius(radius), int(radius), ROWS=rows, WORDS=columns,
    )  # fmt: skip
    rows, columns = tile_shape(height, words, CLOSE_TILE, 8)
    tiles_across = ceil_divide(words, columns)
    tiles = ceil_divide(height, rows) * tiles_across
    elements, one = as_bits(out)
    launch(
        body_mask_close_kernel, batch * tiles, out,
        bits, elements, height, width, words, height * words, height * width, tiles,
        tiles_across, ONE=one, ROWS=rows, WORDS=columns,
    )  # fmt: skip
    return out
