"""`dgpose hand run`: hand joints from depth frames."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgpose._errors import one_line
from dgpose.cli.terminal import fail, progress

# Nothing that imports torch here: `dgpose --help` would wait for it.
if TYPE_CHECKING:
    from dgpose.inference.hand_run import HandInput, HandResult

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Hands in depth images.")


class Hand(str, Enum):
    """Which hand is looked for."""

    RIGHT = "right"
    LEFT = "left"


class Unit(str, Enum):
    """Unit of floating-point depth."""

    MM = "mm"
    M = "m"


class Engine(str, Enum):
    """What runs the network."""

    AUTO = "auto"
    NATIVE = "native"
    TORCH = "torch"


class Precision(str, Enum):
    """What the native engine computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


@app.callback()
def _hand() -> None:
    # A Typer app with one command drops the command's name; this keeps it (`dgpose hand run`).
    pass


@app.command()
def run(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or patterns (16-bit or NYU-packed .png, .npy, .npz, MSRA .bin); "
            "or synthetic:SEED; or realsense."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    camera: Annotated[
        str | None,
        typer.Option(
            help="nyu, kinect2, icvl, msra, or fx,fy,cx,cy in pixels; can be left out where the "
            "file says it."
        ),
    ] = None,
    center: Annotated[
        str | None,
        typer.Option(help="u,v,mm of the hand's middle in all frames; else it is found in each."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="True joints, one row a frame: .npz with joints_mm or xyz_mm [N,J,3], or text "
            "with J x (u v d) a line; J is 36, or 14 (the scored ones)."
        ),
    ] = None,
    hand: Annotated[Hand, typer.Option(help="Which hand to look for.")] = Hand.RIGHT,
    model: Annotated[str, typer.Option(help="A shipped model, or a weight file.")] = "default",
    engine: Annotated[Engine, typer.Option(help="What runs the network.")] = Engine.AUTO,
    precision: Annotated[
        Precision, typer.Option(help="What the native engine computes in.")
    ] = Precision.FLOAT32,
    unit: Annotated[Unit, typer.Option(help="Unit of floating-point depth.")] = Unit.MM,
    cube: Annotated[float, typer.Option(help="Edge of the cube around the hand, mm.")] = 300.0,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many (synthetic: 100 if not given).")
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Save an overlay picture per frame.")] = True,
) -> None:
    """Estimate the hand in each depth frame: joints as CSV and JSON, pictures, a summary.

    A frame that cannot be read is reported and the run goes on. The exit code is 0 if any frame
    could be read, else 2.
    """
    from dgpose.data.cameras import parse_camera
    from dgpose.inference import HandEstimator
    from dgpose.inference.hand_run import (
        estimate,
        open_frames,
        read_labels,
        with_labels,
    )

    results: list[HandResult] = []
    broken = False
    try:
        optics = parse_camera(camera) if camera is not None else None
        place = _parse_center(center) if center is not None else None
        inputs, total = open_frames(
            source, camera=optics, unit=unit.value, hand=hand.value, limit=frames
        )
        if labels is not None:
            inputs = with_labels(
                inputs, read_labels(labels, optics), total, limited=frames is not None
            )
        estimator = HandEstimator.load(
            model,
            hand=hand.value,
            engine=engine.value,
            cube_mm=cube,
            precision=precision.value,
        )
        (out / "pictures" if pictures else out).mkdir(parents=True, exist_ok=True)
        try:
            for item in progress(inputs, total):
                result = estimate(estimator, item, place)
                results.append(result)
                if result.pose is None:
                    typer.echo(f"bad frame {result.name}: {result.problem}", err=True)
                elif pictures:
                    save_picture(
                        out / "pictures" / f"{item.name}.png", _overlay(item, result, cube)
                    )
        except KeyboardInterrupt:
            typer.echo("stopped: what was estimated so far is saved", err=True)
        except (RuntimeError, OSError) as error:  # a camera unplugged, a disk full
            typer.echo(f"error: {one_line(error)}; what came before is saved", err=True)
            broken = True
        summary = _save(results, estimator.info(), out)
    except (ValueError, RuntimeError, OSError) as error:
        fail(error)
    print_summary(summary)
    typer.echo(f"saved joints.csv, joints.json, summary.json{' and pictures' * pictures} in {out}")
    if broken or all(result.pose is None for result in results):
        raise typer.Exit(code=2)


def print_summary(summary: dict[str, Any]) -> None:
    """Counts, frames/s and mean error of `dgpose.inference.hand_run.summarise`, for a terminal."""
    counts = summary["frames"]
    typer.echo(
        f"frames: {counts['total']} ({counts['found']} with a hand, {counts['not_found']} without, "
        f"{counts['bad_frame']} bad)"
    )
    for reason, count in summary["not_found_reasons"].items():
        typer.echo(f"  {count} x {reason}")
    latency = summary["latency_ms"]
    if latency is not None:
        typer.echo(
            f"{1000 / latency['p50']:,.0f} frames/s (median {latency['p50']:.2f} ms, "
            f"99th percentile {latency['p99']:.2f} ms a frame, depth image to joints)"
        )
    if summary["mean_error_mm"] is not None:
        typer.echo(
            f"mean error {summary['mean_error_mm']:.1f} mm (14 scored joints, "
            f"{summary['labelled_frames']} labelled frames with a hand found)"
        )


def save_picture(path: Path, picture: Any) -> None:
    """Write an RGB picture as PNG, atomically."""
    import cv2

    from dgpose_ext.tensor_file import write_bytes_atomically

    encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    write_bytes_atomically(path, encoded.tobytes())


def _parse_center(text: str) -> tuple[float, float, float]:
    from dgpose.inference.hand_estimator import check_center

    try:
        return check_center([float(part) for part in text.split(",")])
    except ValueError:
        raise ValueError(f"center must be u,v,mm with mm > 0, got {text!r}") from None


def _overlay(item: HandInput, result: HandResult, cube: float) -> Any:
    from dgpose.data.cameras import project
    from dgpose.viz.hand import overlay

    pose = result.pose
    assert pose is not None
    assert item.depth is not None
    assert item.camera is not None
    if pose.found:
        state = f"confidence {pose.confidence:.2f}, {pose.timings['total']:.2f} ms"
        if result.errors_mm is not None:
            state += f", error {result.errors_mm.mean():.1f} mm"
    else:
        state = f"not found: {pose.reason}"
    truth = item.truth_mm
    return overlay(
        item.depth,
        item.camera,
        pose.joints_px if pose.found else None,
        pose.center,
        f"{item.name}: {state}",
        cube_mm=cube,
        truth_px=None if truth is None else project(truth, item.camera)[:, :2],
    )


def _save(results: list[HandResult], engine: dict[str, Any], out: Path) -> dict[str, Any]:
    from dgpose.inference.hand_run import results_csv, results_json, summarise, to_json
    from dgpose_ext.tensor_file import write_bytes_atomically

    summary = summarise(results)
    write_bytes_atomically(out / "joints.csv", results_csv(results).encode())
    write_bytes_atomically(out / "joints.json", results_json(results))
    write_bytes_atomically(out / "summary.json", to_json({"engine": engine, **summary}))
    return summary
