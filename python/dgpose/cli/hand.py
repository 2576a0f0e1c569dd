"""`dgpose hand run` and `dgpose hand live`: hand joints from depth frames."""

from __future__ import annotations

import os
import sys
import webbrowser
from enum import Enum
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgpose._errors import one_line
from dgpose.cli.options import CameraOption, CenterOption
from dgpose.cli.terminal import fail, progress

# Nothing that imports torch here: `dgpose --help` would wait for it.
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dgpose.data.depth_sources import SourceFrame
    from dgpose.inference.hand_run import HandResult
    from dgpose.skeletons import Skeleton

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Hands in depth images.")

_LIVE_SYNTHETIC_FRAMES = 9000
"""Five minutes; then the sequence begins again."""


class Hand(str, Enum):
    """Which hand is looked for."""

    RIGHT = "right"
    LEFT = "left"


class Unit(str, Enum):
    """Unit of floating-point depth."""

    MM = "mm"
    M = "m"


class Joints(str, Enum):
    """Orders of joints that NYU's 36 are brought to."""

    NYU36 = "nyu36"
    MSRA21 = "msra21"
    MEDIAPIPE21 = "mediapipe21"


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


@app.command()
def run(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or patterns (16-bit or NYU-packed .png, .npy, .npz, MSRA .bin); "
            "or synthetic:SEED; or realsense; or kinect."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    camera: CameraOption = None,
    center: CenterOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="True joints, one row a frame: .npz with joints_mm or xyz_mm [N,J,3], or text "
            "with J x (u v d) a line; J is 36, or 14 (the scored ones)."
        ),
    ] = None,
    hand: Annotated[Hand, typer.Option(help="Which hand to look for.")] = Hand.RIGHT,
    model: Annotated[str, typer.Option(help="A shipped model, or a weight file.")] = "accurate",
    engine: Annotated[Engine, typer.Option(help="What runs the network.")] = Engine.AUTO,
    precision: Annotated[
        Precision, typer.Option(help="What the native engine computes in.")
    ] = Precision.FLOAT32,
    unit: Annotated[Unit, typer.Option(help="Unit of floating-point depth.")] = Unit.MM,
    cube: Annotated[
        float | None,
        typer.Option(help="Edge of the cube around the hand, mm; else the model's own."),
    ] = None,
    joints: Annotated[
        Joints | None, typer.Option(help="Joints of the results; else the model's own.")
    ] = None,
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
    from dgpose.data.depth_sources import depth_source
    from dgpose.data.image_files import save_picture
    from dgpose.inference.hand_pose import check_conversion
    from dgpose.inference.hand_run import estimate, in_skeleton, read_labels, with_labels
    from dgpose.model_zoo import load
    from dgpose.skeletons import MEDIAPIPE21, MSRA21, NYU36

    results: list[HandResult] = []
    broken = False
    try:
        optics = parse_camera(camera) if camera is not None else None
        place = parse_center(center) if center is not None else None
        opened = depth_source(source, camera=optics, unit=unit.value, hand=hand.value, limit=frames)
        inputs: Iterator[SourceFrame] = opened.frames()
        total = opened.total
        if labels is not None:
            inputs = with_labels(
                inputs, read_labels(labels, optics), total, limited=frames is not None
            )
        options = {} if cube is None else {"cube_mm": cube}
        estimator = load(
            model,
            hand=hand.value,
            engine=engine.value,
            precision=precision.value,
            **options,
        )
        skeleton = estimator.skeleton
        if joints is not None:
            named = {known.name: known for known in (NYU36, MSRA21, MEDIAPIPE21)}
            skeleton = named[joints.value]
            check_conversion(estimator.skeleton, skeleton)
        (out / "pictures" if pictures else out).mkdir(parents=True, exist_ok=True)
        try:
            for item in progress(inputs, total):
                result = in_skeleton(estimate(partial(estimator, center=place), item), skeleton)
                results.append(result)
                if result.pose is None:
                    typer.echo(f"bad frame {result.name}: {result.problem}", err=True)
                elif pictures:
                    save_picture(
                        out / "pictures" / f"{item.name}.png",
                        _overlay(item, result, estimator.info()["cube_mm"]),
                    )
        except KeyboardInterrupt:
            typer.echo("stopped: what was estimated so far is saved", err=True)
        except (RuntimeError, OSError) as error:  # a camera unplugged, a disk full
            typer.echo(f"error: {one_line(error)}; what came before is saved", err=True)
            broken = True
        summary = _save(results, skeleton, estimator.info(), out)
    except (ValueError, RuntimeError, OSError) as error:
        fail(error)
    print_summary(summary)
    typer.echo(f"saved joints.csv, joints.json, summary.json{' and pictures' * pictures} in {out}")
    if broken or all(result.pose is None for result in results):
        raise typer.Exit(code=2)


