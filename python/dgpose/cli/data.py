"""`dgpose data`: look at data sets on disk."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dgpose.cli.data_human36m import check_human36m
from dgpose.cli.hand import save_picture
from dgpose.cli.terminal import counted, fail
from dgpose.data.hand_check import HandSetPart, HandSetReport, LookedAt, check_hand_set
from dgpose.data.hand_datasets import HandSample
from dgpose.skeletons import hand_skeleton
from dgpose.viz.hand import labelled_sheet

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Look at data sets on disk.")

_NAMED = 5


class DataSetName(str, Enum):
    """Public data sets."""

    ICVL = "icvl"
    NYU = "nyu"
    MSRA = "msra"
    H36M = "h36m"


@app.callback()
def _data() -> None:
    # A Typer app with one command drops the command's name; this keeps it.
    pass


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    dataset: Annotated[DataSetName, typer.Option(help="Which one it should be.")],
    out: Annotated[
        Path | None, typer.Option(help="Picture of three images with their joints, .png.")
    ] = None,
) -> None:
    """Say what of a data set is there and what is missing, and look at three images.

    The exit code is 0 for a complete set, 1 for one with something missing or damaged, 2 for a
    folder that is not that data set.
    """
    try:
        if dataset is DataSetName.H36M:
            _say(check_human36m(folder, out))
            return
        with counted("looking") as progress:
            report = check_hand_set(folder, dataset.value, progress=progress)
        _print_parts(dataset.value, folder, report)
        samples = [image.sample for image in report.looked_at if image.sample is not None]
        for image in report.looked_at:
            typer.echo(f"{image.name}: {_about(image)}")
        if not report.looked_at:
            typer.echo("no image is there to look at")
        if samples and out is not None:
            captions = [f"{i.name}: {_about(i)}" for i in report.looked_at if i.sample is not None]
            title = f"{dataset.value}: first, middle and last image that is there"
            skeleton = hand_skeleton(len(samples[0].joints_mm))
            save_picture(out, labelled_sheet(samples, skeleton, captions, title))
            typer.echo(f"picture: {out}")
    except (OSError, ValueError) as error:
        fail(error)
    _say(report.complete)


def _say(complete: bool) -> None:
    typer.echo("complete" if complete else "something is missing")
    if not complete:
        raise typer.Exit(1)


def _print_parts(name: str, folder: Path, report: HandSetReport) -> None:
    table = Table(title=f"{name} in {folder}")
    table.add_column("part")
    for column in ("labels", "images", "missing"):
        table.add_column(column, justify="right")
    table.add_column("label file", overflow="fold")
    for part in report.parts:
        labels = str(part.labels)
        if part.published is not None and part.labels != part.published:
            labels += f" of {part.published}"
        images, missing = part.labels - len(part.missing), len(part.missing)
        table.add_row(part.name, labels, str(images), str(missing), _label_files(part, folder))
    Console().print(table)
    for part in report.parts:
        shown = part.problems[: _NAMED if part.label_files else 1]
        for problem in shown:
            typer.echo(f"{part.name}: {problem}")
        if more := len(part.problems) - len(shown):
            typer.echo(f"{part.name}: and {more} more such files")
        if part.missing:
            rest = " ..." if len(part.missing) > _NAMED else ""
            typer.echo(f"missing in {part.name}: {', '.join(part.missing[:_NAMED])}{rest}")


def _label_files(part: HandSetPart, folder: Path) -> str:
    if not part.label_files:
        return "none"
    first = part.label_files[0]
    name = str(first.relative_to(folder)) if first.is_relative_to(folder) else str(first)
    more = len(part.label_files) - 1
    return f"{name} and {more} more" if more else name


def _about(image: LookedAt) -> str:
    if image.sample is None:
        return f"cannot be read: {image.problem}"
    where = "no hand found"
    if image.center is not None:
        u, v, mm = image.center
        where = f"hand found at ({u:.0f}, {v:.0f}, {mm:.0f} mm), {image.off_mm:.0f} mm from the"
        where += " joints' mean"
    return f"{_size(image.sample)}, {len(image.sample.joints_mm)} joints, {where}"


def _size(sample: HandSample) -> str:
    height, width = sample.depth.shape
    return f"{width}x{height}"
