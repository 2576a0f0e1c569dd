"""body_mask in plain torch: the oracle of the tests and the fallback."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def body_mask(
    keypoints: Tensor,
    visible: Tensor | None,
    limbs: list[int],
    height: int,
    width: int,
    radius: float,
    dtype: torch.dtype,
) -> Tensor:
    """[B, 1, H, W]; arguments as torch.ops.dgpose.body_mask (limbs: pairs, one after the other)."""
    batch = keypoints.shape[0]
    if batch * height * width == 0:
        return keypoints.new_zeros((batch, 1, height, width), dtype=dtype)
    pixels = keypoints.double().trunc()
    drawn = (pixels.abs() < 2**20).all(-1)
    if visible is not None:
        drawn = drawn & visible
    pixels = torch.where(drawn[..., None], pixels, 0.0)

    # The centres of all disks, in a picture widened by what a disk outside can reach.
    reach = math.floor(radius)
    centers = torch.zeros(
        (batch, height + 2 * reach, width + 2 * reach), dtype=torch.bool, device=keypoints.device
    )
    for a, b in zip(limbs[::2], limbs[1::2], strict=True):
        start, step = pixels[:, a], pixels[:, b] - pixels[:, a]
        distance = (step[:, 1] * step[:, 1] + step[:, 0] * step[:, 0]).sqrt()
        parts = (distance / radius).trunc()[:, None]
        i = torch.arange(1, max(1, int(parts.max())), device=keypoints.device)
        between = (start[:, None] + step[:, None] * i[:, None] / parts[:, None]).trunc()
        points = torch.cat([start[:, None], pixels[:, b, None], between], 1)
        ends = torch.ones_like(parts, dtype=torch.bool).expand(-1, 2)
        used = torch.cat([ends, i < parts], 1) & drawn[:, a, None] & drawn[:, b, None]
        x, y = (points + reach).unbind(-1)
        used = used & (x >= 0) & (x < centers.shape[2]) & (y >= 0) & (y < centers.shape[1])
        person, point = used.nonzero(as_tuple=True)
        centers[person, y[person, point].long(), x[person, point].long()] = True

    body = torch.zeros((batch, height, width), dtype=torch.bool, device=keypoints.device)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if math.sqrt(down * down + right * right) <= radius:
                body |= centers[:, reach - down :, reach - right :][:, :height, :width]

    # max_pool2d pads with -Inf: what lies beyond the border never wins, in either direction.
    dilated = F.max_pool2d(body[:, None].float(), 5, stride=1, padding=2)
    return (-F.max_pool2d(-dilated, 5, stride=1, padding=2)).abs().to(dtype)
