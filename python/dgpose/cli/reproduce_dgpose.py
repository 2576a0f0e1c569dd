"""`dgpose reproduce dgpose`: train on a data set as published, print the published table beside.

The paper leaves layers, weights of losses, image size and the number of steps open: what stands
here is `DGPoseConfig.paper`, whose values marked [?] are our choice.
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

from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import TRY, HardwareOptions, Precision, TrainPrecision, use_threads
from dgpose.cli.terminal import counted, fail, is_first_rank
from dgpose.data.person_pool import PersonPool
from dgpose.data.person_sources import read_people
from dgpose.metrics.image_quality import psnr, ssim
from dgpose.metrics.person_evaluation import reconstruct
from dgpose.metrics.published import PERSON_RESULTS, PERSON_SET_SIZES
from dgpose.models.dgpose import ConditionalDGPose, DGPoseConfig, DGPoseModel, SemiDGPose
from dgpose.train.dgpose import DGPoseTrainConfig, train_dgpose
from dgpose.train.run import check_devices, require_resume
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["dgpose"]

_STEPS = 100_000
_IMAGE_SIZE = 64
_AT_ONCE = 128
_SCORES = "scores.json"
_SHARES = {"h36m": (1.0, 0.75, 0.5, 0.25)}


class PersonSet(str, Enum):
    """Data sets of the published tables."""

    DEEPFASHION = "deepfashion"
    CHICTOPIA = "chictopia"
    H36M = "h36m"


class System(str, Enum):
    """Models of the published tables."""

    CONDITIONAL = "conditional"
    SEMI = "semi"


@with_groups
def dgpose(
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    *,
    dataset: Annotated[PersonSet, typer.Option(help="Which one it is.")],
    system: Annotated[
        System | None, typer.Option(help="By default conditional; semi for h36m, as published.")
    ] = None,
    labelled: Annotated[
        str | None,
        typer.Option(
            help="Shares of the training images whose poses are used, with commas; by default 1, "
            "and those of the published table for h36m."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs; by default runs/reproduce_dgpose_DATASET."),
    ] = None,
    size: Annotated[
        int, typer.Option(help="Edge of the crops in pixels; the paper's is not known.")
    ] = _IMAGE_SIZE,
    every: Annotated[
        int, typer.Option(min=1, help="h36m: take every so many of 50 frames a second.")
    ] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, labels, batches and noise.")] = 0,
    precision: Precision = TrainPrecision.FLOAT32,
    hardware: HardwareOptions,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Of each model; {_STEPS} where --minutes is not given. The paper does not say.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Wall-clock budget of each model.", rich_help_panel=TRY),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images a step and device.", rich_help_panel=TRY)
    ] = None,
    mapper_steps: Annotated[
        int | None, typer.Option(help="Of the mapper before them.", rich_help_panel=TRY)
    ] = None,
) -> None:
    """Train DGPose as published, reconstruct the test images, print PSNR and SSIM beside.

    Learns from the training part of the data set, of which a share is held out to choose the best
    weights by (DeepFashion: one item in 50; h36m: S8), and tests on the test part; of h36m on as
    many images as published. Ctrl-C stops at a checkpoint, and the same command goes on.
    """
    use_threads(hardware.threads)
    name = dataset.value
    folder = out or Path("runs") / f"reproduce_dgpose_{name}"
    kind = system.value if system is not None else "semi" if name == "h36m" else "conditional"
    try:
        shares = _shares(labelled, _SHARES.get(name, (1.0,)) if kind == "semi" else (1.0,))
        published = DGPoseConfig.paper(size, system=kind)
        changes: dict[str, Any] = {"batch": batch, "mapper_steps": mapper_steps}
        given = {key: value for key, value in changes.items() if value is not None}
        run = DGPoseTrainConfig(
            folder,
            model=replace(published, recipe=replace(published.recipe, **given)),
            steps=_STEPS if steps is None and minutes is None else steps,
            minutes=minutes,
            seed=seed,
            resume=True,
            precision=precision.value,
            **hardware.settings(),
        )
        runs = [
            replace(run, labelled=share, out=folder / f"{kind}_{100 * share:g}") for share in shares
        ]
        for each in runs:
            require_resume(each)
        check_devices(run)
        scores = _scores(name, data, every, runs)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    if scores is None or not is_first_rank():
        return
    as_published = run.model == published and size == _IMAGE_SIZE and run.devices * run.nodes == 1
    exact = as_published and minutes is None and precision is TrainPrecision.FLOAT32
    _print_table(name, kind, scores, "" if exact else " (not the published recipe)")


def _shares(text: str | None, default: tuple[float, ...]) -> tuple[float, ...]:
    if text is None:
        return default
    try:
        shares = tuple(float(word) for word in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"--labelled must be shares in (0, 1] with commas, got {text!r}")
    return shares


def _scores(
    name: str, data: Path, every: int, runs: list[DGPoseTrainConfig]
) -> dict[float, dict[str, float]] | None:
    """Scores of the runs by their labelled share: trains what is not there; None where stopped."""
    found: dict[float, dict[str, float]] = {}
    pools: dict[str, PersonPool] = {}
    for run in runs:
        kept = ("model", "labelled", "steps", "minutes", "seed", "precision", "devices", "nodes")
        settings = {key: value for key, value in asdict(run).items() if key in kept}
        settings = json.loads(json.dumps(settings | {"data": name, "every": every}))
        file = run.out / _SCORES
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["settings"] != settings:
                raise ValueError(f"{file} holds results of other settings: give another --out")
            found[run.labelled] = content["scores"]
            continue
        if not pools:  # the test images first: what is wrong with them is said before training
            pools = {
                split: _read(name, data, split, run.model.image_size, every)
                for split in ("test", "val", "train")
            }
        result = train_dgpose(run, pools["train"], pools["val"])
        if not result.finished:
            if is_first_rank():
                typer.echo(f"stopped in {run.out}: the same command goes on")
            return None
        found[run.labelled] = _judged(result.model, pools["test"])
        if is_first_rank():
            content = {"settings": settings, "scores": found[run.labelled]}
            text = json.dumps(content, indent=1) + "\n"
            write_bytes_atomically(file, text.encode())
    return found


def _read(name: str, data: Path, split: str, size: int, every: int) -> PersonPool:
    count = PERSON_SET_SIZES[name][1] if (name, split) == ("h36m", "test") else None
    with counted(f"reading {split}", shown=is_first_rank()) as watch:
        pool = read_people(
            name, data, split=split, size=size, count=count, every=every, progress=watch
        )
    if is_first_rank():
        typer.echo(f"{split}: {len(pool):,} images, {pool.source}")
    return pool


def _judged(model: DGPoseModel, test: PersonPool) -> dict[str, float]:
    """PSNR and SSIM of reconstructions, means over the test images."""
    assert isinstance(model, ConditionalDGPose | SemiDGPose)
    ratios, similarities = [], []
    poses, known = test.body
    for rows in torch.split(torch.arange(len(test)), _AT_ONCE):
        images = test.images[rows].float() / 255
        made = reconstruct(model, images, poses[rows], known[rows]).cpu()
        ratios.append(psnr(made, images))
        similarities.append(ssim(made, images))
    return {
        "psnr_db": float(torch.cat(ratios).mean()),
        "ssim": float(torch.cat(similarities).mean()),
        "images": len(test),
    }


def _print_table(name: str, kind: str, scores: dict[float, dict[str, Any]], said: str) -> None:
    train, test, edge = PERSON_SET_SIZES[name]
    table = Table(
        title=f"{name}: reconstruction of the test images",
        caption=f"published: {train:,} images to train on, {test:,} to test on, {edge}x{edge}; at "
        "which size they were compared is not known",
    )
    table.add_column("method", overflow="fold")
    for column in ("labels", "PSNR, dB", "SSIM", "test images"):
        table.add_column(column, justify="right")
    for row in PERSON_RESULTS:
        if row.data == name:
            table.add_row(
                f"{row.method}, published", "" if row.labelled is None else f"{row.labelled:.0%}",
                f"{row.psnr_db:.2f}", f"{row.ssim:.2f}", f"{test:,}",
            )  # fmt: skip
    table.add_section()
    for share, found in scores.items():
        table.add_row(
            f"{kind.capitalize()}-DGPose, this run{said}", f"{share:.0%}",
            f"{found['psnr_db']:.2f}", f"{found['ssim']:.2f}", f"{found['images']:,}",
        )  # fmt: skip
    Console().print(table)
