"""The seven part boxes of Disentangled Person Image Generation (Ma et al., CVPR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpose.skeletons import DPIG_PARTS
from dgpose_ext import part_boxes

__all__ = ["dpig_part_boxes"]

_RIGHT_LEG, _LEFT_LEG = [9, 10], [12, 13]  # knee and ankle


def dpig_part_boxes(
    keypoints: Tensor, size: tuple[int, int], visible: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The parts as the authors' code cuts them: head and shoulders, upper body, legs, left arm,
    right arm, left leg, right leg.

    Images of 128x64 (Market-1501): margin 6 px, 10 where one joint of a part is visible. Images of
    256x256 (DeepFashion): 10 and 20 px for a whole body, one that shows a knee or an ankle on each
    side, and its nose moves up 10 px first; 20 and 40 px and 25 px for the others.

    Args:
        keypoints: [B, 18, 2] (x, y) in pixels, in the order of OPENPOSE18.
        size: (128, 64) or (256, 256).
        visible: [B, 18]; None: all are visible.

    Returns:
        boxes [B, 7, 4] (x1, y1, x2, y2) and present [B, 7], as `dgpose_ext.part_boxes`.

    Raises:
        ValueError: another size, or shapes do not fit.
    """
    if keypoints.dim() != 3 or tuple(keypoints.shape[1:]) != (18, 2):
        raise ValueError(f"keypoints must have shape [B, 18, 2], got {list(keypoints.shape)}")
    if tuple(size) == (128, 64):
        return part_boxes(
            keypoints, DPIG_PARTS, margin=6, lone_margin=10, size=size, visible=visible
        )
    if tuple(size) != (256, 256):
        raise ValueError(f"size must be (128, 64) or (256, 256), got {tuple(size)}")
    if visible is None:
        seen = torch.ones(keypoints.shape[:2], dtype=torch.bool, device=keypoints.device)
    else:
        seen = visible != 0
    whole = seen[:, _RIGHT_LEG].any(1) & seen[:, _LEFT_LEG].any(1)
    raised = keypoints.clone()
    raised[:, 0, 1] -= torch.where(whole, 10, 25).to(keypoints.dtype)
    margin = torch.where(whole, 10.0, 20.0)
    return part_boxes(
        raised, DPIG_PARTS, margin=margin, lone_margin=2 * margin, size=size, visible=visible
    )
