"""`dgpose data check` of photographs of people: what of a data set is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from dgpose._errors import one_line
from dgpose.data.image_files import ImageFormatError, save_picture
from dgpose.data.person_photos import PersonPhotos
from dgpose.data.person_sources import PERSON_SPLITS, open_photos
from dgpose.skeletons import BODY14, OPENPOSE18
from dgpose.viz.body import body_page
from dgpose.viz.drawing import Picture, draw_skeleton

__all__ = ["check_people"]

_NAMED = 5
_SHEET_PX = 384


def check_people(name: str, folder: Path, out: Path | None) -> bool:
    """Prints what is there of the three parts, and draws three images; whether all of it is there.

    Raises:
        FileNotFoundError, ValueError: nothing of any part can be read.
    """
    parts: dict[str, PersonPhotos] = {}
    problems: dict[str, Exception] = {}
    for split in PERSON_SPLITS:
        try:
            parts[split] = open_photos(name, folder, split)
        except (OSError, ValueError) as error:
            problems[split] = error
    if not parts:
        raise next(iter(problems.values()))
    table = Table(title=f"{name} in {folder}")
    table.add_column("part")
    for column in ("people", "images", "missing", "identities", "joints a person, of 14"):
        table.add_column(column, justify="right")
    lost = {split: photos.missing() for split, photos in parts.items()}
    for split, photos in parts.items():
        joints = photos.known[:, : len(BODY14)].sum() / max(1, len(photos))
        who = "" if photos.identity is None else f"{len(np.unique(photos.identity)):,}"
        table.add_row(
            split, f"{len(photos):,}", f"{len(photos) - len(lost[split]):,}",
            f"{len(lost[split]):,}", who, f"{joints:.1f}",
        )  # fmt: skip
    Console().print(table)
    for split, problem in problems.items():
        typer.echo(f"{split}: {one_line(problem)}")
    for split, names in lost.items():
        if names:
            rest = " ..." if len(names) > _NAMED else ""
            typer.echo(f"missing in {split}: {', '.join(names[:_NAMED])}{rest}")
    for split, photos in parts.items():
        if not len(photos):
            typer.echo(f"{split}: holds nobody")
    if out is not None:
        there = [photos.with_images() for photos in parts.values()]
        _save_three(next((photos for photos in there[::-1] if len(photos)), there[-1]), name, out)
    return not problems and not any(lost.values()) and all(len(p) for p in parts.values())


def _save_three(photos: PersonPhotos, name: str, out: Path) -> None:
    """The first, the middle and the last image that is there, cut as for training, with joints."""
    tiles: list[tuple[Picture, str]] = []
    for row in sorted({0, len(photos) // 2, len(photos) - 1}) if len(photos) else []:
        try:
            pool = photos.rows([row]).pool(_SHEET_PX)
        except ImageFormatError as error:
            typer.echo(f"cannot be read: {error}")
            continue
        picture = np.ascontiguousarray(pool.images[0].permute(1, 2, 0).numpy())
        seen = np.where(photos.known[row][:, None], pool.keypoints_px[0], np.nan)
        draw_skeleton(picture, seen, OPENPOSE18, thickness=4)
        tiles.append((picture, photos.names[row].rpartition("/")[2]))
    if tiles:
        save_picture(out, body_page(tiles, f"{name}: first, middle and last image"))
        typer.echo(f"picture: {out}")
