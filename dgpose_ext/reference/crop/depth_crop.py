"""depth_crop in plain torch: the oracle of the tests and the fallback without the core.

The maths, the names and the order of operations are those of csrc/crop/depth_crop.h, so that the
results agree with the kernels to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _positive_finite(x: Tensor) -> Tensor:
    return (x > 0) & torch.isfinite(x)


def _samples(center: Tensor, half_window: Tensor, size: int) -> Tensor:
    """Sample coordinates [B, S] float64 along one axis."""
    i = torch.arange(size, dtype=torch.float64, device=center.device)
    return (center - half_window)[:, None] + (i + 0.5) * (2 * half_window / size)[:, None]


def _nearest(samples: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    """Nearest pixel [B, S] (0 outside the image) and whether it is inside."""
    pixel = (samples + 0.5).floor()
    inside = (pixel >= 0) & (pixel < extent)
    return torch.where(inside, pixel, 0.0).long(), inside


def depth_crop(
    depth: Tensor,
    centers: Tensor,
    cameras: Tensor | None,
    fx: float,
    fy: float,
    cubes: Tensor | None,
    cube_mm: float,
    size: int,
    nearest_pixel: bool,
    bilinear: bool,
) -> Tensor:
    """[B, 1, S, S] float32; arguments as torch.ops.dgpose.depth_crop: cameras [B|1, 4] and cubes
    [B|1], where given, replace the numbers."""
    batch, height, width = depth.shape
    if not height or not width:
        return torch.ones((batch, 1, size, size), dtype=torch.float32, device=depth.device)
    z = depth.to(torch.float32)  # uint16 has few operations
    u, v, center_mm = centers.double().unbind(1)
    focal_x, focal_y, edge = (u.new_full((1,), number) for number in (fx, fy, cube_mm))
    if cameras is not None:
        focal_x, focal_y = cameras[:, 0].double(), cameras[:, 1].double()
    half = (edge if cubes is None else cubes.double()) * 0.5
    mm = center_mm.float()[:, None, None]
    scale = (1.0 / half).float()[:, None, None]
    valid = torch.isfinite(u) & torch.isfinite(v)
    for x in (mm[:, 0, 0], scale[:, 0, 0], half, focal_x, focal_y):
        valid = valid & _positive_finite(x)
    columns = _samples(u, half * focal_x / center_mm, size)
    rows = _samples(v, half * focal_y / center_mm, size)
    frame = torch.arange(batch, device=depth.device)[:, None, None]

    def normalised(row: Tensor, column: Tensor) -> Tensor:
        depths = z[frame, row[:, :, None], column[:, None, :]]
        return torch.where(depths > 0, ((depths - mm) * scale).clamp(-1, 1), 1.0)

    (row, row_inside), (column, column_inside) = _nearest(rows, height), _nearest(columns, width)
    inside = row_inside[:, :, None] & column_inside[:, None, :]
    nearest = torch.where(inside, normalised(row, column), 1.0)
    out = nearest
    if bilinear:
        total, weights = [], []
        for sample_rows, row_weight in _taps(rows, height):
            products, pair = [], []
            for sample_columns, column_weight in _taps(columns, width):
                x = normalised(sample_rows, sample_columns)
                weight = row_weight[:, :, None] * column_weight[:, None, :]
                pair.append(torch.where(x < 1, weight, 0.0))
                products.append(pair[-1] * x)
            total.append(products[0] + products[1])
            weights.append(pair[0] + pair[1])
        mean = ((total[0] + total[1]) / (weights[0] + weights[1])).clamp(-1, 1)
        out = torch.where(nearest < 1, mean, 1.0)
    out = torch.where(valid[:, None, None], out, 1.0)
    if nearest_pixel:
        m = out.amin((1, 2), keepdim=True)
        out = torch.where(m < 1, 1 - 2 * ((1 - out) / (1 - m)), out)
    return out[:, None]


def _taps(samples: Tensor, extent: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels around each sample and their weights [B, S]; outside the image the weight is
    0."""
    low = samples.floor()
    fraction = (samples - low).float()
    taps = []
    for pixel, weight in ((low, 1 - fraction), (low + 1, fraction)):
        inside = (pixel >= 0) & (pixel < extent)
        taps.append((torch.where(inside, pixel, 0.0).long(), torch.where(inside, weight, 0.0)))
    return taps
