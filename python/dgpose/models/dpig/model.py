"""DPIG: what is kept of all stages."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from dgpose.models.config_checks import require_one_of
from dgpose.models.dpig.config import DPIGConfig, Factor
from dgpose.models.dpig.dense_networks import Mapper, PoseDecoder, PoseEncoder
from dgpose.models.dpig.networks import Decoder, Encoder
from dgpose.models.dpig.pose_inputs import (
    PoseInputs,
    coordinates_px,
    normalized_coordinates,
    pose_inputs,
    visible_joints,
)

__all__ = ["DPIG", "TRAINABLE", "Codes", "Trainable"]

Trainable = Literal[
    "stage1", "pose_autoencoder", "foreground_mapper", "background_mapper", "pose_mapper"
]
"""What a training teaches; see `DPIG.trained`."""
TRAINABLE: tuple[Trainable, ...] = get_args(Trainable)

_COMMANDS = {"stage1": "dpig-stage1", "pose_autoencoder": "dpig-pose"}  # else dpig-stage2


class Codes(NamedTuple):
    """An image's codes."""

    foreground: Tensor  #: [B, 7 part_code]; 0 for a part that is absent
    background: Tensor | None  #: [B, background_code]; None where the model has none
    pose: Tensor  #: [B, pose_code]


