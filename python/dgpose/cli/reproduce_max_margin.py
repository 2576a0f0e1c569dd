"""`dgpose reproduce max-margin`: train on Human3.6M as published, print the published table beside.

The paper trains one network for each action. What it does not say, and stands here: the number of
steps, and which frames of the videos it takes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import TRY, HardwareOptions, Precision, TrainPrecision, use_threads
from dgpose.cli.pose_eval import print_errors
from dgpose.cli.terminal import counted, fail, is_first_rank
from dgpose.data.human36m import ACTIONS, Human36M, action_name, open_human36m
from dgpose.data.human36m_pool import human36m_pool
from dgpose.inference.pose_retriever import PoseRetriever
from dgpose.metrics.body import BodyErrors
from dgpose.metrics.pose_retrieval import evaluate_retrieval
from dgpose.metrics.published import MAX_MARGIN_HIDDEN_TEST
from dgpose.models.max_margin import MaxMarginConfig
from dgpose.train.max_margin import MaxMarginTrainConfig, train_max_margin
from dgpose.train.run import check_devices, require_resume
from dgpose_ext.tensor_file import read_tensor_file, write_tensor_file

__all__ = ["max_margin"]

_KIND, _VERSION = "max_margin_errors", 1
_COUNTS = (20, 500)
_VALIDATION_FRAMES = 500
_STEPS = 20_000


@with_groups
def max_margin(
    data: Annotated[
        Path, typer.Option(help="Folder of Human3.6M, in MMPose's or VideoPose3D's form.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path(
        "runs/reproduce_max_margin"
    ),
    actions: Annotated[
        str | None, typer.Option(help="Some of the 15, with commas; all by default.")
    ] = None,
    one_network: Annotated[
        bool, typer.Option("--one-network", help="One for all actions; published: one for each.")
    ] = False,
    every: Annotated[
        int, typer.Option(min=1, help="Take every so many of 50 frames a second.")
    ] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and noise.")] = 0,
    precision: Precision = TrainPrecision.FLOAT32,
    hardware: HardwareOptions,
    steps: Annotated[
        int, typer.Option(min=1, help="Of each network; the paper does not say how many.")
    ] = _STEPS,
    image_size: Annotated[
        int, typer.Option(help="Edge of the crops in pixels.", rich_help_panel=TRY)
    ] = 128,
    batch: Annotated[
        int | None, typer.Option(help="Images a step and device.", rich_help_panel=TRY)
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(min=1, help="C, random candidates a step.", rich_help_panel=TRY),
    ] = None,
) -> None:
    """Train max-margin retrieval on Human3.6M as published, test on S9 and S11, print the table.

    Learns from S1, S5, S6, S7 and S8, for each action a network, and retrieves among the training
    poses of that action. Needs the images. Ctrl-C stops at a checkpoint, and the same command goes
    on.
    """
    use_threads(hardware.threads)
    try:
        networks = MaxMarginConfig.paper(image_size)
        published = networks
        recipe = networks.recipe
        if batch is not None:
            recipe = replace(recipe, batch=batch)
        if candidates is not None:
            recipe = replace(recipe, sampled_candidates=candidates)
        run = MaxMarginTrainConfig(
            out,
            model=replace(networks, recipe=recipe),
            steps=steps,
            seed=seed,
            resume=True,
            precision=precision.value,
            **hardware.settings(),
        )
        require_resume(run)
        check_devices(run)
        wanted = ACTIONS if actions is None else tuple(map(action_name, actions.split(",")))
        parts = [wanted] if one_network else [(action,) for action in wanted]
        test, frames = (_frames(data, split, wanted, every) for split in ("test", "train"))
        reports = []
        for part in parts:
            report = _one_network(run, frames, test, part, every)
            if report is None:
                return
            reports.append(report)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    if not is_first_rank():
        return
    as_published = image_size == 128 and run.model == published and run.devices * run.nodes == 1
    exact = as_published and not one_network and precision is TrainPrecision.FLOAT32
    recipe_name = (
        "the published recipe, as far as it is known" if exact else ("not the published recipe")
    )
    typer.echo(
        f"Human3.6M, S9 and S11; {recipe_name}: "
        f"{'one network' if one_network else 'a network an action'}, {steps:,} steps, 1 frame in "
        f"{every}"
    )
    methods = {name: BodyErrors.joined([r[name] for r in reports]) for name in reports[0]}
    print_errors(methods, published=True)
    typer.echo(
        f"published on the hidden test set: {MAX_MARGIN_HIDDEN_TEST.mean_mm:.2f} mm on average "
        f"(the {MAX_MARGIN_HIDDEN_TEST.by_action['Phoning']:.2f} that is often quoted is Phoning)"
    )


def _frames(data: Path, split: Any, wanted: tuple[str, ...], every: int) -> Human36M:
    """The labelled frames of these actions whose images are there."""
    labelled = open_human36m(data, split, every=every)
    chosen = labelled.rows([r for r, action in enumerate(labelled.actions) if action in wanted])
    present = chosen.with_images()
    missing = set(wanted) - set(present.actions)
    if missing:
        raise ValueError(
            f"{data}: must hold images of {', '.join(sorted(missing))} in its {split} part, "
            f"looked in {labelled.images}"
        )
    if len(present) < len(chosen) and is_first_rank():
        typer.echo(f"{split}: {len(chosen) - len(present):,} of {len(chosen):,} images are missing")
    return present


def _one_network(
    config: MaxMarginTrainConfig,
    frames: Human36M,
    test: Human36M,
    part: tuple[str, ...],
    every: int,
) -> dict[str, BodyErrors] | None:
    """Trains and tests one network, unless its errors are there; None where it was stopped."""
    folder = config.out / (part[0] if len(part) == 1 else "all")
    run = replace(config, out=folder)
    kept = ("model", "steps", "seed", "precision", "devices", "nodes")
    settings = {key: value for key, value in asdict(run).items() if key in kept}
    settings = json.loads(json.dumps(settings | {"actions": part, "every": every}))
    file = folder / "errors.safetensors"
    if file.is_file():
        return _read_errors(file, settings)
    size = config.model.image_size
    pools = []
    for name, labelled in (("train", frames), ("test", test)):
        rows = [row for row, action in enumerate(labelled.actions) if action in part]
        with counted(f"reading {name}", shown=is_first_rank()) as watch:
            pools.append(human36m_pool(labelled.rows(rows), size, progress=watch))
    pool, test_pool = pools
    # Nothing is chosen by the test part: weights are judged on frames that they learned from.
    spread = torch.linspace(0, len(pool) - 1, min(_VALIDATION_FRAMES, len(pool))).round().long()
    result = train_max_margin(run, pool, pool.subset(spread), data=pool.source)
    if not result.finished:
        if is_first_rank():
            typer.echo(f"stopped in {folder}: the same command goes on")
        return None
    retriever = PoseRetriever.build(result.model, pool.poses)
    with counted(f"testing {', '.join(part)}", shown=is_first_rank()) as watch:
        report = evaluate_retrieval(retriever, test_pool, counts=_COUNTS, progress=watch)
    if is_first_rank():
        _write_errors(file, report.methods, settings)
    return report.methods


def _write_errors(path: Path, methods: dict[str, BodyErrors], settings: dict[str, Any]) -> None:
    tensors = {}
    for name, errors in methods.items():
        tensors[f"{name}/mpjpe"] = torch.from_numpy(errors.errors_mm)
        tensors[f"{name}/pa_mpjpe"] = torch.from_numpy(errors.aligned_errors_mm)
    described = {
        "settings": settings,
        "methods": list(methods),
        "actions": next(iter(methods.values())).actions,
    }
    write_tensor_file(path, tensors, kind=_KIND, version=_VERSION, metadata=described)


def _read_errors(path: Path, settings: dict[str, Any]) -> dict[str, BodyErrors]:
    tensors, described = read_tensor_file(path, kind=_KIND, version=_VERSION)
    if described["settings"] != settings:
        raise ValueError(f"{path} holds results of other settings: give another --out")
    return {
        name: BodyErrors(
            tensors[f"{name}/mpjpe"].numpy(),
            tensors[f"{name}/pa_mpjpe"].numpy(),
            tuple(described["actions"]),
        )
        for name in described["methods"]
    }
