"""What a PoseRetriever estimates on a pool of labelled crops, beside what bounds it.

The best possible candidate ("oracle") is what a perfect score would retrieve: no retrieval without
averaging can be better. The mean pose of the candidates is what an estimate without any image
would be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data.pose_pool import PosePool
from dgpose.inference.pose_retriever import PoseRetriever
from dgpose.metrics.body import BodyErrors, evaluate_body

__all__ = ["CLOSE_MM", "RetrievalReport", "evaluate_retrieval", "nearest_candidates"]

CLOSE_MM = 30.0
"""The paper counts a retrieved pose as right up to here: 97 % of the training images' best ones."""

_IMAGES_AT_ONCE = 64
_CANDIDATES_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class RetrievalReport:
    """Errors by method, in the order of the table, and what told them without labels.

    Attributes:
        methods: "Max", "Avg(20)", ..., "auxiliary" where there is such a head, "oracle",
            "mean pose" where they were asked for.
        guesses: rank correlation (Spearman) of the error of the last Avg with what is known
            without labels: "best score", "spread_mm" and, where they are there,
            "auxiliary_distance_mm" and "confidence". 1 or -1 would tell the order of all errors, 0
            says nothing.
    """

    methods: dict[str, BodyErrors]
    guesses: dict[str, float]

    @property
    def close_share(self) -> float:
        """Share of the images whose best candidate by score lies within 30 mm of the truth."""
        return float((self.methods["Max"].errors_mm.mean(axis=1) <= CLOSE_MM).mean())


def evaluate_retrieval(
    retriever: PoseRetriever,
    pool: PosePool,
    *,
    counts: Sequence[int] = (20, 500),
    bounds: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> RetrievalReport:
    """Estimate the poses of a pool's crops and hold them against the labels.

    Args:
        retriever: model and candidates.
        pool: crops of the model's size; actions are those of the table.
        counts: A of each Avg(A), ascending.
        bounds: also "oracle" and "mean pose", which look at all candidates for each crop.
        progress: called with (crops done, all).

    Raises:
        ValueError: an empty pool, crops of another size, or no count.
    """
    if not counts or list(counts) != sorted(set(counts)) or counts[0] < 1:
        raise ValueError(f"counts must ascend from 1 on, got {list(counts)}")
    if len(pool) == 0:
        raise ValueError("pool must hold at least one crop, got none")
    candidates = retriever.index.poses(retriever.index.ids() if bounds else [])
    mean = candidates.mean(dim=0, dtype=torch.float64)
    found: dict[str, list[Tensor]] = {}
    known: dict[str, list[Tensor]] = {}
    for start in range(0, len(pool), _IMAGES_AT_ONCE):
        images = pool.images[start : start + _IMAGES_AT_ONCE]
        truth = pool.poses[start : start + len(images)]
        estimate = retriever.estimate(images, counts[-1])
        poses = retriever.index.poses(estimate.rows.flatten()).view(*estimate.rows.shape, -1, 3)
        estimates = {"Max": estimate.best_mm}
        estimates |= {f"Avg({count})": poses[:, :count].mean(dim=1) for count in counts}
        facts = {"best score": estimate.scores[:, 0], "spread_mm": estimate.spread_mm}
        if estimate.auxiliary_mm is not None and estimate.auxiliary_distance_mm is not None:
            estimates["auxiliary"] = estimate.auxiliary_mm
            facts["auxiliary_distance_mm"] = estimate.auxiliary_distance_mm
        if estimate.confidence is not None:
            facts["confidence"] = estimate.confidence
        if bounds:
            estimates["oracle"] = candidates[nearest_candidates(truth, candidates)]
            estimates["mean pose"] = mean.expand(truth.shape)
        for kept, values in ((found, estimates), (known, facts)):
            for name, value in values.items():
                kept.setdefault(name, []).append(value)
        if progress is not None:
            progress(start + len(images), len(pool))
    actions = None
    if pool.actions is not None:
        actions = [pool.action_names[action] for action in pool.actions.tolist()]
    methods = {
        name: evaluate_body(torch.cat(parts), pool.poses, actions) for name, parts in found.items()
    }
    errors = methods[f"Avg({counts[-1]})"].errors_mm.mean(axis=1)
    guesses = {
        name: _rank_correlation(torch.cat(parts).double().numpy(), errors)
        for name, parts in known.items()
    }
    return RetrievalReport(methods, guesses)


def nearest_candidates(poses_mm: Tensor, candidates_mm: Tensor) -> Tensor:
    """The candidate with the least MPJPE from each pose, `[B]` int64; ties to the lowest row.

    Args:
        poses_mm: [B, J, 3] root-relative.
        candidates_mm: [N, J, 3] root-relative, N >= 1. All of them are looked at: B N J distances.
    """
    best = torch.full((len(poses_mm),), torch.inf)
    rows = torch.zeros(len(poses_mm), dtype=torch.int64)
    exact = "donot_use_mm_for_euclid_dist"
    by_joint = poses_mm.float().transpose(0, 1)
    for start in range(0, len(candidates_mm), _CANDIDATES_AT_ONCE):
        part = candidates_mm[start : start + _CANDIDATES_AT_ONCE].float().transpose(0, 1)
        sums = torch.zeros(len(poses_mm), part.shape[1])
        for one, other in zip(by_joint, part, strict=True):
            sums += torch.cdist(one, other, compute_mode=exact)
        least, place = sums.min(dim=1)
        better = least < best
        best = torch.where(better, least, best)
        rows = torch.where(better, place + start, rows)
    return rows


def _rank_correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Spearman's; NaN where one of them does not vary."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (one, other)]
    if min(np.ptp(rank) for rank in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
