"""Assembles the command line.

`dgpose --help` must not wait for torch: commands import what they need when they run, and families
whose modules import it at once are loaded when one of their commands is called.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dgpose.cli.bench import bench
from dgpose.cli.body import crop, heatmap
from dgpose.cli.demo import demo
from dgpose.cli.export import app as export_app
from dgpose.cli.hand import app as hand_app
from dgpose.cli.hand_generation import generate, refine
from dgpose.cli.index import app as index_app
from dgpose.cli.models import models

__all__ = ["app"]

_LOADED_WHEN_CALLED = {
    "data": ("dgpose.cli.data", "Look at data sets."),
    "dpig": ("dgpose.cli.dpig", "People as foreground, background and pose, with DPIG."),
    "eval": ("dgpose.cli.eval", "Score result files against labels."),
    "person": ("dgpose.cli.person", "Images of people in given poses, with DGPose."),
    "pose": ("dgpose.cli.pose", "3D body poses of person images, by retrieval."),
    "reproduce": ("dgpose.cli.reproduce", "Published tables, beside what this code measures."),
    "train": ("dgpose.cli.train", "Train the models."),
}


class _LazyGroup(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in _LOADED_WHEN_CALLED:
            module, _ = _LOADED_WHEN_CALLED[args[0]]
            family = typer.Typer(add_completion=False)
            family.add_typer(import_module(module).app, name=args[0])
            self.add_command(typer.main.get_group(family).commands[args[0]])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pose from depth images and photographs.",
)
for _command in (bench, crop, demo, heatmap, models):
    app.command()(_command)
hand_app.command()(generate)
hand_app.command()(refine)
app.add_typer(export_app, name="export")
app.add_typer(hand_app, name="hand")
app.add_typer(index_app, name="index")
for _name, (_, _help) in _LOADED_WHEN_CALLED.items():
    app.add_typer(typer.Typer(help=_help), name=_name)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dgpose {metadata.version('dgpose-ext')}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass
