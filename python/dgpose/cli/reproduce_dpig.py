"""`dgpose reproduce dpig`: train on a data set as published, print published figures beside.

Steps are those of the authors' training scripts; one stage 2 trains all mappers here, there that of
poses is apart, for half the steps with twice the batch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from dgpose.cli.dpig_eval import print_report, read_pairs_of
from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import TRY, HardwareOptions, TrainPrecision, use_threads
from dgpose.cli.terminal import counted, fail, is_first_rank
from dgpose.cli.train_dpig import Recipe, steps_of
from dgpose.data.person_pool import PersonPool
from dgpose.data.person_sources import read_people
from dgpose.data.reid_sets import market_reid_set
from dgpose.metrics.dpig_evaluation import evaluate_generator, generator_of
from dgpose.metrics.published import FACTOR_RESULTS, REID_RESULTS
from dgpose.metrics.reid_features import foreground_codes, reidentify_by
from dgpose.models.dpig import DPIG, DPIGConfig
from dgpose.nn.keypoint_network import KeypointNetwork
from dgpose.train.dpig import (
    DPIGTrainConfig,
    DPIGTrainResult,
    train_dpig_pose,
    train_dpig_stage1,
    train_dpig_stage2,
)
from dgpose.train.run import check_devices, require_resume
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["dpig"]

_SIZES = {"market": (128, 64), "deepfashion": (256, 256)}
_SCORES = "scores.json"


class PhotoSet(str, Enum):
    """Data sets of the published tables."""

    MARKET = "market"
    DEEPFASHION = "deepfashion"


@with_groups
def dpig(
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    *,
    dataset: Annotated[
        PhotoSet,
        typer.Option(help="Market-1501 (128x64), or DeepFashion (256x256, no background)."),
    ],
    config: Annotated[
        Recipe, typer.Option(help="As published, or the small networks (128x64).")
    ] = Recipe.PAPER,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs; by default runs/reproduce_dpig_DATASET."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and noise.")] = 0,
    precision: Annotated[
        TrainPrecision, typer.Option(help="Of stage 1 while training.")
    ] = TrainPrecision.FLOAT32,
    hardware: HardwareOptions,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of each stage; by default the recipe's.", rich_help_panel=TRY),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=2, help="Test images and pairs; all by default.", rich_help_panel=TRY),
    ] = None,
) -> None:
    """Train all stages of DPIG, generate the test pairs, print SSIM and mask-SSIM beside.

    Learns from the training part of the data set, of which a share is held out to choose the best
    weights by, and tests on the pairs of market-pairs-test.csv or fasion-pairs-test.csv. On Market
    people are found again by their foreground codes, too. All images are held in memory: 10 GB of
    DeepFashion. Ctrl-C stops at a checkpoint, and the same command goes on.
    """
    use_threads(hardware.threads)
    name, paper = dataset.value, config is Recipe.PAPER
    folder = out or Path("runs") / f"reproduce_dpig_{name}"
    try:
        size = _SIZES[name]
        model = DPIGConfig.paper(size) if paper else DPIGConfig.small(size=size)
        run = DPIGTrainConfig(
            folder,
            model=model,
            steps=1,
            seed=seed,
            resume=True,
            **hardware.settings(),
        )
        runs = {
            stage: replace(
                run,
                out=folder / stage,
                steps=steps or steps_of(stage, model),
                precision=precision.value if stage == "stage1" else "32-true",
            )
            for stage in ("stage1", "pose", "stage2")
        }
        for each in runs.values():
            require_resume(each)
        check_devices(run)
        scores = _scores(name, data, images, runs)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    if scores is None or not is_first_rank():
        return
    published = paper and steps is None and images is None and run.devices * run.nodes == 1
    exact = published and precision is TrainPrecision.FLOAT32
    _print_table(name, scores, "" if exact else " (not the published recipe)")


def _scores(
    name: str, data: Path, images: int | None, runs: dict[str, DPIGTrainConfig]
) -> dict[str, Any] | None:
    """What was measured; trains what is not there; None where a training was stopped, and on all
    ranks but the first, which measures."""
    kept = ("model", "steps", "seed", "precision", "devices", "nodes")
    settings: dict[str, Any] = {"data": name, "images": images}
    for stage, run in runs.items():
        settings[stage] = {key: value for key, value in asdict(run).items() if key in kept}
    settings = json.loads(json.dumps(settings))
    file = runs["stage1"].out.parent / _SCORES
    if file.is_file():
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["settings"] != settings:
            raise ValueError(f"{file} holds results of other settings: give another --out")
        scores: dict[str, Any] = content["scores"]
        return scores
    size = _SIZES[name]
    # The test images first: what is wrong with them is said before training.
    test, val, train = (_read(name, data, split, size) for split in ("test", "val", "train"))
    pairs = read_pairs_of(name, data, "test", size, images, runs["stage1"].seed)
    if pairs is None and is_first_rank():
        typer.echo("no list of test pairs is there: reconstructions alone are measured")
    model = _trained(runs, train, val)
    if model is None or not is_first_rank():
        return None
    if runs["stage1"].accelerator != "cpu" and torch.cuda.is_available():
        model = model.cuda()
    if images is not None and images < len(test):
        test = test.subset(torch.linspace(0, len(test) - 1, images).round().long())
    reference = train.subset(torch.linspace(0, len(train) - 1, len(test)).round().long())
    report = evaluate_generator(
        generator_of(model), test, KeypointNetwork.load(), replace(reference, names=()), pairs=pairs
    )
    scores = {"pairs": 0 if pairs is None else len(pairs.source), **report.as_json()}
    if name == "market":
        found = reidentify_by(
            lambda pool: foreground_codes(model, pool), market_reid_set(data, size=size)
        )
        scores["reidentification"] = found.as_json()
    print_report(report)
    text = json.dumps({"settings": settings, "scores": scores}, indent=1) + "\n"
    write_bytes_atomically(file, text.encode())
    return scores


def _trained(runs: dict[str, DPIGTrainConfig], train: PersonPool, val: PersonPool) -> DPIG | None:
    """The model after all stages; None where one was stopped."""
    model: DPIG | None = None
    for stage, run in runs.items():
        result: DPIGTrainResult[Any]
        if stage == "stage1":
            result = train_dpig_stage1(run, train, val)
        elif stage == "pose":
            result = train_dpig_pose(run, model, train, val)
        else:
            assert model is not None
            result = train_dpig_stage2(run, model, train, val)
        if not result.finished:
            if is_first_rank():
                typer.echo(f"stopped in {run.out}: the same command goes on")
            return None
        model = result.model
    return model


def _read(name: str, data: Path, split: str, size: tuple[int, int]) -> PersonPool:
    with counted(f"reading {split}", shown=is_first_rank()) as watch:
        pool = read_people(name, data, split=split, size=size, progress=watch)
    if is_first_rank():
        typer.echo(f"{split}: {len(pool):,} images, {pool.source}")
    return pool


def _print_table(name: str, scores: dict[str, Any], said: str) -> None:
    rows = scores["scores"]
    table = Table(
        title=f"{name}: the source's person in the target's pose",
        caption="published: as later papers quote them. DPIG keeps the source's background, which "
        "is not the target's; its code takes mask-SSIM by the source's mask, we by the target's",
    )
    table.add_column("method", overflow="fold")
    for column in ("SSIM", "mask-SSIM", "re-ID rank-1, %"):
        table.add_column(column, justify="right")
    for published in FACTOR_RESULTS:
        if published.data == name:
            similar = published.mask_ssim
            table.add_row(
                f"{published.method}, published", f"{published.ssim:.3f}",
                "" if similar is None else f"{similar:.3f}",
            )  # fmt: skip
    found = scores.get("reidentification")
    if found is not None:
        for result in REID_RESULTS:
            table.add_row(f"{result.method}, published", "", "", f"{result.rank1:.1f}")
    table.add_section()
    for row in ("copy of the source", "reconstruction", "pose-guided"):
        if row in rows:
            own = row == "pose-guided" or (row == "reconstruction" and not scores["pairs"])
            table.add_row(
                f"{row}, this run{said}", f"{rows[row]['ssim']:.3f}",
                f"{rows[row]['mask_ssim']:.3f}",
                f"{100 * found['rank_1']:.1f}" if own and found is not None else "",
            )  # fmt: skip
    Console().print(table)
