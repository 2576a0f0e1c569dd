"""Published results, to print beside our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "BODY_RESULTS",
    "FACTOR_RESULTS",
    "HAND_RESULTS",
    "MAX_MARGIN_HIDDEN_TEST",
    "PERSON_RESULTS",
    "PERSON_SET_SIZES",
    "REID_RESULTS",
    "BodyResult",
    "FactorResult",
    "HandResult",
    "PersonResult",
    "ReidResult",
]


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


@dataclass(frozen=True)
class BodyResult:
    """What a paper says of its method for 3D bodies in photographs, MPJPE in mm.

    Attributes:
        method: its name.
        mean_mm: the figure that the paper's table gives for all of its actions.
        by_action: the actions that are known one by one, by the names of
            `dgpose.data.human36m.ACTIONS`.
        note: what else belongs to the figures.
    """

    method: str
    mean_mm: float
    by_action: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


BODY_RESULTS: tuple[BodyResult, ...] = (
    BodyResult("LinKDE", 162.25),
    BodyResult("DconvMP-HML", 133.54),
    BodyResult("Max-margin, Max, no auxiliary task", 145.74),
    BodyResult("Max-margin, Max", 135.63),
    BodyResult("Max-margin, Avg(20)", 128.11),
    BodyResult(
        "Max-margin, Avg(500)",
        121.46,
        {
            "Walking": 69.75, "Discussion": 134.37, "Eating": 98.19, "TakingPhoto": 164.28,
            "WalkingDog": 132.53, "Greeting": 122.44,
        },
    ),
    BodyResult("Max-margin, Avg(500)-APF", 121.31),
    BodyResult("Max-margin, Avg(1500)", 123.04),
)  # fmt: skip
"""Human3.6M, subjects S9 and S11, six actions (Li, Zhang, Chan: ICCV 2015)."""

MAX_MARGIN_HIDDEN_TEST = BodyResult(
    "Max-margin, Avg(500)",
    122.03,
    {
        "Discussion": 92.97, "Eating": 76.70, "Greeting": 98.16, "Phoning": 92.70,
        "Posing": 106.86, "Purchases": 140.94, "Sitting": 135.46, "SittingDown": 260.75,
        "Smoking": 98.03, "TakingPhoto": 170.83, "Waiting": 105.11, "Walking": 99.40,
        "WalkingDog": 138.53, "WalkingTogether": 109.30,
    },
    "LinKDE: 133.81",
)  # fmt: skip
"""Human3.6M's hidden test set, whose labels nobody has. 92.70 mm, often quoted as the method's
average, is Phoning alone."""


@dataclass(frozen=True)
class PersonResult:
    """What a paper says of its method for images of people in poses.

    Attributes:
        data: "chictopia", "deepfashion" or "h36m", as `dgpose.data.person_sources` names them.
        method: its name.
        psnr_db, ssim: means over the test images.
        labelled: share of the training images whose poses were used; None: the paper does not say.
    """

    data: str
    method: str
    psnr_db: float
    ssim: float
    labelled: float | None = None


PERSON_RESULTS: tuple[PersonResult, ...] = (
    PersonResult("chictopia", "Conditional-DGPose", 21.33, 0.88, 1.0),
    PersonResult("chictopia", "ClothNet-body", 16.89, 0.82),
    PersonResult("deepfashion", "Conditional-DGPose", 18.38, 0.79, 1.0),
    PersonResult("deepfashion", "Semi-DGPose", 16.84, 0.76),
    PersonResult("deepfashion", "PG2", 18.96, 0.83),
    PersonResult("h36m", "Semi-DGPose", 22.27, 0.89, 1.0),
    PersonResult("h36m", "Semi-DGPose", 21.49, 0.87, 0.75),
    PersonResult("h36m", "Semi-DGPose", 21.36, 0.86, 0.5),
    PersonResult("h36m", "Semi-DGPose", 20.06, 0.83, 0.25),
)
"""The tables of DGPose (de Bem et al.: IJCV 2020). The size at which images were compared, and the
window of SSIM, are not known to us."""

PERSON_SET_SIZES: dict[str, tuple[int, int, int]] = {
    "chictopia": (23_011, 2_873, 286),
    "deepfashion": (44_950, 6_560, 256),
    "h36m": (317_989, 1_280, 1000),
}
"""What DGPose was trained and tested on: training images, test images, edge of an image."""


@dataclass(frozen=True)
class FactorResult:
    """What is said of a method for people in other poses (DPIG, and PG2 before it).

    Attributes:
        data: "market" or "deepfashion".
        method: its name.
        ssim: mean over the pairs.
        mask_ssim: of the person alone, see `image_quality.mask_ssim`.
    """

    data: str
    method: str
    ssim: float
    mask_ssim: float | None = None


FACTOR_RESULTS: tuple[FactorResult, ...] = (
    FactorResult("market", "DPIG", 0.099, 0.614),
    FactorResult("market", "PG2", 0.253, 0.792),
    FactorResult("deepfashion", "DPIG", 0.614),
    FactorResult("deepfashion", "PG2", 0.762),
)
"""As tables of later papers quote them; we could not confirm them. Inception scores are left out:
they need the network of that name. The code of DPIG takes masks of the source."""


@dataclass(frozen=True)
class ReidResult:
    """Rank-1 in % of re-identification on Market-1501."""

    method: str
    rank1: float


REID_RESULTS: tuple[ReidResult, ...] = (ReidResult("DPIG, foreground codes, no labels", 35.5),)
"""Second-hand; we could not confirm it."""
