"""decode_heatmap in plain torch: the oracle of the tests and the fallback."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# What OpenCV takes for a Gaussian of 1, 3, .. 9 taps without a sigma, from the middle, times 256.
_SMALL_BLUR = ((256,), (128, 64), (96, 64, 16), (72, 56, 28, 8), (60, 51, 30, 13, 4))


def decode_heatmap(
    heatmaps: Tensor, method: int, blur_kernel: int, beta: float
) -> tuple[Tensor, Tensor]:
    """coords [B, K, 2] and scores [B, K]; arguments as torch.ops.dgpose.decode_heatmap."""
    dtype = torch.float64 if heatmaps.dtype == torch.float64 else torch.float32
    maps = heatmaps.to(dtype).contiguous()  # torch sums other layouts in another order
    x, y, scores = _peak(maps)
    coords = torch.stack([x, y], -1).to(maps.dtype)
    if method == 1:
        coords = coords + _quarter_shift(maps, x, y)
    elif method == 2:
        coords = (coords + _dark_shift(maps.double(), x, y, blur_kernel)).to(maps.dtype)
    elif method == 3:
        p = _softmax(maps, scores, beta)
        at_x = torch.arange(maps.shape[3], dtype=maps.dtype, device=maps.device)
        at_y = torch.arange(maps.shape[2], dtype=maps.dtype, device=maps.device)
        mean = torch.stack([(p.sum(2) * at_x).sum(-1), (p.sum(3) * at_y).sum(-1)], -1)
        coords = torch.where(scores.isfinite()[..., None], mean, coords)
    return coords, scores


def decode_heatmap_backward(
    grad_coords: Tensor, grad_scores: Tensor, heatmaps: Tensor, coords: Tensor, beta: float
) -> Tensor:
    """grad_heatmaps [B, K, H, W] of softargmax."""
    x, y, scores = _peak(heatmaps)
    height, width = heatmaps.shape[2:]
    at_x = torch.arange(width, dtype=heatmaps.dtype, device=heatmaps.device)
    at_y = torch.arange(height, dtype=heatmaps.dtype, device=heatmaps.device)
    to_x = grad_coords[..., None, None, 0] * (at_x - coords[..., None, None, 0])
    to_y = grad_coords[..., None, None, 1] * (at_y[:, None] - coords[..., None, None, 1])
    grad = beta * _softmax(heatmaps, scores, beta) * (to_x + to_y)
    grad = torch.where(scores.isfinite()[..., None, None], grad, 0.0)
    by_score = torch.where(scores.isnan(), 0.0, grad_scores)
    at = (y * width + x)[..., None]
    return grad.flatten(2).scatter_add(2, at, by_score[..., None]).view(heatmaps.shape)


def _peak(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and value of the first maximum; 0, 0, NaN for a map of NaN."""
    flat = maps.flatten(2)
    if flat.numel() == 0:
        none = flat.new_empty(flat.shape[:2])
        return none.long(), none.long(), none
    largest = flat.masked_fill(flat.isnan(), -math.inf).amax(2, keepdim=True)
    index = (flat == largest).to(torch.uint8).argmax(2)
    scores = flat.gather(2, index[..., None])[..., 0]
    y = index // maps.shape[3]
    return index - y * maps.shape[3], y, scores  # % with a dynamic size has no ONNX translation


def _softmax(maps: Tensor, scores: Tensor, beta: float) -> Tensor:
    weights = (beta * (maps - scores[..., None, None])).exp().nan_to_num(nan=0.0)
    return weights / weights.sum((2, 3), keepdim=True)


def _at(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The value at (x, y) of each map; the coordinates are brought inside."""
    height, width = maps.shape[2:]
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return maps.flatten(2).gather(2, index[..., None])[..., 0]


def _quarter_shift(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    height, width = maps.shape[2:]

    def toward(after: Tensor, before: Tensor, moves: Tensor) -> Tensor:
        sign = (after > before).to(maps.dtype) - (after < before).to(maps.dtype)
        return torch.where(moves, 0.25 * sign, 0.0)

    moves_x = (x > 1) & (x < width - 1) & (y > 0)
    moves_y = (y > 1) & (y < height - 1) & (x > 0)
    shift_x = toward(_at(maps, x + 1, y), _at(maps, x - 1, y), moves_x)
    shift_y = toward(_at(maps, x, y + 1), _at(maps, x, y - 1), moves_y)
    return torch.stack([shift_x, shift_y], -1)


def blur_taps(size: int) -> list[float]:
    """The taps of OpenCV's Gaussian of this size without a sigma."""
    radius = size // 2
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    distance = [abs(i - radius) for i in range(size)]
    if size <= 9:
        taps: list[float] = [float(_SMALL_BLUR[radius][d]) for d in distance]
    else:
        taps = [math.exp(-0.5 * (d / sigma) ** 2) for d in distance]
    return [tap / sum(taps) for tap in taps]


def _dark_shift(maps: Tensor, x: Tensor, y: Tensor, blur_kernel: int) -> Tensor:
    height, width = maps.shape[2:]
    taps = torch.tensor(blur_taps(blur_kernel), dtype=maps.dtype, device=maps.device)
    radius = blur_kernel // 2
    blurred = maps.reshape(-1, 1, height, width)
    blurred = F.conv2d(blurred, taps.view(1, 1, -1, 1), padding=(radius, 0))
    blurred = F.conv2d(blurred, taps.view(1, 1, 1, -1), padding=(0, radius))
    log = blurred.view(maps.shape).clamp(min=1e-10).log()

    def at(dx: int, dy: int) -> Tensor:
        return _at(log, x + dx, y + dy)

    gx, gy = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    hxx = 0.25 * (at(2, 0) - 2 * at(0, 0) + at(-2, 0))
    hyy = 0.25 * (at(0, 2) - 2 * at(0, 0) + at(0, -2))
    hxy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
    det = hxx * hyy - hxy * hxy
    shift = torch.stack([-(hyy * gx - hxy * gy) / det, -(hxx * gy - hxy * gx) / det], -1)
    inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    return torch.where((inside & shift.isfinite().all(-1))[..., None], shift, 0.0)
