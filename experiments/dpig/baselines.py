"""What people would use instead of DPIG's stage 1, of about its size, its losses and its recipe.

- `PG2`: after Ma et al.: "Pose Guided Person Image Generation" (NIPS 2017): a U-Net from the source
  image and the target's joints to the target image; it learns from pairs of images of one person in
  one place, which DPIG does without. Their second network, which adds detail, is left out.
- `ImageVAE`: the whole image as one Gaussian code; it knows nothing of poses.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from dgpose.data.person_pairs import PersonPairs
from dgpose.data.person_pool import PersonPool
from dgpose.metrics.dpig_evaluation import Drawn, Generator, People
from dgpose.metrics.person_evaluation import in_parts
from dgpose.models.dpig import (
    Decoder,
    DPIGConfig,
    PoseInputs,
    Rebuilt,
    discriminator_loss,
    generator_losses,
    pose_inputs,
)
from dgpose.nn.residual import ResidualBlock, conv_bn
from dgpose.nn.weight_files import read_model, write_model
from dgpose.train.dpig_learner import Stage1Learner
from dgpose.train.run import launch_fabric
from dgpose.train.training_run import WEIGHTS_NAME, TrainConfig, TrainingRun

__all__ = [
    "NAMES",
    "PG2",
    "BaselineErrors",
    "ImageVAE",
    "generator_of_baseline",
    "load_baseline",
    "train_baseline",
]

_KIND = "dpig_baseline"
_PG2_CHANNELS = (40, 80, 120, 152)
_VAE_CHANNELS = (32, 64, 96, 128, 160)
_CODE = 288  # as many numbers as DPIG's foreground and background have
_KL_WEIGHT = 8e-5  # a Laplace scale of 0.1 for pixels in [-1, 1], beside 20 L1


class _Source(nn.Module):
    """Stands where a decoder gets its codes, and gives it the source image."""

    def forward(self, images: Tensor, pose: PoseInputs) -> Tensor:
        return F.pixel_unshuffle(images, 2)


class PG2(nn.Module):
    """A source image [B, 3, H, W] in [-1, 1] and a target pose to the target image."""

    def __init__(self) -> None:
        super().__init__()
        config = DPIGConfig.small(channels=_PG2_CHANNELS, placed_channels=12, background_code=0)
        self.decoder = Decoder(config)
        self.decoder.placed = _Source()  # type: ignore[assignment]

    def forward(self, images: Tensor, pose: PoseInputs) -> tuple[Tensor, Tensor | None]:
        made: Tensor = self.decoder(images, None, pose)
        return made, None


class ImageVAE(nn.Module):
    """Images [B, 3, 128, 64] in [-1, 1] to themselves, through a Gaussian code."""

    def __init__(self) -> None:
        super().__init__()
        channels = _VAE_CHANNELS
        down: list[nn.Module] = [nn.PixelUnshuffle(2), conv_bn(12, channels[0], 3), nn.ReLU()]
        up: list[nn.Module] = []
        for before, after in pairwise(channels):
            down += [conv_bn(before, after, 3, stride=2), nn.ReLU()]
            down += [ResidualBlock(after, after // 2)]
        for before, after in pairwise(channels[::-1]):
            up += [ResidualBlock(before, before // 2), nn.Upsample(scale_factor=2)]
            up += [conv_bn(before, after, 3), nn.ReLU()]
        up += [ResidualBlock(channels[0], channels[0]), nn.Conv2d(channels[0], 12, 3, padding=1)]
        self.down, self.up = nn.Sequential(*down), nn.Sequential(*up, nn.PixelShuffle(2))
        self.coarse = (channels[-1], 4, 2)
        cells = channels[-1] * 8
        self.code = nn.Linear(cells, 2 * _CODE)
        self.expand = nn.Linear(_CODE, cells)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the code, [B, 288] each."""
        mean, log_variance = self.code(self.down(images).flatten(1)).float().chunk(2, 1)
        return mean, log_variance.clamp(-10, 10)

    def decode(self, code: Tensor) -> Tensor:
        """Images [B, 3, 128, 64] for pixels in [-1, 1]."""
        images: Tensor = self.up(self.expand(code).unflatten(1, self.coarse)).float()
        return images

    def forward(self, images: Tensor, pose: PoseInputs) -> tuple[Tensor, Tensor | None]:
        mean, log_variance = self.encode(images)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        if self.training:
            mean = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return self.decode(mean), divergence


_MODELS: dict[str, type[PG2 | ImageVAE]] = {"PG2-like": PG2, "whole-image VAE": ImageVAE}
NAMES = tuple(_MODELS)


class BaselineErrors(NamedTuple):
    """Mean absolute difference of images in [0, 1] from the true ones."""

    l1: float


