"""DPIG while it learns: what its stages have in common, and stage 1 and the pose autoencoder."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dgpose.data.crop_augmentation import mirror_at_random, shift_at_random
from dgpose.data.person_pool import PersonPool
from dgpose.models.dpig import (
    DPIG,
    Discriminator,
    DPIGRecipe,
    discriminator_loss,
    generator_losses,
    pose_inputs,
    pose_losses,
    rebuild,
)
from dgpose.skeletons import OPENPOSE18
from dgpose.train.run import (
    average_gradients,
    follow_average,
    learning_rate_factor,
    share_buffers,
    step_seed,
)

__all__ = ["DPIGLearner", "PoseLearner", "Stage1Learner"]

_ROWS, _FLIPS, _SHIFTS, _NOISE = range(4)  # what random numbers are drawn for


class DPIGLearner(ABC):
    """Parts of a `DPIG`, the critics that teach them, and their optimiser, on one rank.

    Args:
        fabric: launched.
        model: its parts that this stage does not teach stay as they are.
        recipe: of this stage.
        pool: what to learn from.
        seed: of batches and all noise; weights are drawn from torch's own generator.

    Attributes:
        model: the networks.
        judged: those with the moving average of the weights, where there is one, else the same.
        step: steps done.
    """

    def __init__(
        self, fabric: Fabric, model: DPIG, recipe: DPIGRecipe, pool: PersonPool, seed: int
    ) -> None:
        self.fabric, self.config, self.recipe = fabric, model.config, recipe
        self.pool, self.seed = pool, seed
        self.model: DPIG = self._placed(model).requires_grad_(False)
        self.judged = copy.deepcopy(self.model) if recipe.ema else self.model
        self.learning = self.parts(self.model).requires_grad_(True)
        self.average = self.parts(self.judged)
        self.critics: nn.ModuleDict = self._placed(self.make_critics())
        self.step = 0
        self.optimizer = self._make_optimizer()
        self.learn_mode()

    @abstractmethod
    def parts(self, model: DPIG) -> nn.ModuleDict:
        """The networks of a model that this stage teaches."""

    def make_critics(self) -> nn.ModuleDict:
        """What teaches them beside the losses, and is not kept."""
        return nn.ModuleDict()

    @abstractmethod
    def learn(self, progress: float) -> dict[str, Tensor]:
        """One step; gives the weighted terms of the losses.

        Args:
            progress: share of the training that is done; decides the learning rates, and must be
                the same on all ranks.

        Raises:
            RuntimeError: the gradient is not finite.
        """

    def _placed(self, module: Any) -> Any:
        return module.to(self.fabric.device).to(memory_format=torch.channels_last)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """One for all: parameters without a gradient stay as they are."""
        recipe, parameters = self.recipe, list(self.learning.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1]},
        ]
        self.peaks = [recipe.learning_rate] * 2
        if len(self.critics):
            groups.append({"params": list(self.critics.parameters())})
            self.peaks.append(recipe.critic_learning_rate)
        if recipe.optimizer == "rmsprop":
            # The decay, and about the epsilon, of TensorFlow's, which the authors used. [?]
            return torch.optim.RMSprop(groups, lr=1.0, alpha=0.9, eps=1e-5, foreach=True)
        betas = (recipe.beta1, 0.999)
        return torch.optim.AdamW(groups, lr=1.0, betas=betas, weight_decay=0.0, foreach=True)

    # ---- batches: functions of (seed, step, rank) alone, so that a resumed run goes on ----

    def _generator(self, purpose: int) -> torch.Generator:
        number = step_seed(self.fabric, self.seed, self.step, purpose)
        return torch.Generator().manual_seed(number)

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images [B, 3, H, W] of 0 to 255, mirrored and moved at random, with their joints [B, 18,
        2] and which are visible [B, 18]."""
        recipe, pool = self.recipe, self.pool
        rows = torch.randint(len(pool), (recipe.batch,), generator=self._generator(_ROWS))
        images, joints, visible = pool.images[rows], pool.keypoints_px[rows], pool.visible[rows]
        if recipe.flip:
            flips = self._generator(_FLIPS)
            images, joints, visible = mirror_at_random(images, joints, visible, OPENPOSE18, flips)
        if recipe.shift:
            shifts = self._generator(_SHIFTS)
            images, joints = shift_at_random(images, joints, recipe.shift, shifts)
        device = self.fabric.device
        return images.to(device), joints.to(device), visible.to(device)

    # ---- one step ----

    def _begin_step(self, progress: float) -> None:
        """Sets the learning rates."""
        recipe = self.recipe
        if recipe.halving_steps is None:
            factor = learning_rate_factor(self.step, progress, recipe.warmup_steps)
        else:
            warmup = min(1.0, (self.step + 1) / max(1, recipe.warmup_steps))
            factor = warmup * 0.5 ** (self.step // recipe.halving_steps)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        self.optimizer.zero_grad(set_to_none=True)

    def _descend(self) -> None:
        """Moves what has a gradient."""
        for module in (self.learning, self.critics):
            parameters = list(module.parameters())
            average_gradients(self.fabric, parameters)
            # Raises where the gradient is not finite: better a dead run than a poisoned one.
            limit = self.recipe.clip_norm or math.inf
            torch.nn.utils.clip_grad_norm_(parameters, limit, error_if_nonfinite=True)
        self.optimizer.step()

    def _end_step(self) -> None:
        share_buffers(self.fabric, (self.learning, self.critics))
        if self.judged is not self.model:
            follow_average(self.average, self.learning, self.recipe.ema, self.step)
        self.step += 1

    # ---- what is kept ----

    def learn_mode(self) -> None:
        self.model.eval()
        self.learning.train()

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint stores beside the optimiser."""
        modules: dict[str, nn.Module] = {"model": self.learning}
        if self.judged is not self.model:
            modules["average"] = self.average
        if len(self.critics):
            modules["critics"] = self.critics
        return modules


class Stage1Learner(DPIGLearner):
    """Encoders and decoder, by reconstruction and a discriminator."""

    def parts(self, model: DPIG) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": model.encoder, "decoder": model.decoder})

    def make_critics(self) -> nn.ModuleDict:
        if not self.config.adversarial_weight:
            return nn.ModuleDict()
        return nn.ModuleDict({"discriminator": Discriminator(self.config)})

    def learn(self, progress: float) -> dict[str, Tensor]:
        config = self.config
        self._begin_step(progress)
        images, joints, visible = self._batch()
        pose = pose_inputs(joints, visible, config)
        discriminator: Any = self.critics["discriminator"] if len(self.critics) else None
        self.critics.requires_grad_(False)
        with self.fabric.autocast():
            rebuilt = rebuild(self.model, images.float() / 255, pose, self._generator(_NOISE))
            terms = generator_losses(config, discriminator, rebuilt)
        _total(terms).backward()  # type: ignore[no-untyped-call]
        if discriminator is not None:
            # Generator and discriminator move at once, from the same state.
            self.critics.requires_grad_(True)
            with self.fabric.autocast():
                terms["discriminator"] = discriminator_loss(config, discriminator, rebuilt)
            terms["discriminator"].backward()  # type: ignore[no-untyped-call]
        self._descend()
        self._end_step()
        return {name: value.detach() for name, value in terms.items()}


class PoseLearner(DPIGLearner):
    """The pose autoencoder alone, by the poses of the pool."""

    def parts(self, model: DPIG) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": model.pose_encoder, "decoder": model.pose_decoder})

    def learn(self, progress: float) -> dict[str, Tensor]:
        self._begin_step(progress)
        _, joints, visible = self._batch()
        with self.fabric.autocast():
            terms = pose_losses(self.model, joints, visible)
        _total(terms).backward()  # type: ignore[no-untyped-call]
        self._descend()
        self._end_step()
        return {name: value.detach() for name, value in terms.items()}


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()
