"""`dgpose reproduce`: train as a paper says, and print our figures beside the published ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from dgpose.cli.eval import score
from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import (
    TRY,
    Centers,
    HandSetName,
    HardwareOptions,
    TestCenters,
    TrainPrecision,
    integers,
    three_steps,
    use_threads,
)
from dgpose.cli.reproduce_dgpose import dgpose
from dgpose.cli.reproduce_dpig import dpig
from dgpose.cli.reproduce_max_margin import max_margin
from dgpose.cli.terminal import fail, is_first_rank
from dgpose.cli.train_crossing_nets import (
    describe,
    networks_for,
    open_images,
    read_pool,
    train,
)
from dgpose.data.cameras import project
from dgpose.data.hand_datasets import MSRA_SUBJECTS
from dgpose.data.hand_pool import UNIT_MM
from dgpose.metrics.hand import HandErrors, read_uvd, write_uvd
from dgpose.metrics.hand_pool import pool_estimates
from dgpose.metrics.published import HAND_RESULTS, HandResult
from dgpose.models.crossing_nets import CrossingNetsConfig
from dgpose.train.crossing_nets import CrossingNetsTrainConfig
from dgpose.train.run import check_devices, require_resume
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Published tables, beside what this code measures.")


app.command()(dgpose)
app.command()(dpig)
app.command()(max_margin)


@app.command()
@with_groups
def crossing_nets(
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    *,
    dataset: Annotated[HandSetName, typer.Option(help="Which one it is.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs; by default runs/reproduce_crossing_nets_DATASET."),
    ] = None,
    subjects: Annotated[
        str | None,
        typer.Option(help="MSRA: those left out, one after the other, as 0,3; by default all."),
    ] = None,
    centers: Centers = None,
    test_centers: TestCenters = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and noise.")] = 0,
    precision: Annotated[TrainPrecision, typer.Option(help="Of the GAN.")] = TrainPrecision.FLOAT32,
    hardware: HardwareOptions,
    epochs_scale: Annotated[
        float, typer.Option(help="Share of the published epochs.", rich_help_panel=TRY)
    ] = 1.0,
    steps: Annotated[
        str | None,
        typer.Option(help="VAE,GAN,JOINT: steps in place of epochs.", rich_help_panel=TRY),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Frames a step and device.", rich_help_panel=TRY)
    ] = None,
    image_size: Annotated[
        int, typer.Option(help="Edge of the crops in pixels.", rich_help_panel=TRY)
    ] = 128,
) -> None:
    """Train Crossing Nets as published, test, and print the error beside published ones.

    Learns from the data set's training images (MSRA: all subjects but one, for each in turn) and
    writes its estimates of the test images to OUT/crossing_nets.txt, the labels to OUT/labels.txt:
    one image a line, J x (u v d), as dgpose eval hand reads them. Ctrl-C stops at a checkpoint,
    and the same command goes on.
    """
    use_threads(hardware.threads)
    name = dataset.value
    out = out or Path("runs") / f"reproduce_crossing_nets_{name}"
    try:
        networks = networks_for(name, "paper", image_size=image_size, batch=batch)
        run = CrossingNetsTrainConfig(
            out,
            networks=_scaled(networks, epochs_scale),
            steps=three_steps(steps),
            seed=seed,
            resume=True,
            precision=precision.value,
            **hardware.settings(),
        )
        folds = _folds(name, subjects)
        require_resume(run)
        check_devices(run)
        for left_out in folds:
            if not _fold(name, data, left_out, centers, test_centers, run):
                return
        if not is_first_rank():
            return
        for file in ("crossing_nets.txt", "labels.txt"):
            parts = [read_uvd(_folder(out, left_out) / file) for left_out in folds]
            write_uvd(out / file, np.concatenate(parts))
        errors = score([out / "crossing_nets.txt"], out / "labels.txt", name, out)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    method = "this run" if _as_published(run, name) else "this run (not the published recipe)"
    if name == "msra" and len(folds) < len(MSRA_SUBJECTS):
        method += f", subjects {', '.join(str(s) for (s,) in folds)} alone"
    _print_table(name, method, errors["crossing_nets"])


def _as_published(config: CrossingNetsTrainConfig, name: str) -> bool:
    """Whether recipe and batches are the published ones; each process has a batch of its own."""
    alone = config.devices * config.nodes == 1 and config.precision == "32-true"
    return alone and config.steps is None and config.networks == networks_for(name, "paper")


def _folds(name: str, subjects: str | None) -> list[tuple[int, ...]]:
    """Subjects that are left out of training, run by run; none where the set has a test part."""
    if name != "msra":
        if subjects is not None:
            raise ValueError(f"--subjects are MSRA's, and {name} is split by its own files")
        return [()]
    chosen = MSRA_SUBJECTS if subjects is None else sorted(set(integers("--subjects", subjects)))
    if not set(chosen) <= set(MSRA_SUBJECTS):
        raise ValueError(f"--subjects must be 0 to {MSRA_SUBJECTS[-1]}, got {subjects}")
    return [(subject,) for subject in chosen]


def _folder(out: Path, left_out: Sequence[int]) -> Path:
    return out / (f"without_P{left_out[0]}" if left_out else "run")


def _scaled(networks: CrossingNetsConfig, scale: float) -> CrossingNetsConfig:
    if scale <= 0:
        raise ValueError(f"--epochs-scale must be positive, got {scale}")
    stages = {
        name: replace(stage, epochs=max(1, round(stage.epochs * scale)))
        for name in ("vae", "gan", "joint")
        for stage in [getattr(networks, name)]
    }
    return replace(networks, warm_up_epochs=round(networks.warm_up_epochs * scale), **stages)


def _fold(
    name: str,
    data: Path,
    left_out: Sequence[int],
    centers: Path | None,
    test_centers: Path | None,
    config: CrossingNetsTrainConfig,
) -> bool:
    """One training and its results, unless they are there; False where it was stopped."""
    folder = _folder(config.out, left_out)
    own = centers if name == "msra" else test_centers
    kept = ("networks", "steps", "seed", "precision", "devices", "nodes")
    settings = {key: value for key, value in asdict(config).items() if key in kept}
    settings |= {"data": name, "centers": [centers and centers.name, own and own.name]}
    text = json.dumps(settings, indent=1) + "\n"
    if (folder / "settings.json").is_file():
        if (folder / "settings.json").read_text(encoding="utf-8") != text:
            raise ValueError(f"{folder} holds results of other settings: give another --out")
        return True
    # The test images first: what is wrong with them is said before the hours of training.
    test = open_images(name, data, "test", left_out, own)
    frames = open_images(name, data, "train", left_out, centers)
    test_pool = read_pool(test, config.networks, every_frame=True)
    pool = read_pool(frames, config.networks)
    run = replace(config, out=folder)
    nets = train(run, pool, describe(name, left_out, centers), go_on="")
    if nets is None:
        return False
    if is_first_rank():
        assert test_pool.centers_mm is not None
        joints = pool_estimates(nets, test_pool) * UNIT_MM + test_pool.centers_mm[:, None]
        # With the camera that the labels were read with: evaluation may have one of its own.
        write_uvd(folder / "crossing_nets.txt", project(joints.double().numpy(), test.camera))
        write_uvd(folder / "labels.txt", test.uvd)
        write_bytes_atomically(folder / "settings.json", text.encode())  # last: all is there
    return True


def _print_table(name: str, method: str, errors: HandErrors) -> None:
    ours = {"all frames": errors.mean_mm} | errors.subset_means_mm
    table = Table(title=f"{name}: mean joint error in mm", caption="?: not known to us")
    table.add_column("method", overflow="fold")
    table.add_column("mm", justify="right")
    table.add_column("frames/s as published", justify="right")
    for result in HAND_RESULTS:
        if name in result.mean_mm:
            table.add_row(*_published_row(result, name))
    table.add_section()
    for part, mean in ours.items():
        table.add_row(f"Crossing Nets, {method}, {part}", f"{mean:.2f}", "")
    Console().print(table)


def _published_row(result: HandResult, name: str) -> tuple[str, str, str]:
    mean, rate = result.mean_mm[name], result.frames_per_second
    return (
        result.method,
        "?" if mean is None else f"{mean:g}",
        ", ".join(filter(None, ("" if rate is None else f"{rate:g}", result.note))),
    )
