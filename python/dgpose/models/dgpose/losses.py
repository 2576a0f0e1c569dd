"""The losses of DGPose: what is minimised, with the signs of negative evidence bounds.

Semi-DGPose minimises L_u + gamma L_l: L_u, a mean over unlabelled images, is KL(z) + KL(y) + L1 +
adversarial; L_l, over labelled ones, KL(z) + alpha pose regression + L1 + adversarial.
Conditional-DGPose minimises KL(z) + L1 + adversarial.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgpose.models.dgpose.config import DGPoseConfig
from dgpose.models.dgpose.gaussians import Gaussian
from dgpose.models.dgpose.networks import Discriminator
from dgpose.models.dgpose.pose_maps import normalized_pose
from dgpose.models.dgpose.systems import DGPoseModel, ImageVAE, PoseRegressor, SemiDGPose

__all__ = [
    "PersonBatch",
    "Rebuilt",
    "discriminator_loss",
    "generator_losses",
    "pose_regression",
    "rebuild",
]


class PersonBatch(NamedTuple):
    """Images and what is known of their poses."""

    images: Tensor  #: [B, 3, S, S] float in [0, 1]
    pose_px: Tensor  #: [B, 14, 2]; not looked at where the image has no label
    known: Tensor  #: [B, 14] bool
    labelled: Tensor  #: [B] bool


class Rebuilt(NamedTuple):
    """What a model makes of a batch."""

    images: Tensor | None  #: [B, 3, S, S]
    code: Gaussian | None  #: q(z | .)
    pose: Gaussian | None  #: q(y | .)
    maps: Tensor | None  #: [B, M, S/2, S/2] of the poses that were decoded, without gradient
    body: Tensor | None  #: [B, 1, S, S], the last of their maps at full size


def rebuild(model: DGPoseModel, batch: PersonBatch, generator: torch.Generator) -> Rebuilt:
    """Images rebuilt from draws of the posteriors; `generator` on the CPU.

    Semi-DGPose decodes the pose of a label where there is one [?], else a draw of its own
    posterior, to which gradients flow through the mapper.
    """
    if isinstance(model, PoseRegressor):
        return Rebuilt(None, None, model.estimate_pose(batch.images), None, None)
    if isinstance(model, ImageVAE):
        code = model.appearance(batch.images)
        return Rebuilt(model.decode(code.sample(generator)), code, None, None, None)
    pose_px, known, pose = batch.pose_px, batch.known, None
    if isinstance(model, SemiDGPose):
        pose = model.estimate_pose(batch.images)
        drawn = model.pose_px(pose.sample(generator))
        pose_px = torch.where(batch.labelled[:, None, None], pose_px, drawn)
        known = known | ~batch.labelled[:, None]
    placed = model.place(pose_px, known)
    code = model.encode_placed(batch.images, placed)
    images = model.decode_placed(code.sample(generator), placed)
    return Rebuilt(images, code, pose, placed.grid.detach(), placed.maps[:, -1:].detach())


def pose_regression(
    config: DGPoseConfig, estimate: Tensor, pose_px: Tensor, known: Tensor
) -> Tensor:
    """Error of y [B, 28] against poses [B, 14, 2]: mean squared difference of coordinates, or mean
    distance of joints, over the known joints, in half crops: [B]; 0 where none is known."""
    truth = normalized_pose(pose_px, config.image_size)
    apart = (estimate - truth).view(len(truth), -1, 2)
    square = apart.square().sum(2)
    # The root has no gradient at 0.
    errors = square / 2 if config.pose_loss == "squared" else (square + 1e-8).sqrt()
    weights = known.to(errors)
    return (errors * weights).sum(1) / weights.sum(1).clamp_min(1)


def generator_losses(
    config: DGPoseConfig,
    model: DGPoseModel,
    discriminator: Discriminator | None,
    batch: PersonBatch,
    rebuilt: Rebuilt,
) -> dict[str, Tensor]:
    """The weighted terms of the loss of all networks but the discriminator, by name."""
    terms: dict[str, Tensor] = {}
    shares = _image_weights(config, batch.labelled)
    labelled = shares.where(batch.labelled, 0)
    if rebuilt.code is not None:
        terms["kl_z"] = config.kl_weight * (shares * rebuilt.code.divergence()).sum()
    if rebuilt.pose is not None:
        errors = pose_regression(config, rebuilt.pose.mean, batch.pose_px, batch.known)
        terms["pose"] = config.pose_weight * (labelled * errors).sum()
        if isinstance(model, SemiDGPose) and not bool(batch.labelled.all()):
            nats = model.pose_prior.divergence(rebuilt.pose)
            terms["kl_y"] = config.pose_kl_weight * ((shares - labelled) * nats).sum()
    if rebuilt.images is None:
        return terms
    pixels = (rebuilt.images - batch.images).abs()
    if config.body_weight and rebuilt.body is not None:
        pixels = pixels * (1 + config.body_weight * rebuilt.body)
    apart = pixels.flatten(1).mean(1)
    terms["l1"] = config.l1_weight * (shares * apart).sum()
    if discriminator is not None:
        logits, features = discriminator(rebuilt.images, rebuilt.maps)
        scores = logits.float().flatten(1)
        fooled = (-scores if config.gan_loss == "hinge" else F.softplus(-scores)).mean(1)
        terms["adversarial"] = config.adversarial_weight * (shares * fooled).sum()
        if config.feature_weight:
            with torch.no_grad():
                _, true = discriminator(batch.images, rebuilt.maps)
            terms["features"] = config.feature_weight * (shares * _apart(features, true)).sum()
    return terms


def discriminator_loss(
    config: DGPoseConfig, discriminator: Discriminator, batch: PersonBatch, rebuilt: Rebuilt
) -> Tensor:
    """That of true images against rebuilt ones, whose generator learns nothing by it."""
    assert rebuilt.images is not None
    both = torch.cat((batch.images, rebuilt.images.detach()))
    maps = rebuilt.maps
    logits, _ = discriminator(both, None if maps is None else torch.cat((maps, maps)))
    true, false = logits.float().chunk(2)
    if config.gan_loss == "hinge":
        loss = F.relu(1 - true).mean() + F.relu(1 + false).mean()
    else:
        loss = F.softplus(-true).mean() + F.softplus(false).mean()
    if config.gradient_penalty:
        loss = loss + config.gradient_penalty * _gradient_penalty(discriminator, batch, maps)
    return loss


def _gradient_penalty(
    discriminator: Discriminator, batch: PersonBatch, maps: Tensor | None
) -> Tensor:
    """Mean squared gradient at true images (R1: Mescheder et al., ICML 2018)."""
    images = batch.images.detach().requires_grad_()
    logits, _ = discriminator(images, maps)
    (gradient,) = torch.autograd.grad(logits.float().sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def _apart(features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of features, [B]."""
    each = [
        (one - other).float().abs().flatten(1).mean(1)
        for one, other in zip(features, others, strict=True)
    ]
    return torch.stack(each).mean(0)


def _image_weights(config: DGPoseConfig, labelled: Tensor) -> Tensor:
    """Of each image's terms [B]: means over labelled and over unlabelled images, by gamma and
    `unlabelled_weight`; a mean over all where labels make no difference."""
    if config.system in ("conditional", "vae"):
        return labelled.new_full(labelled.shape, 1 / len(labelled), dtype=torch.float32)
    kinds = labelled.sum(), (~labelled).sum()
    of_labelled, of_others = (1 / kind.clamp_min(1).float() for kind in kinds)
    return torch.where(
        labelled, config.labelled_weight * of_labelled, config.unlabelled_weight * of_others
    )
