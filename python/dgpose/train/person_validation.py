"""What weights of DGPose are chosen by, and what TensorBoard shows of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dgpose.data.person_pool import PersonPool
from dgpose.metrics.image_quality import psnr
from dgpose.metrics.person_evaluation import estimate, reconstruct
from dgpose.models.dgpose import (
    ConditionalDGPose,
    DGPoseModel,
    Gaussian,
    ImageVAE,
    PoseRegressor,
    RenderedMapper,
    SemiDGPose,
)
from dgpose.models.dgpose.pose_maps import normalized_pose
from dgpose.skeletons import BODY14

__all__ = ["PersonErrors", "calibrate_pose", "person_errors", "person_panel"]

_PANEL = 8  # people


class PersonErrors(NamedTuple):
    """Means over images; NaN for what a model does not do."""

    l1: float  #: absolute difference of an image in [0, 1] and its reconstruction
    psnr_db: float  #: of reconstructions, mean of the images' ratios
    pose_px: float  #: distance of estimated from true joints, over all known ones

    def judged(self, image_size: int) -> float:
        """By which the best weights are chosen: l1, and the pose error as a share of the crop."""
        parts = (self.l1, self.pose_px / image_size)
        return sum(part for part in parts if math.isfinite(part))


def person_errors(model: DGPoseModel, pool: PersonPool) -> PersonErrors:
    """Errors of a model in evaluation mode on all people of a pool."""
    images = pool.images.float() / 255
    poses, known = pool.body
    l1 = psnr_db = pose_px = math.nan
    if isinstance(model, SemiDGPose | PoseRegressor):
        pose_px = float((estimate(model, images) - poses).norm(dim=2)[known].mean())
    if not isinstance(model, PoseRegressor):
        made = reconstruct(model, images, poses, known)
        l1 = float((made - images).abs().mean())
        psnr_db = float(psnr(made, images).mean())
    return PersonErrors(l1, psnr_db, pose_px)


@torch.no_grad()
def calibrate_pose(model: SemiDGPose | PoseRegressor, pool: PersonPool) -> None:
    """Fits the deviations that a model in evaluation mode gives with its poses to a pool."""
    poses, known = pool.body
    device = next(model.parameters()).device
    found = [
        model.estimate_pose(images.to(device).float() / 255)
        for images in torch.split(pool.images, 128)
    ]
    posterior = Gaussian(*(torch.cat(of) for of in zip(*found, strict=True)))
    y = normalized_pose(poses, model.config.image_size)
    model.pose_head.calibrate(posterior, y.to(device), known.to(device))


@torch.no_grad()
def person_panel(model: DGPoseModel, pool: PersonPool, device: torch.device) -> NDArray[np.uint8]:
    """A few people of a pool, a column each, in rows: the image, the pose's limbs in it,
    the reconstruction, the appearance in the next column's pose, and a drawn appearance.

    Returns:
        RGB picture [rows * S, columns * S, 3]; of a plain VAE image, reconstruction and draws, of
        a pose encoder the image and the limbs of its estimate.
    """
    images = pool.images[:_PANEL].to(device).float() / 255
    pose, known = (of[:_PANEL].to(device) for of in pool.body)
    rows = [images]
    generator = torch.Generator().manual_seed(0)
    if not isinstance(model, ImageVAE):
        if not isinstance(model, ConditionalDGPose):
            pose = model.pose_px(model.estimate_pose(images).mean)
            known = torch.ones_like(known)
        rows.append(_limb_picture(model, pose, known))
    if not isinstance(model, PoseRegressor):
        rows.append(reconstruct(model, images, pose, known).to(device))
        drawn = model.sample_appearance(len(images), generator)
        if isinstance(model, ImageVAE):
            rows.append(model.decode(drawn))
        else:
            z = model.appearance(images, pose, known).mean
            rows.append(model.decode(z, pose.roll(-1, 0), known.roll(-1, 0)))
            rows.append(model.decode(drawn, pose, known))
    picture = torch.cat([torch.cat(tuple(row), 2) for row in rows], 1)
    return (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _limb_picture(
    model: ConditionalDGPose | SemiDGPose | PoseRegressor, pose: Tensor, known: Tensor
) -> Tensor:
    """Limbs in their colours on black, [B, 3, S, S]."""
    joints = len(BODY14) if model.config.joint_maps else 0
    if not model.config.limb_maps:
        maps: Tensor = RenderedMapper(model.config)(pose, known)
        return maps.amax(1, keepdim=True).expand(-1, 3, -1, -1)
    mapper = RenderedMapper(model.config) if isinstance(model, PoseRegressor) else model.mapper
    limbs = mapper(pose, known)[:, joints : joints + len(BODY14.edges)]
    colors = torch.tensor(BODY14.edge_colors, device=limbs.device).float() / 255
    picture: Tensor = torch.einsum("blhw,lc->bchw", limbs, colors).clamp(0, 1)
    return picture
