"""Options of commands that measure models of people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dgpose.cli.options import Split

__all__ = ["JudgedOptions", "ReportOptions"]


@dataclass(frozen=True)
class JudgedOptions:
    """Which people a model is judged on, and by what."""

    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data set; of rendered people that with mocap/, without which their "
            "poses are kinematic.",
            envvar="DGPOSE_DATA",
        ),
    ] = None
    split: Annotated[Split, typer.Option(help="Part; a file has none.")] = Split.TEST
    judge: Annotated[str, typer.Option(help="Keypoint network: a file of dgpose train judge.")] = (
        "person_judge"
    )


@dataclass(frozen=True)
class ReportOptions:
    """Where figures go."""

    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with whole curves.")] = False
    out: Annotated[Path | None, typer.Option(help=".json to write.")] = None

    def save(self, figures: Mapping[str, Any]) -> str:
        """Writes them where --out is given; gives them as JSON."""
        from dgpose_ext.tensor_file import write_bytes_atomically

        text = json.dumps(figures, indent=1)
        if self.out is not None:
            write_bytes_atomically(self.out, (text + "\n").encode())
        return text

    def tell(self, text: str, print_tables: Callable[[], None]) -> None:
        """Prints what was saved: as JSON, or as tables."""
        if self.as_json:
            typer.echo(text)
            return
        print_tables()
        if self.out is not None:
            typer.echo(f"saved {self.out}")
