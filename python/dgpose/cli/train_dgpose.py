"""`dgpose train dgpose`: people with disentangled pose and appearance, rendered or photographed."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Annotated, Any

import typer

from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import HardwareOptions, TrainPrecision, use_threads
from dgpose.cli.terminal import fail, is_first_rank
from dgpose.cli.train_options import Batch, Out, PeopleOptions, RunOptions, check_run, tell_result

__all__ = ["dgpose"]

_STEPS = 20_000


class System(str, Enum):
    """What is trained (see `DGPoseConfig`)."""

    CONDITIONAL = "conditional"
    SEMI = "semi"
    VAE = "vae"
    REGRESSION = "regression"


class Recipe(str, Enum):
    """Configurations (see `DGPoseConfig`)."""

    PAPER = "paper"
    STRONG = "strong"


class Mapper(str, Enum):
    """What turns poses into maps."""

    LEARNED = "learned"
    RENDERED = "rendered"


@with_groups
def dgpose(
    out: Out,
    *,
    system: Annotated[
        System,
        typer.Option(
            help="Poses given, or a latent, too; or a baseline: no pose at all, the pose alone."
        ),
    ] = System.SEMI,
    config: Annotated[Recipe, typer.Option(help="Networks and recipe.")] = Recipe.STRONG,
    people: PeopleOptions,
    labelled: Annotated[
        float, typer.Option(help="Share of the images whose labels are used.")
    ] = 1.0,
    unlabelled: Annotated[
        bool,
        typer.Option(
            "--unlabelled/--no-unlabelled", help="Whether semi learns from the others, too."
        ),
    ] = True,
    mapper: Annotated[
        Mapper | None, typer.Option(help="By default learned (paper), rendered (strong).")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Edge of the images in pixels.")] = 64,
    batch: Batch = None,
    precision: Annotated[
        TrainPrecision | None,
        typer.Option(help="While training; by default 32-true (paper), bf16-mixed (strong)."),
    ] = None,
    run: RunOptions,
    hardware: HardwareOptions,
) -> None:
    """Train DGPose: images of people as a pose and an appearance that can be changed alone.

    The best weights by validation go to OUT/weights.safetensors; TensorBoard reads OUT, pictures
    included. Ctrl-C stops at a checkpoint.
    """
    from dgpose.models.dgpose import DGPoseConfig, make_model
    from dgpose.train.dgpose import DGPoseTrainConfig, train_dgpose

    use_threads(hardware.threads)
    try:
        make = DGPoseConfig.strong if config is Recipe.STRONG else DGPoseConfig.paper
        changes: dict[str, Any] = {"system": system.value}
        if mapper is not None:
            changes["mapper"] = mapper.value
        if not unlabelled:
            changes["unlabelled_weight"] = 0.0
        model = make(image_size, **changes)
        if batch is not None:
            model = replace(model, recipe=replace(model.recipe, batch=batch))
        if precision is None:
            strong = config is Recipe.STRONG
            precision = TrainPrecision.BFLOAT16 if strong else TrainPrecision.FLOAT32
        settings = DGPoseTrainConfig(
            out,
            model=model,
            labelled=labelled,
            precision=precision.value,
            **run.settings(_STEPS),
            **hardware.settings(),
        )
        check_run(settings, people)
        pools = people.read(size=image_size, seed=run.seed)
        if is_first_rank():
            parameters = sum(weight.numel() for weight in make_model(model).parameters())
            typer.echo(f"{parameters:,} parameters")
        result = train_dgpose(settings, *pools)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    tell_result(out, finished=result.finished, validated=bool(result.validations))
