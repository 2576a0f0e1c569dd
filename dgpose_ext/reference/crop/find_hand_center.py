"""find_hand_center in plain torch: the oracle of the tests and the fallback without the core.

Steps, units and rounding are those of csrc/crop/find_hand_center.h: the results agree to the bit.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_KEY = 16 * 65536


def _keys(depth: Tensor) -> Tensor:
    """Depth in units of 1/16 mm [H, W] int64, 0 where it is missing."""
    if depth.dtype == torch.uint16:
        return depth.to(torch.int64) * 16
    valid = torch.where((depth > 0) & (depth < 65536), depth, 0.0)
    return (valid * 16 + 0.5).long()


def _to_key(mm: float) -> int:
    return round(min(max(16 * mm, 0.0), float(_MAX_KEY)))


def _labels(inside: Tensor) -> Tensor:
    """Components with 8 neighbours: for each pixel of `inside` [H, W] the index (row-major) of the
    first pixel of its component; H * W elsewhere."""
    height, width = inside.shape
    nothing = height * width
    index = torch.arange(nothing, device=inside.device).view(height, width)
    labels = torch.where(inside, index, nothing)
    while True:
        # Every pixel offers the smallest label around it to its own label's pixel; then labels are
        # followed to their ends. Few rounds: each joins whole groups.
        padded = F.pad(labels, (1, 1, 1, 1), value=nothing)
        around = padded.unfold(0, 3, 1).unfold(1, 3, 1).amin((2, 3))
        around = torch.where(inside, around, nothing).flatten()
        flat = torch.cat([labels.flatten(), labels.new_tensor([nothing])])
        joined = flat.scatter_reduce(0, flat[:-1], around, "amin")
        joined[:-1] = torch.minimum(joined[:-1], around)
        while not torch.equal(followed := joined[joined], joined):
            joined = followed
        if torch.equal(joined, flat):
            return labels
        labels = joined[:-1].view(height, width)


def _mean(keys: Tensor, where: Tensor) -> tuple[float, float, float]:
    """Mean (x, y, mm) of the pixels of the mask `where`, from exact sums."""
    y, x = where.nonzero().unbind(1)
    count = len(x)
    return int(x.sum()) / count, int(y.sum()) / count, int(keys[y, x].sum()) / count / 16


def find_hand_center(
    depth: Tensor,
    fx: float,
    fy: float,
    near: float,
    far: float,
    min_pixels: int,
    cube_mm: float,
    slabs: int,
    refinements: int,
) -> Tensor:
    """[4] float64: 1, u, v, mm, or zeros; arguments as torch.ops.dgpose.find_hand_center."""
    keys = _keys(depth)
    nothing = torch.zeros(4, dtype=torch.float64, device=depth.device)
    nearest, farthest = max(_to_key(near), 1), _to_key(far)
    reachable = (keys >= nearest) & (keys <= farthest)
    bounds = [_to_key(near + (far - near) * slab / slabs) for slab in range(slabs + 1)]
    for slab in range(slabs):
        low, high = max(bounds[slab], 1), bounds[slab + 1] - (slab + 1 < slabs)
        inside = (keys >= low) & (keys <= high)
        if int(inside.sum()) <= min_pixels:
            continue
        labels = _labels(inside)
        area = torch.bincount(labels[inside], minlength=1)
        if int(area.max()) <= min_pixels:
            continue
        first = int((area == area.max()).nonzero()[0])
        center = _refine(
            keys, reachable, _mean(keys, labels == first), fx, fy, cube_mm, refinements
        )
        if center is not None:
            return torch.tensor([1.0, *center], dtype=torch.float64, device=depth.device)
    return nothing


def _refine(
    keys: Tensor,
    reachable: Tensor,
    center: tuple[float, float, float],
    fx: float,
    fy: float,
    cube_mm: float,
    refinements: int,
) -> tuple[float, float, float] | None:
    """The mean of the pixels inside the cube around the centre, again and again; None if it is
    empty."""
    height, width = keys.shape
    half = cube_mm / 2
    for _ in range(refinements):
        u, v, mm = center
        hw_x, hw_y = half * fx / mm, half * fy / mm
        x_begin, x_end = _clip(u - hw_x, u + hw_x, width)
        y_begin, y_end = _clip(v - hw_y, v + hw_y, height)
        in_cube = reachable & (keys >= _to_key(mm - half)) & (keys <= _to_key(mm + half))
        window = torch.zeros_like(in_cube)
        window[y_begin:y_end, x_begin:x_end] = True
        in_cube &= window
        if not bool(in_cube.any()):
            return None
        center = _mean(keys, in_cube)
    return center


def _clip(low: float, high: float, extent: int) -> tuple[int, int]:
    """The pixels of [low, high] inside the image, as a half-open range."""
    begin = math.ceil(min(max(low, -1.0), float(extent)))
    end = math.floor(min(max(high, -1.0), float(extent)))
    return max(begin, 0), min(end + 1, extent)
