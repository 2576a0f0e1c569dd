"""`dgpose train dgpose`: people with disentangled pose and appearance, rendered or photographed."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from dgpose.cli.options import Accelerator, Devices, Nodes, Strategy, Threads, TrainPrecision
from dgpose.cli.terminal import counted, fail, is_first_rank

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


def dgpose(
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    system: Annotated[
        System,
        typer.Option(
            help="Poses given, or a latent, too; or a baseline: no pose at all, the pose alone."
        ),
    ] = System.SEMI,
    config: Annotated[Recipe, typer.Option(help="Networks and recipe.")] = Recipe.STRONG,
    people: Annotated[
        str,
        typer.Option(
            help="rendered, a data set (see dgpose data check), or a file of a pool, which needs "
            "--validation."
        ),
    ] = "rendered",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data set; of rendered people one with mocap/, whose poses they are "
            "then in.",
            envvar="DGPOSE_DATA",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=2, help="Images; 20000 rendered people, else all.")
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(help="What the best weights are chosen by; by default the set's own part."),
    ] = None,
    validation_count: Annotated[
        int | None, typer.Option(min=1, help="Images of it; 500 rendered people, else all.")
    ] = None,
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
    batch: Annotated[int | None, typer.Option(help="Images a step and device.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(help=f"Optimiser steps; {_STEPS} where --minutes is not given."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Wall-clock budget without validations: such a run cannot be repeated number for "
            "number."
        ),
    ] = None,
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = 500,
    precision: Annotated[
        TrainPrecision | None,
        typer.Option(help="While training; by default 32-true (paper), bf16-mixed (strong)."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of weights, labels, people, batches, noise.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out, if there is one.")
    ] = False,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    threads: Threads = None,
) -> None:
    """Train DGPose: images of people as a pose and an appearance that can be changed alone.

    The best weights by validation go to OUT/weights.safetensors; TensorBoard reads OUT, pictures
    included. Ctrl-C stops at a checkpoint.
    """
    import torch

    from dgpose.data.person_sources import read_people
    from dgpose.models.dgpose import DGPoseConfig, make_model
    from dgpose.train.dgpose import WEIGHTS_NAME, DGPoseTrainConfig, train_dgpose
    from dgpose.train.run import check_devices, require_resume

    if threads is not None:
        torch.set_num_threads(threads)
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
        run = DGPoseTrainConfig(
            out,
            model=model,
            labelled=labelled,
            steps=_STEPS if steps is None and minutes is None else steps,
            minutes=minutes,
            seed=seed,
            resume=resume,
            validate_every=validate_every,
            precision=precision.value,
            accelerator=accelerator,
            devices=devices,
            nodes=nodes,
            strategy=strategy,
        )
        require_resume(run)
        check_devices(run)
        if Path(people).is_file() and validation is None:
            raise ValueError("--validation must be given where --people is a file")
        pools = []
        for name, split, wanted, rendered in (
            (people, "train", count, 20_000),
            (validation or people, "val", validation_count, 500),
        ):
            if name == "rendered" and wanted is None:
                wanted = rendered
            what = "rendering" if name == "rendered" else "reading"
            with counted(what, shown=is_first_rank()) as watch:
                pools.append(
                    read_people(
                        name,
                        data,
                        split=split,
                        size=image_size,
                        count=wanted,
                        seed=seed,
                        progress=watch,
                    )
                )
        pool, judged = pools
        if is_first_rank():
            parameters = sum(weight.numel() for weight in make_model(model).parameters())
            typer.echo(f"{pool.source}: {len(pool):,} images; {len(judged):,} for validation")
            typer.echo(f"{parameters:,} parameters")
        result = train_dgpose(run, pool, judged)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    if not is_first_rank():
        return
    if not result.finished:
        typer.echo("stopped; the same command with --resume goes on")
    if result.validations:
        typer.echo(f"weights, the best by validation: {out / WEIGHTS_NAME}")
