"""`dgpose dpig invert`: two images through noise, and the way between them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from dgpose.cli.dpig_options import DPIGModelOptions, DPIGSourceOptions, parse_factors
from dgpose.cli.option_groups import with_groups
from dgpose.cli.person_options import Out
from dgpose.cli.person_results import require_out
from dgpose.cli.terminal import fail
from dgpose.data.image_files import read_image, save_picture
from dgpose.inference.code_inversion import InversionConfig
from dgpose.inference.person_factors import InvertedPair
from dgpose.viz.person_factors import inversion_sheet, way_animation
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["invert"]

_DEFAULT = InversionConfig()


@with_groups
def invert(
    first: Annotated[Path, typer.Argument(help="Picture of a person.")],
    second: Annotated[Path, typer.Argument(help="Picture of another, or of the same.")],
    *,
    out: Out = Path("inversion.png"),
    vary: Annotated[
        str,
        typer.Option(
            help="Factors that go from FIRST to SECOND, separated by commas; the rest stays "
            "FIRST's. pose: its person moves from one pose to the other."
        ),
    ] = "all",
    frames: Annotated[int, typer.Option(min=2, help="On the way, both ends included.")] = 12,
    restarts: Annotated[
        int, typer.Option(min=1, help="Draws of noise that the search starts from.")
    ] = _DEFAULT.restarts,
    steps: Annotated[int, typer.Option(min=1, help="Of the search.")] = _DEFAULT.steps,
    seed: Annotated[int, typer.Option(help="Of the noise that it starts from.")] = 0,
    source: DPIGSourceOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print the errors as JSON.")] = False,
    model: DPIGModelOptions,
) -> None:
    """Find the noise of two images (inverse interpolation) and walk from one to the other.

    Says how far the codes of the noise are from the images' own, and what that costs in the images.
    Draws both, each from its codes and from its noise, and the frames; also OUT as .gif.
    """
    try:
        require_out(out, only=False, several=False)
        factors = model.load(source.estimator)
        wanted = parse_factors(vary, factors.factors)
        own = source.poses(factors.estimator)
        pictures = [read_image(path) for path in (first, second)]
        poses = None
        if own is not None:
            both = zip((first, second), pictures, strict=True)
            poses = [own.of(path, picture, alone=False) for path, picture in both]
        pair = factors.invert(
            pictures,
            poses,
            factors=wanted,
            count=frames,
            seed=seed,
            config=InversionConfig(restarts=restarts, steps=steps),
        )
        title = f"{model.name}: {', '.join(wanted)} through noise"
        save_picture(out, inversion_sheet(pair, [first.name, second.name], title))
        write_bytes_atomically(out.with_suffix(".gif"), way_animation({title: pair.frames}))
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    fields = _fields(pair)
    typer.echo(json.dumps(fields) if as_json else "\n".join(_lines(fields)))
    typer.echo(f"{frames} frames: {out}, {out.with_suffix('.gif')}", err=as_json)


def _fields(pair: InvertedPair) -> dict[str, Any]:
    """The errors of both images, for JSON."""
    codes = {
        factor: {"code_error": _listed(codes.error), "drawn_code_error": _listed(codes.drawn_error)}
        for factor, codes in pair.found.items()
    }
    fields: dict[str, Any] = {"factors": codes}
    fields["psnr_db"], fields["psnr_of_codes_db"] = _listed(pair.psnr), _listed(pair.rebuilt_psnr)
    if pair.pose_error_px is not None:
        fields["pose_error_px"] = _listed(pair.pose_error_px)
    return fields


def _listed(values: Any) -> list[float | None]:
    """None for NaN, which JSON lacks: both poses have no visible joint in common."""
    return [round(value, 4) if math.isfinite(value) else None for value in values.tolist()]


def _lines(fields: dict[str, Any]) -> list[str]:
    lines = []
    for factor, errors in fields["factors"].items():
        (a, b), (c, d) = errors["code_error"], errors["drawn_code_error"]
        line = f"{factor}: codes {a:.2f} and {b:.2f} of their length away"
        line += f" (drawn ones {c:.2f} and {d:.2f})"
        if factor == "pose":
            a, b = fields["pose_error_px"]
            line += ", joints " + " and ".join("?" if e is None else f"{e:.1f}" for e in (a, b))
            line += " px"
        lines.append(line)
    (a, b), (c, d) = fields["psnr_db"], fields["psnr_of_codes_db"]
    lines.append(
        f"PSNR from noise {a:.1f} and {b:.1f} dB (from their own codes {c:.1f} and {d:.1f})"
    )
    return lines
