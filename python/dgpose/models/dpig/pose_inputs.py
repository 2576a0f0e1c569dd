"""What the networks see of a pose: maps of the joints, the body's mask, boxes of its parts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dgpose.data.dpig_parts import dpig_part_boxes
from dgpose.models.dpig.config import DPIGConfig
from dgpose.skeletons import DPIG_LIMBS, OPENPOSE18
from dgpose_ext import body_mask, disk_heatmap

__all__ = [
    "PoseInputs",
    "coordinates_px",
    "normalized_coordinates",
    "pose_inputs",
    "visible_joints",
]


class PoseInputs(NamedTuple):
    """A pose as stage 1 sees it; see `pose_inputs`."""

    keypoints_px: Tensor  #: [B, 18, 2], 0 where a joint is not visible
    visible: Tensor  #: [B, 18] bool
    maps: Tensor  #: [B, 18, H, W], 1 in a disk around a visible joint, else -1
    mask: Tensor  #: [B, 1, H, W], 1 where the body is, else 0
    boxes: Tensor  #: [B, 7, 4] (x1, y1, x2, y2) in pixels
    present: Tensor  #: [B, 7] bool, parts of which a joint is visible


def pose_inputs(keypoints_px: Tensor, visible: Tensor, config: DPIGConfig) -> PoseInputs:
    """Maps, mask and boxes of poses, as the authors' code draws them.

    Args:
        keypoints_px: [B, 18, 2] (x, y) in the order of OPENPOSE18, in pixels of the image, the
            centre of the first pixel at (0, 0). Joints that are not visible may be anything.
        visible: [B, 18] bool.
        config: size and radii.

    Raises:
        ValueError: shapes or dtypes do not fit, or visible joints are not finite.
    """
    seen = visible_joints(keypoints_px, visible)
    disks = disk_heatmap(seen, config.size, config.disk_radius, visible=visible)
    mask = body_mask(seen, DPIG_LIMBS, config.size, config.mask_radius, visible=visible)
    boxes, present = dpig_part_boxes(seen, config.size, visible)
    return PoseInputs(seen, visible, 2 * disks - 1, mask, boxes, present)


def visible_joints(keypoints_px: Tensor, visible: Tensor) -> Tensor:
    """Coordinates [B, 18, 2] float32 of the visible joints, 0 for others; arguments and errors as
    for `pose_inputs`."""
    joints = len(OPENPOSE18)
    if keypoints_px.dim() != 3 or tuple(keypoints_px.shape[1:]) != (joints, 2):
        raise ValueError(
            f"keypoints_px must have shape [B, {joints}, 2], got {list(keypoints_px.shape)}"
        )
    if visible.shape != keypoints_px.shape[:2] or visible.dtype != torch.bool:
        raise ValueError(
            f"visible must be bool of shape {list(keypoints_px.shape[:2])}, "
            f"got {visible.dtype} of shape {list(visible.shape)}"
        )
    seen = keypoints_px.detach().float().where(visible[..., None], 0)
    if not seen.is_meta and not bool(seen.isfinite().all()):
        raise ValueError("keypoints_px must be finite where visible, got NaN or infinity")
    return seen


def normalized_coordinates(keypoints_px: Tensor, visible: Tensor, config: DPIGConfig) -> Tensor:
    """Pixels [B, 18, 2] as [-1, 1] from the first pixel's centre to the last one's; 0 where a joint
    is not visible."""
    height, width = config.size
    last = keypoints_px.new_tensor((width - 1, height - 1))
    return (2 * keypoints_px / last - 1).where(visible[..., None], 0)


def coordinates_px(coordinates: Tensor, config: DPIGConfig) -> Tensor:
    """The inverse of `normalized_coordinates`."""
    height, width = config.size
    return (coordinates + 1) * (coordinates.new_tensor((width - 1, height - 1)) / 2)
