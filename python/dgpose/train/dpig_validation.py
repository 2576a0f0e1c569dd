"""What weights of DPIG are chosen by, and what TensorBoard shows of them, stage by stage."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dgpose.data.person_pool import PersonPool
from dgpose.metrics.generation import energy_distance
from dgpose.metrics.image_quality import psnr
from dgpose.models.dpig import DPIG, Factor, pose_inputs
from dgpose.skeletons import OPENPOSE18
from dgpose.viz.drawing import draw_skeleton

__all__ = [
    "MapperErrors",
    "PoseErrors",
    "Stage1Errors",
    "mapper_errors",
    "pose_errors",
    "pose_panel",
    "sample_panel",
    "stage1_errors",
    "stage1_panel",
]

_PANEL = 8  # people
_DRAWN = 2048  # codes


class Stage1Errors(NamedTuple):
    """Means over images."""

    l1: float  #: absolute difference of an image in [0, 1] and its reconstruction
    psnr_db: float


class PoseErrors(NamedTuple):
    """Of poses that the autoencoder gives back, means over joints."""

    joint_px: float  #: distance of visible joints
    visibility: float  #: share of joints that are visible or not as they were


class MapperErrors(NamedTuple):
    """`energy_distance` between codes drawn of each factor and those of images: from 0 (the same
    distribution) to 1; NaN for a factor whose mapper is not trained."""

    foreground: float
    background: float
    pose: float


@torch.no_grad()
def stage1_errors(model: DPIG, pool: PersonPool) -> Stage1Errors:
    """Errors of a model in evaluation mode on all people of a pool."""
    l1, ratios = [], []
    for rows in torch.arange(len(pool)).split(model.config.images_at_once):  # type: ignore[no-untyped-call]
        images, joints, visible = _people(pool, rows, model)
        rebuilt = model.decode(*model.encode_images(images, joints, visible), joints, visible)
        l1.append((rebuilt - images).abs().mean((1, 2, 3)))
        ratios.append(psnr(rebuilt, images))
    return Stage1Errors(float(torch.cat(l1).mean()), float(torch.cat(ratios).mean()))


@torch.no_grad()
def pose_errors(model: DPIG, pool: PersonPool) -> PoseErrors:
    """Errors of a model in evaluation mode on all poses of a pool."""
    device = next(model.parameters()).device
    joints, visible = pool.keypoints_px.to(device), pool.visible.to(device)
    found, seen = model.decode_pose(model.encode_pose(joints, visible))
    apart = (found - joints).norm(dim=2)[visible]
    return PoseErrors(float(apart.mean()), float((seen == visible).float().mean()))


@torch.no_grad()
def mapper_errors(model: DPIG, codes: dict[Factor, Tensor]) -> MapperErrors:
    """Errors of a model in evaluation mode, by codes [N, D] of images."""
    errors = dict.fromkeys(MapperErrors._fields, math.nan)
    for factor, true in codes.items():
        drawn = model.sample(factor, _DRAWN, torch.Generator().manual_seed(0))
        errors[factor] = energy_distance(drawn, true)
    return MapperErrors(**errors)


@torch.no_grad()
def stage1_panel(model: DPIG, pool: PersonPool) -> NDArray[np.uint8]:
    """A few people of a pool, a column each, in rows: the image, the foreground's mask, the
    reconstruction, the image in the next column's pose, and with its background.

    Returns:
        RGB picture [rows * H, columns * W, 3].
    """
    images, joints, visible = _people(pool, slice(_PANEL), model)
    foreground, background = model.encode_images(images, joints, visible)
    mask = pose_inputs(joints, visible, model.config).mask
    rows = [
        images,
        mask.expand_as(images),
        model.decode(foreground, background, joints, visible),
        model.decode(foreground, background, joints.roll(-1, 0), visible.roll(-1, 0)),
    ]
    if background is not None:
        rows.append(model.decode(foreground, background.roll(-1, 0), joints, visible))
    return _picture(rows)


@torch.no_grad()
def pose_panel(model: DPIG, pool: PersonPool) -> NDArray[np.uint8]:
    """A few poses of a pool in the first row, as the autoencoder gives them back in the second.

    Returns:
        RGB picture [2 H, columns * W, 3].
    """
    _, joints, visible = _people(pool, slice(_PANEL), model)
    found, seen = model.decode_pose(model.encode_pose(joints, visible))
    return np.concatenate([_skeletons(model, joints, visible), _skeletons(model, found, seen)])


@torch.no_grad()
def sample_panel(model: DPIG, pool: PersonPool) -> NDArray[np.uint8]:
    """A few people of a pool, a column each, in rows: the image, the reconstruction, and for each
    factor whose mapper is trained the image with another one drawn, all else kept; then all drawn.

    Returns:
        RGB picture [rows * H, columns * W, 3]; without stage 1, drawn poses alone [H, columns * W].
    """
    images, joints, visible = _people(pool, slice(_PANEL), model)
    generator = torch.Generator().manual_seed(0)
    drawn: dict[Factor, Tensor] = {
        factor: model.sample(factor, len(images), generator)
        for factor in model.config.factors
        if f"{factor}_mapper" in model.trained
    }
    other = model.decode_pose(drawn["pose"]) if "pose" in drawn else (joints, visible)
    if "stage1" not in model.trained:
        return _skeletons(model, *other)
    foreground, background = model.encode_images(images, joints, visible)
    rows = [images, model.decode(foreground, background, joints, visible)]
    if "foreground" in drawn:
        rows.append(model.decode(drawn["foreground"], background, joints, visible))
    if "background" in drawn:
        rows.append(model.decode(foreground, drawn["background"], joints, visible))
    if "pose" in drawn:
        rows.append(model.decode(foreground, background, *other))
    if len(drawn) > 1:
        codes = drawn.get("foreground", foreground), drawn.get("background", background)
        rows.append(model.decode(*codes, *other))
    return _picture(rows)


def _people(pool: PersonPool, rows: Tensor | slice, model: DPIG) -> tuple[Tensor, Tensor, Tensor]:
    """Images [B, 3, H, W] in [0, 1], their joints and which are visible, on the model's device."""
    device = next(model.parameters()).device
    images = pool.images[rows].to(device).float() / 255
    return images, pool.keypoints_px[rows].to(device), pool.visible[rows].to(device)


def _picture(rows: list[Tensor]) -> NDArray[np.uint8]:
    """Images [B, 3, H, W] side by side, a tensor a row."""
    whole = torch.cat([torch.cat(tuple(row), 2) for row in rows], 1)
    return (whole * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _skeletons(model: DPIG, joints: Tensor, visible: Tensor) -> NDArray[np.uint8]:
    """Poses side by side on black, [H, B * W, 3]."""
    tiles = []
    for points in joints.where(visible[..., None], torch.nan).cpu().numpy():
        tile = np.zeros((*model.config.size, 3), np.uint8)
        draw_skeleton(tile, points, OPENPOSE18, thickness=1)
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)
