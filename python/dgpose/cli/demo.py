"""`dgpose demo`: the hand pipeline on a rendered sequence with known joints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgpose.cli.terminal import fail, progress

__all__ = ["demo"]

_TILES = 12
_VIEW_MM = 210.0


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the contact sheet.")] = Path("out/demo"),
    seed: Annotated[int, typer.Option(help="Another seed, another sequence.")] = 0,
    frames: Annotated[int, typer.Option(min=1, max=1000, help="Length of the sequence.")] = 240,
    model: Annotated[
        str, typer.Option(help="accurate, fast, or a weight file of dgpose train hand.")
    ] = "accurate",
) -> None:
    """Estimate a rendered hand in motion: frames/s, error in mm, and a contact sheet.

    Needs no camera and no data: 640x480 depth images are rendered with a sensor's noise, the hand
    is found in each, and the 14 scored joints are compared with the true ones.
    """
    from dgpose.cli.hand import print_summary
    from dgpose.data.cameras import project
    from dgpose.data.depth_sources import synthetic_frames
    from dgpose.data.image_files import save_picture
    from dgpose.inference import HandEstimator
    from dgpose.inference.hand_run import estimate, summarise
    from dgpose.viz.hand import SheetTile, contact_sheet

    try:
        estimator = HandEstimator.load(model)
        results, tiles = [], []
        shown = {round((k + 0.5) * frames / _TILES - 0.5) for k in range(_TILES)}
        # All are rendered first: taking turns would slow the estimator down, as no camera does.
        inputs = list(progress(synthetic_frames(seed, frames), frames, "rendering"))
        for index, item in enumerate(progress(inputs, frames)):
            result = estimate(estimator, item)
            results.append(result)
            pose = result.pose
            if index not in shown or pose is None:
                continue
            assert item.depth is not None
            assert item.camera is not None
            assert item.truth_mm is not None
            truth = item.truth_mm
            u, v, mm = project(truth.mean(axis=0), item.camera).tolist()
            error = result.errors_mm
            state = f"not found: {pose.reason}" if error is None else f"{error.mean():.1f} mm"
            tiles.append(
                SheetTile(
                    item.depth,
                    item.camera,
                    (u, v, mm),
                    pose.joints_px if pose.found else None,
                    project(truth, item.camera)[:, :2],
                    f"frame {index}: {state}",
                    _VIEW_MM,
                )
            )
        summary = summarise(results)
        error_mm = summary["mean_error_mm"]
        title = f"dgpose demo, seed {seed}: rendered depth 640x480, hand found by itself"
        if error_mm is not None:
            title += f", mean error {error_mm:.1f} mm"
        picture = out / "hand.png"
        out.mkdir(parents=True, exist_ok=True)
        save_picture(picture, contact_sheet(tiles, title))
    except (ValueError, OSError) as error:
        fail(error)
    info = estimator.info()
    print_summary(summary)
    typer.echo(f"engine {info['engine']}, {info['precision']}, {info['cpu_capability']}")
    typer.echo(f"contact sheet: {picture}")
