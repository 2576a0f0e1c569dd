"""Refinement of Crossing Nets' estimate: the latent whose generated depth map fits the image best.

The posterior head's latent is the start; the map that generator and alignment make of it is held
against the observed crop, and Adam moves the latent, weights fixed. The fit is Huber's (noise and
holes of the sensor must not pull), and a quadratic prior keeps the latent near the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dgpose.data.cameras import unproject
from dgpose.data.depth_sources import SourceFrame
from dgpose.inference.crossing_nets import CrossingNetsEstimator
from dgpose.metrics.hand_residual import Residual, rendered_residual
from dgpose.models.crossing_nets import CrossingNets
from dgpose.models.crossing_nets.networks import Estimate
from dgpose.skeletons import NYU36, NYU_SCORED14
from dgpose_ext import depth_crop

__all__ = [
    "FrameEstimate",
    "FrameRefinement",
    "RefineConfig",
    "Refinement",
    "refine",
    "refine_frame",
]

_HAND = 0.98
"""Values of a crop below this are hand; what lies at the back of the cube is background."""


@dataclass(frozen=True)
class RefineConfig:
    """Settings of `refine`; the defaults were chosen on rendered validation frames.

    Args:
        starts: latents to start from: the posterior's own, and others near it.
        spread: standard deviation of the others.
        steps: of Adam.
        learning_rate: its rate, which falls to 0 along a cosine.
        huber: difference of depth from which on the loss grows linearly; the crop is 2 deep.
        prior: weight of the squared distance from the posterior's latent.
        seed: of the other starts.
    """

    starts: int = 1
    spread: float = 0.3
    steps: int = 30
    learning_rate: float = 0.05
    huber: float = 0.3
    prior: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("starts", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "huber"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("spread", "prior"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Refinement:
    """What became of N crops; joints [N, J, 3] in `unit_mm`, maps [N, 1, S, S].

    Attributes:
        latent, refined_latent: [N, L], the posterior's (or the given one) and the refined one.
        joints, refined_joints: of these.
        generated, refined_generated: the maps made of these.
        misfit, refined_misfit: [N] Huber loss of the maps, summed over pixels, per pixel of the
            hand, in units of `RefineConfig.huber`.
    """

    latent: Tensor
    refined_latent: Tensor
    joints: Tensor
    refined_joints: Tensor
    generated: Tensor
    refined_generated: Tensor
    misfit: Tensor
    refined_misfit: Tensor


def refine(
    nets: CrossingNets,
    crops: Tensor,
    config: RefineConfig | None = None,
    *,
    start: Tensor | None = None,
) -> Refinement:
    """Fit the latents of crops to their depth maps; the crops are independent of each other.

    Of a crop's starts the one with the least loss (misfit and prior) is taken. A direct head's
    correction of the joints is that of the crop, before and after; a given start has none.

    Args:
        nets: in eval mode; their weights are not changed.
        crops: [N, 1, S, S] as `nets.config` says.
        config: the settings.
        start: [N, L] to start from in the place of the posterior's latents.

    Raises:
        ValueError: networks in training mode, crops or start of another size.
    """
    settings = config or RefineConfig()
    size = nets.config.image_size
    if nets.training:
        raise ValueError("nets must be in eval mode")
    if crops.dim() != 4 or crops.shape[1:] != (1, size, size):
        raise ValueError(f"crops must have shape [N, 1, {size}, {size}], got {list(crops.shape)}")
    crops = crops.to(next(nets.parameters()))
    with torch.no_grad():
        estimate = nets.posterior_of(crops)
    if start is not None:
        if start.shape != estimate.latent.shape:
            expected = list(estimate.latent.shape)
            raise ValueError(f"start must have shape {expected}, got {list(start.shape)}")
        estimate = Estimate(start.to(crops), None)
    latent = estimate.latent
    refined = _best_latent(nets, crops, latent, settings)
    with torch.no_grad():
        made, remade = nets.depth_of(latent), nets.depth_of(refined)
        return Refinement(
            latent,
            refined,
            nets.joints_from(estimate),
            nets.joints_from(estimate._replace(latent=refined)),
            made,
            remade,
            _misfit(made, crops, settings.huber),
            _misfit(remade, crops, settings.huber),
        )


def _best_latent(
    nets: CrossingNets, crops: Tensor, latent: Tensor, settings: RefineConfig
) -> Tensor:
    count, starts = len(latent), settings.starts
    generator = torch.Generator().manual_seed(settings.seed)
    # The noise of a start is the same for all crops: a crop's result does not depend on the others.
    noise = torch.randn((starts, 1, latent.shape[1]), generator=generator) * settings.spread
    noise[0] = 0
    moved = (latent + noise.to(latent)).flatten(0, 1).requires_grad_()
    target, center = crops.repeat(starts, 1, 1, 1), latent.repeat(starts, 1)

    def loss() -> Tensor:
        prior = settings.prior * (moved - center).square().sum(1)
        return _misfit(nets.depth_of(moved), target, settings.huber) + prior

    optimizer = torch.optim.Adam([moved], settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for _ in range(settings.steps):
        (moved.grad,) = torch.autograd.grad(loss().sum(), [moved])
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        best = loss().view(starts, count).argmin(0)
        return moved.view(starts, count, -1)[best, torch.arange(count, device=best.device)]


def _misfit(made: Tensor, crops: Tensor, huber: float) -> Tensor:
    """[N]; background that both agree on adds next to nothing, so only the hand's size divides."""
    difference = F.huber_loss(made, crops, reduction="none", delta=huber).flatten(1).sum(1)
    hand = (crops < _HAND).flatten(1).sum(1).clamp_min(1)
    return difference / (huber * hand)


