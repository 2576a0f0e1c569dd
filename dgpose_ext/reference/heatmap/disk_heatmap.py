"""disk_heatmap in plain torch: the oracle of the tests and the fallback."""

from __future__ import annotations

import torch
from torch import Tensor


def disk_heatmap(
    keypoints: Tensor,
    visible: Tensor | None,
    height: int,
    width: int,
    radius: float,
    dtype: torch.dtype,
) -> Tensor:
    """[B, K, H, W]; arguments as torch.ops.dgpose.disk_heatmap."""
    x, y = keypoints.double().trunc()[..., None, None].unbind(2)
    columns = torch.arange(width, dtype=torch.float64, device=keypoints.device)
    rows = torch.arange(height, dtype=torch.float64, device=keypoints.device)[:, None]
    inside = ((columns - x).square() + (rows - y).square()).sqrt() <= radius
    if visible is not None:
        inside = inside & visible[..., None, None]
    return inside.to(dtype)
