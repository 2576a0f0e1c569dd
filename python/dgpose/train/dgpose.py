"""Training of DGPose: Conditional, Semi, and the baselines made of the same modules."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor

from dgpose.data.person_pool import PersonPool
from dgpose.models.dgpose import (
    ConditionalDGPose,
    DGPoseConfig,
    DGPoseModel,
    ImageVAE,
    load_model,
    save_model,
)
from dgpose.train.checkpoint import load_checkpoint, read_state, save_checkpoint
from dgpose.train.dgpose_learner import DGPoseLearner
from dgpose.train.interrupts import stop_requests
from dgpose.train.person_validation import (
    PersonErrors,
    calibrate_pose,
    person_errors,
    person_panel,
)
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
    "DGPoseTrainConfig",
    "DGPoseTrainResult",
    "DGPoseValidation",
    "train_dgpose",
]

WEIGHTS_NAME = "weights.safetensors"


@dataclass(frozen=True)
class DGPoseTrainConfig:
    """Settings of `train_dgpose`; one of `steps` and `minutes` at least.

    Args:
        out: folder of the run: checkpoint.safetensors, weights.safetensors (the best so far by
            validation), TensorBoard events.
        model: networks, losses and recipe.
        labelled: share of the pool whose labels are used, in (0, 1]; which images they are is a
            function of `seed`. Conditional-DGPose and the pose encoder learn from no others.
        steps: optimiser steps, after the mapper's.
        minutes: wall-clock budget of all but validation, the mapper's stage included, which the
            learning rates then follow: such a run cannot be repeated number for number.
        processor_time: minutes of this process's processors instead: on one thread, what a quiet
            machine would need by the clock.
        seed: of labels, weights, batches and all noise.
        resume: continue the run in `out`, or start it where there is none yet.
        validate_every, save_every, log_every: steps between validations (with pictures),
            checkpoints and TensorBoard scalars.
        precision, accelerator, devices, nodes, strategy: Fabric's.

    Raises:
        ValueError: a setting out of range.
    """

    out: Path
    model: DGPoseConfig = field(default_factory=DGPoseConfig)
    labelled: float = 1.0
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
        if not 0 < self.labelled <= 1:
            raise ValueError(f"labelled share must lie in (0, 1], got {self.labelled:g}")
        if self.steps is None and self.minutes is None:
            raise ValueError("steps or minutes must be given")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")


class DGPoseValidation(NamedTuple):
    """What a validation found."""

    step: int
    seconds: float  #: of training until then, validation not counted
    errors: PersonErrors


@dataclass(frozen=True, eq=False)
class DGPoseTrainResult:
    """What `train_dgpose` ends with.

    Attributes:
        model: the best by validation, in evaluation mode on the CPU; as it stands, where there was
            none.
        validations: all of them.
        seconds: of training, without validation.
        steps: of the optimiser.
        finished: whether the run came to its end.
    """

    model: DGPoseModel
    validations: tuple[DGPoseValidation, ...]
    seconds: float
    steps: int
    finished: bool


class _Run:
    """State of a run on one rank."""

    def __init__(
        self, config: DGPoseTrainConfig, pool: PersonPool, validation: PersonPool, data: str
    ) -> None:
        self.config, self.validation = config, validation
        self.data = data or pool.source
        self.fabric = launch_fabric(config)
        self.fabric.seed_everything(config.seed, verbose=False)
        self.learner = DGPoseLearner(self.fabric, config.model, pool, config.labelled, config.seed)
        self.clock = Clock(config.processor_time)
        self.validations: list[DGPoseValidation] = []
        self.prepared = False
        self._start_or_resume()

    def _progress(self) -> float:
        config = self.config
        return training_progress(
            self.fabric, self.learner.step, config.steps, self.clock, config.minutes
        )

    # ---- validation ----

    def _validate(self) -> str:
        """Errors on the validation pool; writes the weights where they are the best so far."""
        learner, device = self.learner, self.fabric.device
        model = learner.judged_model()
        errors = person_errors(model, self.validation)
        if not isinstance(model, ConditionalDGPose | ImageVAE):
            calibrate_pose(model, self.validation)
        size = self.config.model.image_size
        best = min((v.errors.judged(size) for v in self.validations), default=math.inf)
        self.validations.append(DGPoseValidation(learner.step, self.clock.seconds, errors))
        named = {name: value for name, value in errors._asdict().items() if math.isfinite(value)}
        self.fabric.log_dict({f"validation/{name}": v for name, v in named.items()}, learner.step)
        if self.fabric.is_global_zero:
            panel = person_panel(model, self.validation, device)
            writer = cast(Any, self.fabric.logger).experiment
            writer.add_image("validation/people", panel, learner.step, dataformats="HWC")
            if errors.judged(size) < best:
                save_model(model, self.config.out / WEIGHTS_NAME, self._facts())
        learner.learn_mode()
        self.fabric.barrier()
        text = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
        return f"step {learner.step}, {self.clock.seconds:.0f} s: {text}"

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
            "labelled": self.config.labelled,
            "labelled_images": int(self.learner.labels.sum()),
            "validation_images": len(self.validation),
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
            **{name: round(value, 4) for name, value in errors.items() if math.isfinite(value)},
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
        load_checkpoint(self._checkpoint, modules=learner.modules, optimizer=learner.optimizer)
        learner.step = state["step"]
        self.clock.seconds = state["seconds"]
        self.validations = [
            DGPoseValidation(
                step, seconds, PersonErrors(*(math.nan if e is None else e for e in values))
            )
            for step, seconds, values in state["validations"]
        ]
        self.prepared = True
        self.fabric.print(f"resumed at step {learner.step}")

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            validations = [
                (step, seconds, [value if math.isfinite(value) else None for value in errors])
                for step, seconds, errors in self.validations
            ]
            save_checkpoint(
                self._checkpoint,
                modules=self.learner.modules,
                optimizer=self.learner.optimizer,
                state={
                    "run": self._must_match(),
                    "step": self.learner.step,
                    "seconds": self.clock.seconds,
                    "validations": validations,
                },
            )
        self.fabric.barrier()

    # ---- the run ----

    def run(self) -> DGPoseTrainResult:
        """All steps from the current one on."""
        bar, config, learner = progress_bar(self.fabric), self.config, self.learner
        with stop_requests() as stop, bar:
            task = bar.add_task("training", total=1000, state="prior and mapper")
            if not self.prepared:
                with self.clock:
                    learner.prepare(lambda: agree_to_stop(self.fabric, stop.is_set()))
            # A run that is stopped before its first step has nothing to continue from.
            stopped = agree_to_stop(self.fabric, stop.is_set()) and not learner.step
            while not stopped and (progress := self._progress()) < 1:
                with self.clock:
                    terms = learner.learn(progress)
                if learner.step % config.log_every == 0:
                    bar.update(task, completed=int(1000 * progress), state=self._log(terms))
                if learner.step % config.validate_every == 0:
                    bar.console.print(self._validate())
                stopped = agree_to_stop(self.fabric, stop.is_set())
                if learner.step % config.save_every == 0 and not stopped:
                    self._save()
            finished = self._progress() >= 1
            if finished and (not self.validations or self.validations[-1].step != learner.step):
                bar.console.print(self._validate())
            bar.update(task, completed=int(1000 * self._progress()))
        if learner.step:
            self._save()
        best = config.out / WEIGHTS_NAME
        return DGPoseTrainResult(
            model=load_model(best) if self.validations else learner.average.eval(),
            validations=tuple(self.validations),
            seconds=self.clock.seconds,
            steps=learner.step,
            finished=finished,
        )

    def _log(self, terms: dict[str, Tensor]) -> str:
        learner = self.learner
        values = {name: float(value) for name, value in terms.items()}
        scalars = values | {"learning_rate": learner.optimizer.param_groups[0]["lr"]}
        self.fabric.log_dict({f"train/{n}": value for n, value in scalars.items()}, learner.step)
        text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        return f"step {learner.step}: {text}"


def train_dgpose(
    config: DGPoseTrainConfig, pool: PersonPool, validation: PersonPool, *, data: str = ""
) -> DGPoseTrainResult:
    """Trains a model of `dgpose.models.dgpose`; Ctrl-C or SIGTERM ends a run at a step, with a
    checkpoint.

    Args:
        config: the settings.
        pool: what to learn from; the same on every rank.
        validation: what the best weights are chosen by (`PersonErrors.judged`); no person of `pool`
            may be in it.
        data: one sentence on what the pool is, kept with the weights; a resumed run must share it.
            By default the pool's own.

    Raises:
        ValueError: `out` holds a run and resume is not set, a resumed run of other settings, pools
            of another image size or without images, or too few labels.
        RuntimeError: the gradient is not finite.
    """
    size = config.model.image_size
    for name, people in (("pool", pool), ("validation", validation)):
        if not len(people):
            raise ValueError(f"{name} must have at least one image, got none")
        if people.size != (size, size):
            raise ValueError(
                f"{name} must have images of {size} x {size} pixels, "
                f"got {people.size[0]} x {people.size[1]}"
            )
    config.out.mkdir(parents=True, exist_ok=True)
    return _Run(config, pool, validation, data).run()
