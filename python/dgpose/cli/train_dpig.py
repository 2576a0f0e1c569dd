"""`dgpose train dpig-stage1`, `dpig-pose`, `dpig-stage2`: people taken apart, stage by stage."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgpose.cli.options import Accelerator, Devices, Nodes, Strategy, Threads, TrainPrecision
from dgpose.cli.terminal import fail
from dgpose.cli.train_options import (
    Batch,
    Count,
    Minutes,
    Out,
    People,
    PeopleData,
    ProcessorTime,
    Resume,
    Seed,
    Steps,
    ValidateEvery,
    Validation,
    ValidationCount,
    check_run,
    read_pools,
    tell_result,
)

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
Precision = Annotated[TrainPrecision, typer.Option(help="While training.")]


def dpig_stage1(
    out: Out,
    config: Config = None,
    size: ImageSize = Size.MARKET,
    init: Init = None,
    people: People = "rendered",
    data: PeopleData = None,
    count: Count = None,
    validation: Validation = None,
    validation_count: ValidationCount = None,
    batch: Batch = None,
    steps: Steps = None,
    minutes: Minutes = None,
    processor_time: ProcessorTime = False,
    validate_every: ValidateEvery = 500,
    precision: Precision = TrainPrecision.BFLOAT16,
    seed: Seed = 0,
    resume: Resume = False,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    threads: Threads = None,
) -> None:
    """Train DPIG's stage 1: images of people as codes of foreground and background, and a pose.

    The best weights by validation go to OUT/weights.safetensors; TensorBoard reads OUT, pictures
    included. Ctrl-C stops at a checkpoint. Next: dpig-pose, then dpig-stage2.
    """
    _train("stage1", **locals())


def dpig_pose(
    out: Out,
    config: Config = None,
    size: ImageSize = Size.MARKET,
    init: Init = None,
    people: People = "rendered",
    data: PeopleData = None,
    count: Count = None,
    validation: Validation = None,
    validation_count: ValidationCount = None,
    batch: Batch = None,
    steps: Steps = None,
    minutes: Minutes = None,
    processor_time: ProcessorTime = False,
    validate_every: ValidateEvery = 500,
    precision: Precision = TrainPrecision.FLOAT32,
    seed: Seed = 0,
    resume: Resume = False,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    threads: Threads = None,
) -> None:
    """Train DPIG's pose autoencoder: the visible joints of a person as a code.

    With --init, usually the weights of dpig-stage1, all else of them is kept.
    """
    _train("pose", **locals())


def dpig_stage2(
    out: Out,
    init: Annotated[Path, typer.Option(help="Weights of dpig-pose that began with stage 1's.")],
    factor: Annotated[
        list[FactorName] | None, typer.Option(help="Whose mapper is trained; all by default.")
    ] = None,
    config: Config = None,
    gradient_penalty: Annotated[
        float | None,
        typer.Option(help="Its weight; 0: the critics' weights are clipped, as published."),
    ] = None,
    people: People = "rendered",
    data: PeopleData = None,
    count: Count = None,
    validation: Validation = None,
    validation_count: ValidationCount = None,
    batch: Batch = None,
    steps: Steps = None,
    minutes: Minutes = None,
    processor_time: ProcessorTime = False,
    validate_every: ValidateEvery = 500,
    precision: Precision = TrainPrecision.FLOAT32,
    seed: Seed = 0,
    resume: Resume = False,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    threads: Threads = None,
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
    people: str,
    data: Path | None,
    count: int | None,
    validation: str | None,
    validation_count: int | None,
    batch: int | None,
    steps: int | None,
    minutes: float | None,
    processor_time: bool,
    validate_every: int,
    precision: TrainPrecision,
    seed: int,
    resume: bool,
    accelerator: str,
    devices: int,
    nodes: int,
    strategy: str,
    threads: int | None,
    size: Size = Size.MARKET,
    factor: list[FactorName] | None = None,
    gradient_penalty: float | None = None,
) -> None:
    """A stage, by the options of its command."""
    import torch

    from dgpose.models.dpig import DPIGConfig, load_dpig
    from dgpose.train.dpig import (
        DPIGTrainConfig,
        DPIGTrainResult,
        continued_config,
        train_dpig_pose,
        train_dpig_stage1,
        train_dpig_stage2,
    )

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        start = None if init is None else load_dpig(init)
        height, width = (int(edge) for edge in size.value.split("x"))
        edges = (height, width) if start is None else start.config.size
        model = (DPIGConfig.paper if config is Recipe.PAPER else DPIGConfig.small)(size=edges)
        if start is not None:
            model = start.config if config is None else continued_config(start, model)
        if steps is None and minutes is None:
            steps = steps_of(stage, model)
        if batch is not None:
            changed: Any = {stage: replace(getattr(model, stage), batch=batch)}
            model = replace(model, **changed)
        if gradient_penalty is not None:
            model = replace(model, gradient_penalty=gradient_penalty)
        names: Any = None if factor is None else tuple(name.value for name in factor)
        run = DPIGTrainConfig(
            out,
            model=model,
            factors=names,
            steps=steps,
            minutes=minutes,
            processor_time=processor_time,
            seed=seed,
            resume=resume,
            validate_every=validate_every,
            precision=precision.value,
            accelerator=accelerator,
            devices=devices,
            nodes=nodes,
            strategy=strategy,
        )
        check_run(run, people, validation)
        pools = read_pools(
            people,
            validation,
            data,
            size=model.size,
            count=count,
            validation_count=validation_count,
            seed=seed,
        )
        result: DPIGTrainResult[Any]
        if stage == "stage1":
            result = train_dpig_stage1(run, *pools, init=start)
        elif stage == "pose":
            result = train_dpig_pose(run, start, *pools)
        else:
            assert start is not None  # the option must be given
            result = train_dpig_stage2(run, start, *pools)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    tell_result(out, finished=result.finished, validated=bool(result.validations))
