"""`dgpose models`: what ships in the package."""

from __future__ import annotations

from typing import Annotated

import typer

from dgpose.cli.terminal import fail

__all__ = ["models"]


def models(
    name: Annotated[str | None, typer.Argument(help="Print this model's card.")] = None,
) -> None:
    """List the models of the package: what each does, its size, its licence; or print a card."""
    from dgpose.model_zoo import model_path, shipped_models

    try:
        shipped = shipped_models()
        path = None if name is None else model_path(name)
        chosen = [model for model in shipped if model.path == path]
        if path is not None and not chosen:
            raise ValueError(f"{path} is not a shipped model")
    except (ValueError, OSError) as error:
        fail(error)
    if chosen:
        typer.echo(chosen[0].card.rstrip())
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what it does", box=None, pad_edge=False, padding=(0, 2))
    for column in ("parameters", "MB"):
        table.add_column(column, justify="right")
    table.add_column("licence")
    for model in shipped:
        size = f"{model.bytes / 1e6:.1f}"
        table.add_row(model.name, model.summary, f"{model.parameters:,}", size, model.licence)
    Console().print(table)
    typer.echo("dgpose models NAME prints a card; dgpose.load(NAME) loads a model.")
