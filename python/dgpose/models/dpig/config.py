"""Sizes of the networks, losses, and how the stages are trained: as published, or a small form.

Ma, Sun, Georgoulis, Van Gool, Schiele, Fritz: "Disentangled Person Image Generation", CVPR 2018.
What the paper and its code leave open is marked [?], and the value is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dgpose.models.config_checks import (
    require_counts,
    require_not_negative,
    require_one_of,
    require_positive,
)
from dgpose.skeletons import DPIG_PARTS

__all__ = ["FACTORS", "DPIGConfig", "DPIGRecipe", "Factor"]

Factor = Literal["foreground", "background", "pose"]
"""What an image is made of."""
FACTORS: tuple[Factor, ...] = get_args(Factor)
Foreground = Literal["parts", "whole"]
Placement = Literal["tiled", "placed"]
GanLoss = Literal["logistic", "hinge"]
Optimizer = Literal["adam", "rmsprop"]


@dataclass(frozen=True)
class DPIGRecipe:
    """How one stage is trained.

    Args:
        optimizer: "adam" or "rmsprop", of all networks of the stage.
        batch: images (poses, codes) a step.
        learning_rate: of the networks that are kept.
        critic_learning_rate: of the discriminator or the critics.
        halving_steps: after each of as many steps the learning rates are halved; None: they fall
            along half a cosine to the end of the run.
        beta1: of Adam.
        weight_decay: of what is kept.
        clip_norm: largest norm of the gradient; 0: any.
        warmup_steps: of the learning rates.
        ema: decay of the moving average of the weights, which is what is judged and kept; 0: none.
        flip: whether people are mirrored at random.
        shift: largest random shift in pixels; of no effect in stage 2, whose codes are computed
            once.
    """

    optimizer: Optimizer = "adam"
    batch: int = 16
    learning_rate: float = 2e-5
    critic_learning_rate: float = 2e-5
    halving_steps: int | None = 50_000
    beta1: float = 0.5
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    warmup_steps: int = 0
    ema: float = 0.0
    flip: bool = False
    shift: int = 0

    def __post_init__(self) -> None:
        require_one_of("optimizer", self.optimizer, Optimizer)
        if self.batch < 2:  # batch normalisation
            raise ValueError(f"batch must be at least 2, got {self.batch}")
        if self.halving_steps is not None and self.halving_steps < 1:
            raise ValueError(f"halving_steps must be at least 1, got {self.halving_steps}")
        for name in ("ema", "beta1"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        require_positive(self, "learning_rate", "critic_learning_rate")
        require_not_negative(self, "weight_decay", "clip_norm", "warmup_steps", "shift")


@dataclass(frozen=True)
class DPIGConfig:
    """DPIG; the defaults are those of `paper` at 128x64, but for the networks of vectors.

    Recipes are those of the authors' training scripts; one stage 2 trains all mappers here, there
    that of poses is apart, with twice the batch. Fields whose default switches something off
    (`batch_norm`, `pooled_levels`, `code_noise`, `code_weight`, `fitted_codes`, `spectral_norm`,
    `body_weight`), `fold`, "placed" codes and the "hinge" loss are ours.

    Args:
        size: (H, W) of images: (128, 64) or (256, 256), for which part boxes are defined.
        fold: edge in pixels of the cells of the finest grid: 1, or 2 to fold 2x2 pixels into
            channels before the first convolution, and to unfold them after the last.
        channels: of all encoders and the decoder, one a level; each level has half the cells a
            side of the one before.
        decoder_levels: of the channels, those of the decoder; None: all.
        stem_block: whether a residual block follows the first convolution, before the split into
            foreground and background.
        batch_norm: whether convolutions (not the discriminator's) are normalised.
        foreground: "parts": crops of seven parts, one code each; "whole": one crop of the whole
            masked body, one code of the same total size.
        crop: S, edge in cells of a part's crop; the whole body's is 2S x S. [?]
        mask_crops: whether crops see the masked features, or all of them.
        pooled_levels: whether codes are read from all levels of their encoder, averaged over the
            cells of the coarsest, not from that one alone.
        part_code: numbers of a part's code.
        background_code: numbers of the background's; 0: images have none, and the foreground's
            codes say everything.
        placement: how the decoder gets the codes. "tiled": every cell gets all of them. "placed":
            each limb and joint of the body gets, where it is in the target pose, what the codes
            say about it, and the coarsest grid the background's.
        placed_channels: that a piece of the body gets ("placed").
        placed_sigma: of the pieces' maps in pixels.
        bottleneck: numbers that the decoder's coarsest grid goes through.
        bottleneck_channels: of the grid that is made of them.
        code_noise: standard deviation of the noise on foreground and background codes in training.
        code_weight: of the codes' mean square, without which noise could be outgrown.
        pose_code, pose_width, pose_blocks: numbers of the pose's code, width and residual blocks of
            its encoder and decoder.
        mapper_width, background_mapper_width, mapper_blocks: of the mappers of stage 2.
        fitted_codes: whether mappers and critics work on codes whitened by the Gaussian that is
            fitted to the training's, and mappers start from draws of it.
        critic_width, critic_layers, critic_blocks: of the critics: after the first layer so many
            plain ones, and then residual blocks.
        dense_slope: of the activation of the networks of vectors where it is negative: 0, or 0.2
            as published.
        noise_std: of the noise that is mapped to codes.
        discriminator_channels: of its 5x5 convolutions of stride 2.
        spectral_norm: whether the discriminator's weights are normalised, instead of batches.
        disk_radius: of the joints' maps in pixels.
        mask_radius: of the limbs in the foreground's mask in pixels.
        l1_weight: of the mean absolute difference of pixels in [-1, 1].
        body_weight: of that difference inside the foreground's mask, beside 1 everywhere.
        adversarial_weight: of the generator's term; 0: no discriminator.
        gan_loss: "logistic" (sigmoid cross entropy, non-saturating), or "hinge".
        pose_weight: of the mean squared error of the pose autoencoder.
        weight_clip: largest absolute weight of a critic, where there is no gradient penalty.
        gradient_penalty: of the critics; 0: weights are clipped.
        critic_steps: of the critics a step of the mappers.
        stage1, pose, stage2: recipes of the stages.

    Raises:
        ValueError: a value out of range.
    """

    size: tuple[int, int] = (128, 64)
    fold: int = 1
    channels: tuple[int, ...] = (128, 256, 384, 512, 640)
    decoder_levels: int | None = None
    stem_block: bool = True
    batch_norm: bool = False
    foreground: Foreground = "parts"
    crop: int = 48
    mask_crops: bool = True
    pooled_levels: bool = False
    part_code: int = 32
    background_code: int = 128
    placement: Placement = "tiled"
    placed_channels: int = 32
    placed_sigma: float = 4.0
    bottleneck: int = 64
    bottleneck_channels: int = 128
    code_noise: float = 0.0
    code_weight: float = 0.0
    pose_code: int = 32
    pose_width: int = 512
    pose_blocks: int = 4
    mapper_width: int = 512
    background_mapper_width: int = 256
    mapper_blocks: int = 4
    fitted_codes: bool = False
    critic_width: int = 512
    critic_layers: int = 0
    critic_blocks: int = 4
    dense_slope: float = 0.0
    noise_std: float = 0.2
    discriminator_channels: tuple[int, ...] = (64, 128, 256, 512)
    spectral_norm: bool = False
    disk_radius: float = 4.0
    mask_radius: float = 7.0
    l1_weight: float = 20.0
    body_weight: float = 0.0
    adversarial_weight: float = 1.0
    gan_loss: GanLoss = "logistic"
    pose_weight: float = 20.0
    weight_clip: float = 0.01
    gradient_penalty: float = 0.0
    critic_steps: int = 5
    stage1: DPIGRecipe = field(default_factory=DPIGRecipe)
    pose: DPIGRecipe = field(default_factory=lambda: DPIGRecipe(batch=64))
    stage2: DPIGRecipe = field(default_factory=lambda: DPIGRecipe(optimizer="rmsprop", batch=32))

    def __post_init__(self) -> None:
        for name in ("size", "channels", "discriminator_channels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists
        for name, options in (
            ("foreground", Foreground),
            ("placement", Placement),
            ("gan_loss", GanLoss),
        ):
            require_one_of(name, getattr(self, name), options)
        if self.size not in ((128, 64), (256, 256)):
            raise ValueError(f"size must be (128, 64) or (256, 256), got {self.size}")
        if self.fold not in (1, 2):
            raise ValueError(f"fold must be 1 or 2, got {self.fold}")
        if not 2 <= len(self.channels) <= 7:
            raise ValueError(f"channels must have 2 to 7 numbers, got {len(self.channels)}")
        if len(self.discriminator_channels) < 1:
            raise ValueError("discriminator_channels must have 1 number at least, got none")
        levels = len(self.channels) if self.decoder_levels is None else self.decoder_levels
        if not 2 <= levels <= len(self.channels):
            raise ValueError(
                f"decoder_levels must lie in [2, {len(self.channels)}], got {self.decoder_levels}"
            )
        factor = 2 ** (len(self.channels) - 1)
        if self.crop < 1 or self.crop % factor:
            raise ValueError(
                f"crop must be a multiple of 2^(levels - 1) = {factor}, got {self.crop}"
            )
        if any(edge % factor for edge in self.grid):
            raise ValueError(
                f"size must be a multiple of fold 2^(levels - 1) = {self.fold * factor}, "
                f"got {self.size}"
            )
        require_counts(
            self,
            *("channels", "discriminator_channels", "part_code", "placed_channels"),
            *("bottleneck", "bottleneck_channels", "pose_code", "pose_width", "mapper_width"),
            *("background_mapper_width", "critic_width", "critic_steps"),
        )
        require_positive(self, "noise_std", "mask_radius", "l1_weight", "pose_weight")
        require_positive(self, "weight_clip", "placed_sigma")
        require_not_negative(
            self,
            *("background_code", "code_noise", "code_weight", "pose_blocks", "mapper_blocks"),
            *(
                "critic_layers",
                "critic_blocks",
                "dense_slope",
                "disk_radius",
                "body_weight",
                "adversarial_weight",
                "gradient_penalty",
            ),
        )

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the finest grid."""
        height, width = self.size
        return height // self.fold, width // self.fold

    @property
    def foreground_code(self) -> int:
        """Numbers of all parts' codes together."""
        return self.part_code * len(DPIG_PARTS)

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Those that have a code: all, or all but the background."""
        return tuple(f for f in FACTORS if self.code_size(f))

    @property
    def images_at_once(self) -> int:
        """Images that go through the networks together where nothing is learned: 64 of 128x64
        pixels, as many pixels of larger ones."""
        height, width = self.size
        return 64 * 128 * 64 // (height * width)

    def code_size(self, factor: Factor) -> int:
        """D, numbers of a factor's code; 0 for a background that has none.

        Raises:
            ValueError: no factor.
        """
        require_one_of("factor", factor, Factor)
        sizes = (self.foreground_code, self.background_code, self.pose_code)
        return dict(zip(FACTORS, sizes, strict=True))[factor]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DPIGConfig:
        """The configuration that `dataclasses.asdict` (and JSON) made `values` of.

        Raises:
            KeyError, TypeError: names that are missing, or that no configuration has.
            ValueError: a value out of range.
        """
        recipes = {name: DPIGRecipe(**values[name]) for name in ("stage1", "pose", "stage2")}
        return cls(**values | recipes)

    @classmethod
    def paper(cls, size: tuple[int, int] = (128, 64), **changes: Any) -> DPIGConfig:
        """The published form for Market-1501's images, or for (256, 256) DeepFashion's: without a
        background, with crops of 64 and seven levels.

        Stage 1 has 118,549,859 parameters at 128x64, the published 118.5 M, where the decoder's
        residual pairs are as wide as features and skip connection together and the encoders after
        the split begin with a residual pair. (Without the pair before the split it would have
        118.3 M; with a convolution of its own before each encoder's first pair, 118.8 M.) The same
        reading gives 140.2 M at 256x256, with five levels in the decoder and crops that are not
        masked.
        """
        published: dict[str, Any] = {
            "size": size,
            "critic_layers": 3,
            "critic_blocks": 0,
            "dense_slope": 0.2,
        }
        if tuple(size) == (256, 256):
            published |= {
                "channels": (128, 256, 384, 512, 640, 768, 896),
                "decoder_levels": 5,
                "mask_crops": False,
                "crop": 64,
                "background_code": 0,
                "mask_radius": 8.0,
                "stage1": DPIGRecipe(batch=6),
                "pose": DPIGRecipe(batch=16),
                "stage2": DPIGRecipe(optimizer="rmsprop", batch=16),
            }
        return cls(**published | changes)

    @classmethod
    def small(cls, **changes: Any) -> DPIGConfig:
        """128x64 with 3.6 M parameters of what is kept, learned within an hour or two on one core;
        all its values are our choice."""
        small: dict[str, Any] = {
            "fold": 2,
            "channels": (16, 32, 64, 96),
            "stem_block": False,
            "batch_norm": True,
            "crop": 24,
            "pooled_levels": True,
            "background_code": 64,
            "placement": "placed",
            "bottleneck_channels": 96,
            "pose_width": 256,
            "pose_blocks": 2,
            "mapper_width": 192,
            "background_mapper_width": 128,
            "mapper_blocks": 2,
            "fitted_codes": True,
            "critic_width": 256,
            "critic_blocks": 3,
            "discriminator_channels": (24, 48, 96, 128),
            "spectral_norm": True,
            "body_weight": 2.0,
            "adversarial_weight": 0.05,
            "gan_loss": "hinge",
            "stage1": DPIGRecipe(
                batch=16,
                learning_rate=2e-3,
                critic_learning_rate=4e-4,
                halving_steps=None,
                weight_decay=0.01,
                clip_norm=10.0,
                warmup_steps=100,
                ema=0.998,
                flip=True,
                shift=2,
            ),
            "pose": DPIGRecipe(
                batch=128,
                learning_rate=1e-3,
                halving_steps=None,
                warmup_steps=100,
                ema=0.998,
                flip=True,
            ),
            "stage2": DPIGRecipe(
                optimizer="rmsprop",
                batch=128,
                learning_rate=5e-5,
                critic_learning_rate=5e-5,
                halving_steps=None,
                ema=0.998,
            ),
        }
        return cls(**small | changes)
