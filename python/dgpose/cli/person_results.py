"""What `dgpose person` writes: a sheet of what was made, or the images alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import typer

from dgpose.cli.image_inputs import free_name
from dgpose.cli.person_inputs import FloatArray, PersonImages, Picture
from dgpose.data.image_files import IMAGE_SUFFIXES, save_picture
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.viz.drawing import Picture as PictureArray
from dgpose.viz.person import grid_sheet, result_sheet

__all__ = ["SHOWN", "Sheet", "require_out", "write_drawn", "write_results"]

SHOWN = 24
"""Results on one sheet."""
_ROOM = 96  # on one that has no poses beside the results

Sheet = Callable[[GeneratedPeople, Sequence[str], str], PictureArray]
"""Draws people, those of one image after those of another, the images' names, and a headline."""


def require_out(out: Path, *, only: bool, several: bool) -> None:
    """Checks --out before anything is made: a sheet is a picture, and so is one image alone.

    Raises:
        ValueError: a sheet or an image that is not named like one, or several images alone that
            are.
    """
    if not only and out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out must be a picture, .png or .jpg (a folder with --only), got {out}")
    picture = out.suffix.lower() in IMAGE_SUFFIXES
    if only and several and picture:
        raise ValueError(f"--out must be a folder for several images with --only, got {out}")
    if only and not (several or picture):
        raise ValueError(f"--out must be a picture such as out.png for one image, got {out}")
    if only and several and out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder for several images with --only, got file {out}")


def _save_alone(people: GeneratedPeople, names: Sequence[str], out: Path, *, several: bool) -> None:
    """Images by themselves: one to the file OUT, several to the folder OUT."""
    for name, picture in zip(names, people.pictures(), strict=True):
        save_picture(out / f"{name}.png" if several else out, picture)


def write_results(
    inputs: PersonImages,
    make: Callable[[Picture, FloatArray | None], GeneratedPeople],
    out: Path,
    title: str,
    *,
    only: bool,
    poses: Sequence[str] = ("",),
    sheet: Sheet | None = None,
) -> None:
    """Make images of each input, and write a sheet of the first ones; with `only` each alone.

    Args:
        inputs: what from.
        make: as many images of each as there are `poses`.
        out: picture or folder.
        title: of the sheet.
        only: no sheet.
        poses: their names, where there are several.
        sheet: draws it; None: poses and results.

    Raises:
        ValueError: as `require_out`.
    """
    several = len(inputs.files) * len(poses) > 1
    require_out(out, only=only, several=several)
    room = SHOWN if sheet is None else _ROOM
    most = None if only else max(1, room // len(poses))
    parts: list[GeneratedPeople] = []
    names: list[str] = []
    for path, people in inputs.each(make, "generating", most):
        names.append(free_name(path.stem, set(names)))
        if only:
            files = [f"{names[-1]}_{pose}" if pose else names[-1] for pose in poses]
            _save_alone(people, files, out, several=several)
        else:
            parts.append(people)
    if not names:
        return  # each was told
    if parts:
        joined = GeneratedPeople.joined(parts)
        if sheet is not None:
            save_picture(out, sheet(joined, names, title))
        elif len(poses) > 1:
            save_picture(out, grid_sheet(joined, names, title, poses))
        else:
            save_picture(out, result_sheet(joined, names, title))
    left = len(inputs.files) - inputs.failed - len(names)
    more = f" ({left} more images are not on the sheet: --only makes all)" if left else ""
    made = len(names) * len(poses)
    typer.echo(f"{made} image{'s' * (made > 1)}: {out}{more}")


def write_drawn(
    people: GeneratedPeople, out: Path, title: str, *, only: bool, poses: Sequence[str] = ()
) -> None:
    """Write people who were drawn, the first pose's first: a sheet of them, or each alone.

    Args:
        people: of each pose as many.
        out: picture or folder; see `require_out`.
        title: of the sheet.
        only: no sheet.
        poses: their names, where they were given.
    """
    count = len(people) // max(1, len(poses))
    looks = [f"person {number}" for number in range(count)]
    if only:
        ends = [f"_{name}" for name in poses] or [""]
        files = [f"person_{number}{end}" for end in ends for number in range(count)]
        _save_alone(people, files, out, several=len(people) > 1)
    elif not poses:
        save_picture(out, result_sheet(people[:SHOWN], looks[:SHOWN], title))
    else:
        rows = torch.arange(len(people)).view(len(poses), count).T[:SHOWN].flatten()
        save_picture(out, grid_sheet(people[rows], looks[:SHOWN], title, poses))
    shown = "" if only or count <= SHOWN else f" ({SHOWN} of {count} appearances shown)"
    drawn = f"{len(people)} people" if len(people) > 1 else "1 person"
    typer.echo(f"{drawn}: {out}{shown}")