class DPIG(nn.Module):
    """Encoders, decoder, pose autoencoder and mappers; the discriminator and the critics, which
    only training needs, are networks of their own.

    Images are RGB [B, 3, H, W] floats in [0, 1]; keypoints are OPENPOSE18 in pixels of the image, x
    then y, the centre of the first pixel at (0, 0).

    Attributes:
        config: sizes.
        training_facts: what the weight file says about the training.
        trained: what has been trained so far. Public methods refuse what has not; the networks
            themselves (`encoder`, `decoder`, `pose_encoder`, `pose_decoder`, `mappers`), which
            training runs, know nothing of it.
    """

    def __init__(self, config: DPIGConfig) -> None:
        super().__init__()
        self.config = config
        self.training_facts: dict[str, Any] = {}
        self.trained: frozenset[Trainable] = frozenset()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.pose_encoder = PoseEncoder(config)
        self.pose_decoder = PoseDecoder(config)
        self.mappers = nn.ModuleDict({f: Mapper(config, f) for f in config.factors})

    def encode(self, images: Tensor, keypoints_px: Tensor, visible: Tensor) -> Codes:
        """The codes of people whose poses are known.

        Args:
            images: [B, 3, H, W].
            keypoints_px: [B, 18, 2]; joints that are not visible may be anything.
            visible: [B, 18] bool.

        Raises:
            ValueError: shapes that do not fit, values that are not finite, images that are not in
                [0, 1], or stage 1 or the pose autoencoder was not trained.
            TypeError: images of integers.
        """
        self.require("stage1", "pose_autoencoder")
        foreground, background = self.encode_images(images, keypoints_px, visible)
        return Codes(foreground, background, self.encode_pose(keypoints_px, visible))

    def encode_images(
        self, images: Tensor, keypoints_px: Tensor, visible: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The foreground's and the background's codes alone, which need no pose autoencoder.
        Otherwise as `encode`."""
        self.require("stage1")
        self._check_images(images)
        pose = self._pose(keypoints_px, visible, len(images), "images")
        foreground, background = self.encoder(2 * images.float() - 1, pose)
        return foreground, background

    def decode(
        self, foreground: Tensor, background: Tensor | None, keypoints_px: Tensor, visible: Tensor
    ) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] of codes in poses.

        Args:
            foreground: [B, 7 part_code].
            background: [B, background_code]; None where the model has none.
            keypoints_px: [B, 18, 2].
            visible: [B, 18] bool.

        Raises:
            ValueError: shapes that do not fit, values that are not finite, or stage 1 was not
                trained.
        """
        self.require("stage1")
        self._check_code("foreground", foreground)
        if (background is None) != (self.config.background_code == 0):
            raise ValueError(
                "background must be a code where the model has one and None where it has none, got "
                + ("None" if background is None else f"a code of {list(background.shape)}")
            )
        if background is not None:
            self._check_code("background", background)
            if len(background) != len(foreground):
                raise ValueError(
                    f"background must have B = {len(foreground)} as foreground, "
                    f"got {len(background)}"
                )
        pose = self._pose(keypoints_px, visible, len(foreground), "foreground")
        images: Tensor = self.decoder(foreground, background, pose)
        return ((images + 1) / 2).clamp(0, 1)

    def encode_pose(self, keypoints_px: Tensor, visible: Tensor) -> Tensor:
        """Codes [B, pose_code] of poses [B, 18, 2].

        Raises:
            ValueError: shapes that do not fit, visible joints that are not finite, or the pose
                autoencoder was not trained.
        """
        self.require("pose_autoencoder")
        seen = visible_joints(keypoints_px, visible)
        coordinates = normalized_coordinates(seen, visible, self.config)
        code: Tensor = self.pose_encoder(coordinates, visible)
        return code

    def decode_pose(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Poses of codes [B, pose_code]: keypoints_px [B, 18, 2], within the image, and visible
        [B, 18] bool.

        Raises:
            ValueError: codes of another shape or not finite, or the pose autoencoder was not
                trained.
        """
        self.require("pose_autoencoder")
        self._check_code("pose", code)
        coordinates, visibility = self.pose_decoder(code)
        return coordinates_px(coordinates.clamp(-1, 1), self.config), visibility > 0.5

    def code_size(self, factor: Factor) -> int:
        """D, numbers of a factor's code and of its noise."""
        return self.config.code_size(factor)

    def sample_noise(
        self, factor: Factor, count: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Noise [count, D] of N(0, noise_std²). `generator` on the CPU."""
        noise = torch.randn(count, self.code_size(factor), generator=generator)
        return (self.config.noise_std * noise).to(next(self.parameters()).device)

    def map_noise(self, factor: Factor, noise: Tensor) -> Tensor:
        """The code [B, D] of noise [B, D].

        Raises:
            ValueError: noise of another shape or not finite, a factor that has no code, or whose
                mapper was not trained.
        """
        require_one_of("factor", factor, Factor)
        if factor not in self.mappers:
            raise ValueError(f"this model has no code for the {factor}")
        self.require(cast(Trainable, f"{factor}_mapper"))
        self._check_code(factor, noise, "noise")
        code: Tensor = self.mappers[factor](noise)
        return code

    def sample(
        self, factor: Factor, count: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Codes [count, D] of a factor, mapped from noise. `generator` on the CPU.

        Raises:
            ValueError: as `map_noise`.
        """
        return self.map_noise(factor, self.sample_noise(factor, count, generator))

    def require(self, *parts: Trainable) -> None:
        """ValueError for a part that was not trained."""
        for part in parts:
            if part not in self.trained:
                raise ValueError(
                    f"{part.replace('_', ' ')} must have been trained "
                    f"(`dgpose train {_COMMANDS.get(part, 'dpig-stage2')}`), "
                    f"got a model with {', '.join(sorted(self.trained)) or 'nothing trained'}"
                )

    def _check_images(self, images: Tensor) -> None:
        height, width = self.config.size
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, height, width) or not len(images):
            raise ValueError(
                f"images must have shape [B >= 1, 3, {height}, {width}], got {list(images.shape)}"
            )
        if not images.is_floating_point():
            raise TypeError(f"images must be of floating point in [0, 1], got {images.dtype}")
        if not bool(images.isfinite().all()):
            raise ValueError("images must be finite, got NaN or infinity")
        if not bool(((images >= 0) & (images <= 1)).all()):  # of 0 to 255, or -1 to 1
            low, high = float(images.min()), float(images.max())
            raise ValueError(f"images must lie in [0, 1], got values from {low:g} to {high:g}")

    def _check_code(self, factor: Factor, code: Tensor, name: str | None = None) -> None:
        name, size = name or f"the {factor}'s code", self.code_size(factor)
        if code.dim() != 2 or code.shape[1] != size:
            raise ValueError(f"{name} must have shape [B, {size}], got {list(code.shape)}")
        if not bool(code.isfinite().all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity")

    def _pose(self, keypoints_px: Tensor, visible: Tensor, count: int, name: str) -> PoseInputs:
        pose = pose_inputs(keypoints_px, visible, self.config)
        if len(keypoints_px) != count:
            raise ValueError(
                f"keypoints_px must have B = {count} as {name}, got {len(keypoints_px)}"
            )
        return pose
