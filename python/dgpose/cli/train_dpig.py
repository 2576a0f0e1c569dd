"""`dgpose train dpig-stage1`, `dpig-pose`, `dpig-stage2`: people taken apart, stage by stage."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import HardwareOptions, Precision, TrainPrecision, use_threads
from dgpose.cli.terminal import fail
from dgpose.cli.train_options import Batch, Out, PeopleOptions, RunOptions, check_run, tell_result

if TYPE_CHECKING:
    from dgpose.models.dpig import DPIGConfig

__all__ = ["dpig_pose", "dpig_stage1", "dpig_stage2", "steps_of"]

_SMALL_STEPS = {"stage1": 5_000, "pose": 10_000, "stage2": 2_000}


class Recipe(str, Enum):
    """Configurations (see `DPIGConfig`)."""

    PAPER = "paper"
    SMALL = "small"


class Size(str, Enum):
    """Height and width of images."""

    MARKET = "128x64"
    DEEPFASHION = "256x256"


class FactorName(str, Enum):
    """What codes are drawn of."""

    FOREGROUND = "foreground"
    BACKGROUND = "background"
    POSE = "pose"


Config = Annotated[
    Recipe | None,
    typer.Option(
        help="Networks and recipe, by default small; with --init those of what is not trained yet, "
        "by default its own."
    ),
]
ImageSize = Annotated[Size, typer.Option(help="Height x width of the images of a new model.")]
Init = Annotated[Path | None, typer.Option(help="Weights to start from.")]


@with_groups
def dpig_stage1(
    out: Out,
    *,
    config: Config = None,
    size: ImageSize = Size.MARKET,
    init: Init = None,
    people: PeopleOptions,
    batch: Batch = None,
    precision: Precision = TrainPrecision.BFLOAT16,
    run: RunOptions,
    hardware: HardwareOptions,
) -> None:
    """Train DPIG's stage 1: images of people as codes of foreground and background, and a pose.

    The best weights by validation go to OUT/weights.safetensors; TensorBoard reads OUT, pictures
    included. Ctrl-C stops at a checkpoint. Next: dpig-pose, then dpig-stage2.
    """
    _train("stage1", **locals())


@with_groups
def dpig_pose(
    out: Out,
    *,
    config: Config = None,
    size: ImageSize = Size.MARKET,
    init: Init = None,
    people: PeopleOptions,
    batch: Batch = None,
    precision: Precision = TrainPrecision.FLOAT32,
    run: RunOptions,
    hardware: HardwareOptions,
) -> None:
    """Train DPIG's pose autoencoder: the visible joints of a person as a code.

    With --init, usually the weights of dpig-stage1, all else of them is kept.
    """
    _train("pose", **locals())


@with_groups
def dpig_stage2(
    out: Out,
    *,
    init: Annotated[Path, typer.Option(help="Weights of dpig-pose that began with stage 1's.")],
    factor: Annotated[
        list[FactorName] | None, typer.Option(help="Whose mapper is trained; all by default.")
    ] = None,
    config: Config = None,
    gradient_penalty: Annotated[
        float | None,
        typer.Option(help="Its weight; 0: the critics' weights are clipped, as published."),
    ] = None,
    people: PeopleOptions,
    batch: Batch = None,
    precision: Precision = TrainPrecision.FLOAT32,
    run: RunOptions,
    hardware: HardwareOptions,
) -> None:
    """Train DPIG's stage 2: mappers of noise to the codes that the encoders give, so that each
    factor can be drawn.

    The encoders stay as they are; codes of all images are computed once, and kept in memory.
    """
    _train("stage2", **locals())


def steps_of(stage: str, model: DPIGConfig) -> int:
    """Steps of a stage ("stage1", "pose" or "stage2") where none are given: the authors', where a
    model has their recipe, else those of `small`."""
    published = type(model).paper(model.size)
    if getattr(model, stage) != getattr(published, stage):
        return _SMALL_STEPS[stage]
    return 60_000 if stage == "pose" and model.size == (128, 64) else 120_000


def _train(
    stage: str,
    *,
    out: Path,
    config: Recipe | None,
    init: Path | None,
    people: PeopleOptions,
    batch: int | None,
    precision: TrainPrecision,
    run: RunOptions,
    hardware: HardwareOptions,
    size: Size = Size.MARKET,
    factor: list[FactorName] | None = None,
    gradient_penalty: float | None = None,
) -> None:
    """A stage, by the options of its command."""
    from dgpose.models.dpig import DPIGConfig, load_dpig
    from dgpose.train.dpig import (
        DPIGTrainConfig,
        DPIGTrainResult,
        continued_config,
        train_dpig_pose,
        train_dpig_stage1,
        train_dpig_stage2,
    )

    use_threads(hardware.threads)
    try:
        start = None if init is None else load_dpig(init)
        height, width = (int(edge) for edge in size.value.split("x"))
        edges = (height, width) if start is None else start.config.size
        model = (DPIGConfig.paper if config is Recipe.PAPER else DPIGConfig.small)(size=edges)
        if start is not None:
            model = start.config if config is None else continued_config(start, model)
        steps = steps_of(stage, model)
        if batch is not None:
            changed: Any = {stage: replace(getattr(model, stage), batch=batch)}
            model = replace(model, **changed)
        if gradient_penalty is not None:
            model = replace(model, gradient_penalty=gradient_penalty)
        names: Any = None if factor is None else tuple(name.value for name in factor)
        settings = DPIGTrainConfig(
            out,
            model=model,
            factors=names,
            precision=precision.value,
            **run.settings(steps),
            **hardware.settings(),
        )
        check_run(settings, people)
        pools = people.read(size=model.size, seed=run.seed)
        result: DPIGTrainResult[Any]
        if stage == "stage1":
            result = train_dpig_stage1(settings, *pools, init=start)
        elif stage == "pose":
            result = train_dpig_pose(settings, start, *pools)
        else:
            assert start is not None  # the option must be given
            result = train_dpig_stage2(settings, start, *pools)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    tell_result(out, finished=result.finished, validated=bool(result.validations))
