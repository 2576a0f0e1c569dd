"""Training of max-margin pose retrieval.

Two stages: the convolutions alone, from joint regression and joint detection, then the margin
between true and violated poses. Where the first has no share of the training, everything is learned
in the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dgpose.data.pose_pool import PosePool
from dgpose.models.max_margin.config import MaxMarginConfig
from dgpose.models.max_margin.networks import MaxMarginModel
from dgpose.models.max_margin.weight_file import load_model, save_model
from dgpose.train.max_margin_learner import STAGES, MaxMarginLearner
from dgpose.train.pose_validation import RetrievalErrors, retrieval_errors
from dgpose.train.run import launch_fabric
from dgpose.train.training_run import WEIGHTS_NAME, TrainConfig, TrainingRun, Validation

__all__ = ["WEIGHTS_NAME", "MaxMarginTrainConfig", "MaxMarginTrainResult", "train_max_margin"]


@dataclass(frozen=True)
class MaxMarginTrainConfig(TrainConfig):
    """Settings of `train_max_margin`: those of `TrainConfig`, whose minutes the stages follow, too,
    and

    Args:
        model: networks, losses and recipe.
    """

    model: MaxMarginConfig = field(default_factory=MaxMarginConfig)


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
    validations: tuple[Validation[RetrievalErrors], ...]
    seconds: float
    search_seconds: float
    refresh_seconds: float
    finished: bool


class _Run(TrainingRun[MaxMarginTrainConfig, MaxMarginLearner, RetrievalErrors]):
    def __init__(
        self,
        config: MaxMarginTrainConfig,
        pool: PosePool,
        validation: PosePool,
        candidates: Tensor,
        data: str,
    ) -> None:
        self.validation = validation
        fabric = launch_fabric(config)
        learner = MaxMarginLearner(
            fabric, config.model, pool, candidates, config.seed, config.processor_time
        )
        facts = {
            "data": data,
            "images": len(pool),
            "validation_images": len(validation),
            "candidates": len(candidates),
        }
        super().__init__(config, fabric, learner, facts)

    def stage(self) -> str:
        return STAGES[self.learner.stage]

    def validate(self) -> RetrievalErrors | None:
        learner = self.learner
        if not learner.has_margin:
            return None
        learner.model.eval()
        return retrieval_errors(learner.model, self.validation, learner.candidates)

    def judged(self, errors: RetrievalErrors) -> float:
        return errors.auxiliary_mm if self.config.model.loss == "none" else errors.average_mm

    def rounded(self, error: float) -> float:
        return round(error, 2)

    def save_weights(self, path: Path, facts: dict[str, Any]) -> None:
        save_model(self.learner.model, path, facts)

    def read_errors(self, values: Any) -> RetrievalErrors:
        return RetrievalErrors(*values)

    def learner_state(self) -> dict[str, Any]:
        return {"learner": self.learner.state()}

    def restore_learner(self, state: dict[str, Any], load: Callable[[], object]) -> None:
        self.learner.continue_from(state["learner"], load)

    def run(self) -> MaxMarginTrainResult:
        """All steps from the current one on."""
        finished = self.run_steps()
        learner, best = self.learner, self.config.out / WEIGHTS_NAME
        return MaxMarginTrainResult(
            model=load_model(best) if self.validations else learner.model.eval(),
            validations=tuple(self.validations),
            seconds=self.clock.seconds,
            search_seconds=learner.search_clock.seconds,
            refresh_seconds=learner.refresh_clock.seconds,
            finished=finished,
        )


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
