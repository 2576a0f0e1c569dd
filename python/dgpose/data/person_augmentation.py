"""Random variations of person crops with their joints: place, size, turn, side, colour and blur."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dgpose.skeletons import BODY14

__all__ = ["PersonAugmentation", "augment_people"]

_BLUR_TAPS = 7


@dataclass(frozen=True)
class PersonAugmentation:
    """How much crops vary; ranges are drawn from uniformly.

    Args:
        flip: chance of a mirrored crop, whose joints change sides.
        scale: range of the person's size, drawn by its logarithm.
        shift: up to so much of the crop's edge, each way.
        turn_deg: up to so many degrees, each way.
        brightness: added to all colours, up to so much each way.
        contrast: range of the factor of what differs from the mean colour.
        tint: range of a factor of each colour channel.
        grey: chance of a crop without colour.
        blur: chance of a Gaussian blur; its standard deviation in pixels is up to `blur_px`.
        noise: up to this standard deviation.
    """

    flip: float = 0.5
    scale: tuple[float, float] = (0.75, 1.25)
    shift: float = 0.1
    turn_deg: float = 25.0
    brightness: float = 0.15
    contrast: tuple[float, float] = (0.6, 1.4)
    tint: tuple[float, float] = (0.8, 1.2)
    grey: float = 0.1
    blur: float = 0.3
    blur_px: float = 1.5
    noise: float = 0.04


def augment_people(
    images: Tensor,
    keypoints_px: Tensor,
    known: Tensor,
    generator: torch.Generator,
    augmentation: PersonAugmentation | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Varies crops and moves their joints along.

    Args:
        images: [B, 3, S, S] uint8.
        keypoints_px: [B, 14, 2] of BODY14.
        known: [B, 14] bool.
        generator: on the CPU; the same one gives the same crops.
        augmentation: how much; None: the default.

    Returns:
        (images [B, 3, S, S] float32 in [0, 1], on the device of `images`; what lies outside of the
        given ones repeats their edge; keypoints_px; known: without joints that left the crop).
    """
    how = augmentation or PersonAugmentation()
    count, size = len(images), images.shape[-1]
    middle = (size - 1) / 2

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    scale = uniform(math.log(how.scale[0]), math.log(how.scale[1])).exp()
    turn = uniform(-how.turn_deg, how.turn_deg) * (math.pi / 180)
    shift = uniform(-how.shift * size, how.shift * size, 2)
    mirrored = uniform(0, 1) < how.flip
    side = torch.where(mirrored, -1.0, 1.0)
    # New place = matrix (old place - middle) + middle + shift; mirrored before it is turned.
    cos, sin = scale * turn.cos(), scale * turn.sin()
    matrix = torch.stack((cos * side, -sin, sin * side, cos), 1).view(-1, 2, 2)

    device = images.device
    matrix, shift, mirrored = matrix.to(device), shift.to(device), mirrored.to(device)
    back = torch.linalg.inv(matrix)
    offset = -(back @ shift[:, :, None]) / (size / 2)
    grid = F.affine_grid(torch.cat((back, offset), 2), list(images.shape), align_corners=False)
    varied = F.grid_sample(images.float() / 255, grid, padding_mode="border", align_corners=False)
    flip = list(BODY14.flip)
    sides = mirrored[:, None]
    points = torch.where(sides[..., None], keypoints_px[:, flip], keypoints_px)
    seen = torch.where(sides, known[:, flip], known)
    points = (points - middle) @ matrix.transpose(1, 2) + middle + shift[:, None]
    inside = ((points > -0.5) & (points < size - 0.5)).all(2)
    return _recoloured(varied, how, generator), points, seen & inside


def _recoloured(images: Tensor, how: PersonAugmentation, generator: torch.Generator) -> Tensor:
    count, device = len(images), images.device

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = torch.rand(count, channels, 1, 1, generator=generator)
        return (low + (high - low) * drawn).to(device)

    grey = images.mean(1, keepdim=True)
    images = torch.where(uniform(0, 1) < how.grey, grey, images)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * uniform(*how.contrast) + mean
    images = images * uniform(*how.tint, 3) + uniform(-how.brightness, how.brightness)
    blurred = _blurred(images, uniform(0.3, how.blur_px).flatten())
    images = torch.where(uniform(0, 1) < how.blur, blurred, images)
    noise = torch.randn(images.shape, generator=generator).to(device)
    return (images + uniform(0, how.noise) * noise).clamp(0, 1)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Each image [B, 3, S, S] blurred by its own sigma [B] in pixels."""
    count, channels, size, _ = images.shape
    places = torch.arange(_BLUR_TAPS, device=images.device) - _BLUR_TAPS // 2
    taps = torch.softmax(-0.5 * (places / sigma[:, None]) ** 2, 1)
    taps = taps.repeat_interleave(channels, 0)[:, None]
    pad = _BLUR_TAPS // 2
    maps = F.pad(images, (pad, pad, pad, pad), mode="replicate").view(
        1, count * channels, size + 2 * pad, -1
    )
    for kernel in (taps[:, :, None], taps[:, :, :, None]):
        maps = F.conv2d(maps, kernel, groups=count * channels)
    return maps.view(count, channels, size, size)
