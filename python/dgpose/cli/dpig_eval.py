"""`dgpose dpig eval`: what DPIG makes of people whose poses are known, factor by factor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dgpose.cli.eval_options import JudgedOptions, ReportOptions
from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import Threads, use_threads
from dgpose.cli.terminal import cell, counted, fail, narrow_table

if TYPE_CHECKING:
    from dgpose.data.person_pairs import PersonPairs
    from dgpose.metrics.dpig_evaluation import FactorReport

__all__ = ["evaluate", "print_report", "read_pairs_of"]

_RENDERED = 500


@with_groups
def evaluate(
    model: Annotated[
        str, typer.Argument(help="Weight file of dgpose train dpig-..., or a shipped model.")
    ] = "dpig_small",
    *,
    source: Annotated[
        str,
        typer.Option(
            help="rendered (with pairs, so that the true image is known), market or deepfashion "
            "(with pairs, where their list is there), or a file of a PersonPool."
        ),
    ] = "rendered",
    judged: JudgedOptions,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="PersonPool of other true images, for the Fréchet distance and the mean image; by "
            "default the train part, or of a file that file itself."
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=2, help=f"So many, and pairs; {_RENDERED} rendered people, else all."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of rendered people and what is drawn.")] = 0,
    output: ReportOptions,
    device: Annotated[str, typer.Option(help="Of the model: cpu, cuda, ...")] = "cpu",
    threads: Threads = None,
) -> None:
    """Reconstruction, pose-guided generation and drawn factors, against truth, judge and baselines.

    SSIM falls where the source's background is kept, so each factor has its own measure: colours
    of the body's parts, the background outside of the bodies, the pose that the judge finds.
    """
    from dgpose.data.person_pool import PersonPool
    from dgpose.data.person_sources import read_people
    from dgpose.inference.person_keypoints import moved
    from dgpose.metrics.dpig_evaluation import evaluate_generator, generator_of
    from dgpose.model_zoo import model_path
    from dgpose.models.dpig import load_dpig
    from dgpose.nn.keypoint_network import KeypointNetwork

    data, split = judged.data, judged.split.value
    use_threads(threads)
    try:
        networks = moved(load_dpig(model_path(model)), device)
        networks.require("stage1")
        network = KeypointNetwork.load(judged.judge)
        size = networks.config.size
        count = _RENDERED if images is None and source == "rendered" else images
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
                    source, data, split="train", size=size, count=len(pool), seed=seed,
                    progress=watch,
                )  # fmt: skip
            pairs = read_pairs_of(source, data, split, size, count or len(pool), seed)
        with counted("evaluating") as watch:
            report = evaluate_generator(
                generator_of(networks), pool, network, others, pairs=pairs, seed=seed,
                progress=watch,
            )  # fmt: skip
        text = output.save({"model": model, "judge": judged.judge, **report.as_json()})
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    output.tell(text, lambda: print_report(report))


def read_pairs_of(
    source: str, data: Path | None, split: str, size: tuple[int, int], count: int | None, seed: int
) -> PersonPairs | None:
    """Pairs of a source of people; None where it has none.

    Args:
        source: as --source.
        data: folder of the data set.
        split: part.
        size: (H, W).
        count: so many, of photographs evenly spread; None: all.
        seed: of rendered people.
    """
    from dgpose.data.person_pairs import pose_pairs
    from dgpose.data.person_sources import synthetic_people
    from dgpose.data.photo_pairs import PAIRED_SETS, photo_pairs

    if source == "rendered":
        people = synthetic_people(data, split=split, size=size, seed=seed)
        return pose_pairs(people, count or _RENDERED, source=f"rendered pairs, {split} part")
    if source in PAIRED_SETS and data is not None:
        try:
            return photo_pairs(source, data, split, size=size, count=count)
        except FileNotFoundError:
            return None
    return None


def print_report(report: FactorReport) -> None:
    """The tables of images, of drawn factors and of the judge."""
    from rich.console import Console

    from dgpose.metrics.dpig_evaluation import FactorScores
    from dgpose.metrics.keypoints import THRESHOLDS

    typer.echo(f"{report.source}: {report.images:,} images")
    names = ("PSNR", "person", "SSIM", "mask", "PCK", "colour", "ground", "sharp", "FD")
    shown = narrow_table("images", *names)
    shown.caption = (
        "person: PSNR within its mask; mask: SSIM within the body of the true image's pose; PCK: "
        "poses that the judge finds, at 0.2, %; colour: of the parts, distance from the person's; "
        "ground: PSNR of the background against the source's, outside of the bodies; sharp: "
        "variance of the Laplacian, 1e-4; FD: Fréchet distance in the judge's features"
    )
    for name, row in report.scores.items():
        assert isinstance(row, FactorScores)
        shown.add_row(
            name,
            cell(row.psnr, 2),
            cell(row.person_psnr, 2),
            cell(row.ssim, 3),
            cell(row.mask_ssim, 3),
            cell(None if row.pck is None else 100 * row.pck["0.2"], 1),
            cell(row.colors, 3),
            cell(row.background_psnr, 2),
            cell(1e4 * row.sharpness, 1),
            cell(row.frechet, 2),
        )
    console = Console()
    console.print(shown)
    if report.diversity:
        varied = narrow_table(
            "one factor varied, the others kept", "drawn", "of images", "FD between"
        )
        varied.caption = "mean distance of two images in the judge's features"
        for name, found in report.diversity.items():
            varied.add_row(name, *(f"{figure:.3f}" for figure in found))
        console.print(varied)
    judge = report.poses["judge"]
    found_at = ", ".join(f"@{t:g} {100 * judge.pck(t):.1f} %" for t in THRESHOLDS)
    typer.echo(f"the judge on the true images: PCK {found_at}")
