"""How near generated images come to true ones, and how sharp they are.

PSNR and SSIM are those of torchmetrics, for each image by itself, at the size at which the model
makes it: nothing is padded, resized or cut first. A figure of a set is the mean over its images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

__all__ = ["mask_ssim", "psnr", "sharpness", "ssim"]

_GREY = (0.299, 0.587, 0.114)
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def psnr(images: Tensor, true: Tensor, masks: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each image: -10 log10 of its mean squared error.

    Args:
        images: [B, 3, H, W] RGB in [0, 1].
        true: likewise.
        masks: [B, 1, H, W] bool: the pixels that count; None: all do.

    Returns:
        [B] dB; infinite where nothing differs, NaN where no pixel counts.

    Raises:
        ValueError: shapes that do not fit.
    """
    _require_pair(images, true)
    share = torch.ones(len(true), device=true.device)
    if masks is not None:
        _require_masks(masks, true)
        share = masks.float().mean((1, 2, 3))
        images = torch.where(masks, images, true)
    ratio = peak_signal_noise_ratio(
        images.float(), true.float(), data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    # Without the pixels that do not count, and are equal here, the error is larger by 1 / share.
    return torch.where(share > 0, ratio + 10 * share.log10(), torch.nan)


def ssim(images: Tensor, true: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004): 11x11 Gaussian window of standard
    deviation 1.5, K1 = 0.01, K2 = 0.03, data range 1, mean over the colour channels.

    Arguments and errors as for `psnr`. Returns [B], at most 1.
    """
    _require_pair(images, true)
    values = structural_similarity_index_measure(
        images.float(),
        true.float(),
        gaussian_kernel=True,
        sigma=1.5,
        kernel_size=11,
        data_range=1.0,
        k1=0.01,
        k2=0.03,
        reduction="none",
    )
    assert isinstance(values, Tensor)
    return values


def mask_ssim(images: Tensor, true: Tensor, masks: Tensor) -> Tensor:
    """SSIM of both images with all but the mask black, over the whole image, as Ma et al. ("Pose
    Guided Person Image Generation", NIPS 2017) have it: the black is equal, so that small masks
    come near 1. The mask must be that of `true`; the code of DPIG takes the source's instead.

    Args:
        images, true: as for `psnr`.
        masks: [B, 1, H, W], 1 or True where pixels count.

    Returns:
        [B], at most 1.

    Raises:
        ValueError: shapes that do not fit.
    """
    _require_masks(masks, true)
    return ssim(images * masks, true * masks)


def sharpness(images: Tensor) -> Tensor:
    """Variance of the Laplacian (4 neighbours) of the grey image (ITU-R BT.601): [B].

    It is no measure of quality: noise is sharp, too. To be read beside that of the true images.
    """
    weights = torch.tensor(_GREY, device=images.device)
    grey = torch.einsum("bchw,c->bhw", images.float(), weights)[:, None]
    kernel = torch.tensor(_LAPLACIAN, device=images.device)[None, None]
    return F.conv2d(grey, kernel).var((1, 2, 3))


def _require_pair(images: Tensor, true: Tensor) -> None:
    if true.dim() != 4 or true.shape[1] != 3:
        raise ValueError(f"true must have shape [B, 3, H, W], got {list(true.shape)}")
    if images.shape != true.shape:
        raise ValueError(
            f"images must have the shape of true, {list(true.shape)}, got {list(images.shape)}"
        )


def _require_masks(masks: Tensor, true: Tensor) -> None:
    if tuple(masks.shape) != (len(true), 1, *true.shape[2:]):
        raise ValueError(
            f"masks must have shape [B, 1, H, W] with those of true, got {list(masks.shape)}"
        )
