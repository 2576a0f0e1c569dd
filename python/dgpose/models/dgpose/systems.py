"""The systems: Conditional-DGPose, Semi-DGPose, and the baselines made of the same modules.

All poses are BODY14 in pixels of the crop, x then y, the centre of the first pixel at (0, 0); all
images are RGB [B, 3, S, S] floats in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgpose.models.dgpose.body_parts import PartMaps
from dgpose.models.dgpose.config import DGPoseConfig
from dgpose.models.dgpose.gaussians import FittedGaussian, Gaussian
from dgpose.models.dgpose.networks import (
    CodeHead,
    Decoder,
    PartCodeHead,
    PoseHead,
    PosePlacement,
    Trunk,
    latent_size,
)
from dgpose.models.dgpose.pose_maps import (
    LearnedMapper,
    RenderedMapper,
    map_channels,
    normalized_pose,
    pose_pixels,
)
from dgpose.skeletons import BODY14

__all__ = [
    "ConditionalDGPose",
    "DGPoseModel",
    "ImageVAE",
    "PoseRegressor",
    "SemiDGPose",
    "make_model",
]


class _System(nn.Module):
    """What all systems have: a configuration, facts about the training, and checked inputs."""

    def __init__(self, config: DGPoseConfig, system: str) -> None:
        super().__init__()
        if config.system != system:
            raise ValueError(f"config.system must be {system!r}, got {config.system!r}")
        self.config = config
        self.training_facts: dict[str, Any] = {}

    def _check(
        self, images: Tensor | None = None, pose_px: Tensor | None = None, known: Any = None
    ) -> None:
        size, joints = self.config.image_size, len(BODY14)
        if images is not None:
            if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
                raise ValueError(
                    f"images must have shape [B, 3, {size}, {size}], got {list(images.shape)}"
                )
            if not images.is_floating_point():
                raise TypeError(f"images must be of floating point in [0, 1], got {images.dtype}")
            if not self.training and not bool(images.isfinite().all()):
                raise ValueError("images must be finite, got NaN or infinity")
        if pose_px is None:
            return
        if pose_px.dim() != 3 or tuple(pose_px.shape[1:]) != (joints, 2):
            raise ValueError(f"pose_px must have shape [B, {joints}, 2], got {list(pose_px.shape)}")
        if images is not None and len(images) != len(pose_px):
            raise ValueError(f"pose_px must have B = {len(images)} as images, got {len(pose_px)}")
        if known is not None and (known.shape != pose_px.shape[:2] or known.dtype != torch.bool):
            raise ValueError(
                f"known must be bool of shape {list(pose_px.shape[:2])}, "
                f"got {known.dtype} of shape {list(known.shape)}"
            )
        if not self.training:
            given = pose_px if known is None else pose_px[known]
            if not bool(given.isfinite().all()):
                raise ValueError("pose_px must be finite where known, got NaN or infinity")


class PlacedPose(NamedTuple):
    """A pose as networks see it."""

    maps: Tensor  #: [B, M, S, S], the mapper's
    grid: Tensor  #: [B, M, S/2, S/2], means of them
    shares: Tensor | None  #: [B, P, S/2, S/2], of the parts


class _Generator(_System):
    """Appearance codes and images from poses, given or estimated."""

    def __init__(self, config: DGPoseConfig, system: str) -> None:
        super().__init__(config, system)
        maps = map_channels(config)
        self.mapper: LearnedMapper | RenderedMapper = (
            LearnedMapper(config) if config.mapper == "learned" else RenderedMapper(config)
        )
        self.mapper.requires_grad_(False)  # learned before all else, then frozen
        self.trunk = Trunk(config, maps if config.encoder_sees_pose else 0)
        self.part_maps = PartMaps(config) if config.latent == "parts" else None
        self.code_head: PartCodeHead | CodeHead = (
            CodeHead(config) if self.part_maps is None else PartCodeHead(config)
        )
        self.placement = PosePlacement(config, maps)
        self.decoder = Decoder(config, conditioned=True)
        self.codes = FittedGaussian(latent_size(config))

    def place(self, pose_px: Tensor, known: Tensor | None = None) -> PlacedPose:
        """What `encode_placed` and `decode_placed` see of poses [B, 14, 2]: made once for both."""
        maps = self.mapper(pose_px, known)
        shares = None if self.part_maps is None else self.part_maps(pose_px, known)
        return PlacedPose(maps, F.avg_pool2d(maps, 2), shares)

    def encode_placed(self, images: Tensor, placed: PlacedPose) -> Gaussian:
        """q(z | image, pose), or q(z | image) where the encoder does not see the pose."""
        features = self.trunk(images, placed.grid if self.config.encoder_sees_pose else None)
        given = (features,) if placed.shares is None else (images, features, placed.shares)
        code: Gaussian = self.code_head(*given)
        return code

    def decode_placed(self, z: Tensor, placed: PlacedPose) -> Tensor:
        """As `decode`."""
        size = self.config.latent_size
        background, parts = z[:, :size], z[:, size:]
        condition = self.placement(placed.grid, parts, placed.shares)
        image: Tensor = self.decoder(background, condition)
        return image

    def decode(self, z: Tensor, pose_px: Tensor, known: Tensor | None = None) -> Tensor:
        """The image [B, 3, S, S] of appearance codes [B, Z] in poses [B, 14, 2].

        Raises:
            ValueError: shapes that do not fit, or values that are not finite.
        """
        self._check(pose_px=pose_px, known=known)
        _require_codes(z, latent_size(self.config))
        if len(z) != len(pose_px):
            raise ValueError(f"pose_px must have B = {len(z)} as z, got {len(pose_px)}")
        return self.decode_placed(z, self.place(pose_px, known))

    def sample_appearance(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Codes [count, Z] from the prior: N(0, 1), or with `fitted_prior` the Gaussian of the
        training images' codes. `generator` on the CPU."""
        return self.codes.sample(count, generator)


