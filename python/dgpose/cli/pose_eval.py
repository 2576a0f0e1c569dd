"""`dgpose pose eval` and `dgpose pose embedding`: how good a retrieval is, and what it learned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import (
    Split,
    SplitBy,
    SplitByOption,
    SplitOption,
    Threads,
    integers,
    use_threads,
)
from dgpose.cli.terminal import counted, fail
from dgpose.data.image_files import save_picture
from dgpose.data.pose_pool import PosePool
from dgpose.data.pose_sources import labelled_pool
from dgpose.inference.pose_retriever import PoseRetriever
from dgpose.metrics.body import BodyErrors, pck3d
from dgpose.metrics.embedding import EmbeddingAnalysis, analyse_embedding
from dgpose.metrics.pose_retrieval import CLOSE_MM, RetrievalReport, evaluate_retrieval
from dgpose.metrics.published import BODY_RESULTS
from dgpose.models.max_margin import load_model
from dgpose.viz.embedding import embedding_picture
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["embedding", "evaluate", "pool", "print_errors"]

_BATCH = 64
_SANITY = 1000


class PoolSource(str, Enum):
    """Where labelled crops come from."""

    PEOPLE = "people"
    H36M = "h36m"
    POOL = "pool"


@dataclass(frozen=True)
class _PoolOptions:
    """Labelled crops."""

    source: Annotated[
        PoolSource, typer.Option(help="people (rendered), h36m, or pool (a pose pool).")
    ] = PoolSource.PEOPLE
    data: Annotated[
        Path | None,
        typer.Option(
            help="people: folder with mocap/, without it they are in kinematic poses; h36m: its "
            "folder, or a label file of MMPose's form; pool: the file.",
            envvar="DGPOSE_DATA",
        ),
    ] = None
    frames: Annotated[
        int | None,
        typer.Option(min=1, help="So many crops; 1000 rendered people, else all by default."),
    ] = None
    split: SplitOption = Split.TEST
    split_by: SplitByOption = SplitBy.SEQUENCE
    every: Annotated[int, typer.Option(min=1, help="h36m: every so many frames.")] = 5
    seed: Annotated[int, typer.Option(min=0, help="Of the rendered people.")] = 0
    threads: Threads = None

    def open(self, size: int) -> PosePool:
        """Raises as `labelled_pool`."""
        use_threads(self.threads)
        with counted("reading") as watch:
            return labelled_pool(
                self.source.value,
                self.data,
                size,
                frames=self.frames,
                split=self.split.value,
                split_by=self.split_by.value,
                every=self.every,
                seed=self.seed,
                progress=watch,
            )


@dataclass(frozen=True)
class _TrainPoolOptions(_PoolOptions):
    split: SplitOption = Split.TRAIN


@with_groups
def evaluate(
    model: Annotated[Path, typer.Argument(help="Weight file of dgpose pose train.")],
    index: Annotated[Path, typer.Argument(help="Index of dgpose pose index, for this model.")],
    *,
    labelled: _PoolOptions,
    counts: Annotated[str, typer.Option(help="Candidates to average, ascending.")] = "20,500",
    out: Annotated[Path | None, typer.Option(help=".json to write.")] = None,
) -> None:
    """MPJPE and PA-MPJPE of Max, Avg, the auxiliary head, the best candidate and the mean pose.

    All errors are root-relative, in mm. Of h36m the published table is printed beside.
    """
    try:
        averaged = integers("--counts", counts)
        retriever = PoseRetriever.load(model, index)
        crops = labelled.open(retriever.image_size)
        with counted("estimating") as watch:
            report = evaluate_retrieval(retriever, crops, counts=averaged, progress=watch)
        if out is not None:
            text = json.dumps(_as_json(report, crops), indent=1) + "\n"
            write_bytes_atomically(out, text.encode())
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo(f"{crops.source}; {len(retriever.index):,} candidates")
    print_errors(report.methods, published=labelled.source is PoolSource.H36M)
    typer.echo(
        f"best by score within {CLOSE_MM:.0f} mm of the truth: {100 * report.close_share:.1f} %"
    )
    told = ", ".join(f"{name} {value:+.2f}" for name, value in report.guesses.items())
    typer.echo(f"rank correlation of the error with what is known without labels: {told}")
    if labelled.source is PoolSource.H36M and len(crops) < _SANITY:
        typer.echo(f"{len(crops)} frames show that it runs, not how good it is")
    if out is not None:
        typer.echo(f"saved {out}")


@with_groups
def embedding(
    model: Annotated[Path, typer.Argument(help="Weight file of dgpose pose train.")],
    out: Annotated[Path, typer.Option(help="Picture to write, .png.")],
    *,
    labelled: _PoolOptions,
) -> None:
    """Principal components of both embeddings, coloured by the body's heading and leg spread.

    heading R: multiple correlation of a component with sine and cosine of the direction in which
    hips and shoulders face; ankles |r|: with the distance of the ankles.
    """
    try:
        networks = load_model(model)
        size = networks.config.image_size
        crops = labelled.open(size)
        images = torch.cat([networks.embed_images(part) for part in crops.images.split(_BATCH)])  # type: ignore[no-untyped-call]
        embedded = {"poses": networks.embed_poses(crops.poses), "images": images}
        analyses = {
            name: analyse_embedding(rows.numpy(), crops.poses.numpy())
            for name, rows in embedded.items()
        }
        save_picture(out, embedding_picture(analyses, crops.source))
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    _print_components(analyses)
    typer.echo(f"picture: {out}")


@with_groups
def pool(
    out: Annotated[Path, typer.Option(help="File to write, such as pool.safetensors.")],
    size: Annotated[int, typer.Option(min=16, help="Edge of the crops in pixels.")],
    *,
    labelled: _TrainPoolOptions,
) -> None:
    """Write labelled crops to one file, for dgpose pose train --pool and --source pool."""
    try:
        crops = labelled.open(size)
        crops.save(out)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo(f"{crops.source}: {len(crops):,} crops of {size} pixels")
    typer.echo(f"saved {out}: {out.stat().st_size:,} bytes")


def print_errors(methods: Mapping[str, BodyErrors], *, published: bool = False) -> None:
    """A table of the methods, and where there are several actions two tables of these.

    Args:
        methods: errors by name.
        published: print what the paper has for Human3.6M's S9 and S11 beside it.
    """
    first = next(iter(methods.values()))
    table = _table(f"{len(first.errors_mm):,} poses: error in mm, relative to the hip")
    table.caption = "frames: mean over frames; actions: mean of the actions' means"
    table.add_column("method", no_wrap=True)
    for name in ("MPJPE frames", "MPJPE actions", "PA-MPJPE frames", "PA-MPJPE actions"):
        table.add_column(name, justify="right")
    table.add_column("within 150 mm", justify="right")
    if published:
        table.add_column("paper", justify="right")
    known = {result.method: result for result in BODY_RESULTS}
    for name, errors in methods.items():
        means = (
            errors.frame_mean_mm,
            errors.action_mean_mm,
            errors.aligned_frame_mean_mm,
            errors.aligned_action_mean_mm,
        )
        cells = [f"{mean:.2f}" for mean in means] + [f"{100 * pck3d(errors.errors_mm):.1f} %"]
        paper = known.get(f"Max-margin, {name}") if published else None
        table.add_row(name, *cells, *([f"{paper.mean_mm:.2f}"] if paper else []))
    console = Console()
    console.print(table)
    if len(first.by_action) > 1:
        for aligned in (False, True):
            console.print()
            console.print(_by_action(methods, aligned, published and not aligned))
    if published:
        others = ", ".join(
            f"{method} {result.mean_mm:.2f}"
            for method, result in known.items()
            if method.removeprefix("Max-margin, ") not in methods
        )
        typer.echo(
            "paper: published, not reproduced here; subjects S9 and S11, six actions, by action "
            f"Avg(500); others there: {others}"
        )


def _by_action(methods: Mapping[str, BodyErrors], aligned: bool, published: bool) -> Table:
    table = _table(f"{'PA-MPJPE' if aligned else 'MPJPE'} by action, mm")
    table.add_column("action", no_wrap=True)
    for name in ("poses", *methods):
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))
    paper = next(result for result in BODY_RESULTS if result.by_action)
    if published:
        table.add_column("paper", justify="right")
    actions = [errors.by_action for errors in methods.values()]
    for action, first in actions[0].items():
        means = [of[action].pa_mpjpe_mm if aligned else of[action].mpjpe_mm for of in actions]
        cells = [f"{first.frames:,}", *(f"{mean:.1f}" for mean in means)]
        if published and action in paper.by_action:
            cells.append(f"{paper.by_action[action]:.2f}")
        table.add_row(action, *cells)
    return table


def _table(title: str) -> Table:
    """Eight columns of it fit on 80 characters."""
    return Table(
        title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False,
        title_justify="left", caption_justify="left",
    )  # fmt: skip


def _print_components(analyses: Mapping[str, EmbeddingAnalysis]) -> None:
    table = _table("principal components")
    for column in ("embedding", "component", "variance", "heading R", "ankles |r|"):
        table.add_column(column, justify="left" if column == "embedding" else "right")
    for name, analysis in analyses.items():
        rows = zip(
            analysis.variance_share,
            analysis.heading_correlation,
            analysis.leg_correlation,
            strict=True,
        )
        for number, (share, heading, legs) in enumerate(rows, start=1):
            table.add_row(
                name, str(number), f"{100 * share:.1f} %", f"{heading:.2f}", f"{legs:.2f}"
            )
        table.add_section()
    Console().print(table)


def _as_json(report: RetrievalReport, pool: PosePool) -> dict[str, Any]:
    return {
        "source": pool.source,
        "poses": len(pool),
        "share_within_30_mm": report.close_share,
        "rank_correlation_with_error": report.guesses,
        "methods": {
            name: {
                "mpjpe_mm": errors.frame_mean_mm,
                "mpjpe_mean_of_actions_mm": errors.action_mean_mm,
                "pa_mpjpe_mm": errors.aligned_frame_mean_mm,
                "pa_mpjpe_mean_of_actions_mm": errors.aligned_action_mean_mm,
                "pck3d_150mm": pck3d(errors.errors_mm),
                "per_joint_mm": errors.per_joint_mm.tolist(),
                "by_action": {
                    action: {
                        "poses": e.frames,
                        "mpjpe_mm": e.mpjpe_mm,
                        "pa_mpjpe_mm": e.pa_mpjpe_mm,
                    }
                    for action, e in errors.by_action.items()
                },
            }
            for name, errors in report.methods.items()
        },
    }
