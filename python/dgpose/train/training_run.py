"""The loop that training runs share: budget, validation, files, stopping and going on."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from dgpose.train.checkpoint import load_checkpoint, read_state, save_checkpoint
from dgpose.train.interrupts import stop_requests
from dgpose.train.run import (
    CHECKPOINT_NAME,
    Clock,
    agree_to_stop,
    progress_bar,
    require_resume,
    require_same,
    training_progress,
)

__all__ = ["WEIGHTS_NAME", "Learner", "TrainConfig", "TrainingRun", "Validation"]

WEIGHTS_NAME = "weights.safetensors"

# Settings that a resumed run may have changed.
_FREE = {
    *("out", "resume", "validate_every", "save_every", "log_every"),
    *("accelerator", "devices", "nodes", "strategy"),
}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; one of `steps` and `minutes` at least.

    Args:
        out: folder of the run: checkpoint.safetensors, weights.safetensors (the best so far by
            validation), TensorBoard events.
        steps: optimiser steps.
        minutes: wall-clock budget of all but validation, which schedules then follow: such a run
            cannot be repeated number for number.
        processor_time: minutes of this process's processors instead: on one thread, what a quiet
            machine would need by the clock.
        seed: of weights, batches and all noise.
        resume: continue the run in `out`, or start it where there is none yet.
        validate_every, save_every, log_every: steps between validations (with pictures),
            checkpoints and TensorBoard scalars.
        precision, accelerator, devices, nodes, strategy: Fabric's.

    Raises:
        ValueError: a setting out of range.
    """

    out: Path
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


class Learner(Protocol):
    """Networks and their optimiser on one rank."""

    step: int  #: steps done

    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """What a checkpoint stores beside the optimiser."""

    def learn(self, progress: float) -> dict[str, Tensor]:
        """One step; gives the terms of the loss.

        Args:
            progress: share of the training that is done, the same on all ranks.
        """

    def learn_mode(self) -> None:
        """What a validation put into evaluation mode learns again."""


ConfigT = TypeVar("ConfigT", bound=TrainConfig)
LearnerT = TypeVar("LearnerT", bound=Learner)
ErrorsT = TypeVar("ErrorsT")


@dataclass(frozen=True)
class Validation(Generic[ErrorsT]):
    """What a validation found."""

    step: int
    seconds: float  #: of training until then, validation not counted
    errors: ErrorsT


