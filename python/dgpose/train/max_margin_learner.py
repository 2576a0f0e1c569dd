"""The networks of max-margin retrieval while they learn: one step of each stage, on one rank."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from dgpose.data.crop_augmentation import add_color_noise, color_components, random_crops
from dgpose.data.pose_pool import PosePool
from dgpose.models.max_margin.config import MaxMarginConfig
from dgpose.models.max_margin.losses import (
    auxiliary_loss,
    detection_loss,
    weight_penalty,
)
from dgpose.models.max_margin.networks import MaxMarginModel, PretrainingHeads
from dgpose.models.max_margin.violators import ViolatorSearch
from dgpose.train.line_search import line_search
from dgpose.train.run import (
    Clock,
    average_gradients,
    learning_rate_factor,
    share_buffers,
    step_seed,
)
from dgpose_ext import max_margin_loss

__all__ = ["STAGES", "MaxMarginLearner"]

STAGES = ("pretraining", "margin")
_WARM_UP_STEPS = 100
_BATCH, _CROPS, _COLORS, _DROPOUT, _SAMPLE = range(5)  # what random numbers are drawn for


class MaxMarginLearner:
    """A `MaxMarginModel`, its optimiser and its candidates.

    Args:
        fabric: launched.
        config: networks, losses and recipe.
        pool: what to learn from.
        candidates: poses [N, J, 3] mm.
        seed: of batches and all noise; weights are drawn from torch's own generator.
        processor_time: of the two clocks.

    Attributes:
        model: the networks.
        step: steps done.
        stage: index of STAGES.
        search_clock, refresh_clock: seconds of searches, and of embedding all candidates.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: MaxMarginConfig,
        pool: PosePool,
        candidates: Tensor,
        seed: int,
        processor_time: bool = False,
    ) -> None:
        self.fabric, self.config, self.recipe = fabric, config, config.recipe
        self.pool, self.seed = pool, seed
        self.model = MaxMarginModel(config).to(fabric.device)
        self.model.image_network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.heads = PretrainingHeads(config, self.model.image_network.backbone.map_shape)
        self.heads.to(fabric.device)
        self.candidates = candidates.to(fabric.device)
        self.search = ViolatorSearch(
            self.candidates, self.model.pose_network, self.recipe, config.margin_weight
        ).to(fabric.device)
        self.colors = color_components(pool.images)
        self.search_clock = Clock(processor_time)
        self.refresh_clock = Clock(processor_time)
        self.step = 0
        self.step_length = 1e-2  # of the line search, where it begins
        self.enter_stage(0 if self.recipe.pretrain_share else 1)

    # ---- stages ----

    @property
    def has_margin(self) -> bool:
        """Whether this is the stage of the margin."""
        return STAGES[self.stage] == "margin"

    def enter_stage(self, stage: int) -> None:
        """A stage starts with an optimiser that remembers nothing."""
        self.stage, self.first_step = stage, self.step
        self.model.requires_grad_(True)
        backbone = self.model.image_network.backbone
        self.frozen: list[nn.Module] = []
        learning: list[nn.Module] = [self.model]
        if not self.has_margin:
            learning = [*backbone.convolutions(), self.heads]
        elif self.recipe.freeze_convolutions:
            self.frozen = backbone.convolutions()
        if self.config.pose_layers == "random":
            self.frozen.append(self.model.pose_network)
        for module in self.frozen:
            module.requires_grad_(False)
        parameters = [p for module in learning for p in module.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer
        if self.has_margin and self.recipe.optimizer == "line_search":
            self.optimizer = torch.optim.SGD(parameters, lr=self.step_length)
        else:
            groups: list[dict[str, Any]] = [
                {"params": [p for p in parameters if p.dim() > 1]},
                {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
            ]
            rate, decay = self.recipe.learning_rate, self.recipe.weight_decay
            self.optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=decay, foreach=True)
        self.learn_mode()

    def learn_mode(self) -> None:
        self.model.train()
        for module in self.frozen:
            module.eval()  # batch statistics are part of what is frozen

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _stage_progress(self, progress: float) -> float:
        share = self.recipe.pretrain_share
        if not self.has_margin:
            return progress / share
        return (progress - share) / (1 - share) if share < 1 else 1.0

    # ---- batches: functions of (seed, step, rank) alone, so that a resumed run goes on ----

    def _number(self, purpose: int) -> int:
        return step_seed(self.fabric, self.seed, self.step, purpose)

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._number(purpose))

    def _batch(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Random crops [B, 3, S, S], poses, and joints in their pixels where the pool has some."""
        config, device = self.config, self.fabric.device
        rows = torch.randint(
            len(self.pool), (self.recipe.batch,), generator=self._generator(_BATCH)
        )
        crops, first = random_crops(
            self.pool.images[rows], config.crop_size, self._generator(_CROPS)
        )
        images = crops.to(device).float() / 255
        if config.color_noise:
            images = add_color_noise(
                images, self.colors, config.color_noise, self._generator(_COLORS)
            )
        pixels = self.pool.joints_px
        if pixels is not None:
            pixels = (pixels[rows] - first[:, None]).to(device)
        return images, self.pool.poses[rows].to(device), pixels

    # ---- one step of each stage ----

    def learn(self, progress: float) -> dict[str, Tensor]:
        """One step; gives the weighted terms of the loss.

        Args:
            progress: share of the training that is done; decides stage and learning rate, and must
                be the same on all ranks.
        """
        if not self.has_margin and progress >= self.recipe.pretrain_share:
            self.enter_stage(1)
        images, poses, pixels = self._batch()
        if isinstance(self.optimizer, torch.optim.AdamW):
            factor = learning_rate_factor(
                self.step - self.first_step, self._stage_progress(progress), _WARM_UP_STEPS
            )
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        if self.has_margin:
            terms = self._margin_step(images, poses, self._searches_all(progress))
        else:
            with self.fabric.autocast():
                terms = self._pretraining_terms(images, poses, pixels)
            self._descend(terms)
        # So that what is judged and kept, and where a resumed run begins, is the same.
        share_buffers(self.fabric, [self.model])
        self.step += 1
        return {name: value.detach() for name, value in terms.items()}

    def _margin_step(self, images: Tensor, poses: Tensor, full: bool) -> dict[str, Tensor]:
        if full and self._refresh_is_due():
            with self.refresh_clock, self.fabric.autocast():
                self.search.refresh(self.model.pose_network)
        network = self.model.image_network
        maps: tuple[Tensor, Tensor] | None = None
        if self.recipe.freeze_convolutions:
            with torch.no_grad(), self.fabric.autocast():
                maps = network.maps(images)

        def all_terms() -> tuple[dict[str, Tensor], Tensor]:
            # The same noise, whenever it is called in this step.
            torch.manual_seed(self._number(_DROPOUT))
            with self.fabric.autocast():
                given = network.maps(images) if maps is None else maps
                return self._margin_terms(given, poses, full)

        terms, violators = all_terms()
        self._descend(terms, lambda: _total(all_terms()[0]))
        if not full and self.config.loss != "none":
            self._count(violators)
        return terms

    def _pretraining_terms(
        self, images: Tensor, poses: Tensor, pixels: Tensor | None
    ) -> dict[str, Tensor]:
        _, coarse = self.model.image_network.maps(images)
        estimates, logits = self.heads(coarse)
        config = self.config
        terms = {"regression": auxiliary_loss(config, estimates, poses)}
        if pixels is not None and self.recipe.detection_weight:
            detection = detection_loss(logits, pixels, config.crop_size)
            terms["detection"] = self.recipe.detection_weight * detection
        return terms | self._penalty()

    def _margin_terms(
        self, maps: tuple[Tensor, Tensor], poses: Tensor, full: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted terms of the loss, and the rows of the poses that violate the margin."""
        config, model = self.config, self.model
        output = model.image_network.from_maps(*maps)
        terms: dict[str, Tensor] = {}
        violators = torch.empty(0, dtype=torch.int64)
        if config.loss != "none":
            queries = output.embedding.float()
            with self.search_clock:
                values, rows = self.search.find(
                    queries, poses, model.pose_network, self._generator(_SAMPLE), full
                )
            # The found poses are embedded anew, with gradients: what the search went by may be old.
            found = torch.unique(rows[rows >= 0])
            others = self.candidates[found]
            # As many rows in each step: on a CPU each new shape in bfloat16 keeps 2 MB and more.
            idle = rows.numel() - len(found)
            given = F.pad(torch.cat((poses, others)), (0, 0, 0, 0, 0, idle))
            embedded = model.pose_network(given).float()
            positives, embeddings, _ = embedded.split((len(poses), len(found), idle))
            terms["margin"], _ = max_margin_loss(
                queries, embeddings, others, poses, positives, margin_weight=config.margin_weight
            )
            violated = values[:, 0] > (queries * positives).sum(1).detach()
            violators = rows[violated, 0]
        if model.auxiliary is not None:
            estimates = model.auxiliary(output.hidden)
            auxiliary = auxiliary_loss(config, estimates, poses)
            terms["auxiliary"] = config.auxiliary_weight * auxiliary
        return terms | self._penalty(), violators

    def _penalty(self) -> dict[str, Tensor]:
        weight = self.config.weight_penalty
        return {"weights": weight * weight_penalty(self._parameters())} if weight else {}

    def _descend(self, terms: dict[str, Tensor], loss: Callable[[], Tensor] | None = None) -> None:
        """One step down the gradient of all terms; `loss` computes their sum anew."""
        _total(terms).backward()  # type: ignore[no-untyped-call]
        parameters = self._parameters()
        average_gradients(self.fabric, parameters)
        # Raises where the gradient is not finite: better a dead run than a poisoned one.
        limit = self.recipe.clip_norm if isinstance(self.optimizer, torch.optim.AdamW) else math.inf
        torch.nn.utils.clip_grad_norm_(parameters, limit, error_if_nonfinite=True)
        if isinstance(self.optimizer, torch.optim.SGD) and loss is not None:
            self.step_length = self._search_step(parameters, loss)
            self.optimizer.param_groups[0]["lr"] = self.step_length
        self.optimizer.step()

    @torch.no_grad()
    def _search_step(self, parameters: list[nn.Parameter], loss: Callable[[], Tensor]) -> float:
        """The step that lowers the loss of this batch the most."""
        moving = [(p.data, p.grad, p.clone()) for p in parameters if p.grad is not None]

        def loss_at(step: float) -> float:
            for weight, gradient, before in moving:
                torch.add(before, gradient, alpha=-step, out=weight)
            return float(cast(Tensor, self.fabric.all_reduce(loss(), reduce_op="mean")))

        low, high = self.recipe.lowest_step, self.recipe.highest_step
        step = line_search(loss_at, self.step_length, low, high)
        for weight, _, before in moving:
            weight.copy_(before)
        return step

    def _searches_all(self, progress: float) -> bool:
        """Whether violators are looked for among all candidates by now."""
        if self.recipe.candidates != "full" or self.config.loss == "none":
            return False
        return self._stage_progress(progress) >= 1 - self.recipe.full_share

    def _refresh_is_due(self) -> bool:
        if self.search.embeddings is None:
            return True
        changes = any(p.requires_grad for p in self.model.pose_network.parameters())
        return changes and (self.step - self.first_step) % self.recipe.refresh == 0

    def _count(self, violators: Tensor) -> None:
        counts = violators.bincount(minlength=len(self.candidates))
        self.search.counts += cast(Tensor, self.fabric.all_reduce(counts, reduce_op="sum"))

    # ---- checkpoints ----

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint stores beside the optimiser."""
        return {"model": self.model, "heads": self.heads, "search": self.search}

    def state(self) -> dict[str, Any]:
        """The plain values of a checkpoint."""
        return {
            "step": self.step,
            "stage": self.stage,
            "first_step": self.first_step,
            "step_length": self.step_length,
            "embedded": self.search.embeddings is not None,
            "seconds": [self.search_clock.seconds, self.refresh_clock.seconds],
        }

    def continue_from(self, state: dict[str, Any], load: Callable[[], object]) -> None:
        """Takes a `state` up again.

        Args:
            state: what `state` gave.
            load: puts the tensors of the same checkpoint into `modules` and `optimizer`.
        """
        self.step, self.step_length = state["step"], state["step_length"]
        self.enter_stage(state["stage"])
        self.first_step = state["first_step"]
        load()
        self.search_clock.seconds, self.refresh_clock.seconds = state["seconds"]
        if state["embedded"]:
            with self.fabric.autocast():
                self.search.restore()


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()