class _Learner(Stage1Learner):
    """As stage 1 learns, but from a source image to a target; row i of the targets belongs to row i
    of the pool, and is the same image for what knows no poses."""

    def __init__(
        self, fabric: Fabric, model: Any, config: DPIGConfig, pool: PersonPool, targets: PersonPool
    ) -> None:
        model.config = config
        self.targets = targets
        super().__init__(fabric, model, config.stage1, pool, seed=0)

    def parts(self, model: Any) -> nn.ModuleDict:
        return nn.ModuleDict({"generator": model})

    def learn(self, progress: float) -> dict[str, Tensor]:
        self._begin_step(progress)
        source, *_ = self._batch()
        own, self.pool = self.pool, self.targets
        target, joints, visible = self._batch()  # the same rows, mirrored and moved alike
        self.pool = own
        pose = pose_inputs(joints, visible, self.config)
        discriminator: Any = self.critics["discriminator"]
        self.critics.requires_grad_(False)
        with self.fabric.autocast():
            made, divergence = self.learning["generator"](source.float() / 127.5 - 1, pose)
            rebuilt = Rebuilt(made, target.float() / 127.5 - 1, pose.mask, ())
            terms = generator_losses(self.config, discriminator, rebuilt)
            if divergence is not None:
                terms["divergence"] = _KL_WEIGHT * divergence
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.critics.requires_grad_(True)
        with self.fabric.autocast():
            terms["discriminator"] = discriminator_loss(self.config, discriminator, rebuilt)
        terms["discriminator"].backward()  # type: ignore[no-untyped-call]
        self._descend()
        self._end_step()
        return {name: value.detach() for name, value in terms.items()}


class _Run(TrainingRun[TrainConfig, _Learner, BaselineErrors]):
    def __init__(
        self, config: TrainConfig, name: str, learner: _Learner, validation: tuple[People, People]
    ) -> None:
        self.name, self.validation = name, validation
        facts = {"model": name, "data": learner.pool.source, "images": len(learner.pool)}
        super().__init__(config, learner.fabric, learner, facts)

    def validate(self) -> BaselineErrors:
        source, target = self.validation
        made = _guided(self.learner.judged.eval(), source, target)
        return BaselineErrors(float((made - target.images).abs().mean()))

    def judged(self, errors: BaselineErrors) -> float:
        return errors.l1

    def save_weights(self, path: Path, facts: dict[str, Any]) -> None:
        write_model(
            self.learner.judged, path, kind=_KIND, config={"name": self.name}, training=facts
        )

    def read_errors(self, values: Any) -> BaselineErrors:
        return BaselineErrors(*values)


@torch.no_grad()
def _guided(model: nn.Module, source: People, target: People) -> Tensor:
    config = DPIGConfig.small()

    def made(images: Tensor, joints: Tensor, visible: Tensor) -> Tensor:
        rebuilt, _ = model(2 * images - 1, pose_inputs(joints, visible, config))
        shown: Tensor = ((rebuilt + 1) / 2).clamp(0, 1)
        return shown

    return in_parts(made, source.images, target.keypoints_px, target.visible)


def train_baseline(
    name: str,
    config: TrainConfig,
    pool: PersonPool,
    targets: PersonPool,
    validation: PersonPairs,
) -> tuple[PG2 | ImageVAE | None, int, float]:
    """A model of NAMES, the best by validation; None where the run was stopped. Steps; seconds.

    Args:
        name: which.
        config: of the run.
        pool: source images.
        targets: row by row what they are to become: for the VAE `pool` itself.
        validation: sources and targets.
    """
    settings = DPIGConfig.small()
    config.out.mkdir(parents=True, exist_ok=True)
    fabric = launch_fabric(config)
    fabric.seed_everything(config.seed, verbose=False)
    learner = _Learner(fabric, _MODELS[name](), settings, pool, targets)
    source, target = (People.of(part) for part in validation)
    run = _Run(config, name, learner, (source, target))
    finished = run.run_steps()
    model = load_baseline(config.out / WEIGHTS_NAME) if finished else None
    return model, learner.step, run.clock.seconds


def load_baseline(path: Path) -> PG2 | ImageVAE:
    """The model of a weight file, in evaluation mode."""
    return read_model(path, kind=_KIND, build=lambda config: _MODELS[config["name"]]())[0]


def generator_of_baseline(model: PG2 | ImageVAE) -> Generator:
    """What it makes of people: the VAE cannot change poses, PG2 draws nothing."""
    if isinstance(model, PG2):
        return Generator(
            lambda people: _guided(model, people, people),
            lambda source, target: _guided(model, source, target),
        )
    vae = model

    @torch.no_grad()
    def draw(people: People, seed: int) -> Drawn:
        generator = torch.Generator().manual_seed(seed)
        codes = torch.randn(len(people.images), _CODE, generator=generator)
        images = in_parts(lambda code: ((vae.decode(code) + 1) / 2).clamp(0, 1), codes)
        # Nobody knows in what poses they are.
        return Drawn(images, people.keypoints_px, torch.zeros_like(people.visible))

    return Generator(lambda people: _guided(vae, people, people), draw={"all drawn": draw})
