"""Sets of generated images beside sets of true ones, and the colours of a body's parts.

Features are those of our own judge (`KeypointNetwork.features`), so the Fréchet distance here is
not FID, whose features are those of an Inception network, and its figures cannot be compared with
published ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dgpose.metrics.keypoints import torso_px
from dgpose.skeletons import BODY14
from dgpose_ext import limb_heatmap

__all__ = [
    "PART_NAMES",
    "PartColors",
    "color_distance",
    "diversity",
    "energy_distance",
    "frechet_distance",
    "gaussian_distance",
    "part_colors",
]

_LIMB_SIGMA = 0.08  # of torsos
_AT_ONCE = 128


def _parts() -> dict[str, tuple[tuple[str, str], ...]]:
    parts: dict[str, tuple[tuple[str, str], ...]] = {
        "head": (("neck", "nose"),),
        "torso": (("neck", "right_hip"), ("neck", "left_hip")),
    }
    for side in ("right", "left"):
        for name, start, end in (
            ("upper_arm", "shoulder", "elbow"),
            ("forearm", "elbow", "wrist"),
            ("thigh", "hip", "knee"),
            ("shank", "knee", "ankle"),
        ):
            parts[f"{side}_{name}"] = ((f"{side}_{start}", f"{side}_{end}"),)
    return parts


_PARTS = _parts()
PART_NAMES = tuple(_PARTS)
"""The ten parts whose colours are compared."""

_SEGMENTS = tuple(
    (BODY14.joints.index(a), BODY14.joints.index(b)) for part in _PARTS.values() for a, b in part
)
_PART_OF_SEGMENT = torch.tensor([row for row, part in enumerate(_PARTS.values()) for _ in part])


def gaussian_distance(
    mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor
) -> Tensor:
    """Squared Fréchet (2-Wasserstein) distance between Gaussians,
    |m - n|² + tr(S + T - 2 (S^½ T S^½)^½), in float64.

    Args:
        mean, other_mean: [..., F].
        covariance, other_covariance: [..., F, F], symmetric; they may be singular.

    Returns:
        [...], at least 0.
    """
    mean, other_mean = mean.double(), other_mean.double()
    covariance, other_covariance = covariance.double(), other_covariance.double()
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt()[..., None, :] @ vectors.mT
    middle = torch.linalg.eigvalsh(root @ other_covariance @ root)
    traces = (covariance + other_covariance).diagonal(dim1=-2, dim2=-1).sum(-1)
    distance = (mean - other_mean).square().sum(-1) + traces
    squared: Tensor = distance - 2 * middle.clamp_min(0).sqrt().sum(-1)
    return squared.clamp_min(0)


def frechet_distance(features: Tensor, other: Tensor) -> float:
    """Squared Fréchet distance between the Gaussians of two sets of features.

    Few samples make it larger: two halves of one set are not at 0. Compare sets of the same size
    only, and beside the distance between two sets of true images.

    Args:
        features: [N, F], N >= 2; there may be fewer than F.
        other: [M, F], M >= 2.

    Raises:
        ValueError: another shape, or features that are not finite.
    """
    _require_features(features, other)
    features, other = features.double(), other.double()
    return float(
        gaussian_distance(features.mean(0), features.T.cov(), other.mean(0), other.T.cov())
    )


def energy_distance(features: Tensor, other: Tensor) -> float:
    """How far two sets of features are apart as distributions, in any way, not by their Gaussians
    alone: 1 - (E|x - x'| + E|y - y'|) / (2 E|x - y|) over different pairs (Székely and Rizzo: J.
    Stat. Plan. Inference 143, 2013), in float64.

    0 where the distributions are the same (a little below it may be found), at most 1.

    Args:
        features: [N, F], N >= 2.
        other: [M, F], M >= 2.

    Raises:
        ValueError: another shape, or features that are not finite.
    """
    _require_features(features, other)
    features, other = features.double(), other.double()
    within = sum(float(torch.nn.functional.pdist(rows).mean()) for rows in (features, other))
    between = 2 * float(torch.cdist(features, other).mean())
    return 1 - within / between if between else 0.0


def _require_features(features: Tensor, other: Tensor) -> None:
    for name, value in (("features", features), ("other", other)):
        if value.dim() != 2 or len(value) < 2 or value.shape[1] != features.shape[1]:
            raise ValueError(f"{name} must have shape [N, F] with N >= 2, got {list(value.shape)}")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} must be finite, got NaN or Inf")


def diversity(features: Tensor) -> float:
    """Mean Euclidean distance of all pairs of different rows of features [N, F], N >= 2.

    Raises:
        ValueError: fewer rows.
    """
    if features.dim() != 2 or len(features) < 2:
        raise ValueError(f"features must have shape [N, F] with N >= 2, got {list(features.shape)}")
    return float(torch.nn.functional.pdist(features.double()).mean())


class PartColors(NamedTuple):
    """Colours (RGB in [0, 1]) of the ten parts of B people."""

    mean: Tensor  #: [B, 10, 3] float64
    covariance: Tensor  #: [B, 10, 3, 3]
    known: (
        Tensor  #: [B, 10] bool: the part's joints and the torso are known, and it is in the image
    )


def part_colors(images: Tensor, keypoints_px: Tensor, known: Tensor) -> PartColors:
    """Colours along the limbs: pixels weigh by a Gaussian of their distance to the line between two
    joints, with a standard deviation of 0.08 torsos. Nothing here knows what hides a limb.

    Args:
        images: [B, 3, H, W] RGB in [0, 1].
        keypoints_px: [B, 14, 2] of BODY14.
        known: [B, 14] bool.
    """
    split = (value.split(_AT_ONCE) for value in (images, keypoints_px, known))  # type: ignore[no-untyped-call]
    parts = [_part_colors(*rows) for rows in zip(*split, strict=True)]
    return PartColors(*(torch.cat(field) for field in zip(*parts, strict=True)))


def _part_colors(images: Tensor, keypoints_px: Tensor, known: Tensor) -> PartColors:
    torso = torso_px(keypoints_px, known)
    sigma = (_LIMB_SIGMA * torso.nan_to_num(1.0)).float()[:, None].expand(-1, len(_SEGMENTS))
    points = keypoints_px.float().where(known[..., None], 0)
    height, width = images.shape[2:]
    near = limb_heatmap(points, _SEGMENTS, (height, width), sigma.contiguous(), visible=known)
    complete = torch.stack([known[:, a] & known[:, b] for a, b in _SEGMENTS], 1)
    weights = near.new_zeros(len(images), len(PART_NAMES), *images.shape[2:])
    weights = weights.index_add(1, _PART_OF_SEGMENT.to(near.device), near).flatten(2).double()
    missing = torch.zeros(len(images), len(PART_NAMES), dtype=torch.int64, device=near.device)
    missing = missing.index_add(1, _PART_OF_SEGMENT.to(near.device), (~complete).long())
    total = weights.sum(2)
    shown = (missing == 0) & ~torso.isnan()[:, None] & (total > 0.5)
    shares = weights / total.clamp_min(1e-9)[..., None]
    colors = images.double().flatten(2)
    mean = torch.einsum("bpn,bcn->bpc", shares, colors)
    square = torch.einsum("bpn,bcn,bdn->bpcd", shares, colors, colors)
    return PartColors(mean, square - mean[..., :, None] * mean[..., None, :], shown)


def color_distance(one: PartColors, other: PartColors) -> Tensor:
    """How far the part colours of people are apart: the root of `gaussian_distance`, averaged over
    the parts that both show. [B]; NaN where there is none; black and white are sqrt(3) apart."""
    distances = gaussian_distance(one.mean, one.covariance, other.mean, other.covariance).sqrt()
    both = one.known & other.known
    return distances.masked_fill(~both, torch.nan).nanmean(1)
