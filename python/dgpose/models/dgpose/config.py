"""Sizes of the networks, losses, and how they are trained: as published, or what measured better.

No code and no list of layers was published: what the paper leaves open is marked [?], and the value
is our choice.
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

__all__ = ["DGPoseConfig", "DGPoseRecipe"]

System = Literal["conditional", "semi", "vae", "regression"]
Latent = Literal["vector", "parts"]
PoseHead = Literal["vector", "heatmap"]
PoseLoss = Literal["squared", "distance"]
PosePrior = Literal["diagonal", "full"]
Mapper = Literal["learned", "rendered"]
GanLoss = Literal["logistic", "hinge"]


@dataclass(frozen=True)
class DGPoseRecipe:
    """How the networks are trained. [?], all of it.

    Args:
        batch: images a step.
        labelled_share: share of labelled images in a batch, where the pool has both kinds.
        learning_rate, discriminator_learning_rate: of Adam, their peaks; both fall along half a
            cosine.
        beta1: of Adam.
        weight_decay: of the networks, not of the discriminator.
        clip_norm: largest norm of the gradient, of the networks and of the discriminator.
        warmup_steps: of the learning rates.
        ema: decay of the moving average of the weights, which is what is judged and kept; 0: none.
        flip: whether images are mirrored at random.
        shift: largest random shift in pixels; what comes in repeats the border.
        mapper_steps: steps in which the learned mapper is trained, before anything else.
        mapper_learning_rate: of Adam in that stage.
    """

    batch: int = 64
    labelled_share: float = 0.5
    learning_rate: float = 1e-4
    discriminator_learning_rate: float = 1e-4
    beta1: float = 0.5
    weight_decay: float = 0.0
    clip_norm: float = 10.0
    warmup_steps: int = 100
    ema: float = 0.0
    flip: bool = False
    shift: int = 0
    mapper_steps: int = 1000
    mapper_learning_rate: float = 5e-3

    def __post_init__(self) -> None:
        if self.batch < 2:  # batch normalisation
            raise ValueError(f"batch must be at least 2, got {self.batch}")
        if not 0 < self.labelled_share < 1:
            raise ValueError(f"labelled_share must lie in (0, 1), got {self.labelled_share}")
        for name in ("ema", "beta1"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        require_positive(
            self, "learning_rate", "discriminator_learning_rate", "mapper_learning_rate"
        )
        require_positive(self, "clip_norm")
        require_not_negative(self, "weight_decay", "warmup_steps", "shift", "mapper_steps")


@dataclass(frozen=True)
class DGPoseConfig:
    """DGPose (de Bem et al.: IJCV 2020); the defaults are those of `paper`.

    Weights of losses are for a mean of absolute differences of pixels in [0, 1], and divergences in
    nats an image. With s the scale of the pixels' Laplace distribution, the evidence bound has
    kl_weight = s / (3 S²): 6.5e-6 for s = 0.08 and S = 64.

    Args:
        system: "conditional" (poses given); "semi" (poses a latent, too); "vae" and "regression",
            the baselines made of the same modules: no pose at all, and the pose encoder alone.
        image_size: S, edge of the person crops in pixels, a multiple of 16.
        channels: on the grids of S/2, S/4, S/8 and S/16 cells a side. [?]
        blocks: residual blocks on each of these grids but the first, and so in the decoder. [?]
        latent: "vector": one code z for the image; "parts": one for each part of the body, pooled
            under the part in the source and placed under it in the target, and one for the rest.
        latent_size: numbers of the vector, or of the code for the rest. [?]
        part_size: numbers of a part's code.
        encoder_sees_pose: whether the appearance encoder sees the pose's maps, too: q(z | x, y). In
            the semi-supervised system it is then a network of its own, after the pose encoder.
        pose_head: "vector": fully connected, as z; "heatmap": means of softmax maps.
        modulated: whether the decoder's features are scaled and shifted by the maps, and not
            concatenated with them.
        mapper: what turns poses into maps: the "learned" network, or "rendered" maps.
        joint_maps, limb_maps, body_map: which channels the maps have: 14 joints, 13 rigid parts, 1
            for the whole body. [?]
        joint_sigma, limb_sigma: of the Gaussians, in pixels of the crop. [?]
        part_sigma: of the parts' maps in pixels of the crop ("parts").
        pose_prior: Gaussian fitted to the labelled poses: "diagonal", or with "full" covariance.
        fitted_prior: whether codes are drawn from a Gaussian fitted to the codes of the training
            images after training, not from N(0, 1).
        discriminator_channels: on grids of S/2, S/4, ... cells a side. [?]
        discriminator_sees_pose: whether it sees the pose's maps, too; without any ("vae") it does
            not. [?]
        spectral_norm: whether its weights are normalised.
        kl_weight: of KL(z). [?]
        pose_kl_weight: of KL(y). [?]
        l1_weight: of the reconstruction. [?]
        body_weight: of the reconstruction where the body is, beside 1 everywhere: the share that
            the map of the whole body adds to a pixel's weight, times this. (A plain VAE knows no
            body.)
        adversarial_weight: 0: no discriminator. [?]
        gan_loss: "logistic" with the generator's non-saturating form, or "hinge". [?]
        gradient_penalty: of the squared gradient of the discriminator at real images (R1).
        feature_weight: of the mean absolute difference of the discriminator's features of an image
            and its reconstruction.
        pose_weight: alpha, of the pose regression. [?]
        pose_loss: "squared" error of coordinates, or mean "distance" of joints, in half crops. [?]
        labelled_weight: gamma, of all terms of labelled images. [?]
        unlabelled_weight: of all terms of unlabelled ones; 0 leaves them out.
        recipe: how all this is trained.

    Raises:
        ValueError: a value out of range.
    """

    system: System = "conditional"
    image_size: int = 64
    channels: tuple[int, ...] = (32, 64, 128, 128)
    blocks: int = 0
    latent: Latent = "vector"
    latent_size: int = 128
    part_size: int = 12
    encoder_sees_pose: bool = True
    pose_head: PoseHead = "vector"
    modulated: bool = False
    mapper: Mapper = "learned"
    joint_maps: bool = True
    limb_maps: bool = True
    body_map: bool = True
    joint_sigma: float = 2.0
    limb_sigma: float = 2.0
    part_sigma: float = 2.0
    pose_prior: PosePrior = "diagonal"
    fitted_prior: bool = False
    discriminator_channels: tuple[int, ...] = (32, 64, 128, 128)
    discriminator_sees_pose: bool = False
    spectral_norm: bool = False
    kl_weight: float = 1e-5
    pose_kl_weight: float = 1e-5
    l1_weight: float = 1.0
    body_weight: float = 0.0
    adversarial_weight: float = 5e-3
    gan_loss: GanLoss = "logistic"
    gradient_penalty: float = 0.0
    feature_weight: float = 0.0
    pose_weight: float = 1.0
    pose_loss: PoseLoss = "squared"
    labelled_weight: float = 1.0
    unlabelled_weight: float = 1.0
    recipe: DGPoseRecipe = field(default_factory=DGPoseRecipe)

    def __post_init__(self) -> None:
        for name in ("channels", "discriminator_channels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists
        for name, options in (
            ("system", System),
            ("latent", Latent),
            ("pose_head", PoseHead),
            ("pose_loss", PoseLoss),
            ("pose_prior", PosePrior),
            ("mapper", Mapper),
            ("gan_loss", GanLoss),
        ):
            require_one_of(name, getattr(self, name), options)
        if self.image_size < 32 or self.image_size % 16:
            raise ValueError(
                f"image_size must be a multiple of 16 from 32 on, got {self.image_size}"
            )
        if len(self.channels) != 4:
            raise ValueError(f"channels must have 4 numbers, got {len(self.channels)}")
        if not 2 <= len(self.discriminator_channels) <= 4:
            raise ValueError(
                "discriminator_channels must have 2 to 4 numbers, "
                f"got {len(self.discriminator_channels)}"
            )
        require_counts(self, "channels", "discriminator_channels", "latent_size", "part_size")
        require_positive(self, "joint_sigma", "limb_sigma", "part_sigma", "l1_weight")
        require_not_negative(
            self,
            "blocks",
            "kl_weight",
            "pose_kl_weight",
            "body_weight",
            "adversarial_weight",
            "gradient_penalty",
            "feature_weight",
            "pose_weight",
            "labelled_weight",
            "unlabelled_weight",
        )
        if not (self.joint_maps or self.limb_maps or self.body_map):
            raise ValueError("maps must have a channel: joint_maps, limb_maps or body_map")
        if self.body_weight and not self.body_map:
            raise ValueError("body_weight must be 0 without body_map, which it goes by")
        if self.latent == "parts" and not self.encoder_sees_pose:
            raise ValueError("encoder_sees_pose must be true where latent is parts")

    @property
    def has_pose(self) -> bool:
        """Whether images are decoded from a pose, too."""
        return self.system in ("conditional", "semi")

    @property
    def estimates_pose(self) -> bool:
        """Whether poses are estimated."""
        return self.system in ("semi", "regression")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DGPoseConfig:
        """The configuration that `dataclasses.asdict` (and JSON) made `values` of.

        Raises:
            KeyError, TypeError: names that are missing, or that no configuration has.
            ValueError: a value out of range.
        """
        return cls(**values | {"recipe": DGPoseRecipe(**values["recipe"])})

    @classmethod
    def paper(cls, image_size: int = 64, **changes: Any) -> DGPoseConfig:
        """The published terms and nothing else, for crops of this size."""
        return cls(**{"image_size": image_size, **_sigmas(image_size)} | changes)

    @classmethod
    def strong(cls, image_size: int = 64, **changes: Any) -> DGPoseConfig:
        """What measured better: one code for each part of the body, residual blocks, rendered maps,
        poses as means of heatmaps, and a moving average of the weights."""
        strong: dict[str, Any] = {
            "image_size": image_size,
            **_sigmas(image_size),
            "channels": (32, 64, 96, 64),
            "blocks": 1,
            "latent": "parts",
            "latent_size": 64,
            "pose_head": "heatmap",
            "mapper": "rendered",
            "pose_prior": "full",
            "fitted_prior": True,
            "spectral_norm": True,
            "gan_loss": "hinge",
            "pose_loss": "distance",
            "body_weight": 2.0,
            "adversarial_weight": 1e-3,  # 5e-3 leaves coloured speckles where the body was
            "recipe": DGPoseRecipe(
                batch=32,
                learning_rate=2e-3,
                discriminator_learning_rate=4e-4,
                weight_decay=0.01,
                ema=0.998,
                flip=True,
                shift=2,
            ),
        }
        return cls(**strong | changes)


def _sigmas(image_size: int) -> dict[str, float]:
    """Of the maps: the same share of a crop of any size."""
    return dict.fromkeys(("joint_sigma", "limb_sigma", "part_sigma"), image_size / 32)
