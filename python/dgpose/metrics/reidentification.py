"""Re-identification by Market-1501's protocol (Zheng et al.: ICCV 2015).

Each query ranks the gallery. Gallery images of the same person and the same camera as the query are
left out of its ranking, and so is junk (person -1); distractors (person 0) stay in and are wrong.
Rank-k is the share of queries with a right image among their first k; mAP is the mean of the
average precisions. Average precision is that of the released evaluation: the area under the curve
of precision over recall by the trapezoidal rule, beginning at a precision of 1. The plain mean of
the precisions at the right images, which other tools print, is smaller: the two must not be
compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dgpose.data.market1501 import JUNK
from dgpose_ext import inner_product_topk

__all__ = ["RANKS", "Reidentification", "reidentify"]

RANKS = (1, 5, 10)
"""What the tables show."""

_LONGEST = 50
_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class Reidentification:
    """How well people were found again.

    Attributes:
        curve: [50] float64, rank-1 to rank-50, 0 to 1.
        mean_average_precision: 0 to 1.
        queries: how many were scored: those with a right image in the gallery.
        gallery: its images, junk left out.
    """

    curve: Tensor
    mean_average_precision: float
    queries: int
    gallery: int

    def rank(self, k: int) -> float:
        """Share of the queries with a right image among the first k, 1 to 50."""
        return float(self.curve[k - 1])

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the whole curve."""
        return {
            **{f"rank_{k}": self.rank(k) for k in RANKS},
            "mAP": self.mean_average_precision,
            "queries": self.queries,
            "gallery": self.gallery,
            "curve": self.curve.tolist(),
        }


def reidentify(
    query: Tensor,
    gallery: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cameras: Tensor,
    gallery_cameras: Tensor,
) -> Reidentification:
    """Ranks a gallery by cosine similarity; equal ones by their place in the gallery.

    Args:
        query: [Q, D] features.
        gallery: [G, D]. A row of zeros has the similarity 0 to all.
        query_ids: [Q] int64, persons above 0.
        gallery_ids: [G] int64: persons, DISTRACTOR or JUNK of
            `dgpose.data.market1501`.
        query_cameras: [Q] int64.
        gallery_cameras: [G] int64.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, a query of nobody, or no
            query with a right image from another camera.
    """
    for name, value, other in (("query", query, gallery), ("gallery", gallery, query)):
        if value.dim() != 2 or value.shape[1:] != other.shape[1:]:
            raise ValueError(
                f"query and gallery must have shapes [Q, D] and [G, D], got {list(query.shape)} "
                f"and {list(gallery.shape)}"
            )
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} must be finite, got NaN or Inf")
    for name, value, features in (
        ("query_ids", query_ids, query),
        ("query_cameras", query_cameras, query),
        ("gallery_ids", gallery_ids, gallery),
        ("gallery_cameras", gallery_cameras, gallery),
    ):
        if value.shape != features.shape[:1]:
            raise ValueError(f"{name} must have shape [{len(features)}], got {list(value.shape)}")
    if bool((query_ids < 1).any()):
        raise ValueError(f"query_ids must be at least 1, got {int(query_ids.min())}")
    counted = gallery_ids != JUNK
    ids, cameras = gallery_ids[counted], gallery_cameras[counted]
    rows = F.normalize(gallery[counted].float(), dim=1)
    found, precisions = torch.zeros(_LONGEST, dtype=torch.int64), []
    for some in torch.arange(len(query)).split(_AT_ONCE):  # type: ignore[no-untyped-call]
        who, where = query_ids[some, None], query_cameras[some, None]
        # Without any row there is no k to ask for; nothing is right then.
        _, order = inner_product_topk(
            F.normalize(query[some].float(), dim=1), rows, max(len(ids), 1)
        )
        order = order[:, : len(ids)]
        left_out = (ids[order] == who) & (cameras[order] == where)
        right = (ids[order] == who) & ~left_out
        first, average = _scores(right, ~left_out)
        found += torch.bincount(first[first < _LONGEST], minlength=_LONGEST)
        precisions.append(average[right.any(1)])
    average_precisions = torch.cat(precisions) if precisions else torch.zeros(0)
    scored = len(average_precisions)
    if not scored:
        raise ValueError(
            "gallery must hold an image of some query's person from another camera, got none"
        )
    return Reidentification(
        found.cumsum(0).double() / scored, float(average_precisions.mean()), scored, len(ids)
    )


def _scores(right: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Place from 0 of the first right image (the greatest integer where there is none), and average
    precision: of images [Q, G] in ranked order, of which some do not count."""
    place = counts.long().cumsum(1) - 1
    hits = right.long().cumsum(1).double()
    total = hits[:, -1:] if hits.shape[1] else hits.new_zeros(len(hits), 1)
    precision = hits / (place + 1)
    # Before any image the released evaluation has the precision 1.
    before = torch.where(place > 0, (hits - 1) / place.clamp_min(1), 1.0)
    area = torch.where(right, (before + precision) / 2, 0.0).sum(1) / total[:, 0].clamp_min(1)
    never = torch.iinfo(torch.int64).max
    first = torch.where(right, place, never)
    return (first.amin(1) if first.shape[1] else first.new_full((len(first),), never)), area
