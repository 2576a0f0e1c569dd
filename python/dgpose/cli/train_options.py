"""What commands that train on images of people share: options, and how their pools are read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgpose.cli.terminal import counted, is_first_rank

if TYPE_CHECKING:
    from dgpose.data.person_pool import PersonPool
    from dgpose.train.training_run import TrainConfig

__all__ = ["Batch", "Out", "PeopleOptions", "Resume", "RunOptions", "check_run", "tell_result"]

_RENDERED = {"train": 20_000, "val": 500}

Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out, if there is one.")
]
Batch = Annotated[int | None, typer.Option(help="Images a step and device.")]


@dataclass(frozen=True)
class RunOptions:
    """How long a run is, and how it goes."""

    steps: Annotated[
        int | None,
        typer.Option(
            help="Optimiser steps; by default the recipe's, where --minutes is not given."
        ),
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Wall-clock budget without validations: such a run cannot be repeated number for "
            "number."
        ),
    ] = None
    processor_time: Annotated[
        bool,
        typer.Option(
            "--processor-time",
            help="Minutes are those of this process's processors: for a machine that does other "
            "things, too.",
        ),
    ] = False
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = 500
    seed: Annotated[int, typer.Option(min=0, help="Of weights, people, batches, noise.")] = 0
    resume: Resume = False

    def settings(self, default_steps: int) -> dict[str, Any]:
        """Those of a `TrainConfig`, by their names there; `default_steps` where no end is given."""
        endless = self.steps is None and self.minutes is None
        return {**asdict(self), "steps": default_steps if endless else self.steps}


@dataclass(frozen=True)
class PeopleOptions:
    """Images of people to learn from, and to validate by."""

    people: Annotated[
        str,
        typer.Option(
            help="rendered, a data set (see dgpose data check), or a file of a pool, which needs "
            "--validation."
        ),
    ] = "rendered"
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data set; of rendered people one with mocap/, whose poses they are "
            "then in.",
            envvar="DGPOSE_DATA",
        ),
    ] = None
    count: Annotated[
        int | None,
        typer.Option(min=2, help=f"Images; {_RENDERED['train']} rendered people, else all."),
    ] = None
    validation: Annotated[
        str | None,
        typer.Option(help="What the best weights are chosen by; by default the set's own part."),
    ] = None
    validation_count: Annotated[
        int | None,
        typer.Option(min=1, help=f"Images of it; {_RENDERED['val']} rendered people, else all."),
    ] = None

    def read(self, *, size: int | tuple[int, int], seed: int) -> tuple[PersonPool, PersonPool]:
        """The pools to learn from and to validate by; says what they are.

        Raises:
            FileNotFoundError, ValueError: as `dgpose.data.person_sources.read_people`.
        """
        judged_by = self.validation or self.people
        what = "rendering" if self.people == "rendered" else "reading"
        with counted(what, shown=is_first_rank()) as watch:
            how = {"size": size, "seed": seed, "progress": watch}
            pool = self._part(self.people, "train", self.count, **how)
            judged = self._part(judged_by, "val", self.validation_count, **how)
        if is_first_rank():
            typer.echo(f"{pool.source}: {len(pool):,} images; {len(judged):,} for validation")
        return pool, judged

    def _part(self, name: str, split: str, count: int | None, **how: Any) -> PersonPool:
        from dgpose.data.person_sources import read_people

        if name == "rendered" and count is None:
            count = _RENDERED[split]
        return read_people(name, self.data, split=split, count=count, **how)


def check_run(run: TrainConfig, people: PeopleOptions) -> None:
    """Refuses what cannot be before any image is read.

    Raises:
        ValueError, RuntimeError: a folder with a run that is not to be resumed, devices that are
            not there, or a file of people without one to validate by.
    """
    from dgpose.train.run import check_devices, require_resume

    require_resume(run)
    check_devices(run)
    if Path(people.people).is_file() and people.validation is None:
        raise ValueError("--validation must be given where --people is a file")


def tell_result(out: Path, *, finished: bool, validated: bool) -> None:
    """Says how a run ended, once."""
    from dgpose.train.training_run import WEIGHTS_NAME

    if not is_first_rank():
        return
    if not finished:
        typer.echo("stopped; the same command with --resume goes on")
    if validated:
        typer.echo(f"weights, the best by validation: {out / WEIGHTS_NAME}")
