"""`dgpose train reid`: the network that finds people again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dgpose.cli.options import Accelerator, Devices, Nodes, Strategy, Threads, TrainPrecision
from dgpose.cli.terminal import counted, fail, is_first_rank
from dgpose.cli.train_options import (
    Minutes,
    Out,
    PeopleData,
    ProcessorTime,
    Resume,
    Seed,
    ValidateEvery,
    Validation,
    check_run,
    tell_result,
)

if TYPE_CHECKING:
    from dgpose.data.person_pool import PersonPool

__all__ = ["reid"]

_STEPS = 4000
_RENDERED = {"train": (12_000, 500), "val": (1000, 100)}  # images and persons


def reid(
    out: Out,
    people: Annotated[
        str,
        typer.Option(
            help="rendered (who share outfits), market or deepfashion, or a file of a pool with "
            "identities, such as a virtual market's, which needs --validation."
        ),
    ] = "rendered",
    data: PeopleData = None,
    count: Annotated[
        int | None,
        typer.Option(min=2, help=f"Images; {_RENDERED['train'][0]} rendered people, else all."),
    ] = None,
    persons: Annotated[int, typer.Option(min=2, help="Of rendered people.")] = (
        _RENDERED["train"][1]
    ),
    validation: Validation = None,
    validation_count: Annotated[
        int | None,
        typer.Option(min=2, help=f"Images of it; {_RENDERED['val'][0]} rendered people, else all."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help=f"Optimiser steps; {_STEPS} where --minutes is not given.")
    ] = None,
    minutes: Minutes = None,
    processor_time: ProcessorTime = False,
    validate_every: ValidateEvery = 500,
    precision: Annotated[TrainPrecision, typer.Option(help="While training.")] = (
        TrainPrecision.BFLOAT16
    ),
    seed: Seed = 0,
    resume: Resume = False,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    threads: Threads = None,
) -> None:
    """Train a small network to find people again, on images whose persons are known.

    The best weights by mAP on the validation people, none of whom is in training, go to
    OUT/weights.safetensors: a network for dgpose dpig reid --by. Ctrl-C stops at a checkpoint.
    """
    import torch

    from dgpose.data.person_sources import read_people
    from dgpose.data.reid_sets import rendered_reid_people
    from dgpose.train.reid import ReidTrainConfig, train_reid

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        run = ReidTrainConfig(
            out,
            steps=_STEPS if steps is None and minutes is None else steps,
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
        size = run.network.size

        def read(name: str, split: str, images: int | None, who: int) -> PersonPool:
            with counted("reading", shown=is_first_rank()) as watch:
                if name != "rendered":
                    return read_people(
                        name, data, split=split, size=size, count=images, progress=watch
                    )
                return rendered_reid_people(
                    data,
                    persons=who,
                    count=images or _RENDERED[split][0],
                    split=split,
                    seed=seed,
                    size=size,
                    progress=watch,
                )

        pool = read(people, "train", count, persons)
        judged = read(validation or people, "val", validation_count, _RENDERED["val"][1])
        if is_first_rank():
            typer.echo(f"{pool.source}: {len(pool):,} images; {len(judged):,} for validation")
        result = train_reid(run, pool, judged)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    tell_result(out, finished=result.finished, validated=bool(result.validations))
