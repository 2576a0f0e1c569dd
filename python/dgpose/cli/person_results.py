"""What `dgpose person` writes: a sheet of what was made, or the images alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from dgpose.cli.image_inputs import free_name
from dgpose.cli.person_inputs import FloatArray, PersonImages, Picture
from dgpose.data.image_files import IMAGE_SUFFIXES, save_picture
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.viz.person import grid_sheet, result_sheet

__all__ = ["SHOWN", "ImagesAlone", "require_picture_name", "write_results"]

SHOWN = 24
"""Results on one sheet."""


def require_picture_name(out: Path) -> None:
    """A sheet is one picture.

    Raises:
        ValueError: the file is not named like one.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out must be a picture, .png or .jpg (a folder with --only), got {out}")


class ImagesAlone:
    """Writes images of S x S pixels: one to the file OUT, several to the folder OUT.

    Args:
        out: the file or folder.
        several: which of both.

    Raises:
        ValueError: a folder that is named like a picture, or a file that is not.
    """

    def __init__(self, out: Path, *, several: bool) -> None:
        picture = out.suffix.lower() in IMAGE_SUFFIXES
        if several and picture:
            raise ValueError(f"--out must be a folder for several images with --only, got {out}")
        if not (several or picture):
            raise ValueError(f"--out must be a picture such as out.png for one image, got {out}")
        self._out, self._several = out, several

    def save(self, people: GeneratedPeople, names: list[str]) -> None:
        for name, picture in zip(names, people.pictures(), strict=True):
            save_picture(self._out / f"{name}.png" if self._several else self._out, picture)


def write_results(
    inputs: PersonImages,
    make: Callable[[Picture, FloatArray | None], GeneratedPeople],
    out: Path,
    title: str,
    *,
    only: bool,
    poses: Sequence[str] = ("",),
) -> None:
    """Make images of each input, and write a sheet of the first ones; with `only` each alone.

    Args:
        inputs: what from.
        make: as many images of each as there are `poses`.
        out: picture or folder.
        title: of the sheet.
        only: no sheet.
        poses: their names, where there are several.

    Raises:
        ValueError: as `ImagesAlone`, and a sheet that is not named like a picture.
    """
    alone = ImagesAlone(out, several=len(inputs.files) * len(poses) > 1) if only else None
    if alone is None:
        require_picture_name(out)
    most = None if only else max(1, SHOWN // len(poses))
    sheet: list[GeneratedPeople] = []
    names: list[str] = []
    for path, people in inputs.each(make, "generating", most):
        names.append(free_name(path.stem, set(names)))
        if alone is None:
            sheet.append(people)
        else:
            alone.save(people, [f"{names[-1]}_{pose}" if pose else names[-1] for pose in poses])
    if not names:
        return  # each was told
    if sheet:
        joined = GeneratedPeople.joined(sheet)
        if len(poses) > 1:
            save_picture(out, grid_sheet(joined, names, title, poses))
        else:
            save_picture(out, result_sheet(joined, names, title))
    left = len(inputs.files) - inputs.failed - len(names)
    more = f" ({left} more images are not on the sheet: --only makes all)" if left else ""
    made = len(names) * len(poses)
    typer.echo(f"{made} image{'s' * (made > 1)}: {out}{more}")
