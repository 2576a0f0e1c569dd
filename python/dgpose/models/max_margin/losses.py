"""Losses beside the margin, which is `dgpose_ext.max_margin_loss`: auxiliary pose, weights, and the
joint detection of the first stage."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgpose.models.max_margin.config import MaxMarginConfig

__all__ = [
    "auxiliary_loss",
    "detection_loss",
    "weight_penalty",
]


def auxiliary_loss(config: MaxMarginConfig, estimates: Tensor, targets: Tensor) -> Tensor:
    """Of estimated and true poses [B, J, 3] mm: the squared error of a pose, in auxiliary units, or
    the mean joint distance, in units of the margin."""
    if config.auxiliary_loss == "distance":
        distance: Tensor = (estimates - targets).norm(dim=2).mean()
        return distance * config.margin_weight
    return ((estimates - targets) / config.auxiliary_unit_mm).square().sum((1, 2)).mean()


def weight_penalty(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Sum of all squares."""
    return torch.stack([parameter.square().sum() for parameter in parameters]).sum()


def detection_loss(logits: Tensor, joints_px: Tensor, image_size: int) -> Tensor:
    """Sliding-window joint detection: is a joint in the window of a cell?

    Args:
        logits: [B, J, h, w].
        joints_px: [B, J, 2] in pixels of the image; the centre of its first pixel is (0, 0).
        image_size: edge of the image, which the h x w windows cover.

    Returns:
        Binary cross-entropy, summed over the windows of a joint, mean over joints and images.
    """
    batch, joints, height, width = logits.shape
    cells = logits.new_tensor([width, height])
    place = ((joints_px + 0.5) * cells / image_size).floor().long()
    inside = ((place >= 0) & (place < cells)).all(2)
    index = (place[..., 1] * width + place[..., 0]).clamp(0, height * width - 1)
    truth = torch.zeros(batch, joints, height * width, device=logits.device)
    truth.scatter_(2, index[..., None], inside[..., None].float())
    loss: Tensor = F.binary_cross_entropy_with_logits(logits.flatten(2), truth, reduction="none")
    loss = loss.sum(2).mean()
    return loss
