"""`dgpose data check --dataset h36m`: what of Human3.6M is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from dgpose._errors import one_line
from dgpose.data.human36m import SUBJECTS, Human36M, Split, open_human36m
from dgpose.data.image_files import ImageFormatError, save_picture
from dgpose.skeletons import H36M17
from dgpose.viz.body import body_page
from dgpose.viz.drawing import Picture, draw_skeleton

__all__ = ["check_human36m"]

_PARTS: tuple[Split, ...] = ("train", "test")
_NAMED = 5


def check_human36m(folder: Path, out: Path | None) -> bool:
    """Prints what is there of both parts, and draws three images; whether all of it is there.

    Raises:
        FileNotFoundError, ValueError: nothing of either part can be read.
    """
    parts: dict[str, Human36M] = {}
    problems: dict[str, Exception] = {}
    for split in _PARTS if folder.is_dir() else _PARTS[1:]:
        try:
            parts[split if folder.is_dir() else folder.name] = open_human36m(folder, split, every=1)
        except (OSError, ValueError) as error:
            problems[split] = error
    if not parts:
        raise next(iter(problems.values()))
    table = Table(title=f"h36m in {folder}")
    table.add_column("part")
    for column in ("poses", "images", "missing", "actions"):
        table.add_column(column, justify="right")
    table.add_column("subjects")
    complete = not problems
    lost: dict[str, list[str]] = {}
    for name, frames in parts.items():
        there = [frames.image_path(row).is_file() for row in range(len(frames))]
        lost[name] = [label for label, found in zip(frames.names, there, strict=True) if not found]
        subjects = sorted(set(frames.subjects), key=lambda subject: int(subject[1:]))
        complete &= not lost[name] and (
            name not in SUBJECTS or set(subjects) == set(SUBJECTS[name])
        )
        table.add_row(
            name, f"{len(frames):,}", f"{sum(there):,}", f"{len(lost[name]):,}",
            str(len(set(frames.actions))), ", ".join(subjects),
        )  # fmt: skip
    Console().print(table)
    for name, problem in problems.items():
        typer.echo(f"{name}: {one_line(problem)}")
    for name, names in lost.items():
        if names:
            rest = " ..." if len(names) > _NAMED else ""
            typer.echo(f"missing in {name}: {', '.join(names[:_NAMED])}{rest}")
    if out is not None:
        _save_three(list(parts.values())[-1].with_images(), out)
    return complete


def _save_three(frames: Human36M, out: Path) -> None:
    """The first, the middle and the last image that is there, with their joints."""
    tiles: list[tuple[Picture, str]] = []
    for row in sorted({0, len(frames) // 2, len(frames) - 1}) if len(frames) else []:
        try:
            picture = frames.image(row)
        except ImageFormatError as error:
            typer.echo(f"cannot be read: {error}")
            continue
        draw_skeleton(picture, frames.joints_px[row], H36M17, thickness=4)
        x1, y1, x2, y2 = np.rint(frames.boxes[row]).astype(int)
        part = picture[max(y1, 0) : y2, max(x1, 0) : x2]
        tiles.append((np.ascontiguousarray(part), f"{frames.subjects[row]} {frames.actions[row]}"))
    if tiles:
        save_picture(out, body_page(tiles, "Human3.6M: first, middle and last image"))
        typer.echo(f"picture: {out}")
