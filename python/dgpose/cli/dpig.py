"""`dgpose dpig`: images of people taken apart and put together anew."""

from __future__ import annotations

import typer

from dgpose.cli.dpig_eval import evaluate
from dgpose.cli.dpig_reid import reid

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Foreground, background and pose of people, with DPIG."
)
app.command("eval")(evaluate)
app.command()(reid)