@dataclass(frozen=True, eq=False)
class FrameEstimate:
    """A hand in a depth frame.

    Attributes:
        joints_mm: `[J, 3]` mm from the camera: x right, y UP, z forward.
        residual: distance of the hand's rendered surface from the image; None for other joints
            than NYU's 36.
        error_mm: mean over the scored joints (NYU: 14; else all), where there is a label of the
            same joints.
    """

    joints_mm: npt.NDArray[np.float32]
    residual: Residual | None
    error_mm: float | None


@dataclass(frozen=True, eq=False)
class FrameRefinement:
    """What became of one depth frame.

    Attributes:
        name: the frame's.
        center: (u, v, mm), the cube's centre.
        crop: [1, 1, S, S] what the networks saw: a right hand.
        fit: the refinement of the crop.
        before, after: the estimate and the refined one.
    """

    name: str
    center: tuple[float, float, float]
    crop: Tensor
    fit: Refinement
    before: FrameEstimate
    after: FrameEstimate

    @property
    def change_mm(self) -> float:
        """Mean distance that the joints were moved."""
        moved = self.after.joints_mm - self.before.joints_mm
        return float(np.linalg.norm(moved, axis=1).mean())


def refine_frame(
    nets: CrossingNets,
    frame: SourceFrame,
    center: Sequence[float] | None = None,
    *,
    hand: Literal["right", "left"] = "right",
    config: RefineConfig | None = None,
) -> FrameRefinement:
    """Crop the hand of a depth frame as the networks want it, and `refine` the estimate.

    Args:
        nets: in eval mode.
        frame: depth in mm; its `truth_mm`, where it has one, is what errors are measured with.
        center: (u, v, mm) of the hand's middle; None: it is found, as `CrossingNetsEstimator` does.
        hand: which hand is in the image; a left one is mirrored.
        config: settings.

    Raises:
        ValueError: a frame that could not be read, or without a hand.
        TypeError: depth of a type that is none.
    """
    depth, camera, networks = frame.depth, frame.camera, nets.config
    if depth is None or camera is None:
        raise ValueError(frame.problem)
    seen = CrossingNetsEstimator.from_module(nets, hand=hand)(depth, camera, center)
    place = seen.center
    if place is None:
        raise ValueError(seen.reason)
    crop = depth_crop(
        torch.from_numpy(np.ascontiguousarray(depth))[None],
        torch.tensor([place], dtype=torch.float64),
        camera,
        networks.cube_mm,
        networks.image_size,
        normalize=networks.normalize,
    )
    if hand == "left":
        crop = crop.flip(-1)
    fit = refine(nets, crop, config)
    middle = unproject(np.array(place, np.float64), camera)
    side = np.array([-1.0 if hand == "left" else 1.0, 1.0, 1.0])

    def estimate(joints: Tensor) -> FrameEstimate:
        joints_mm = middle + joints[0].double().cpu().numpy() * side * networks.unit_mm
        residual, error = None, None
        if len(joints_mm) == len(NYU36):
            residual = rendered_residual(joints_mm, depth, camera, left=hand == "left")
        if frame.truth_mm is not None:
            error = _error(joints_mm, frame.truth_mm)
        return FrameEstimate(joints_mm.astype(np.float32), residual, error)

    return FrameRefinement(
        frame.name, place, crop, fit, estimate(fit.joints), estimate(fit.refined_joints)
    )


def _error(joints_mm: npt.NDArray[Any], truth_mm: npt.NDArray[Any]) -> float | None:
    scored = list(NYU_SCORED14)
    if len(joints_mm) == len(NYU36):
        joints_mm = joints_mm[scored]
        truth_mm = truth_mm[scored] if len(truth_mm) == len(NYU36) else truth_mm
    if len(joints_mm) != len(truth_mm):
        return None
    return float(np.linalg.norm(joints_mm - truth_mm, axis=1).mean())