@app.command()
def live(
    source: Annotated[
        str,
        typer.Option(
            help="realsense, kinect (Azure), folder:DIR, video:FILE.npz or synthetic:SEED; "
            "recordings are played at 30 frames/s, over and over."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 127.0.0.1 is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="A later one is taken where it is in use.")
    ] = 8080,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
    camera: Annotated[
        str | None,
        typer.Option(
            help="nyu, kinect2, icvl, msra, or fx,fy,cx,cy in pixels; can be left out where the "
            "camera or the file says it."
        ),
    ] = None,
    hand: Annotated[Hand, typer.Option(help="Which hand to look for.")] = Hand.RIGHT,
    model: Annotated[
        str, typer.Option(help="accurate, fast, or a weight file of dgpose train hand.")
    ] = "accurate",
    engine: Annotated[Engine, typer.Option(help="What runs the network.")] = Engine.AUTO,
    precision: Annotated[
        Precision, typer.Option(help="What the native engine computes in.")
    ] = Precision.FLOAT32,
    unit: Annotated[Unit, typer.Option(help="Unit of floating-point depth.")] = Unit.MM,
    cube: Annotated[float, typer.Option(help="Edge of the cube around the hand, mm.")] = 300.0,
    smooth: Annotated[
        bool, typer.Option("--smooth/--no-smooth", help="One-Euro filter; also a box on the page.")
    ] = False,
) -> None:
    """Follow a hand in a stream, on a page in the browser.

    Depth picture, skeleton, a 3D view, frames/s and latency. The newest frame is shown, older ones
    are dropped. A camera that is pulled out is waited for. Ctrl-C ends.
    """
    from dgpose.data.cameras import parse_camera
    from dgpose.data.depth_sources import depth_source
    from dgpose.inference import HandEstimator, HandTracker
    from dgpose.inference.hand_live import FrameStream, LiveNumbers, run_live
    from dgpose.viz.hand_page import HandPage

    numbers = LiveNumbers()
    try:
        opened = depth_source(
            [source],
            camera=parse_camera(camera) if camera is not None else None,
            unit=unit.value,
            hand=hand.value,
            limit=_LIVE_SYNTHETIC_FRAMES if source.startswith("synthetic:") else None,
        )
        estimator = HandEstimator.load(
            model,
            hand=hand.value,
            engine=engine.value,
            precision=precision.value,
            cube_mm=cube,
        )
        page = HandPage(
            f"dgpose hand live: {source}",
            _about(estimator.info()),
            host=host,
            port=port,
            cube_mm=cube,
            smoothing=smooth,
        )
        try:
            typer.echo(f"{page.url} shows {source}; Ctrl-C ends")
            if not _is_loopback(host):
                typer.echo("anyone who can reach this machine can see the page", err=True)
            if open_page and _has_screen():
                webbrowser.open(page.url)
            with FrameStream(opened) as stream:
                run_live(
                    stream,
                    HandTracker(estimator),
                    page,
                    numbers,
                    lambda line: typer.echo(line, err=True),
                )
        finally:
            page.close()
    except KeyboardInterrupt:
        typer.echo(
            f"\nframes: {numbers.total} ({numbers.found} with a hand, {numbers.not_found} without, "
            f"{numbers.bad_frame} bad), {numbers.dropped} dropped"
        )
    except (ValueError, RuntimeError, OSError) as error:
        fail(error)


def _about(info: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("model", f"{info['model']}, {info['parameters']:,} parameters, {info['hand']} hand"),
        ("engine", f"{info['engine']}, {info['precision']}, {info['device']}"),
        ("processor", str(info["cpu_capability"])),
    ]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_screen() -> bool:
    # Without one a browser in the terminal would be started.
    return not sys.platform.startswith("linux") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


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


def parse_center(text: str) -> tuple[float, float, float]:
    """The option --center, u,v,mm.

    Raises:
        ValueError: it is not that.
    """
    from dgpose.inference.depth_input import check_center

    try:
        return check_center([float(part) for part in text.split(",")])
    except ValueError:
        raise ValueError(f"center must be u,v,mm with mm > 0, got {text!r}") from None


def _overlay(item: SourceFrame, result: HandResult, cube: float) -> Any:
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
        skeleton=pose.skeleton,
    )


def _save(
    results: list[HandResult], skeleton: Skeleton, engine: dict[str, Any], out: Path
) -> dict[str, Any]:
    from dgpose.inference.hand_run import results_csv, results_json, summarise, to_json
    from dgpose_ext.tensor_file import write_bytes_atomically

    summary = summarise(results)
    write_bytes_atomically(out / "joints.csv", results_csv(results, skeleton).encode())
    write_bytes_atomically(out / "joints.json", results_json(results, skeleton))
    write_bytes_atomically(out / "summary.json", to_json({"engine": engine, **summary}))
    return summary
