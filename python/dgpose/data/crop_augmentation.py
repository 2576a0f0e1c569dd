"""Random crops and colours of training images."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["add_color_noise", "color_components", "random_crops"]

_IMAGES, _PIXELS = 1000, 200_000


def random_crops(images: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random square parts of images.

    Args:
        images: [B, C, S, S].
        size: edge of the part, at most S.
        generator: on the CPU.

    Returns:
        (parts [B, C, size, size]; where their first pixel lies in the image [B, 2], x then y).
    """
    room = images.shape[-1] - size
    first = torch.randint(room + 1, (len(images), 2), generator=generator)
    reach = torch.arange(size)
    columns, rows = (first[:, axis, None] + reach for axis in (0, 1))
    batch = torch.arange(len(images))[:, None, None]
    # Channels last while indexing: pixels of three values are moved whole.
    parts = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return parts.permute(0, 3, 1, 2), first


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
