"""Random crops, sides and colours of training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dgpose.skeletons import Skeleton, flip_keypoints

__all__ = [
    "add_color_noise",
    "color_components",
    "mirror_at_random",
    "mirrored_joints",
    "random_crops",
    "shift_at_random",
]

_IMAGES, _PIXELS = 1000, 200_000


def random_crops(
    images: Tensor, size: int | tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random parts of images.

    Args:
        images: [B, C, h + R, w + R].
        size: (h, w) of the parts, or the edge of square ones.
        generator: on the CPU.

    Returns:
        (parts [B, C, h, w]; where their first pixel lies in the image [B, 2], x then y).
    """
    height, width = (size, size) if isinstance(size, int) else size
    room = images.shape[3] - width
    first = torch.randint(room + 1, (len(images), 2), generator=generator)
    columns = first[:, 0, None] + torch.arange(width)
    rows = first[:, 1, None] + torch.arange(height)
    batch = torch.arange(len(images))[:, None, None]
    # Channels last while indexing: pixels of three values are moved whole.
    parts = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return parts.permute(0, 3, 1, 2), first


def shift_at_random(
    images: Tensor, keypoints: Tensor, reach: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Moves images [B, C, H, W] by up to `reach` whole pixels each way, with their keypoints
    [B, J, 2]; what comes in repeats the border. `generator` on the CPU.

    Returns:
        (images [B, C, H, W] float32, keypoints).
    """
    wide = F.pad(images.float(), (reach,) * 4, mode="replicate")
    height, width = images.shape[2:]
    moved, first = random_crops(wide, (height, width), generator)
    return moved, keypoints + (reach - first)[:, None]


def mirrored_joints(
    keypoints: Tensor, known: Tensor, skeleton: Skeleton, width: int
) -> tuple[Tensor, Tensor]:
    """Joints [B, J, 2] in pixels, and which are known [B, J], of mirrored images of W pixels."""
    return flip_keypoints(keypoints, skeleton, width), known[:, list(skeleton.flip)]


def mirror_at_random(
    images: Tensor, keypoints: Tensor, known: Tensor, skeleton: Skeleton, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mirrors about half of some images [B, C, H, W] with their keypoints [B, J, 2] and which are
    known [B, J]. `generator` on the CPU."""
    mirrored = (torch.rand(len(images), generator=generator) < 0.5)[:, None]
    other_points, other_known = mirrored_joints(keypoints, known, skeleton, images.shape[3])
    return (
        torch.where(mirrored[..., None, None], images.flip(3), images),
        torch.where(mirrored[..., None], other_points, keypoints),
        torch.where(mirrored, other_known, known),
    )


def color_components(images: Tensor) -> Tensor:
    """Principal components of the colours of images, scaled by their eigenvalues.

    Args:
        images: [N, 3, S, S] uint8.

    Returns:
        [3, 3] whose columns are the scaled components, colours in [0, 1].
    """
    some = torch.arange(0, len(images), max(1, len(images) // _IMAGES))  # a copy of all is large
    few = images[some].permute(0, 2, 3, 1).reshape(-1, 3)
    pixels = few[:: max(1, len(few) // _PIXELS)].double() / 255
    centred = pixels - pixels.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(pixels))
    # The sign of an eigenvector is free, and what noise is drawn must not depend on it.
    vectors = vectors * vectors.sum(0).sign()
    components: Tensor = (vectors * values).float()
    return components


def add_color_noise(
    images: Tensor, components: Tensor, std: float, generator: torch.Generator
) -> Tensor:
    """Adds to all pixels of an image the same random mixture of colour components.

    Source: Krizhevsky, Sutskever, Hinton: "ImageNet Classification with Deep Convolutional Neural
    Networks", 2012, section 4.1.

    Args:
        images: [B, 3, H, W] floating point in [0, 1].
        components: [3, 3] of `color_components`.
        std: of the weights of the mixture; 0.1 in the source.
        generator: on the CPU.
    """
    weights = std * torch.randn(len(images), 3, generator=generator)
    shift = weights.to(images) @ components.to(images).T
    return images + shift[:, :, None, None]
