"""`dgpose pose train`: max-margin pose retrieval, on rendered people or on a pool of crops."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import (
    HardwareOptions,
    SplitBy,
    SplitByOption,
    TrainPrecision,
    use_threads,
)
from dgpose.cli.terminal import counted, fail, is_first_rank
from dgpose.cli.train_options import Batch, Out, RunOptions, tell_result
from dgpose.data.pose_pool import PosePool
from dgpose.data.pose_sources import candidate_poses, labelled_pool
from dgpose.models.max_margin import MaxMarginConfig, MaxMarginModel
from dgpose.train.max_margin import MaxMarginTrainConfig, train_max_margin
from dgpose.train.run import check_devices, require_resume

__all__ = ["train"]

_STEPS = 20_000


class Recipe(str, Enum):
    """Configurations (see `MaxMarginConfig`)."""

    PAPER = "paper"
    STRONG = "strong"


class CandidateSearch(str, Enum):
    """Where violators are looked for (see `MaxMarginRecipe`)."""

    SAMPLED = "sampled"
    FULL = "full"


class PoseLayers(str, Enum):
    """Pose networks (see `MaxMarginConfig`)."""

    RAW = "raw"
    RANDOM = "random"
    ONE = "one"
    TWO = "two"


@dataclass(frozen=True)
class _Run(RunOptions):
    steps: Annotated[
        int | None, typer.Option(help=f"Optimiser steps; {_STEPS} where --minutes is not given.")
    ] = None


@with_groups
def train(
    out: Out,
    *,
    config: Annotated[Recipe, typer.Option(help="Networks and recipe.")] = Recipe.STRONG,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data folder with mocap/, whose poses rendered people are in; without it they are "
            "in kinematic ones.",
            envvar="DGPOSE_DATA",
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="People to render.")] = 20_000,
    validation_frames: Annotated[
        int, typer.Option(min=1, help="People to render that the best weights are chosen by.")
    ] = 1000,
    split_by: SplitByOption = SplitBy.SEQUENCE,
    pool: Annotated[
        Path | None,
        typer.Option(help="Pose pool to learn from, not rendered people; needs --validation."),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Pose pool that the best weights are chosen by.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Edge of the crops in pixels; else 128 (paper), 64 (strong).")
    ] = None,
    regression: Annotated[
        bool, typer.Option("--regression", help="The auxiliary task alone: plain regression.")
    ] = False,
    pose_layers: Annotated[
        PoseLayers, typer.Option(help="Learned layers of the pose network; random: one, fixed.")
    ] = PoseLayers.TWO,
    auxiliary: Annotated[
        bool, typer.Option("--auxiliary/--no-auxiliary", help="Regress the pose, too.")
    ] = True,
    end_to_end: Annotated[
        bool | None,
        typer.Option(
            "--end-to-end/--frozen",
            help="Whether the margin teaches the convolutions, too; by default strong, not paper.",
        ),
    ] = None,
    candidates: Annotated[
        CandidateSearch | None,
        typer.Option(help="Violators among a sample or all; by default the recipe's."),
    ] = None,
    refresh: Annotated[
        int | None, typer.Option(help="Steps between embeddings of all candidates.")
    ] = None,
    thin: Annotated[
        float,
        typer.Option(help="Leave out candidates within so many mm of another one; -1: none."),
    ] = 10.0,
    batch: Batch = None,
    precision: Annotated[
        TrainPrecision | None,
        typer.Option(help="While training; by default 32-true (paper), bf16-mixed (strong)."),
    ] = None,
    run: _Run,
    hardware: HardwareOptions,
) -> None:
    """Train max-margin pose retrieval: images and poses embedded so that inner products find poses.

    Learns from rendered people or a pose pool, against the poses of the training images as
    candidates. The best weights by validation go to OUT/weights.safetensors; TensorBoard reads OUT.
    Ctrl-C stops at a checkpoint.
    """
    use_threads(hardware.threads)
    try:
        model = _configuration(
            config,
            image_size,
            {
                "loss": "none" if regression else "hinge",
                "pose_layers": pose_layers.value,
                "auxiliary": auxiliary,
            },
            {
                "candidates": None if candidates is None else candidates.value,
                "refresh": refresh,
                "batch": batch,
                "freeze_convolutions": None if end_to_end is None else not end_to_end,
            },
        )
        if precision is None:
            strong = config is Recipe.STRONG
            precision = TrainPrecision.BFLOAT16 if strong else TrainPrecision.FLOAT32
        settings = MaxMarginTrainConfig(
            out,
            model=model,
            precision=precision.value,
            **run.settings(_STEPS),
            **hardware.settings(),
        )
        require_resume(settings)
        check_devices(settings)
        if (pool is None) != (validation is None):
            raise ValueError("--pool and --validation must be given together")
        counts = {"train": frames, "val": validation_frames}
        parts = [
            _crops(split, file, data, model.image_size, counts[split], split_by.value, run.seed)
            for split, file in (("train", pool), ("val", validation))
        ]
        images, judged = parts
        found = candidate_poses(images.poses, "training poses", thin_mm=thin, headings=1)
        if is_first_rank():
            parameters = sum(weight.numel() for weight in MaxMarginModel(model).parameters())
            typer.echo(f"{images.source}: {len(images):,} crops; {len(judged):,} for validation")
            typer.echo(f"{len(found.poses_mm):,} candidates: {found.description}")
            typer.echo(f"{parameters:,} parameters")
        result = train_max_margin(settings, images, judged, found.poses_mm, data=images.source)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    tell_result(out, finished=result.finished, validated=bool(result.validations))


def _configuration(
    recipe: Recipe,
    image_size: int | None,
    changes: dict[str, Any],
    recipe_changes: dict[str, Any],
) -> MaxMarginConfig:
    """The configuration with what was asked for; None leaves a value of the recipe as it is."""
    make = MaxMarginConfig.strong if recipe is Recipe.STRONG else MaxMarginConfig.paper
    config = make() if image_size is None else make(image_size)
    given = {name: value for name, value in recipe_changes.items() if value is not None}
    return replace(config, **changes, recipe=replace(config.recipe, **given))


def _crops(
    split: str,
    file: Path | None,
    data: Path | None,
    size: int,
    count: int,
    split_by: str,
    seed: int,
) -> PosePool:
    """A part of rendered people, or the pool in a file."""
    with counted("rendering" if file is None else "reading", shown=is_first_rank()) as watch:
        return labelled_pool(
            "people" if file is None else "pool",
            data if file is None else file,
            size,
            frames=count if file is None else None,
            split=split,
            split_by=split_by,
            every=1,
            seed=seed,
            progress=watch,
        )
