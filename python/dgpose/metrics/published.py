"""Published results, to print beside our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["HAND_RESULTS", "HandResult"]


@dataclass(frozen=True)
class HandResult:
    """What a paper says of its method for hands in depth images.

    Attributes:
        method: its name.
        mean_mm: mean joint error, mm, by data set ("nyu", "icvl", "msra"); None: the paper shows
            curves, and their mean is not known; a set that is not there: no result.
        frames_per_second: as published, on the authors' machines; None: not said.
        note: what else belongs to the figures.
    """

    method: str
    mean_mm: Mapping[str, float | None]
    frames_per_second: float | None = None
    note: str = ""


HAND_RESULTS: tuple[HandResult, ...] = (
    HandResult("Crossing Nets (2017)", {"nyu": None, "icvl": 10.2, "msra": None}, 90.9, "CPU"),
    HandResult("DeepPrior++", {"nyu": 12.24, "icvl": 8.1}, 30),
    HandResult("DenseReg", {"nyu": 10.21, "icvl": 7.3, "msra": 7.23}, 27.8),
    HandResult("V2V-PoseNet", {"nyu": 9.22}, 35, "single model"),
    HandResult("V2V-PoseNet", {"nyu": 8.42, "icvl": 6.28, "msra": 7.49}, 3.5, "ensemble"),
    HandResult("A2J", {"nyu": 8.61, "icvl": 6.46}, 105, "1080 Ti"),
    HandResult("SRN", {"nyu": 7.79, "icvl": 6.27, "msra": 7.17}),
    HandResult("HandFoldingNet", {"nyu": 8.58, "icvl": 5.95, "msra": 7.34}),
    HandResult("TriHorn-Net", {"nyu": 7.68, "icvl": 5.73, "msra": 7.13}),
)
"""Mean joint errors on the test sets, as `dgpose.metrics.hand` computes them."""
