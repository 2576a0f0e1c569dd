"""Poses of person crops, estimated by a DGPose model or by a keypoint network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dgpose.inference.person_views import FloatArray
from dgpose.metrics.keypoints import torso_px
from dgpose.model_zoo import model_path
from dgpose.models.dgpose import PoseRegressor, SemiDGPose
from dgpose.models.dgpose import load_model as load_dgpose
from dgpose.nn.keypoint_network import KeypointNetwork, load_judge
from dgpose_ext.tensor_file import read_tensor_header

__all__ = ["CropPoses", "KeypointEstimate", "PoseEstimator", "estimate_crops", "load_estimator"]

PoseEstimator: TypeAlias = SemiDGPose | PoseRegressor | KeypointNetwork

_AT_ONCE = 64
_NEAR = 0.2  # torso lengths within which a joint counts as found


class CropPoses(NamedTuple):
    """Estimates of B crops; what they are is said in `KeypointEstimate`."""

    poses_px: Tensor  # [B, 14, 2] pixels of the crops
    std_px: Tensor | None  # [B, 14]
    confidence: Tensor  # [B, 14]


@dataclass(frozen=True, eq=False)
class KeypointEstimate:
    """Estimated poses of B people, BODY14 in pixels of their whole pictures.

    Attributes:
        poses_px: [B, 14, 2] float64.
        confidence: [B, 14] in 0 to 1. Of a DGPose model: the probability, by its own posterior,
            that the joint lies within 0.2 torso lengths of the estimate. Of a keypoint network:
            its score. Neither is calibrated.
        std_px: [B, 14], standard deviation of the posterior (root mean square of x and y); None of
            a keypoint network.
        squares: [B, 4], what of the pictures was seen: x1, y1, x2, y2.
        crops: [B, 3, S, S], and what it looked like.
    """

    poses_px: FloatArray
    confidence: FloatArray
    std_px: FloatArray | None
    squares: FloatArray
    crops: Tensor

    def __len__(self) -> int:
        return len(self.poses_px)


def load_estimator(model: str | Path) -> PoseEstimator:
    """What estimates poses, of a shipped model or a weight file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown name, a damaged file, or a model that estimates no poses.
    """
    path = model_path(model)
    if read_tensor_header(path).kind == "keypoint_network":
        return load_judge(path)[0]
    loaded = load_dgpose(path)
    if not isinstance(loaded, SemiDGPose | PoseRegressor):
        raise ValueError(f"{model}: must estimate poses, got a {type(loaded).__name__}")
    return loaded


@torch.no_grad()
def estimate_crops(estimator: PoseEstimator, crops: Tensor) -> CropPoses:
    """Poses of crops [B, 3, S, S] in [0, 1]; a model for another S sees them resampled.

    Args:
        estimator: in eval mode; used where it is.
        crops: anywhere.

    Returns:
        Tensors on the CPU.
    """
    device = next(estimator.parameters()).device
    if isinstance(estimator, KeypointNetwork):
        poses, scores = estimator.estimate(crops.to(device))
        return CropPoses(poses.cpu(), None, scores.cpu())
    size = estimator.config.image_size
    zoom = size / crops.shape[-1]
    middles, spreads = [], []
    for part in crops.split(_AT_ONCE):  # type: ignore[no-untyped-call]
        given = part
        if zoom != 1:
            given = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
        posterior = estimator.estimate_pose(given.to(device))
        middles.append(estimator.pose_px(posterior.mean))
        # Pixels are an affine function of y, coordinate by coordinate.
        above = estimator.pose_px(posterior.mean + (0.5 * posterior.log_variance).exp())
        spreads.append(above - middles[-1])
    poses = (torch.cat(middles).cpu() + 0.5) / zoom - 0.5
    std = (torch.cat(spreads).cpu() / zoom).square().mean(-1).sqrt()
    torsos = torso_px(poses, torch.ones(poses.shape[:-1], dtype=torch.bool)).nan_to_num(0)
    near = _NEAR * torsos[:, None] / std.clamp(min=1e-6)
    return CropPoses(poses, std, 1 - (-0.5 * near.square()).exp())
