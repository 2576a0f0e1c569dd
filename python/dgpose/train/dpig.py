"""Training of DPIG, stage by stage: stage 1, the pose autoencoder, the mappers of noise to codes.

Each training writes a whole `DPIG` with what is trained so far. Stage 1 and the pose autoencoder
need nothing of each other; the mappers need what encodes their factors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from dgpose.data.person_pool import PersonPool
from dgpose.models.dpig import DPIG, DPIGConfig, Factor, Trainable, load_dpig, save_dpig
from dgpose.nn.weight_files import fingerprint
from dgpose.train.dpig_learner import DPIGLearner, PoseLearner, Stage1Learner
from dgpose.train.dpig_mappers import MapperLearner, codes_of
from dgpose.train.dpig_validation import (
    MapperErrors,
    PoseErrors,
    Stage1Errors,
    mapper_errors,
    pose_errors,
    pose_panel,
    sample_panel,
    stage1_errors,
    stage1_panel,
)
from dgpose.train.run import launch_fabric
from dgpose.train.training_run import WEIGHTS_NAME, TrainConfig, TrainingRun, Validation

__all__ = [
    "WEIGHTS_NAME",
    "DPIGTrainConfig",
    "DPIGTrainResult",
    "continued_config",
    "train_dpig_pose",
    "train_dpig_stage1",
    "train_dpig_stage2",
]

# Fields of a configuration that are no part of the networks that are kept,
_RECIPE = {
    *("code_noise", "code_weight", "l1_weight", "body_weight", "adversarial_weight"),
    *("gan_loss", "pose_weight"),
    *("discriminator_channels", "spectral_norm", "critic_width", "critic_layers", "critic_blocks"),
    "critic_steps",
    *("weight_clip", "gradient_penalty", "stage1", "pose", "stage2"),
}
# and those of networks that may not have been trained yet.
_AUTOENCODER = {"pose_code", "pose_width", "pose_blocks"}
_MAPPER = {"mapper_width", "background_mapper_width", "mapper_blocks", "noise_std", "fitted_codes"}
_MAPPERS: dict[Factor, Trainable] = {
    "foreground": "foreground_mapper",
    "background": "background_mapper",
    "pose": "pose_mapper",
}
ErrorsT = TypeVar("ErrorsT", Stage1Errors, PoseErrors, MapperErrors)
LearnerT = TypeVar("LearnerT", bound=DPIGLearner)


@dataclass(frozen=True)
class DPIGTrainConfig(TrainConfig):
    """Settings of the three trainings of DPIG: those of `TrainConfig`, and

    Args:
        model: networks, losses and recipes; None: those of the model that the training starts
            from, or `DPIGConfig.small()`.
        factors: of stage 2: whose mappers are trained; None: all that the model has.
    """

    model: DPIGConfig | None = None
    factors: tuple[Factor, ...] | None = None


@dataclass(frozen=True, eq=False)
class DPIGTrainResult(Generic[ErrorsT]):
    """What a training of DPIG ends with.

    Attributes:
        model: the best by validation, in evaluation mode on the CPU; as it stands, where there was
            none.
        validations: all of them.
        seconds: of training, without validation.
        steps: of the optimiser.
        finished: whether the run came to its end.
    """

    model: DPIG
    validations: tuple[Validation[ErrorsT], ...]
    seconds: float
    steps: int
    finished: bool


class _Run(TrainingRun[DPIGTrainConfig, LearnerT, ErrorsT]):
    """A stage; `parts` are what it trains."""

    def __init__(
        self,
        config: DPIGTrainConfig,
        fabric: Fabric,
        learner: LearnerT,
        parts: tuple[Trainable, ...],
        validation: PersonPool,
        facts: dict[str, Any],
    ) -> None:
        self.validation, self.parts = validation, parts
        super().__init__(config, fabric, learner, facts)

    @property
    def judged_model(self) -> DPIG:
        """In evaluation mode."""
        model: DPIG = self.learner.judged.eval()
        return model

    def save_weights(self, path: Path, facts: dict[str, Any]) -> None:
        model = self.judged_model
        save_dpig(model, path, {**model.training_facts, **dict.fromkeys(self.parts, facts)})

    def run(self) -> DPIGTrainResult[ErrorsT]:
        """All steps from the current one on."""
        finished = self.run_steps()
        best = self.config.out / WEIGHTS_NAME
        return DPIGTrainResult(
            model=load_dpig(best) if self.validations else self.judged_model.cpu(),
            validations=tuple(self.validations),
            seconds=self.clock.seconds,
            steps=self.learner.step,
            finished=finished,
        )


class _Stage1Run(_Run[Stage1Learner, Stage1Errors]):
    def validate(self) -> Stage1Errors:
        return stage1_errors(self.judged_model, self.validation)

    def judged(self, errors: Stage1Errors) -> float:
        return errors.l1

    def panels(self) -> dict[str, NDArray[np.uint8]]:
        return {"people": stage1_panel(self.judged_model, self.validation)}

    def read_errors(self, values: Any) -> Stage1Errors:
        return Stage1Errors(*values)


class _PoseRun(_Run[PoseLearner, PoseErrors]):
    def validate(self) -> PoseErrors:
        return pose_errors(self.judged_model, self.validation)

    def judged(self, errors: PoseErrors) -> float:
        """The joint error as a share of the height, and the share of wrong visibilities."""
        return errors.joint_px / self.validation.size[0] + 1 - errors.visibility

    def panels(self) -> dict[str, NDArray[np.uint8]]:
        return {"poses": pose_panel(self.judged_model, self.validation)}

    def read_errors(self, values: Any) -> PoseErrors:
        return PoseErrors(*values)


class _MapperRun(_Run[MapperLearner, MapperErrors]):
    _true: dict[Factor, Tensor] | None = None

    def prepare(self, stopped: Callable[[], bool]) -> bool:
        self.learner.prepare()
        return stopped()

    def judges_start(self) -> bool:
        """Fitted Gaussians can be drawn from."""
        return self.learner.config.fitted_codes

    def validate(self) -> MapperErrors:
        if self._true is None:  # the encoders stay as they are
            self._true = codes_of(self.judged_model, self.validation, self.learner.factors)
        return mapper_errors(self.judged_model, self._true)

    def judged(self, errors: MapperErrors) -> float:
        return sum(error for error in errors if math.isfinite(error))

    def named(self, errors: MapperErrors) -> dict[str, float]:
        return {f"{name}_distance": value for name, value in super().named(errors).items()}

    def panels(self) -> dict[str, NDArray[np.uint8]]:
        return {"samples": sample_panel(self.judged_model, self.validation)}

    def read_errors(self, values: Any) -> MapperErrors:
        return MapperErrors(*values)


def _begin(
    config: DPIGTrainConfig,
    init: DPIG | None,
    pool: PersonPool,
    validation: PersonPool,
    data: str,
    parts: tuple[Trainable, ...],
    outdated: tuple[Trainable, ...],
) -> tuple[Fabric, DPIG, dict[str, Any]]:
    """The fabric, the model to train and the facts of the data, all checked.

    Args:
        parts: what is trained.
        outdated: what was trained for what `parts` were before, and is not kept.
    """
    settings = config.model or (DPIGConfig.small() if init is None else init.config)
    if init is not None:
        _require_same_networks(init, settings)
    for name, people in (("pool", pool), ("validation", validation)):
        if not len(people):
            raise ValueError(f"{name} must have at least one image, got none")
        if people.size != settings.size:
            raise ValueError(
                f"{name} must have images of {settings.size[0]} x {settings.size[1]} pixels, "
                f"got {people.size[0]} x {people.size[1]}"
            )
    config.out.mkdir(parents=True, exist_ok=True)
    fabric = launch_fabric(config)
    model = DPIG(settings)
    facts = {
        "data": data or pool.source,
        "images": len(pool),
        "validation_images": len(validation),
        "init": None if init is None else fingerprint(init),
    }
    if init is not None:
        new = model.state_dict()
        model.load_state_dict(
            {k: v for k, v in init.state_dict().items() if k in new and new[k].shape == v.shape},
            strict=False,
        )
        model.trained = init.trained - set(outdated)
        kept = copy.deepcopy(init.training_facts)
        model.training_facts = {name: kept[name] for name in model.trained if name in kept}
    model.trained = model.trained | set(parts)
    return fabric, model, facts


def _free_fields(model: DPIG) -> set[str]:
    """What of its configuration a training that starts from a model may change."""
    free = set(_RECIPE)
    if "pose_autoencoder" not in model.trained:
        free |= _AUTOENCODER
    if not model.trained & set(_MAPPERS.values()):
        free |= _MAPPER
        if "pose_autoencoder" not in model.trained:
            free.add("dense_slope")  # of both
    return free


def continued_config(init: DPIG, settings: DPIGConfig) -> DPIGConfig:
    """The configuration of a model, with the recipes, and the networks that are not trained yet, of
    other settings."""
    return replace(init.config, **{name: getattr(settings, name) for name in _free_fields(init)})


def _require_same_networks(init: DPIG, settings: DPIGConfig) -> None:
    old, new = asdict(init.config), asdict(settings)
    for name in sorted(old.keys() - _free_fields(init)):
        if old[name] != new[name]:
            raise ValueError(
                f"{name} must be that of the model to start from, {old[name]!r}, got {new[name]!r}"
            )


def train_dpig_stage1(
    config: DPIGTrainConfig,
    pool: PersonPool,
    validation: PersonPool,
    *,
    init: DPIG | None = None,
    data: str = "",
) -> DPIGTrainResult[Stage1Errors]:
    """Trains stage 1: encoders of foreground and background, and the decoder. Ctrl-C or SIGTERM
    ends a run at a step, with a checkpoint; so in the other stages.

    Args:
        config: the settings.
        pool: what to learn from; the same on every rank. Joints that are not visible are not
            looked at.
        validation: what the best weights are chosen by: the reconstruction's mean absolute
            difference. No person of `pool` may be in it.
        init: a model whose stage 1 to go on from (fine-tuning); its mappers of foreground and
            background are then not kept.
        data: one sentence on what the pool is, kept with the weights; a resumed run must share it.
            By default the pool's own.

    Raises:
        ValueError: `out` holds a run and resume is not set, a resumed run of other settings, pools
            of another image size or without images, or an `init` of other networks.
        RuntimeError: the gradient is not finite.
    """
    parts: tuple[Trainable, ...] = ("stage1",)
    outdated: tuple[Trainable, ...] = ("foreground_mapper", "background_mapper")
    fabric, model, facts = _begin(config, init, pool, validation, data, parts, outdated)
    learner = Stage1Learner(fabric, model, model.config.stage1, pool, config.seed)
    return _Stage1Run(config, fabric, learner, parts, validation, facts).run()


def train_dpig_pose(
    config: DPIGTrainConfig,
    init: DPIG | None,
    pool: PersonPool,
    validation: PersonPool,
    *,
    data: str = "",
) -> DPIGTrainResult[PoseErrors]:
    """Trains the pose autoencoder by the visible joints of a pool, whose images it does not see.

    Args:
        config: the settings.
        init: a model to go on from, in which all but the pose autoencoder is kept, but for the
            mapper of poses; None: a new one.
        pool, validation, data: as for `train_dpig_stage1`; the best weights are those with the
            least joint error, as a share of the height, plus the share of wrong visibilities.

    Raises:
        ValueError, RuntimeError: as `train_dpig_stage1`.
    """
    for name, people in (("pool", pool), ("validation", validation)):
        if not bool(people.visible.any()):
            raise ValueError(f"{name} must show a joint, got none that is visible")
    parts: tuple[Trainable, ...] = ("pose_autoencoder",)
    fabric, model, facts = _begin(config, init, pool, validation, data, parts, ("pose_mapper",))
    learner = PoseLearner(fabric, model, model.config.pose, pool, config.seed)
    return _PoseRun(config, fabric, learner, parts, validation, facts).run()


def train_dpig_stage2(
    config: DPIGTrainConfig,
    init: DPIG,
    pool: PersonPool,
    validation: PersonPool,
    *,
    data: str = "",
) -> DPIGTrainResult[MapperErrors]:
    """Trains mappers of noise to the codes of a pool's people, which are computed once.

    Args:
        config: the settings.
        init: a model whose stage 1 (for foreground and background) and pose autoencoder (for poses)
            are trained; they stay as they are.
        pool, validation, data: as for `train_dpig_stage1`; the best weights are those with the
            least sum of `MapperErrors`.

    Raises:
        ValueError: a factor that the model has not or whose encoder is not trained; and as
            `train_dpig_stage1`.
        RuntimeError: the gradient is not finite.
    """
    settings = config.model or init.config
    factors = settings.factors if config.factors is None else config.factors
    if not factors or not set(factors) <= set(settings.factors):
        raise ValueError(
            f"factors must be some of {', '.join(settings.factors)}, "
            f"got {', '.join(factors) or 'none'}"
        )
    if "pose" in factors:
        init.require("pose_autoencoder")
    if set(factors) - {"pose"}:
        init.require("stage1")
    if len(validation) < 2:
        raise ValueError(f"validation must have at least 2 images, got {len(validation)}")
    parts = tuple(_MAPPERS[factor] for factor in factors)
    fabric, model, facts = _begin(config, init, pool, validation, data, parts, ())
    learner = MapperLearner(fabric, model, pool, config.seed, factors)
    return _MapperRun(config, fabric, learner, parts, validation, facts).run()
