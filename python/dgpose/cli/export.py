"""`dgpose export`: networks as files for other programs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dgpose.cli.hand import Precision
from dgpose.cli.terminal import fail

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Write networks as files for other programs.")


class Format(str, Enum):
    """What the file is for."""

    ONNX = "onnx"
    PROGRAM = "program"
    SAFETENSORS = "safetensors"


@app.callback()
def _export() -> None:
    # A Typer app with one command drops the command's name; this keeps it (`dgpose export hand`).
    pass


@app.command()
def hand(
    out: Annotated[Path, typer.Option(help="File to write; one that is there is replaced.")],
    format: Annotated[
        Format,
        typer.Option(
            help="onnx: standard operators, any runtime. program: torch.export's, needs torch "
            "alone (.pt2). safetensors: HandNet's, for HandNet.load and C programs."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="accurate, fast, or a weight file of dgpose train hand.")
    ] = "accurate",
    precision: Annotated[
        Precision, typer.Option(help="Of HandNet's file; the others are float32.")
    ] = Precision.FLOAT32,
    opset: Annotated[int, typer.Option(help="Version of the ONNX operators, from 18.")] = 18,
) -> None:
    """Write the hand network, anchor regression included, as one file, and check it.

    The file is run right after it was written and compared with HandNet on rendered crops; one that
    differs is not put in place. Input: depth crops; output: joints in crop coordinates (ONNX and
    program carry a description).
    """
    from dgpose.inference.hand_export import export_hand

    try:
        export = export_hand(out, format.value, model=model, precision=precision.value, opset=opset)
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        fail(error)
    typer.echo(f"saved {export.path}: {export.bytes:,} bytes")
    typer.echo(
        f"largest difference from {export.reference} in float32, on rendered crops: "
        f"{export.difference:.2g} in crop coordinates, {export.difference_mm:.2g} mm"
    )
