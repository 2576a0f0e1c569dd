"""What commands that train on images of people share: options, and how their pools are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dgpose.cli.terminal import counted, is_first_rank

if TYPE_CHECKING:
    from dgpose.data.person_pool import PersonPool
    from dgpose.train.training_run import TrainConfig

__all__ = [
    "Batch",
    "Count",
    "Minutes",
    "Out",
    "People",
    "PeopleData",
    "ProcessorTime",
    "Resume",
    "Seed",
    "Steps",
    "ValidateEvery",
    "Validation",
    "ValidationCount",
    "check_run",
    "read_pools",
    "tell_result",
]

RENDERED_PEOPLE = 20_000
RENDERED_VALIDATION = 500

Out = Annotated[Path, typer.Option(help="Folder of the run.")]
People = Annotated[
    str,
    typer.Option(
        help="rendered, a data set (see dgpose data check), or a file of a pool, which needs "
        "--validation."
    ),
]
PeopleData = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the data set; of rendered people one with mocap/, whose poses they are "
        "then in.",
        envvar="DGPOSE_DATA",
    ),
]
Count = Annotated[
    int | None,
    typer.Option(min=2, help=f"Images; {RENDERED_PEOPLE} rendered people, else all."),
]
Validation = Annotated[
    str | None,
    typer.Option(help="What the best weights are chosen by; by default the set's own part."),
]
ValidationCount = Annotated[
    int | None,
    typer.Option(min=1, help=f"Images of it; {RENDERED_VALIDATION} rendered people, else all."),
]
Batch = Annotated[int | None, typer.Option(help="Images a step and device.")]
Steps = Annotated[
    int | None,
    typer.Option(help="Optimiser steps; by default the recipe's, where --minutes is not given."),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        help="Wall-clock budget without validations: such a run cannot be repeated number for "
        "number."
    ),
]
ProcessorTime = Annotated[
    bool,
    typer.Option(
        "--processor-time",
        help="Minutes are those of this process's processors: for a machine that does other "
        "things, too.",
    ),
]
ValidateEvery = Annotated[int, typer.Option(help="Steps between validations.")]
Seed = Annotated[int, typer.Option(min=0, help="Of weights, people, batches, noise.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out, if there is one.")
]


def check_run(run: TrainConfig, people: str, validation: str | None) -> None:
    """Refuses what cannot be before any image is read.

    Raises:
        ValueError, RuntimeError: a folder with a run that is not to be resumed, devices that are
            not there, or a file of people without one to validate by.
    """
    from dgpose.train.run import check_devices, require_resume

    require_resume(run)
    check_devices(run)
    if Path(people).is_file() and validation is None:
        raise ValueError("--validation must be given where --people is a file")


def read_pools(
    people: str,
    validation: str | None,
    data: Path | None,
    *,
    size: int | tuple[int, int],
    count: int | None,
    validation_count: int | None,
    seed: int,
) -> tuple[PersonPool, PersonPool]:
    """The pools to learn from and to validate by; says what they are.

    Raises:
        FileNotFoundError, ValueError: as `dgpose.data.person_sources.read_people`.
    """
    from dgpose.data.person_sources import read_people

    def read(name: str, split: str, wanted: int | None, rendered: int) -> PersonPool:
        what = "rendering" if name == "rendered" else "reading"
        if name == "rendered" and wanted is None:
            wanted = rendered
        with counted(what, shown=is_first_rank()) as watch:
            return read_people(
                name, data, split=split, size=size, count=wanted, seed=seed, progress=watch
            )

    pool = read(people, "train", count, RENDERED_PEOPLE)
    judged = read(validation or people, "val", validation_count, RENDERED_VALIDATION)
    if is_first_rank():
        typer.echo(f"{pool.source}: {len(pool):,} images; {len(judged):,} for validation")
    return pool, judged


def tell_result(out: Path, *, finished: bool, validated: bool) -> None:
    """Says how a run ended, once."""
    from dgpose.train.training_run import WEIGHTS_NAME

    if not is_first_rank():
        return
    if not finished:
        typer.echo("stopped; the same command with --resume goes on")
    if validated:
        typer.echo(f"weights, the best by validation: {out / WEIGHTS_NAME}")
