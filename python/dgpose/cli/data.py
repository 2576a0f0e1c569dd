"""`dgpose data`: look at data sets on disk and at rendered ones."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dgpose.cli.data_human36m import check_human36m
from dgpose.cli.data_people import check_people
from dgpose.cli.options import Split, SplitBy
from dgpose.cli.terminal import counted, fail
from dgpose.data.body_kinematics import with_bone_lengths
from dgpose.data.hand_check import HandSetPart, HandSetReport, LookedAt, check_hand_set
from dgpose.data.hand_datasets import HandSample
from dgpose.data.image_files import save_picture
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.skeletons import hand_skeleton
from dgpose.viz.hand import labelled_sheet
from dgpose.viz.people import people_sheet

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Look at data sets.")

preview_app = typer.Typer(no_args_is_help=True, help="Contact sheets of rendered data.")
app.add_typer(preview_app, name="preview")

_NAMED = 5


class DataSetName(str, Enum):
    """Public data sets."""

    ICVL = "icvl"
    NYU = "nyu"
    MSRA = "msra"
    H36M = "h36m"
    LSP = "lsp"
    LSPE = "lspe"
    DEEPFASHION = "deepfashion"
    CHICTOPIA = "chictopia"
    MARKET = "market"


_PHOTOGRAPHS = (
    *(DataSetName.LSP, DataSetName.LSPE, DataSetName.DEEPFASHION),
    *(DataSetName.CHICTOPIA, DataSetName.MARKET),
)


class PoseSource(str, Enum):
    """Where the poses of rendered people come from."""

    AUTO = "auto"
    KINEMATIC = "kinematic"
    CMU = "cmu"
    MIXED = "mixed"


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
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        if dataset is DataSetName.H36M:
            _say(check_human36m(folder, out))
            return
        if dataset in _PHOTOGRAPHS:
            _say(check_people(dataset.value, folder, out))
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


@preview_app.callback()
def _preview() -> None:
    # A Typer app with one command drops the command's name; this keeps it.
    pass


@preview_app.command()
def people(
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .jpg.")] = Path("people.png"),
    split: Annotated[Split, typer.Option(help="Which part.")] = Split.TRAIN,
    split_by: Annotated[SplitBy, typer.Option(help="How poses are split.")] = SplitBy.SEQUENCE,
    poses: Annotated[PoseSource, typer.Option(help="auto: mixed where --data has them.")] = (
        PoseSource.AUTO
    ),
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds mocap; default: DGPOSE_DATA.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many samples.")] = 40,
    start: Annotated[int, typer.Option(min=0, help="Index of the first.")] = 0,
    size: Annotated[str, typer.Option(help="Pixels of an image: S, or HxW such as 128x64.")] = (
        "128"
    ),
    seed: Annotated[int, typer.Option(help="Of the data set.")] = 0,
    person: Annotated[
        int | None, typer.Option(help="Identity that all samples show, in the samples' poses.")
    ] = None,
    zoom: Annotated[
        int | None, typer.Option(min=1, help="Pixels for one of the image; default: by its size.")
    ] = None,
    skeleton: Annotated[bool, typer.Option(help="Also joints; hidden ones are left out.")] = False,
    parts: Annotated[bool, typer.Option(help="Also body parts.")] = False,
    mask: Annotated[bool, typer.Option(help="Also masks.")] = False,
) -> None:
    """Draw rendered people as they are trained on."""
    try:
        source = SyntheticPeople(
            seed,
            poses=poses.value,
            data_dir=data,
            split=split.value,
            split_by=split_by.value,
            size=_image_size(size),
        )
        batch = source.batch(range(start, start + count))
        if person is not None:
            who = [person] * count
            joints = with_bone_lengths(batch.joints_mm.double().numpy(), source.bone_lengths(who))
            batch = source.posed(joints, who, range(start, start + count))
        title = (
            f"SyntheticPeople: seed {seed}, {split.value}, poses {source.poses}; person / outfit"
        )
        save_picture(
            out, people_sheet(batch, title, skeleton=skeleton, parts=parts, mask=mask, zoom=zoom)
        )
    except (OSError, ValueError) as error:
        fail(error)
    typer.echo(f"picture: {out}")


def _image_size(text: str) -> tuple[int, int]:
    try:
        edges = [int(word) for word in text.lower().split("x")]
    except ValueError:
        edges = []
    if len(edges) not in (1, 2):
        raise ValueError(f"--size must be S or HxW, got {text!r}")
    return edges[0], edges[-1]


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
