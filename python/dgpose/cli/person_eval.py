"""`dgpose person eval`: what a DGPose model makes of labelled people, against truth and judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dgpose.cli.eval_options import JudgedOptions, ReportOptions
from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import Threads, use_threads
from dgpose.cli.terminal import cell, counted, fail, narrow_table

if TYPE_CHECKING:
    from dgpose.metrics.person_evaluation import PersonReport

__all__ = ["evaluate", "print_report"]


@with_groups
def evaluate(
    model: Annotated[
        str, typer.Argument(help="Weight file of dgpose train dgpose, or a shipped model.")
    ],
    *,
    source: Annotated[
        str,
        typer.Option(
            help="rendered (with transfer against the true image), a data set of photographs (lsp, "
            "lspe, h36m, deepfashion, chictopia, market), or a file of a PersonPool."
        ),
    ] = "rendered",
    judged: JudgedOptions,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="PersonPool of other true images, for the Fréchet distance, the mean image and "
            "the mean pose; by default the train part, or of a file that file itself."
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=2, help="So many; 500 rendered people, else all by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of rendered people and samples.")] = 0,
    output: ReportOptions,
    threads: Threads = None,
) -> None:
    """PSNR and SSIM of what a model makes, PCK of its poses, and the same of baselines.

    Poses of generated images are found by the judge, whose own PCK on the true images is printed
    beside; Fréchet distances are in its features.
    """
    from dgpose.data.person_pairs import pose_pairs
    from dgpose.data.person_pool import PersonPool
    from dgpose.data.person_sources import read_people, synthetic_people
    from dgpose.metrics.person_evaluation import evaluate_person_model
    from dgpose.model_zoo import model_path
    from dgpose.models.dgpose import load_model
    from dgpose.nn.keypoint_network import KeypointNetwork

    data, split = judged.data, judged.split.value
    use_threads(threads)
    try:
        networks = load_model(model_path(model))
        network = KeypointNetwork.load(judged.judge)
        size = networks.config.image_size
        count = 500 if images is None and source == "rendered" else images
        pairs = None
        with counted("reading") as watch:
            pool = read_people(
                source, data, split=split, size=size, count=count, seed=seed, progress=watch
            )
            if reference is not None:
                others = PersonPool.load(reference)
            elif Path(source).is_file():
                others = pool
            else:
                others = read_people(
                    source, data, split="train", size=size, count=count, seed=seed, progress=watch
                )
            if source == "rendered":
                people = synthetic_people(data, split=split, size=size, seed=seed)
                pairs = pose_pairs(people, len(pool), source=pool.source, progress=watch)
        with counted("evaluating") as watch:
            report = evaluate_person_model(
                networks, pool, network, others, pairs=pairs, seed=seed, progress=watch
            )
        text = output.save({"model": model, "judge": judged.judge, **report.as_json()})
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    output.tell(text, lambda: print_report(report))


def print_report(report: PersonReport) -> None:
    """The tables of images and of poses."""
    from rich.console import Console

    from dgpose.metrics.keypoints import THRESHOLDS

    typer.echo(f"{report.source}: {report.images:,} images")
    names = ("PSNR", "person", "SSIM", "PCK@0.2", "colours", "sharp", "Fréchet", "diversity")
    shown = narrow_table("images", *names)
    shown.caption = (
        "PCK: poses that the judge finds, %; colours: of the parts, distance from the person's; "
        "sharp: variance of the Laplacian, 1e-4; Fréchet and diversity: in the judge's features"
    )
    for name, row in report.scores.items():
        shown.add_row(
            name,
            cell(row.psnr, 2),
            cell(row.person_psnr, 2),
            cell(row.ssim, 3),
            cell(None if row.pck is None else 100 * row.pck["0.2"], 1),
            cell(row.colors, 3),
            cell(1e4 * row.sharpness, 1),
            cell(row.frechet, 2),
            cell(row.diversity, 2),
        )
    areas = (*(f"@{threshold:g}" for threshold in THRESHOLDS), "area to 0.5")
    poses = narrow_table("poses of the true images, PCK in %", *areas)
    for name, errors in report.poses.items():
        found = [f"{100 * errors.pck(threshold):.1f}" for threshold in THRESHOLDS]
        poses.add_row(name, *found, f"{100 * errors.area:.1f}")
    console = Console()
    console.print(shown)
    console.print(poses)
