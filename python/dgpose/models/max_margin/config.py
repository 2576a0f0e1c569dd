"""Sizes of the networks, losses, and how they are trained: as published, or what measured better.

What the paper and its code leave open is marked [?]: the value is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from dgpose.models.config_checks import (
    require_counts,
    require_not_negative,
    require_one_of,
    require_positive,
)

__all__ = ["MaxMarginConfig", "MaxMarginRecipe"]

Backbone = Literal["paper", "residual"]
PoseLayers = Literal["raw", "random", "one", "two"]
MarginLoss = Literal["hinge", "none"]
AuxiliaryLoss = Literal["squared", "distance"]
Optimizer = Literal["line_search", "adamw"]
CandidateSearch = Literal["sampled", "full"]


@dataclass(frozen=True)
class MaxMarginRecipe:
    """How the networks are trained; the defaults are the published way.

    Args:
        batch: images a step.
        optimizer: of the max-margin stage: "line_search" is stochastic gradient descent without
            momentum whose step is searched anew in each batch; "adamw" falls to 0 along a cosine.
        lowest_step, highest_step: bounds of the line search.
        learning_rate: of AdamW, its peak; also that of the first stage.
        weight_decay: of AdamW.
        clip_norm: largest norm of AdamW's gradient.
        pretrain_share: share of the training in which the convolutions alone learn, from joint
            regression and sliding-window joint detection. [?]
        detection_weight: of the joint detection in that stage. [?]
        freeze_convolutions: whether convolutions are frozen in the max-margin stage.
        candidates: where the most violated pose of an image is looked for: "sampled" among
            `sampled_candidates` random training poses and the `frequent_violators` poses that
            were found most often so far, embedded anew in each step; "full" among all candidates.
        full_share: share of the max-margin stage, its last, in which "full" is so; until then
            candidates are sampled.
        sampled_candidates, frequent_violators: C and K of the paper.
        refresh: steps between two embeddings of all candidates ("full").
        violators: poses found for each image, by embeddings that may be old. Those of the whole
            batch are then embedded with gradients, and the worst of them all is what counts.
    """

    batch: int = 128
    optimizer: Optimizer = "line_search"
    lowest_step: float = 1e-7
    highest_step: float = 1e2
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip_norm: float = 10.0
    pretrain_share: float = 0.5
    detection_weight: float = 1.0
    freeze_convolutions: bool = True
    candidates: CandidateSearch = "sampled"
    full_share: float = 1.0
    sampled_candidates: int = 2000
    frequent_violators: int = 10
    refresh: int = 10
    violators: int = 1

    def __post_init__(self) -> None:
        require_one_of("optimizer", self.optimizer, Optimizer)
        require_one_of("candidates", self.candidates, CandidateSearch)
        if self.batch < 2:  # batch normalisation
            raise ValueError(f"batch must be at least 2, got {self.batch}")
        require_counts(self, "sampled_candidates", "refresh", "violators")
        require_positive(self, "learning_rate", "clip_norm")
        require_not_negative(self, "frequent_violators", "weight_decay", "detection_weight")
        for name in ("pretrain_share", "full_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 < self.lowest_step <= self.highest_step:
            raise ValueError(
                "line search must have 0 < lowest_step <= highest_step, got "
                f"{self.lowest_step:g} and {self.highest_step:g}"
            )


@dataclass(frozen=True)
class MaxMarginConfig:
    """Max-margin pose retrieval (Li, Zhang, Chan: ICCV 2015); the defaults are the published ones.

    Args:
        image_size: edge of the person crops in pixels.
        crop_size: edge of the random part of a crop that the network sees in training; in use it
            is the middle. Published: 112 of 128.
        backbone: "paper": three convolutions with max-pooling and two fully connected layers on
            the second and third; "residual": residual blocks on four grids.
        channels: of the three convolutions, or of the four grids. [?]
        kernel: of the paper's convolutions. [?]
        inner: channels inside the residual blocks of the last three grids.
        hidden: width of h1, h2 and h3 [?]; the residual backbone has h3 alone, the last number.
        dropout: of h1 and h2, and of the residual backbone's h3.
        embedding: width D of both embeddings.
        pose_hidden: width of the pose network's first layer. [?]
        pose_layers: of the pose network: "two", "one"; "random": one that stays as it starts;
            "raw": the pose itself is the embedding.
        pose_unit_mm: what the pose network sees as 1. [?]
        loss: "hinge" on the most violated pose; "none": the auxiliary task alone, plain regression.
        margin_unit_mm: mean joint distance that asks for a score larger by 1. [?]
        auxiliary: whether h3 also estimates the pose.
        auxiliary_loss: "squared" error, or mean joint "distance". [?]
        auxiliary_unit_mm: what the auxiliary task's tanh sees as 1: coordinates beyond it cannot be
            estimated. [?]
        auxiliary_weight: lambda.
        weight_penalty: alpha, of the sum of all squared weights.
        color_noise: standard deviation of the PCA colour noise, in eigenvalues. [?]
        joints: J; 17 in the order of `dgpose.skeletons.H36M17`.
        recipe: how all this is trained.

    Raises:
        ValueError: a value out of range.
    """

    image_size: int = 128
    crop_size: int = 112
    backbone: Backbone = "paper"
    channels: tuple[int, ...] = (32, 64, 64)
    kernel: int = 5
    inner: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (512, 512, 1024)
    dropout: float = 0.75
    embedding: int = 1024
    pose_hidden: int = 1024
    pose_layers: PoseLayers = "two"
    pose_unit_mm: float = 500.0
    loss: MarginLoss = "hinge"
    margin_unit_mm: float = 100.0
    auxiliary: bool = True
    auxiliary_loss: AuxiliaryLoss = "squared"
    auxiliary_unit_mm: float = 1500.0
    auxiliary_weight: float = 1.0
    weight_penalty: float = 1e-4
    color_noise: float = 0.1
    joints: int = 17
    recipe: MaxMarginRecipe = field(default_factory=MaxMarginRecipe)

    def __post_init__(self) -> None:
        for name in ("channels", "inner", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists
        require_one_of("backbone", self.backbone, Backbone)
        require_one_of("pose_layers", self.pose_layers, PoseLayers)
        require_one_of("loss", self.loss, MarginLoss)
        require_one_of("auxiliary_loss", self.auxiliary_loss, AuxiliaryLoss)
        shape = {"paper": (3, 0, 3), "residual": (4, 3, 1)}[self.backbone]
        if (len(self.channels), len(self.inner), len(self.hidden)) != shape:
            raise ValueError(
                f"channels, inner and hidden of the {self.backbone} backbone must have "
                f"{', '.join(map(str, shape))} numbers, got "
                f"{len(self.channels)}, {len(self.inner)}, {len(self.hidden)}"
            )
        if self.crop_size < 16 or self.crop_size % 8:
            raise ValueError(f"crop_size must be a multiple of 8 from 16 on, got {self.crop_size}")
        if self.image_size < self.crop_size:
            raise ValueError(
                f"image_size must be at least crop_size, {self.crop_size}, got {self.image_size}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        require_counts(
            self, "channels", "inner", "hidden", "kernel", "embedding", "pose_hidden", "joints"
        )
        require_positive(self, "pose_unit_mm", "margin_unit_mm", "auxiliary_unit_mm")
        require_not_negative(self, "auxiliary_weight", "weight_penalty", "color_noise")
        if self.backbone == "residual" and self.recipe.optimizer == "line_search":
            # Each try would move the batch statistics.
            raise ValueError("optimizer of the residual backbone must be adamw, got line_search")
        if self.loss == "none" and not self.auxiliary:
            raise ValueError("auxiliary must be true where loss is none: nothing would be learned")

    @property
    def embedding_size(self) -> int:
        """D of both embeddings: the coordinates of the pose where it is its own embedding."""
        return 3 * self.joints if self.pose_layers == "raw" else self.embedding

    @property
    def margin_weight(self) -> float:
        """Score that a mean joint distance of 1 mm asks for."""
        return 1 / self.margin_unit_mm

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MaxMarginConfig:
        """The configuration that `dataclasses.asdict` (and JSON) made `values` of.

        Raises:
            KeyError, TypeError: names that are missing, or that no configuration has.
            ValueError: a value out of range.
        """
        return cls(**values | {"recipe": MaxMarginRecipe(**values["recipe"])})

    @classmethod
    def paper(cls, image_size: int = 128, **changes: Any) -> MaxMarginConfig:
        """The published way, for crops of this size."""
        return cls(**{"image_size": image_size, "crop_size": _crop(image_size)} | changes)

    @classmethod
    def strong(cls, image_size: int = 64, **changes: Any) -> MaxMarginConfig:
        """What measured better: everything end to end on residual blocks by AdamW. Violated poses
        are sampled, as published: a search among all candidates measured worse, and slower
        (docs/systems/max_margin.md)."""
        strong: dict[str, Any] = {
            "image_size": image_size,
            "crop_size": _crop(image_size),
            "backbone": "residual",
            "channels": (32, 64, 128, 256),
            "inner": (32, 64, 128),
            "hidden": (512,),
            "dropout": 0.0,
            "embedding": 256,
            "auxiliary_loss": "distance",
            "weight_penalty": 0.0,
            "recipe": MaxMarginRecipe(
                optimizer="adamw",
                learning_rate=2e-3,
                weight_decay=0.05,
                pretrain_share=0.0,
                freeze_convolutions=False,
            ),
        }
        return cls(**strong | changes)


def _crop(image_size: int) -> int:
    """112 of 128 pixels, and as much of other sizes, in multiples of 8."""
    return image_size * 7 // 64 * 8
