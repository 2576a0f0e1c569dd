"""`dgpose eval`: score result files against labels."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from dgpose.cli.options import HandSetName
from dgpose.cli.terminal import fail
from dgpose.metrics.hand import (
    HandErrors,
    area_under_curve,
    evaluate,
    mean_error_success_rate,
    per_joint_error,
    read_uvd,
    success_rate,
)
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["app", "score"]

app = typer.Typer(no_args_is_help=True, help="Score result files against labels.")

_CURVE_MM = np.arange(0.0, 81.0)
_TABLE_MM = (10.0, 20.0, 30.0, 40.0, 50.0)


@app.callback()
def _eval() -> None:
    # A Typer app with one command drops the command's name; this keeps it (`dgpose eval hand`).
    pass


@app.command()
def hand(
    pred: Annotated[
        list[Path],
        typer.Option(help="Result file: one frame a line, J x (u v d); repeat it to compare."),
    ],
    gt: Annotated[Path, typer.Option(help="Label file of the same form (plain or .gz).")],
    dataset: Annotated[HandSetName, typer.Option(help="Whose joints and camera to use.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for success_rate.png and errors.json.")
    ] = None,
) -> None:
    """Mean joint error, error per joint, and success rates of hand-pose results."""
    try:
        score(pred, gt, dataset.value, out)
    except (OSError, ValueError) as error:
        fail(error)


def score(pred: list[Path], gt: Path, dataset: str, out: Path | None) -> dict[str, HandErrors]:
    """Prints the report of `dgpose eval hand`, saves it where `out` is given, returns the errors
    by the files' names.

    Raises:
        OSError, ValueError: a file cannot be read, scored or written.
    """
    methods = _evaluate_files(pred, gt, dataset)
    if out is not None:
        _save_json(methods, gt, out / "errors.json")
        _save_picture(methods, out / "success_rate.png")
    _print_report(methods)
    if out is not None:
        typer.echo(f"saved {out / 'success_rate.png'} and {out / 'errors.json'}")
    return methods


def _evaluate_files(predictions: list[Path], labels: Path, dataset: str) -> dict[str, HandErrors]:
    truth = read_uvd(labels)
    methods: dict[str, HandErrors] = {}
    for path in predictions:
        name = path.name.removesuffix(".gz").removesuffix(".txt")
        if name in methods:
            name = str(path)
        try:
            methods[name] = evaluate(read_uvd(path), truth, dataset)
        except ValueError as error:
            message = str(error)
            raise ValueError(message if str(path) in message else f"{path}: {message}") from None
    return methods


def _print_report(methods: dict[str, HandErrors]) -> None:
    for name, errors in methods.items():
        suffix = f"  {name}" if len(methods) > 1 else ""
        typer.echo(f"mean joint error {errors.mean_mm:.3f} mm{suffix}")

    first = next(iter(methods.values()))
    frames, joints = first.errors_mm.shape
    summary = Table(
        title=f"{first.protocol.name}: {frames} frames, {joints} joints",
        caption="success rate: share of frames whose maximum joint error is below ... mm",
    )
    summary.add_column("", justify="right")
    summary.add_column("result", overflow="fold")
    summary.add_column("mean mm", justify="right")
    for threshold in _TABLE_MM:
        summary.add_column(f"< {threshold:.0f}", justify="right")
    for number, (name, errors) in enumerate(methods.items(), start=1):
        rates = success_rate(errors.errors_mm, _TABLE_MM)
        shares = [f"{100 * rate:.1f} %" for rate in rates]
        summary.add_row(str(number), name, f"{errors.mean_mm:.3f}", *shares)

    per_joint = Table(title="mean error in mm", box=box.SIMPLE)
    digits = 3 if len(methods) <= 6 else 1  # ten results fit on 80 columns
    per_joint.add_column("", no_wrap=True)
    for number in range(1, len(methods) + 1):
        per_joint.add_column(str(number), justify="right")
    for subset in first.subset_means_mm:
        per_joint.add_row(
            subset, *(f"{e.subset_means_mm[subset]:.{digits}f}" for e in methods.values())
        )
    if first.subset_means_mm:
        per_joint.add_section()
    means = np.stack([per_joint_error(errors.errors_mm) for errors in methods.values()])
    for joint, values in zip(first.protocol.skeleton.joints, means.T, strict=True):
        per_joint.add_row(joint, *(f"{value:.{digits}f}" for value in values))

    console = Console()
    console.print(summary)
    console.print(per_joint)


def _save_json(methods: dict[str, HandErrors], labels: Path, path: Path) -> None:
    report: dict[str, Any] = {
        "dataset": next(iter(methods.values())).protocol.name,
        "labels": labels.name,
        "thresholds_mm": _CURVE_MM.tolist(),
        "results": {
            name: {
                "frames": len(errors.errors_mm),
                "mean_joint_error_mm": errors.mean_mm,
                "subset_mean_joint_error_mm": errors.subset_means_mm,
                "per_joint_error_mm": dict(
                    zip(
                        errors.protocol.skeleton.joints,
                        per_joint_error(errors.errors_mm).tolist(),
                        strict=True,
                    )
                ),
                "success_rate_max_error": success_rate(errors.errors_mm, _CURVE_MM).tolist(),
                "success_rate_mean_error": mean_error_success_rate(
                    errors.errors_mm, _CURVE_MM
                ).tolist(),
                "area_under_max_error_curve": area_under_curve(
                    _CURVE_MM, success_rate(errors.errors_mm, _CURVE_MM)
                ),
            }
            for name, errors in methods.items()
        },
    }
    write_bytes_atomically(path, (json.dumps(report, indent=2) + "\n").encode())


def _save_picture(methods: dict[str, HandErrors], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    curve, bars = figure.subplots(1, 2)
    first = next(iter(methods.values()))
    joints = first.protocol.skeleton.joints
    places = np.arange(len(joints))
    width = 0.8 / len(methods)
    # Best first, in tab10's ten colours, then the same with dashes.
    ranked = sorted(methods.items(), key=lambda item: item[1].mean_mm)
    for number, (name, errors) in enumerate(ranked):
        color, dash = f"C{number % 10}", "-" if number < 10 else "--"
        rates = 100 * success_rate(errors.errors_mm, _CURVE_MM)
        label = f"{name} ({errors.mean_mm:.2f} mm)"
        curve.plot(_CURVE_MM, rates, dash, color=color, label=label, linewidth=1.8)
        offset = (number - (len(methods) - 1) / 2) * width
        bars.bar(places + offset, per_joint_error(errors.errors_mm), width, color=color)
    curve.set(
        xlabel="threshold on the maximum joint error of a frame (mm)",
        ylabel="frames below the threshold (%)",
        xlim=(0, _CURVE_MM[-1]),
        ylim=(0, 100),
        title=f"{first.protocol.name}: success rate, {len(first.errors_mm)} frames",
    )
    curve.grid(alpha=0.3)
    curve.legend(loc="lower right", fontsize="small", title="mean joint error in brackets")
    bars.set_xticks(places, joints, rotation=60, ha="right", fontsize="small")
    bars.set(ylabel="mean error (mm)", title="error per joint")
    bars.grid(axis="y", alpha=0.3)
    bars.set_axisbelow(True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_bytes_atomically(path, buffer.getvalue())
