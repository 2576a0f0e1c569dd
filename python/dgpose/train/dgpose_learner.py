"""DGPose while it learns: labels, batches, the mapper's stage, and one step, on one rank."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from dgpose.data.crop_augmentation import mirror_at_random, mirrored_joints, shift_at_random
from dgpose.data.person_pool import PersonPool
from dgpose.models.dgpose import (
    ConditionalDGPose,
    DGPoseConfig,
    DGPoseModel,
    Discriminator,
    LearnedMapper,
    PoseRegressor,
    RenderedMapper,
    SemiDGPose,
    make_model,
)
from dgpose.models.dgpose.losses import (
    PersonBatch,
    discriminator_loss,
    generator_losses,
    rebuild,
)
from dgpose.models.dgpose.pose_maps import map_channels
from dgpose.skeletons import BODY14
from dgpose.train.run import (
    average_gradients,
    follow_average,
    learning_rate_factor,
    share_buffers,
    step_seed,
)

__all__ = ["DGPoseLearner", "labelled_rows"]

_ROWS, _FLIPS, _SHIFTS, _NOISE, _MAPPER = range(5)  # what random numbers are drawn for
_CODES = 2048  # images that the Gaussian of codes is fitted to


def labelled_rows(pool: PersonPool, share: float, seed: int) -> Tensor:
    """The rows [n] of a pool whose labels are used, ascending: a function of the seed. Those of a
    smaller share are among those of a larger one.

    Raises:
        ValueError: a share outside (0, 1], or one that leaves fewer than two images.
    """
    if not 0 < share <= 1:
        raise ValueError(f"labelled share must lie in (0, 1], got {share:g}")
    count = round(share * len(pool))
    if count < 2:
        raise ValueError(f"labelled share must leave at least 2 images, got {count}")
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    return order[:count].sort().values


class DGPoseLearner:
    """A model of `dgpose.models.dgpose`, its discriminator and their optimiser.

    Args:
        fabric: launched.
        config: networks, losses and recipe.
        pool: what to learn from.
        labelled: share of it whose labels are used.
        seed: of labels, batches and all noise; weights are drawn from torch's own generator.

    Attributes:
        model: the networks.
        average: the moving average of their weights, or the networks themselves.
        step: steps done.
        labels: [N] bool, images whose labels are used.
    """

    def __init__(
        self, fabric: Fabric, config: DGPoseConfig, pool: PersonPool, labelled: float, seed: int
    ) -> None:
        self.fabric, self.config, self.recipe = fabric, config, config.recipe
        self.pool, self.seed = pool, seed
        self.poses, self.known = pool.body
        self.labels = torch.zeros(len(pool), dtype=torch.bool)
        self.labels[labelled_rows(pool, labelled, seed)] = True
        self.model = self._placed(make_model(config))
        self.discriminator: Discriminator | None = None
        if config.system != "regression" and (config.adversarial_weight or config.feature_weight):
            maps = map_channels(config) if config.has_pose else 0
            self.discriminator = self._placed(Discriminator(config, maps))
        self.average = copy.deepcopy(self.model) if self.recipe.ema else self.model
        self.average.requires_grad_(False)
        self.model.requires_grad_(True)
        if isinstance(self.model, ConditionalDGPose | SemiDGPose):
            self.model.mapper.requires_grad_(False)
        self.step = 0
        self.optimizer = self._make_optimizer()
        self.model.train()

    def _placed(self, module: Any) -> Any:
        return module.to(self.fabric.device).to(memory_format=torch.channels_last)

    def _make_optimizer(self) -> torch.optim.AdamW:
        """One for all: generator and discriminator move at once, from the same state."""
        recipe = self.recipe
        learning = [p for p in self.model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in learning if p.dim() > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in learning if p.dim() <= 1]},
        ]
        self.peaks = [recipe.learning_rate] * 2
        if self.discriminator is not None:
            groups.append({"params": list(self.discriminator.parameters())})
            self.peaks.append(recipe.discriminator_learning_rate)
        return torch.optim.AdamW(
            groups, lr=1.0, betas=(recipe.beta1, 0.999), weight_decay=0.0, foreach=True
        )

    # ---- before the first step ----

    def prepare(self, stopped: Callable[[], bool]) -> None:
        """Fits the prior of poses and the mapper to the labelled poses; see `LearnedMapper`.

        Args:
            stopped: asked now and then whether to leave the mapper as it is.
        """
        poses, known = self.poses[self.labels], self.known[self.labels]
        if self.recipe.flip:
            mirrored = mirrored_joints(poses, known, BODY14, self.pool.size[1])
            poses, known = torch.cat((poses, mirrored[0])), torch.cat((known, mirrored[1]))
        poses, known = poses.to(self.fabric.device), known.to(self.fabric.device)
        for model in {self.model, self.average}:
            if isinstance(model, SemiDGPose):
                model.fit_pose_prior(poses, known)
        mapper = getattr(self.model, "mapper", None)
        if isinstance(mapper, LearnedMapper):
            self._fit_mapper(mapper, poses, known, stopped)
            cast(Any, self.average).mapper.load_state_dict(mapper.state_dict())

    def _fit_mapper(
        self, mapper: LearnedMapper, poses: Tensor, known: Tensor, stopped: Callable[[], bool]
    ) -> None:
        """Rendered maps of labelled poses, moved and shaken, are what it learns."""
        recipe, generator = self.recipe, self._generator(_MAPPER)
        rendered = RenderedMapper(self.config)
        mapper.requires_grad_(True)
        optimizer = torch.optim.Adam(mapper.parameters(), lr=recipe.mapper_learning_rate)
        size = self.config.image_size
        for step in range(recipe.mapper_steps):
            if stopped():
                break
            rows = torch.randint(len(poses), (recipe.batch,), generator=generator)
            pose, there = poses[rows], known[rows]
            shift, shake = (
                torch.randn(len(rows), joints, 2, generator=generator).to(pose) * size * share
                for joints, share in ((1, 0.05), (pose.shape[1], 0.05))
            )
            hidden = torch.rand(there.shape, generator=generator).to(pose) < 0.02
            pose, there = pose + shift + shake, there & ~hidden
            rate = recipe.mapper_learning_rate * learning_rate_factor(
                step, step / recipe.mapper_steps, recipe.warmup_steps
            )
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            with self.fabric.autocast():
                maps = mapper(pose, there)
            loss = F.mse_loss(maps, rendered(pose, there))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        mapper.requires_grad_(False)
        if self.fabric.world_size > 1:
            for weight in mapper.parameters():
                torch.distributed.broadcast(weight.data, src=0)

    # ---- batches: functions of (seed, step, rank) alone, so that a resumed run goes on ----

    def _generator(self, purpose: int) -> torch.Generator:
        number = step_seed(self.fabric, self.seed, self.step, purpose)
        return torch.Generator().manual_seed(number)

    def _rows(self) -> Tensor:
        """Labelled images first; then unlabelled ones, where the system learns from them."""
        config, recipe = self.config, self.recipe
        generator = self._generator(_ROWS)
        kinds = [(self.labels, recipe.batch)]
        if config.system == "vae":
            kinds = [(torch.ones_like(self.labels), recipe.batch)]
        elif config.system == "semi" and config.unlabelled_weight and not bool(self.labels.all()):
            count = min(max(1, round(recipe.labelled_share * recipe.batch)), recipe.batch - 1)
            kinds = [(self.labels, count), (~self.labels, recipe.batch - count)]
        rows = []
        for mask, count in kinds:
            some = mask.nonzero()[:, 0]
            rows.append(some[torch.randint(len(some), (count,), generator=generator)])
        return torch.cat(rows)

    def _batch(self) -> PersonBatch:
        """Images, mirrored and moved at random, with their joints."""
        rows = self._rows()
        images, pose, known = self.pool.images[rows], self.poses[rows], self.known[rows]
        if self.recipe.flip:
            flips = self._generator(_FLIPS)
            images, pose, known = mirror_at_random(images, pose, known, BODY14, flips)
        if self.recipe.shift:
            images, pose = shift_at_random(
                images, pose, self.recipe.shift, self._generator(_SHIFTS)
            )
        pose = pose.where(known[..., None], 0)
        device = self.fabric.device
        given = images.to(device).float() / 255, pose, known, self.labels[rows]
        return PersonBatch(*(tensor.to(device) for tensor in given))

    # ---- one step ----

    def learn(self, progress: float) -> dict[str, Tensor]:
        """One step; gives the weighted terms of the loss, and the discriminator's.

        Args:
            progress: share of the training that is done; decides the learning rates, and must be
                the same on all ranks.

        Raises:
            RuntimeError: the gradient is not finite.
        """
        batch = self._batch()
        factor = learning_rate_factor(self.step, progress, self.recipe.warmup_steps)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        self.optimizer.zero_grad(set_to_none=True)
        critic = self.discriminator
        if critic is not None:
            critic.requires_grad_(False)
        with self.fabric.autocast():
            rebuilt = rebuild(self.model, batch, self._generator(_NOISE))
            terms = generator_losses(self.config, self.model, critic, batch, rebuilt)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        if critic is not None:
            critic.requires_grad_(True)
            with self.fabric.autocast():
                loss = discriminator_loss(self.config, critic, batch, rebuilt)
            loss.backward()  # type: ignore[no-untyped-call]
            terms["discriminator"] = loss
        self._descend()
        if self.average is not self.model:
            follow_average(self.average, self.model, self.recipe.ema, self.step)
        self.step += 1
        return {name: value.detach() for name, value in terms.items()}

    def _descend(self) -> None:
        groups = [group["params"] for group in self.optimizer.param_groups]
        for parameters in (groups[0] + groups[1], *groups[2:]):
            average_gradients(self.fabric, parameters)
            # Raises where the gradient is not finite: better a dead run than a poisoned one.
            torch.nn.utils.clip_grad_norm_(
                parameters, self.recipe.clip_norm, error_if_nonfinite=True
            )
        self.optimizer.step()
        share_buffers(self.fabric, self.modules.values())

    # ---- what is judged and kept ----

    @torch.no_grad()
    def judged_model(self) -> DGPoseModel:
        """The average in evaluation mode, with the Gaussian of the codes of training images; the
        caller ends with `learn_mode`."""
        model: DGPoseModel = self.average.eval()
        if self.config.fitted_prior and not isinstance(model, PoseRegressor):
            model.codes.fit(self._training_codes(model))
        return model

    def learn_mode(self) -> None:
        self.model.train()

    def _training_codes(self, model: Any) -> Tensor:
        """Draws of the posteriors [n, Z] of images spread over the pool: labelled ones alone where
        poses must be given."""
        rows = torch.arange(len(self.pool))
        if isinstance(model, ConditionalDGPose):
            rows = rows[self.labels]
        rows = rows[:: max(1, len(rows) // _CODES)]
        generator = torch.Generator().manual_seed(self.seed)
        codes = []
        for some in torch.split(rows, 128):
            images = self.pool.images[some].to(self.fabric.device).float() / 255
            pose, known = (of[some].to(images.device) for of in (self.poses, self.known))
            with self.fabric.autocast():
                given = (pose, known) if isinstance(model, ConditionalDGPose) else ()
                code = model.appearance(images, *given)
            codes.append(code.sample(generator))
        return torch.cat(codes)

    # ---- checkpoints ----

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint stores beside the optimiser."""
        modules: dict[str, nn.Module] = {"model": self.model}
        if self.average is not self.model:
            modules["average"] = self.average
        if self.discriminator is not None:
            modules["discriminator"] = self.discriminator
        return modules
