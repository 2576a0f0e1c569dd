"""Sizes of the networks, and how each of the three stages is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from dgpose.models.config_checks import require_one_of

__all__ = ["ORIGIN_JOINTS", "CrossingNetsConfig", "JointWeights", "StageConfig"]

Normalize = Literal["nearest_pixel", "cube"]
AlignmentKind = Literal["batch_norm", "tanh"]
Schedule = Literal["constant", "cosine"]

ORIGIN_JOINTS = {"nyu": 32, "icvl": 0, "msra": 0}
"""The joint that the poses of each data set are relative to, as published."""


@dataclass(frozen=True)
class StageConfig:
    """Optimiser and length of one stage.

    Args:
        epochs: passes over the labelled frames.
        batch: frames a step.
        learning_rate: Adam's.
        beta1: Adam's.
        schedule: "constant" as published, or "cosine": the rate falls to 0 by the end.

    Raises:
        ValueError: a value out of range.
    """

    epochs: int
    batch: int
    learning_rate: float
    beta1: float = 0.5
    schedule: Schedule = "constant"

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"epochs must not be negative, got {self.epochs}")
        if self.batch < 2:  # batch normalisation
            raise ValueError(f"batch must be at least 2, got {self.batch}")
        require_one_of("schedule", self.schedule, Schedule)


@dataclass(frozen=True)
class JointWeights:
    """Weights of the losses of the third stage; all 1 as published. 0 leaves a term out.

    Args:
        reconstruction: L_recons, of depth maps made from true poses.
        posterior: L_pos, of latents estimated from labelled depth maps.
        smoothness: L_smo, of distances in the latent space and in the metric head.
        adversarial: L_gan, real against generated.
        feature_matching: of the generator.
        generated_posterior: L_pos of generated depth maps to the latents they were made from. Not
            in the published code.
        cycle: L_recons of unlabelled frames, made from their estimated latents. Not in the
            published code.
        direct: squared error of the joints, where the configuration has a direct head.
    """

    reconstruction: float = 1.0
    posterior: float = 1.0
    smoothness: float = 1.0
    adversarial: float = 1.0
    feature_matching: float = 1.0
    generated_posterior: float = 0.0
    cycle: float = 0.0
    direct: float = 1.0

    @property
    def uses_gan(self) -> bool:
        """Whether the GAN head takes part."""
        return self.adversarial > 0 or self.feature_matching > 0

    @property
    def generates_from_labels(self) -> bool:
        """Whether depth maps are made from the labels' latents."""
        return (
            self.uses_gan or max(self.reconstruction, self.smoothness, self.generated_posterior) > 0
        )


