"""What people are re-identified by, beside a network trained for it: colours, DPIG, chance.

Each function gives features [N, D] of the images of a pool, for `reidentify`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dgpose.data.person_pool import PersonPool
from dgpose.data.reid_sets import ReidSet
from dgpose.metrics.reidentification import Reidentification, reidentify
from dgpose.models.dpig import DPIG, DPIGConfig, pose_inputs
from dgpose.skeletons import OPENPOSE18

__all__ = ["chance", "color_histograms", "foreground_codes", "reidentify_by"]

_BINS = 8  # of each colour channel
_CHANCE_SIZE = 64
_AT_ONCE = 128
_HIPS = [OPENPOSE18.joints.index(f"{side}_hip") for side in ("right", "left")]


@torch.no_grad()
def color_histograms(pool: PersonPool) -> Tensor:
    """Joint histograms (8 bins of red, green and blue each) of the upper and of the lower body.

    The body is DPIG's mask: disks along the limbs between visible joints. It is cut at the row of
    the visible hips, or in the middle of the image where none is visible; where no limb is, the
    whole image counts. Each half's shares are square roots (Hellinger's kernel), so that the cosine
    of two rows is the mean of the Bhattacharyya coefficients of both halves.

    Args:
        pool: images of (128, 64) or (256, 256) pixels.

    Returns:
        [N, 1024] float32.
    """
    config = DPIGConfig.paper(pool.size)
    parts = [torch.zeros(0, 2 * _BINS**3)]
    for rows in torch.arange(len(pool)).split(_AT_ONCE):  # type: ignore[no-untyped-call]
        keypoints, visible = pool.keypoints_px[rows], pool.visible[rows]
        mask = pose_inputs(keypoints, visible, config).mask[:, 0]
        mask = mask.where(mask.any(2).any(1)[:, None, None], 1.0)
        height = pool.size[0]
        hips, seen = keypoints[:, _HIPS, 1], visible[:, _HIPS]
        cut = (hips * seen).sum(1) / seen.sum(1)
        cut = cut.nan_to_num((height - 1) / 2)
        upper = (torch.arange(height) <= cut[:, None])[..., None] * mask
        binned = (pool.images[rows].long() * _BINS) // 256
        bins = (binned[:, 0] * _BINS + binned[:, 1]) * _BINS + binned[:, 2]
        halves = []
        for weight in (upper, mask - upper):
            counts = torch.zeros(len(rows), _BINS**3)
            counts.scatter_add_(1, bins.flatten(1), weight.flatten(1))
            halves.append(F.normalize(counts, p=1.0, dim=1).sqrt())
        parts.append(torch.cat(halves, 1))
    return torch.cat(parts)


@torch.no_grad()
def foreground_codes(model: DPIG, pool: PersonPool) -> Tensor:
    """The codes of DPIG's foreground as they are. An absent part's is 0, and so is all of an image
    without visible joints.

    Args:
        model: with a trained stage 1, in evaluation mode.
        pool: images of its size.

    Returns:
        [N, 7 part_code] float32.

    Raises:
        ValueError: images of another size, or stage 1 was not trained.
    """
    device = next(model.parameters()).device
    parts = [torch.zeros(0, model.config.foreground_code)]
    for rows in torch.arange(len(pool)).split(model.config.images_at_once):  # type: ignore[no-untyped-call]
        images = (pool.images[rows].float() / 255).to(device)
        pose = pool.keypoints_px[rows].to(device), pool.visible[rows].to(device)
        codes, _ = model.encode_images(images, *pose)
        parts.append(codes.cpu())
    return torch.cat(parts)


def chance(seed: int = 0) -> Callable[[PersonPool], Tensor]:
    """Features that know nothing: normal noise [N, 64], new in every call."""
    generator = torch.Generator().manual_seed(seed)
    return lambda pool: torch.randn(len(pool), _CHANCE_SIZE, generator=generator)


def reidentify_by(features: Callable[[PersonPool], Tensor], people: ReidSet) -> Reidentification:
    """`reidentify` by the features [N, D] that a function gives of a pool.

    Raises:
        ValueError: as `reidentify`.
    """
    query, gallery = people.query, people.gallery
    assert query.identity is not None
    assert gallery.identity is not None
    return reidentify(
        features(query),
        features(gallery),
        query.identity,
        gallery.identity,
        people.query_cameras,
        people.gallery_cameras,
    )
