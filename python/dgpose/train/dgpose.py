"""Training of DGPose: Conditional, Semi, and the baselines made of the same modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgpose.data.person_pool import PersonPool
from dgpose.models.dgpose import (
    ConditionalDGPose,
    DGPoseConfig,
    DGPoseModel,
    ImageVAE,
    load_model,
    save_model,
)
from dgpose.train.dgpose_learner import DGPoseLearner
from dgpose.train.person_validation import (
    PersonErrors,
    calibrate_pose,
    person_errors,
    person_panel,
)
from dgpose.train.run import launch_fabric
from dgpose.train.training_run import WEIGHTS_NAME, TrainConfig, TrainingRun, Validation

__all__ = ["WEIGHTS_NAME", "DGPoseTrainConfig", "DGPoseTrainResult", "train_dgpose"]


@dataclass(frozen=True)
class DGPoseTrainConfig(TrainConfig):
    """Settings of `train_dgpose`: those of `TrainConfig`, whose steps come after the mapper's and
    whose minutes include that stage, and

    Args:
        model: networks, losses and recipe.
        labelled: share of the pool whose labels are used, in (0, 1]; which images they are is a
            function of `seed`. Conditional-DGPose and the pose encoder learn from no others.

    Raises:
        ValueError: a setting out of range.
    """

    model: DGPoseConfig = field(default_factory=DGPoseConfig)
    labelled: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.labelled <= 1:
            raise ValueError(f"labelled share must lie in (0, 1], got {self.labelled:g}")


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
    validations: tuple[Validation[PersonErrors], ...]
    seconds: float
    steps: int
    finished: bool


class _Run(TrainingRun[DGPoseTrainConfig, DGPoseLearner, PersonErrors]):
    def __init__(
        self, config: DGPoseTrainConfig, pool: PersonPool, validation: PersonPool, data: str
    ) -> None:
        self.validation = validation
        fabric = launch_fabric(config)
        learner = DGPoseLearner(fabric, config.model, pool, config.labelled, config.seed)
        facts = {
            "data": data or pool.source,
            "images": len(pool),
            "labelled": config.labelled,
            "labelled_images": int(learner.labels.sum()),
            "validation_images": len(validation),
        }
        super().__init__(config, fabric, learner, facts)

    def prepare(self, stopped: Callable[[], bool]) -> bool:
        self.learner.prepare(stopped)
        return stopped()

    def validate(self) -> PersonErrors:
        model = self.learner.judged_model()
        errors = person_errors(model, self.validation)
        if not isinstance(model, ConditionalDGPose | ImageVAE):
            calibrate_pose(model, self.validation)
        return errors

    def judged(self, errors: PersonErrors) -> float:
        return errors.judged(self.config.model.image_size)

    def panels(self) -> dict[str, NDArray[np.uint8]]:
        return {"people": person_panel(self.learner.average, self.validation, self.fabric.device)}

    def save_weights(self, path: Path, facts: dict[str, Any]) -> None:
        save_model(self.learner.average, path, facts)

    def read_errors(self, values: Any) -> PersonErrors:
        return PersonErrors(*values)

    def run(self) -> DGPoseTrainResult:
        """All steps from the current one on."""
        finished = self.run_steps()
        best = self.config.out / WEIGHTS_NAME
        return DGPoseTrainResult(
            model=load_model(best) if self.validations else self.learner.average.eval(),
            validations=tuple(self.validations),
            seconds=self.clock.seconds,
            steps=self.learner.step,
            finished=finished,
        )


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