@dataclass(frozen=True)
class CrossingNetsConfig:
    """Crossing Nets (Wan, Probst, Van Gool, Yao: CVPR 2017); the defaults are the published ones.

    Args:
        joints: number of joints J; 36 on NYU.
        origin_joint: the joint that poses are relative to; see ORIGIN_JOINTS.
        image_size: edge of the depth crop, a multiple of 32.
        cube_mm: edge of the cube that the data's crops show; a note for who makes them.
        unit_mm: millimetres in one unit of joints and of the origin; likewise.
        normalize: of the data's crops; likewise: "nearest_pixel" stretches each frame to [-1, 1]
            and loses where it lies in the cube; "cube" keeps it.
        channels: of all convolutions but the generator's last.
        pose_latent: numbers of the pose VAE's latent; 3 of the origin follow them.
        hidden: width of the pose VAE.
        metric: width of the metric head's first layer.
        noise: standard deviation of the VAE's noise.
        slope: LeakyReLU of the discriminator.
        decoder_slope: LeakyReLU of the pose decoder.
        posterior_slope: LeakyReLU between the two layers of the posterior head. Not published; as
            in the convolutions. That one of the two is batch-normalised follows from the number of
            parameters; that it is the first does not.
        epsilon: of batch normalisation. Not published; torch's own.
        alignment: "batch_norm" is the released code, "tanh" the paper.
        clip_reconstruction: largest squared error of a pixel that counts; None: no limit.
        direct_head: whether the posterior's features also give a correction of the joints, which
            the pose VAE's 20 numbers cannot carry (6 mm over NYU). Not published.
        palm_joints: joints of the wrist and of the index and little finger's base: poses are then
            turned into the palm's frame, and 6 numbers of the latent say how the palm is turned.
            None as the published training has it. NYU: (35, 23, 5).
        weights: of the third stage's losses.
        vae, gan, joint: the three stages.
        warm_up_epochs: of the third stage, in which only alignment, posterior and metric learn...
        warm_up_rate: ... at this learning rate.

    Raises:
        ValueError: a value out of range.
    """

    joints: int = 36
    origin_joint: int = 32
    image_size: int = 128
    cube_mm: float = 250.0
    unit_mm: float = 50.0
    normalize: Normalize = "nearest_pixel"
    channels: int = 32
    pose_latent: int = 20
    hidden: int = 40
    metric: int = 512
    noise: float = 0.05
    slope: float = 0.2
    decoder_slope: float = 0.01
    posterior_slope: float = 0.2
    epsilon: float = 1e-5
    alignment: AlignmentKind = "batch_norm"
    clip_reconstruction: float | None = 1.0
    direct_head: bool = False
    palm_joints: tuple[int, int, int] | None = None
    weights: JointWeights = field(default_factory=JointWeights)
    vae: StageConfig = StageConfig(201, 200, 3e-4)
    gan: StageConfig = StageConfig(1001, 100, 3e-4)
    joint: StageConfig = StageConfig(101, 200, 1e-3)
    warm_up_epochs: int = 21
    warm_up_rate: float = 1e-2

    def __post_init__(self) -> None:
        require_one_of("normalize", self.normalize, Normalize)
        require_one_of("alignment", self.alignment, AlignmentKind)
        if self.image_size < 32 or self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32, got {self.image_size}")
        if not 0 <= self.origin_joint < self.joints:
            raise ValueError(
                f"origin_joint must be one of the {self.joints} joints, got {self.origin_joint}"
            )
        palm = self.palm_joints
        if palm is not None and (len(set(palm)) != 3 or not set(palm) <= set(range(self.joints))):
            raise ValueError(
                f"palm_joints must be three of the {self.joints} joints, got {tuple(palm)}"
            )

    @property
    def latent(self) -> int:
        """Numbers of the shared latent: pose, then origin, then the palm's rotation, if any."""
        return self.pose_latent + (3 if self.palm_joints is None else 9)

    @property
    def cells(self) -> int:
        """Edge of the coarsest map, after five halvings."""
        return self.image_size // 32

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CrossingNetsConfig:
        """The configuration that `dataclasses.asdict` (and JSON) made `values` of.

        Raises:
            KeyError, TypeError: names that are missing, or that no configuration has.
            ValueError: a value out of range.
        """
        stages = {name: StageConfig(**values[name]) for name in ("vae", "gan", "joint")}
        palm = values["palm_joints"]
        return cls(
            **values
            | stages
            | {
                "weights": JointWeights(**values["weights"]),
                "palm_joints": None if palm is None else tuple(palm),
            }
        )

    @classmethod
    def paper(cls, **changes: object) -> CrossingNetsConfig:
        """The published recipe."""
        return cls(**changes)  # type: ignore[arg-type]

    @classmethod
    def strong(cls, **changes: object) -> CrossingNetsConfig:
        """What measured better: absolute depth, a direct head, unclipped reconstruction in place of
        the adversarial losses, and rates that fall."""
        strong: dict[str, object] = {
            "normalize": "cube",
            "clip_reconstruction": None,
            "direct_head": True,
            "weights": JointWeights(smoothness=0, adversarial=0, feature_matching=0),
            "vae": StageConfig(201, 200, 1e-3, schedule="cosine"),
            "gan": StageConfig(0, 100, 3e-4),
            "joint": StageConfig(101, 200, 2e-3, schedule="cosine"),
            "warm_up_epochs": 0,
        }
        return cls(**(strong | changes))  # type: ignore[arg-type]
