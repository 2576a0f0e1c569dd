"""Losses of max-margin retrieval: margin, auxiliary pose, weights; and those of the first stage."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgpose.models.max_margin.config import MaxMarginConfig
from dgpose_ext import max_margin_loss

__all__ = [
    "auxiliary_loss",
    "detection_loss",
    "margin_loss",
    "softmax_margin_loss",
    "weight_penalty",
]


def margin_loss(
    config: MaxMarginConfig,
    queries: Tensor,
    embeddings: Tensor,
    poses: Tensor,
    targets: Tensor,
    positives: Tensor,
) -> Tensor:
    """The margin term for B images held against U poses, with gradients for all embeddings.

    Args:
        config: which loss, and what a margin of 1 is.
        queries: embeddings of the images [B, D].
        embeddings, poses: of the violated poses [U, D], [U, J, 3] mm.
        targets: true poses [B, J, 3] mm; positives: their embeddings [B, D].
    """
    weight = config.margin_weight
    if config.loss == "softmax":
        return softmax_margin_loss(
            queries,
            embeddings,
            poses,
            targets,
            positives,
            margin_weight=weight,
            temperature=config.temperature,
        )
    loss, _ = max_margin_loss(queries, embeddings, poses, targets, positives, margin_weight=weight)
    return loss


def softmax_margin_loss(
    queries: Tensor,
    embeddings: Tensor,
    poses: Tensor,
    targets: Tensor,
    positives: Tensor,
    *,
    margin_weight: float,
    temperature: float,
) -> Tensor:
    """The hinge with its maximum softened, mean over images:

        T log(sum over n of exp((<q, x_n> + margin_weight MPJPE(y_n, y)) / T)) - <q, p>

    where n runs over the violated poses and the true poses of the batch, the image's own among
    them. Each of them has a gradient then, not the most violated alone.

    Args:
        queries [B, D]; embeddings [U, D], poses [U, J, 3] mm; targets [B, J, 3] mm; positives
            [B, D]: as for `dgpose_ext.max_margin_loss`.
        margin_weight: score of 1 mm.
        temperature: T > 0, in scores.

    Computes in float32, under autocast, too.
    """
    poses = torch.cat((targets, poses))
    embeddings = torch.cat((positives, embeddings)).float()
    with torch.no_grad():
        margins = margin_weight * (targets[:, None] - poses[None]).norm(dim=3).mean(2)
    with torch.autocast(queries.device.type, enabled=False):  # scores need more than 8 bits
        augmented = (queries.float() @ embeddings.T + margins) / temperature
    own = (queries.float() * positives.float()).sum(1)
    loss: Tensor = (temperature * augmented.logsumexp(1) - own).mean()
    return loss


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