class TrainingRun(ABC, Generic[ConfigT, LearnerT, ErrorsT]):
    """State of a run on one rank. Errors are a NamedTuple of numbers or a dict of them; NaN is what
    a model has not.

    Args:
        config: the settings.
        fabric: launched.
        learner: as the run begins.
        data_facts: what the data are; kept with the weights, and the same in a resumed run.
    """

    def __init__(
        self, config: ConfigT, fabric: Fabric, learner: LearnerT, data_facts: Mapping[str, Any]
    ) -> None:
        self.config, self.fabric, self.learner = config, fabric, learner
        self.data_facts = {**data_facts, "ranks": fabric.world_size}
        self.clock = Clock(config.processor_time)
        self.validations: list[Validation[ErrorsT]] = []
        self._resumed = self._resume()

    # ---- what a system says of itself ----

    @abstractmethod
    def validate(self) -> ErrorsT | None:
        """Errors of what has been learned; None while there is nothing to judge yet."""

    @abstractmethod
    def judged(self, errors: ErrorsT) -> float:
        """The number by which the best weights are chosen: the lower the better."""

    @abstractmethod
    def save_weights(self, path: Path, facts: dict[str, Any]) -> None:
        """Writes what was validated last, atomically."""

    @abstractmethod
    def read_errors(self, values: Any) -> ErrorsT:
        """Errors from the list or dict of their numbers."""

    def prepare(self, stopped: Callable[[], bool]) -> bool:
        """What comes before the first step; gives whether the run is to end here."""
        return False

    def panels(self) -> dict[str, NDArray[np.uint8]]:
        """RGB pictures [H, W, 3] of what was validated last, by name."""
        return {}

    def stage(self) -> str:
        """What is learned now: TensorBoard's group of the terms."""
        return "train"

    def named(self, errors: ErrorsT) -> dict[str, float]:
        """The finite errors by the names that people read."""
        values = cast(Any, errors)._asdict()
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def rounded(self, error: float) -> float:
        """An error as it stands in the weight file."""
        return round(error, 4)

    def learner_state(self) -> dict[str, Any]:
        """The plain values of a checkpoint that are the learner's."""
        return {"step": self.learner.step}

    def restore_learner(self, state: dict[str, Any], load: Callable[[], object]) -> None:
        """Takes `learner_state` up again; `load` fills the modules and the optimiser."""
        load()
        self.learner.step = state["step"]

    # ---- validation ----

    def _validate(self) -> str:
        """Errors as a line; the weights are written where they are the best so far."""
        learner = self.learner
        errors = self.validate()
        if errors is None:
            return f"step {learner.step}: nothing to validate yet"
        best = min((self.judged(v.errors) for v in self.validations), default=math.inf)
        self.validations.append(Validation(learner.step, self.clock.seconds, errors))
        named = self.named(errors)
        self.fabric.log_dict({f"validation/{name}": v for name, v in named.items()}, learner.step)
        if self.fabric.is_global_zero:
            writer = cast(Any, self.fabric.logger).experiment
            for name, picture in self.panels().items():
                writer.add_image(f"validation/{name}", picture, learner.step, dataformats="HWC")
            if self.judged(errors) < best:
                self.save_weights(self.config.out / WEIGHTS_NAME, self._facts(named))
        learner.learn_mode()
        self.fabric.barrier()
        text = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
        return f"step {learner.step}, {self.clock.seconds:.0f} s: {text}"

    def _facts(self, named: dict[str, float]) -> dict[str, Any]:
        """What the weight file says about its training."""
        return {
            **self.data_facts,
            "step": self.learner.step,
            "minutes": round(self.clock.now() / 60, 2),
            "seed": self.config.seed,
            "precision": self.config.precision,
            **{name: self.rounded(value) for name, value in named.items()},
        }

    # ---- files ----

    def _must_match(self) -> dict[str, Any]:
        """What a resumed run must share, as JSON gives it back."""
        settings = {name: v for name, v in asdict(self.config).items() if name not in _FREE}
        plain = json.dumps(settings, default=lambda path: path.name)
        return {**json.loads(plain), **self.data_facts}

    @property
    def _checkpoint(self) -> Path:
        return self.config.out / CHECKPOINT_NAME

    def _resume(self) -> bool:
        """Whether there was a run to continue."""
        require_resume(self.config)
        if not self._checkpoint.exists():
            return False
        state, learner = read_state(self._checkpoint), self.learner
        require_same("", state["run"], self._must_match())
        self.restore_learner(
            state,
            lambda: load_checkpoint(
                self._checkpoint, modules=learner.modules, optimizer=learner.optimizer
            ),
        )
        self.clock.seconds = state["seconds"]
        self.validations = [
            Validation(step, seconds, self.read_errors(_with_nan(values)))
            for step, seconds, values in state["validations"]
        ]
        self.fabric.print(f"resumed at step {learner.step}")
        return True

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            save_checkpoint(
                self._checkpoint,
                modules=self.learner.modules,
                optimizer=self.learner.optimizer,
                state={
                    "run": self._must_match(),
                    **self.learner_state(),
                    "seconds": self.clock.seconds,
                    "validations": [
                        (v.step, v.seconds, _without_nan(v.errors)) for v in self.validations
                    ],
                },
            )
        self.fabric.barrier()

    # ---- the run ----

    def run_steps(self) -> bool:
        """All steps from the current one on; gives whether the run came to its end."""
        bar, config, learner = progress_bar(self.fabric), self.config, self.learner
        with stop_requests() as stop, bar:

            def asked_to_stop() -> bool:
                return agree_to_stop(self.fabric, stop.is_set())

            task = bar.add_task("training", total=1000, state="preparing")
            stopped = False
            if not self._resumed:
                with self.clock:
                    stopped = self.prepare(asked_to_stop)
            while not stopped and (progress := self._progress()) < 1:
                with self.clock:
                    terms = learner.learn(progress)
                if learner.step % config.log_every == 0:
                    bar.update(task, completed=int(1000 * progress), state=self._log(terms))
                if learner.step % config.validate_every == 0:
                    bar.console.print(self._validate())
                stopped = asked_to_stop()
                if learner.step % config.save_every == 0 and not stopped:
                    self._save()
            finished = self._progress() >= 1
            if finished and (not self.validations or self.validations[-1].step != learner.step):
                bar.console.print(self._validate())
            bar.update(task, completed=int(1000 * self._progress()))
        # A run that is stopped before its first step has nothing to continue from.
        if learner.step:
            self._save()
        return finished

    def _progress(self) -> float:
        config = self.config
        return training_progress(
            self.fabric, self.learner.step, config.steps, self.clock, config.minutes
        )

    def _log(self, terms: dict[str, Tensor]) -> str:
        learner, stage = self.learner, self.stage()
        values = {name: float(value) for name, value in terms.items()}
        scalars = values | {"learning_rate": learner.optimizer.param_groups[0]["lr"]}
        self.fabric.log_dict({f"{stage}/{n}": value for n, value in scalars.items()}, learner.step)
        text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        return f"{stage}, step {learner.step}: {text}"


def _without_nan(errors: Any) -> Any:
    """Errors as JSON holds them: a dict or list in which NaN is None."""
    if isinstance(errors, dict):
        return {name: value if math.isfinite(value) else None for name, value in errors.items()}
    return [value if math.isfinite(value) else None for value in errors]


def _with_nan(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: math.nan if value is None else value for name, value in values.items()}
    return [math.nan if value is None else value for value in values]
