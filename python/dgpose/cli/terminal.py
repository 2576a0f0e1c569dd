"""What all commands share: how they report an error, and their progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from dgpose._errors import one_line

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["cell", "counted", "fail", "is_first_rank", "narrow_table", "progress"]

T = TypeVar("T")


def fail(error: Exception) -> NoReturn:
    """One line on stderr, and exit code 2."""
    typer.echo(f"error: {one_line(error)}", err=True)
    raise typer.Exit(code=2)


def is_first_rank() -> bool:
    """Whether this process is the one of several that talks."""
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def progress(items: Iterable[T], total: int | None, what: str = "estimating") -> Iterator[T]:
    """The items, under a progress bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    yield from track(items, what, total, console=console, transient=True, disable=hidden)


@contextmanager
def counted(what: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal, for what calls back (done, total)."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = not (shown and console.is_terminal)
    with Progress(console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def narrow_table(title: str, *columns: str) -> Table:
    """Rows that begin with a name, and columns of figures; nine of them fit on 80 characters."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False,
        title_justify="left", caption_justify="left",
    )  # fmt: skip
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def cell(value: float | None, digits: int) -> str:
    """A figure of a table, which may have no meaning in a row."""
    return "-" if value is None else f"{value:.{digits}f}"
