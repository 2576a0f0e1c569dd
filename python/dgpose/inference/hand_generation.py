"""Hands made by Crossing Nets: from a pose, from random latents, along a walk between two.

A point of the shared latent space is decoded twice: by the pose VAE into joints, by alignment and
generator into a depth map (Wan et al., CVPR 2017). Joints are relative to the centre of the cube
that the depth map shows; x right, y UP, z forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data.nyu import CENTER_JOINT
from dgpose.models.crossing_nets import CrossingNets, CrossingNetsConfig
from dgpose.skeletons import NYU36

__all__ = ["GeneratedHands", "depth_in_mm", "generate", "latent_of_poses", "walk"]

BACKGROUND = 0.6
"""Generated values from here on are background: silhouettes are soft, and overlap with rendered
ones best there."""

_SURFACE_MM = 9.0
"""How far the nearest pixel lies before the nearest joint: median over rendered NYU poses
(quartiles 6 and 11), where a map without its absolute depth is put."""


@dataclass(frozen=True, eq=False)
class GeneratedHands:
    """N hands, each as joints and as a depth map.

    Attributes:
        latent: [N, L] float32, the points of the shared latent space.
        joints_mm: [N, J, 3] float32, relative to the cube's centre.
        depth_mm: [N, S, S] float32, z relative to the cube's centre; NaN = nothing there. Row 0 is
            the top of the cube.
        cube_mm: edge of the cube.
    """

    latent: npt.NDArray[np.float32]
    joints_mm: npt.NDArray[np.float32]
    depth_mm: npt.NDArray[np.float32]
    cube_mm: float

    def __len__(self) -> int:
        return len(self.latent)

    @classmethod
    def joined(cls, parts: Sequence[GeneratedHands]) -> GeneratedHands:
        """Hands of the same networks, one after another; at least one part."""
        latent, joints_mm, depth_mm = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("latent", "joints_mm", "depth_mm")
        )
        return cls(latent, joints_mm, depth_mm, parts[0].cube_mm)


@torch.no_grad()
def generate(nets: CrossingNets, latent: Tensor) -> GeneratedHands:
    """Decode latents into joints and depth maps.

    Args:
        nets: in eval mode.
        latent: [N, L]: `latent_of_poses`, `LatentDistribution.draw`, `walk`, or
            `nets.posterior_of(crops).latent`.

    Raises:
        ValueError: networks in training mode, or latents of another size.
    """
    config = nets.config
    if nets.training:
        raise ValueError("nets must be in eval mode")
    if latent.dim() != 2 or latent.shape[1] != config.latent:
        raise ValueError(f"latent must have shape [N, {config.latent}], got {list(latent.shape)}")
    device = next(nets.parameters()).device
    latent = latent.to(device)
    joints_mm = nets.joints_of(latent).cpu() * config.unit_mm
    depth_mm = depth_in_mm(nets.depth_of(latent).cpu(), joints_mm, config)
    return GeneratedHands(latent.cpu().numpy(), joints_mm.numpy(), depth_mm.numpy(), config.cube_mm)


def depth_in_mm(depth: Tensor, joints_mm: Tensor, config: CrossingNetsConfig) -> Tensor:
    """Depth maps of the networks as millimetres from the cube's centre, NaN = background.

    A map that each frame's nearest pixel stretches ("nearest_pixel") does not say how near that is:
    it is put 9 mm before the nearest joint.

    Args:
        depth: [N, 1, S, S], -1 .. 1.
        joints_mm: [N, J, 3] relative to the cube's centre.
        config: how the maps are normalised, and the edge of the cube.

    Returns:
        [N, S, S].
    """
    back = config.cube_mm / 2
    values = depth[:, 0]
    if config.normalize == "cube":
        z = back * values
    else:
        nearest = (joints_mm[..., 2].amin(1) - _SURFACE_MM).clamp(-back, back)[:, None, None]
        z = back - (1 - values) / 2 * (back - nearest)
    return torch.where(values < BACKGROUND, z, torch.nan)


@torch.no_grad()
def latent_of_poses(nets: CrossingNets, joints_mm: npt.NDArray[np.floating]) -> Tensor:
    """Latents [N, L] of poses [N, J, 3] in mm, from any origin.

    The cube is centred where the networks' training data have it: at NYU's joint 34, for other
    joint orders at the origin joint.

    Raises:
        ValueError: poses of other joints than the networks', or not finite.
    """
    config = nets.config
    joints = np.asarray(joints_mm, np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (config.joints, 3):
        raise ValueError(
            f"joints_mm must have shape [N, {config.joints}, 3], got {list(joints.shape)}"
        )
    if not np.isfinite(joints).all():
        raise ValueError("joints_mm must be finite")
    middle = CENTER_JOINT if config.joints == len(NYU36) else config.origin_joint
    relative = (joints - joints[:, middle : middle + 1]) / config.unit_mm
    return nets.latent_of(torch.from_numpy(relative).to(next(nets.parameters())))


def walk(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """`steps` latents [steps, L] on the straight line between two [L], both ends among them.

    Raises:
        ValueError: fewer than two steps.
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    return torch.lerp(start, end, torch.linspace(0, 1, steps, device=start.device)[:, None])
