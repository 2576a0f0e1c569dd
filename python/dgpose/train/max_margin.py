"""Training of max-margin pose retrieval.

Two stages: the convolutions alone, from joint regression and joint detection, then the margin
between true and violated poses. Where the first has no share of the training, everything is learned
in the second.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from dgpose.data.pose_pool import PosePool
from dgpose.models.max_margin.config import MaxMarginConfig
from dgpose.models.max_margin.networks import MaxMarginModel
from dgpose.models.max_margin.weight_file import load_model, save_model
from dgpose.train.checkpoint import load_checkpoint, read_state, save_checkpoint
from dgpose.train.interrupts import stop_requests
from dgpose.train.max_margin_learner import STAGES, MaxMarginLearner
from dgpose.train.pose_validation import RetrievalErrors, retrieval_errors
from dgpose.train.run import (
    CHECKPOINT_NAME,
    Clock,
    agree_to_stop,
    launch_fabric,
    progress_bar,
    require_resume,
    require_same,
    training_progress,
)

__all__ = [
    "WEIGHTS_NAME",
    "MaxMarginTrainConfig",
    "MaxMarginTrainResult",
    "Validation",
    "train_max_margin",
]

WEIGHTS_NAME = "weights.safetensors"


@dataclass(frozen=True)
class MaxMarginTrainConfig:
    """Settings of `train_max_margin`; one of `steps` and `minutes` at least.

    Args:
        out: folder of the run: checkpoint.safetensors, weights.safetensors (the best so far by
            validation), TensorBoard events.
        model: networks, losses and recipe.
        steps: optimiser steps.
        minutes: wall-clock budget of all but validation, which the stages and the learning rate
            then follow: such a run cannot be repeated number for number.
        processor_time: minutes of this process's processors instead: on one thread, what a quiet
            machine would need by the clock.
        seed: of weights, batches and all noise.
        resume: continue the run in `out`, or start it where there is none yet.
        validate_every, save_every, log_every: steps between validations, checkpoints and
            TensorBoard scalars.
        precision, accelerator, devices, nodes, strategy: Fabric's.

    Raises:
        ValueError: a setting out of range.
    """

    out: Path
    model: MaxMarginConfig = field(default_factory=MaxMarginConfig)
    steps: int | None = None
    minutes: float | None = None
    processor_time: bool = False
    seed: int = 0
    resume: bool = False
    validate_every: int = 500
    save_every: int = 500
    log_every: int = 20
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        for name in ("validate_every", "save_every", "log_every", "devices", "nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.steps is None and self.minutes is None:
            raise ValueError("steps or minutes must be given")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")


class Validation(NamedTuple):
    """What a validation found."""

    step: int
    seconds: float  #: of training until then, validation not counted
    errors: RetrievalErrors


@dataclass(frozen=True, eq=False)
class MaxMarginTrainResult:
    """What `train_max_margin` ends with.

    Attributes:
        model: the best by validation, in evaluation mode; as it stands, where there was none.
        validations: all of them.
        seconds: of training: steps and refreshes, without validation.
        search_seconds: of these, the search of violators; refresh_seconds: new embeddings of all
            candidates.
        finished: whether the run came to its end.
    """

    model: MaxMarginModel
    validations: tuple[Validation, ...]
    seconds: float
    search_seconds: float
    refresh_seconds: float
    finished: bool


class _Run:
    """State of a run on one rank."""

    def __init__(
        self,
        config: MaxMarginTrainConfig,
        pool: PosePool,
        validation: PosePool,
        candidates: Tensor,
        data: str,
    ) -> None:
        self.config, self.validation, self.data = config, validation, data
        self.fabric = launch_fabric(config)
        self.fabric.seed_everything(config.seed, verbose=False)
        self.learner = MaxMarginLearner(
            self.fabric, config.model, pool, candidates, config.seed, config.processor_time
        )
        self.clock = Clock(config.processor_time)
        self.validations: list[Validation] = []
        self._start_or_resume()

    def _progress(self) -> float:
        config = self.config
        return training_progress(
            self.fabric, self.learner.step, config.steps, self.clock, config.minutes
        )

    # ---- validation ----

    def _validate(self) -> str:
        """Errors on the validation pool; writes the weights where they are the best so far."""
        learner = self.learner
        learner.model.eval()
        errors = retrieval_errors(learner.model, self.validation, learner.candidates)
        learner.learn_mode()
        best = min((self._judged(v.errors) for v in self.validations), default=math.inf)
        self.validations.append(Validation(learner.step, self.clock.seconds, errors))
        named = {name: mm for name, mm in errors._asdict().items() if math.isfinite(mm)}
        self.fabric.log_dict({f"validation/{name}": mm for name, mm in named.items()}, learner.step)
        if self._judged(errors) < best and self.fabric.is_global_zero:
            save_model(learner.model, self.config.out / WEIGHTS_NAME, self._facts())
        self.fabric.barrier()
        text = ", ".join(f"{name.removesuffix('_mm')} {mm:.1f} mm" for name, mm in named.items())
        return f"step {learner.step}, {self.clock.seconds:.0f} s: {text}"

    def _judged(self, errors: RetrievalErrors) -> float:
        """The error by which the best weights are chosen."""
        return errors.auxiliary_mm if self.config.model.loss == "none" else errors.average_mm

    # ---- files ----

    def _must_match(self) -> dict[str, Any]:
        return {
            "model": json.loads(json.dumps(asdict(self.config.model))),
            "steps": self.config.steps,
            "minutes": self.config.minutes,
            "processor_time": self.config.processor_time,
            "precision": self.config.precision,
            "seed": self.config.seed,
            **self._data_facts(),
        }

    def _data_facts(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "images": len(self.learner.pool),
            "validation_images": len(self.validation),
            "candidates": len(self.learner.candidates),
            "ranks": self.fabric.world_size,
        }

    def _facts(self) -> dict[str, Any]:
        """What the weight file says about its training."""
        errors = self.validations[-1].errors._asdict()
        return {
            **self._data_facts(),
            "step": self.learner.step,
            "minutes": round(self.clock.now() / 60, 2),
            "seed": self.config.seed,
            "precision": self.config.precision,
            **{name: round(mm, 2) for name, mm in errors.items() if math.isfinite(mm)},
        }

    @property
    def _checkpoint(self) -> Path:
        return self.config.out / CHECKPOINT_NAME

    def _start_or_resume(self) -> None:
        require_resume(self.config)
        if not self._checkpoint.exists():
            return
        state, learner = read_state(self._checkpoint), self.learner
        require_same("", state["run"], self._must_match())
        learner.continue_from(
            state["learner"],
            lambda: load_checkpoint(
                self._checkpoint, modules=learner.modules, optimizer=learner.optimizer
            ),
        )
        self.clock.seconds = state["seconds"]
        self.validations = [
            Validation(step, seconds, RetrievalErrors(*(math.nan if e is None else e for e in mm)))
            for step, seconds, mm in state["validations"]
        ]
        self.fabric.print(f"resumed at step {learner.step}")

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            validations = [
                (step, seconds, [mm if math.isfinite(mm) else None for mm in errors])
                for step, seconds, errors in self.validations
            ]
            save_checkpoint(
                self._checkpoint,
                modules=self.learner.modules,
                optimizer=self.learner.optimizer,
                state={
                    "run": self._must_match(),
                    "learner": self.learner.state(),
                    "seconds": self.clock.seconds,
                    "validations": validations,
                },
            )
        self.fabric.barrier()

    # ---- the run ----

    def run(self) -> MaxMarginTrainResult:
        """All steps from the current one on."""
        bar, config, learner = progress_bar(self.fabric), self.config, self.learner
        with stop_requests() as stop, bar:
            task = bar.add_task("training", total=1000, state="")
            while (progress := self._progress()) < 1:
                with self.clock:
                    terms = learner.learn(progress)
                if learner.step % config.log_every == 0:
                    bar.update(task, completed=int(1000 * progress), state=self._log(terms))
                if learner.step % config.validate_every == 0 and learner.has_margin:
                    bar.console.print(self._validate())
                if agree_to_stop(self.fabric, stop.is_set()):
                    break
                if learner.step % config.save_every == 0:
                    self._save()
            finished = self._progress() >= 1
            if finished and (not self.validations or self.validations[-1].step != learner.step):
                bar.console.print(self._validate())
            bar.update(task, completed=int(1000 * self._progress()))
        self._save()
        best = config.out / WEIGHTS_NAME
        return MaxMarginTrainResult(
            model=load_model(best) if self.validations else learner.model.eval(),
            validations=tuple(self.validations),
            seconds=self.clock.seconds,
            search_seconds=learner.search_clock.seconds,
            refresh_seconds=learner.refresh_clock.seconds,
            finished=finished,
        )

    def _log(self, terms: dict[str, Tensor]) -> str:
        learner, stage = self.learner, STAGES[self.learner.stage]
        values = {name: float(value) for name, value in terms.items()}
        scalars = values | {"learning_rate": learner.optimizer.param_groups[0]["lr"]}
        self.fabric.log_dict({f"{stage}/{n}": value for n, value in scalars.items()}, learner.step)
        text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        return f"{stage}, step {learner.step}: {text}"


def train_max_margin(
    config: MaxMarginTrainConfig,
    pool: PosePool,
    validation: PosePool,
    candidates: Tensor | None = None,
    *,
    data: str = "",
) -> MaxMarginTrainResult:
    """Trains a `MaxMarginModel`; Ctrl-C or SIGTERM ends a run at a step, with a checkpoint.

    Args:
        config: the settings.
        pool: what to learn from; the same on every rank.
        validation: what the best weights are chosen by; no person or motion of `pool` may be in it.
        candidates: poses [N, 17, 3] mm that violators are searched among, and estimates while
            validating; None: the poses of `pool`.
        data: one sentence on what the pool is, kept with the weights; a resumed run must share it.

    Raises:
        ValueError: `out` holds a run and resume is not set, a resumed run of other settings, pools
            of another image size, or candidates of another shape or none.
        RuntimeError: the gradient is not finite.
    """
    size = config.model.image_size
    for name, images in (("pool", pool), ("validation", validation)):
        if not len(images):
            raise ValueError(f"{name} must have at least one image, got none")
        if images.image_size != size:
            raise ValueError(
                f"{name} must have images of {size} pixels a side, got {images.image_size}"
            )
    candidates = pool.poses if candidates is None else candidates.float()
    if candidates.dim() != 3 or candidates.shape[1:] != pool.poses.shape[1:]:
        raise ValueError(
            f"candidates must have shape [N, {config.model.joints}, 3], "
            f"got {list(candidates.shape)}"
        )
    if not len(candidates) or not bool(candidates.isfinite().all()):
        raise ValueError(f"candidates must be at least one pose, all finite, got {len(candidates)}")
    config.out.mkdir(parents=True, exist_ok=True)
    return _Run(config, pool, validation, candidates, data).run()