class ConditionalDGPose(_Generator):
    """Conditional-DGPose: an image is a pose, which is given, and an appearance code."""

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__(config, "conditional")

    def appearance(self, images: Tensor, pose_px: Tensor, known: Tensor | None = None) -> Gaussian:
        """q(z | image, pose): mean and log-variance [B, Z].

        Args:
            images: [B, 3, S, S].
            pose_px: [B, 14, 2], the pose in the image.
            known: [B, 14] bool, joints that have coordinates; None: all.

        Raises:
            ValueError: shapes that do not fit, or values that are not finite.
        """
        self._check(images, pose_px, known)
        return self.encode_placed(images, self.place(pose_px, known))


class SemiDGPose(_Generator):
    """Semi-DGPose: the pose is a latent, too, with a posterior of its own."""

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__(config, "semi")
        # Without the pose's maps the appearance encoder is the pose encoder, with a second head.
        self.pose_trunk = Trunk(config) if config.encoder_sees_pose else None
        self.pose_head = PoseHead(config)
        self.pose_prior = FittedGaussian(2 * len(BODY14), diagonal=config.pose_prior == "diagonal")

    def fit_pose_prior(self, pose_px: Tensor, known: Tensor) -> None:
        """Fits the prior of y to labelled poses [N, 14, 2], of which known [N, 14] joints count.

        Raises:
            ValueError: a joint that fewer than two poses know.
        """
        y = normalized_pose(pose_px, self.config.image_size)
        self.pose_prior.fit(y, known.repeat_interleave(2, 1))

    def estimate_pose(self, images: Tensor) -> Gaussian:
        """q(y | image): mean and log-variance [B, 28]; see `pose_px`.

        Raises:
            ValueError: images of another shape, or not finite.
        """
        self._check(images)
        trunk = self.trunk if self.pose_trunk is None else self.pose_trunk
        pose: Gaussian = self.pose_head(trunk(images))
        return pose

    def pose_px(self, y: Tensor) -> Tensor:
        """Pose latents [B, 28] as joints [B, 14, 2] in pixels of the crop."""
        return pose_pixels(y, self.config.image_size)

    def pose_std_px(self, posterior: Gaussian) -> Tensor:
        """As `PoseRegressor.pose_std_px`."""
        return _pose_std_px(posterior, self.pose_head, self.config)

    def appearance(
        self, images: Tensor, pose_px: Tensor | None = None, known: Tensor | None = None
    ) -> Gaussian:
        """q(z | image): mean and log-variance [B, Z].

        Where the encoder sees the pose, it is `pose_px` (as in `ConditionalDGPose.appearance`), or
        the mean of its own estimate; else pose_px changes nothing.

        Raises:
            ValueError: shapes that do not fit, or values that are not finite.
        """
        self._check(images, pose_px, known)
        if not self.config.encoder_sees_pose:
            code: Gaussian = self.code_head(self.trunk(images))
            return code
        if pose_px is None:
            pose_px, known = self.pose_px(self.estimate_pose(images).mean), None
        return self.encode_placed(images, self.place(pose_px, known))

    def sample_pose(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Poses [count, 14, 2] in pixels from the prior. `generator` on the CPU."""
        return self.pose_px(self.pose_prior.sample(count, generator))


class ImageVAE(_System):
    """Baseline: a plain VAE of equal size, whose code holds the pose, too."""

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__(config, "vae")
        self.size = latent_size(config)
        plain = replace(config, latent="vector", latent_size=self.size)
        self.trunk = Trunk(config)
        self.code_head = CodeHead(plain)
        self.decoder = Decoder(plain, conditioned=False)
        self.codes = FittedGaussian(self.size)

    def appearance(self, images: Tensor) -> Gaussian:
        """q(z | image): mean and log-variance [B, Z].

        Raises:
            ValueError: images of another shape, or not finite.
        """
        self._check(images)
        code: Gaussian = self.code_head(self.trunk(images))
        return code

    def decode(self, z: Tensor) -> Tensor:
        """The image [B, 3, S, S] of codes [B, Z].

        Raises:
            ValueError: codes of another shape, or not finite.
        """
        _require_codes(z, self.size)
        image: Tensor = self.decoder(z)
        return image

    def sample_appearance(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Codes [count, Z] from the prior, as `ConditionalDGPose.sample_appearance`."""
        return self.codes.sample(count, generator)


class PoseRegressor(_System):
    """Baseline: the pose encoder of Semi-DGPose alone."""

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__(config, "regression")
        self.pose_trunk = Trunk(config)
        self.pose_head = PoseHead(config)

    def estimate_pose(self, images: Tensor) -> Gaussian:
        """q(y | image), as `SemiDGPose.estimate_pose`; the loss does not teach its variance.

        Raises:
            ValueError: images of another shape, or not finite.
        """
        self._check(images)
        pose: Gaussian = self.pose_head(self.pose_trunk(images))
        return pose

    def pose_px(self, y: Tensor) -> Tensor:
        """Pose latents [B, 28] as joints [B, 14, 2] in pixels of the crop."""
        return pose_pixels(y, self.config.image_size)

    def pose_std_px(self, posterior: Gaussian) -> Tensor:
        """Standard deviations [B, 14] of joints in pixels, root mean square of x and y, as
        calibrated on images that were not learned from."""
        return _pose_std_px(posterior, self.pose_head, self.config)


DGPoseModel = ConditionalDGPose | SemiDGPose | ImageVAE | PoseRegressor

_SYSTEMS: dict[str, Callable[[DGPoseConfig], DGPoseModel]] = {
    "conditional": ConditionalDGPose,
    "semi": SemiDGPose,
    "vae": ImageVAE,
    "regression": PoseRegressor,
}


def make_model(config: DGPoseConfig) -> DGPoseModel:
    """The model that a configuration names, untrained."""
    return _SYSTEMS[config.system](config)


def _pose_std_px(posterior: Gaussian, head: PoseHead, config: DGPoseConfig) -> Tensor:
    variances = posterior.log_variance.exp().view(len(posterior.mean), -1, 2).mean(2)
    return variances.sqrt() * head.deviation_factors * ((config.image_size - 1) / 2)


def _require_codes(z: Tensor, size: int) -> None:
    """ValueError for codes that are not finite floats [B, size]."""
    if z.dim() != 2 or z.shape[1] != size:
        raise ValueError(f"z must have shape [B, {size}], got {list(z.shape)}")
    if not bool(z.isfinite().all()):
        raise ValueError("z must be finite, got NaN or infinity")
