"""`dgpose train crossing-nets`, and what `dgpose reproduce crossing-nets` has in common with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import (
    Centers,
    HardwareOptions,
    TestCenters,
    TrainPrecision,
    integers,
    three_steps,
    use_threads,
)
from dgpose.cli.terminal import counted, fail, is_first_rank
from dgpose.cli.train_options import Out, Resume

if TYPE_CHECKING:
    from dgpose.data.hand_datasets import HandSet
    from dgpose.data.hand_pool import HandPool, PoseSplit, SplitPosesBy
    from dgpose.models.crossing_nets import CrossingNets, CrossingNetsConfig
    from dgpose.train.crossing_nets import CrossingNetsTrainConfig

__all__ = [
    "crossing_nets",
    "describe",
    "networks_for",
    "open_images",
    "read_pool",
    "train",
]


_VALIDATION_FRAMES = 2000


class Source(str, Enum):
    """What is learned from."""

    RENDERED = "rendered"
    SYNTHETIC = "synthetic"
    NYU = "nyu"
    ICVL = "icvl"
    MSRA = "msra"


class SplitBy(str, Enum):
    """What keeps training and validation apart (see `dgpose.data.hand_pool.pose_split`)."""

    BLOCK = "block"
    ACTOR = "actor"


class Recipe(str, Enum):
    """Configurations (see `CrossingNetsConfig`)."""

    PAPER = "paper"
    STRONG = "strong"


@with_groups
def crossing_nets(
    out: Out,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            help="The data folder with hand/nyu/labels, whose poses are rendered; or the folder "
            "of the data set.",
            envvar="DGPOSE_DATA",
        ),
    ] = None,
    source: Annotated[
        Source,
        typer.Option(
            help="What to learn from: the labelled NYU poses, rendered once each; --frames of "
            "SyntheticHands (without --data its kinematic poses alone); or a data set."
        ),
    ] = Source.RENDERED,
    renders: Annotated[
        int, typer.Option(min=1, help="Frames of each pose of --source rendered.")
    ] = 1,
    frames: Annotated[
        int, typer.Option(min=1, help="Rendered frames of --source synthetic.")
    ] = 50_000,
    split_by: Annotated[
        SplitBy, typer.Option(help="Rendered poses: what keeps the parts apart.")
    ] = SplitBy.BLOCK,
    config: Annotated[Recipe, typer.Option(help="Losses and normalisation.")] = Recipe.PAPER,
    image_size: Annotated[int, typer.Option(help="Edge of the crops in pixels.")] = 128,
    cube: Annotated[float, typer.Option(help="Edge of the cube around the hand, mm.")] = 250.0,
    labelled_fraction: Annotated[
        float, typer.Option(help="Share of the frames whose labels may be used.")
    ] = 1.0,
    steps: Annotated[
        str | None,
        typer.Option(
            help="VAE,GAN,JOINT: optimiser steps of the stages in place of their epochs; 0 leaves "
            "one out."
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Frames a step and device; else as published.")
    ] = None,
    rotation: Annotated[
        float, typer.Option(help="Largest turn of a frame in the image plane, degrees.")
    ] = 0.0,
    precision: Annotated[TrainPrecision, typer.Option(help="Of the GAN.")] = TrainPrecision.FLOAT32,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, labels, batches and noise.")] = 0,
    resume: Resume = False,
    subjects: Annotated[
        str | None,
        typer.Option(help="MSRA: those left out of training, as 0,3; --validate tests on them."),
    ] = None,
    centers: Centers = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="Data sets: test on their test part at the end.")
    ] = False,
    test_centers: TestCenters = None,
    hardware: HardwareOptions,
) -> None:
    """Train Crossing Nets: pose VAE, depth GAN, then both on one latent space.

    Learns from rendered hands or from a data set on disk, with all labels or some of them. The
    networks go to OUT/weights.safetensors; TensorBoard reads OUT. Ctrl-C stops at a checkpoint.
    """
    from dgpose.data.hand_pool import check_labelled_fraction
    from dgpose.metrics.hand import HAND_PROTOCOLS
    from dgpose.metrics.hand_pool import pool_errors
    from dgpose.train.crossing_nets import CrossingNetsTrainConfig
    from dgpose.train.run import check_devices, require_resume

    use_threads(hardware.threads)
    real = source not in (Source.RENDERED, Source.SYNTHETIC)
    labels = source.value if real else "nyu"
    try:
        networks = networks_for(
            labels, config.value, image_size=image_size, cube_mm=cube, batch=batch
        )
        run = CrossingNetsTrainConfig(
            out,
            networks=networks,
            steps=three_steps(steps),
            rotation_deg=rotation,
            seed=seed,
            resume=resume,
            precision=precision.value,
            **hardware.settings(),
        )
        require_resume(run)
        check_devices(run)
        check_labelled_fraction(labelled_fraction)
        _refuse_idle_options(real, source, subjects, centers, validate, test_centers)
        test: HandSet | None = None
        if source is Source.SYNTHETIC:
            poses = "kinematic" if data is None else "kinematic and NYU"
            said = f"{frames} SyntheticHands, seed {seed}, {poses} poses"
            pool = _synthetic(data, "train", frames, seed, networks)
        elif data is None:
            raise ValueError(f"--source {source.value} needs --data; --source synthetic needs none")
        elif source is Source.RENDERED:
            said = f"rendered NYU poses, split by {split_by.value}, {renders} a pose"
            pool = _rendered(data, "train", split_by.value, networks, renders)
        else:
            left_out = [] if subjects is None else integers("--subjects", subjects)
            images = open_images(source.value, data, "train", left_out, centers)
            if validate:
                own = centers if source is Source.MSRA else test_centers
                test = open_images(source.value, data, "test", left_out, own)
            said = describe(source.value, left_out, centers)
            pool = read_pool(images, networks)
        nets = train(run, pool.with_labelled_fraction(labelled_fraction, seed), said)
        if nets is None or not is_first_rank():
            return
        what = "test" if real else "rendered validation"
        if source is Source.SYNTHETIC:
            pool = _synthetic(data, "val", _VALIDATION_FRAMES, 0, networks)
        elif source is Source.RENDERED and data is not None:
            pool = _rendered(data, "val", split_by.value, networks)
        elif test is not None:
            pool = read_pool(test, networks, every_frame=True)
        else:
            return
        errors = pool_errors(nets, pool, HAND_PROTOCOLS[labels].all_joints)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo(
        f"{len(errors)} {what} frames, {errors.shape[1]} joints: mean error "
        f"{errors.mean():.2f} mm, largest of a frame {errors.max(1).mean():.2f} mm"
    )


def _rendered(
    data: Path,
    split: PoseSplit,
    split_by: SplitPosesBy,
    networks: CrossingNetsConfig,
    renders: int = 1,
) -> HandPool:
    from dgpose.data.hand_pool import rendered_pool

    with counted("rendering", shown=is_first_rank()) as progress:
        return rendered_pool(
            data,
            split,
            by=split_by,
            size=networks.image_size,
            cube_mm=networks.cube_mm,
            normalize=networks.normalize,
            renders=renders,
            progress=progress,
        )


def _synthetic(
    data: Path | None, split: PoseSplit, count: int, seed: int, networks: CrossingNetsConfig
) -> HandPool:
    from dgpose.data.hand_pool import synthetic_pool
    from dgpose.data.synthetic_hands import SyntheticHands, SyntheticHandsConfig

    frames = SyntheticHands(
        seed,
        poses="kinematic" if data is None else "mixed",
        data_dir=data,
        split=split,
        size=networks.image_size,
        cube_mm=networks.cube_mm,
        config=SyntheticHandsConfig(cube_std=0.0),
    )
    with counted("rendering", shown=is_first_rank()) as progress:
        return synthetic_pool(frames, count, normalize=networks.normalize, progress=progress)


def networks_for(
    dataset: str,
    recipe: str,
    *,
    image_size: int = 128,
    cube_mm: float = 250.0,
    batch: int | None = None,
) -> CrossingNetsConfig:
    """The configuration of this recipe ("paper" or "strong") for a data set's joints."""
    from dgpose.metrics.hand import HAND_PROTOCOLS
    from dgpose.models.crossing_nets import ORIGIN_JOINTS, CrossingNetsConfig

    if cube_mm <= 0:
        raise ValueError(f"cube must be positive, got {cube_mm}")
    make = CrossingNetsConfig.strong if recipe == "strong" else CrossingNetsConfig.paper
    networks = make(
        joints=HAND_PROTOCOLS[dataset].full_joints,
        origin_joint=ORIGIN_JOINTS[dataset],
        image_size=image_size,
        cube_mm=cube_mm,
    )
    if batch is None:
        return networks
    return replace(
        networks,
        vae=replace(networks.vae, batch=batch),
        gan=replace(networks.gan, batch=batch),
        joint=replace(networks.joint, batch=batch),
    )


def _refuse_idle_options(
    real: bool,
    source: Source,
    subjects: str | None,
    centers: Path | None,
    validate: bool,
    test_centers: Path | None,
) -> None:
    """Options that would do nothing are errors."""
    given = {"--subjects": subjects, "--centers": centers, "--test-centers": test_centers}
    if not real:
        for option, value in given.items():
            if value is not None:
                raise ValueError(f"{option} needs a data set (--source)")
        if validate:
            raise ValueError("--validate needs a data set (--source): rendered poses always are")
    if test_centers is not None and (not validate or source is Source.MSRA):
        raise ValueError("--test-centers needs --validate, and a data set with a test part")


def open_images(
    name: str,
    folder: Path,
    split: Literal["train", "test"],
    left_out: Sequence[int],
    centers: Path | None,
) -> HandSet:
    """A data set whose images are all there, so that none is found missing after hours.

    Raises:
        ValueError: labels or centres that do not fit.
        FileNotFoundError: a file is missing.
    """
    from dgpose.data.hand_datasets import open_hand_set, read_centers

    rows = None if centers is None else read_centers(centers)
    frames = open_hand_set(name, folder, split, left_out=left_out, centers=rows)
    if missing := frames.missing():
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(frames)} images are missing, the first is "
            f"{missing[0]}: dgpose data check {folder} --dataset {name} says more"
        )
    return frames


def describe(name: str, left_out: Sequence[int], centers: Path | None) -> str:
    """One phrase on the training images, which a resumed run must share."""
    without = f" without subjects {', '.join(map(str, left_out))}" if left_out else ""
    return f"{name}{without}, " + ("centres found" if centers is None else centers.name)


def read_pool(
    frames: HandSet, networks: CrossingNetsConfig, *, every_frame: bool = False
) -> HandPool:
    """The images of a data set as the networks take them, under a progress bar."""
    from dgpose.data.hand_pool import dataset_pool

    with counted("reading", shown=is_first_rank()) as progress:
        return dataset_pool(
            frames,
            size=networks.image_size,
            cube_mm=networks.cube_mm,
            normalize=networks.normalize,
            every_frame=every_frame,
            progress=progress,
        )


def train(
    config: CrossingNetsTrainConfig, pool: HandPool, data: str, *, go_on: str = " with --resume"
) -> CrossingNets | None:
    """Trains, saying what; None where it was stopped, after saying how to go on."""
    from dgpose.models.crossing_nets import CrossingNets, CrossingNetsPath
    from dgpose.train.checkpoint import read_state
    from dgpose.train.crossing_nets import (
        CHECKPOINT_NAME,
        STAGES,
        WEIGHTS_NAME,
        stage_steps,
        train_crossing_nets,
    )

    counts, ranks = pool.describe(), config.devices * config.nodes
    lengths = stage_steps(config, counts["labelled"], ranks)
    if is_first_rank():
        nets = CrossingNets(config.networks)
        parameters, path = (
            sum(weight.numel() for weight in part.parameters())
            for part in (nets, CrossingNetsPath(nets))
        )
        size = pool.depth.nbytes / 1e9
        plan = ", ".join(f"{name} {n}" for name, n in zip(STAGES, lengths, strict=True))
        typer.echo(f"{data}: {counts['frames']} frames, {counts['labelled']} labels, {size:.2g} GB")
        typer.echo(f"{parameters:,} parameters, {path:,} of them on the inference path")
        typer.echo(f"steps: {plan}, on {ranks} {'device' if ranks == 1 else 'devices'}")
    result = train_crossing_nets(config, pool, data=data)
    if is_first_rank():
        if result.finished:
            typer.echo(f"weights: {config.out / WEIGHTS_NAME}")
        else:
            state = read_state(config.out / CHECKPOINT_NAME)
            stage, step = state["stage"], state["step"]
            typer.echo(
                f"stopped at step {step} of {lengths[stage]} of stage {STAGES[stage]}; "
                f"the same command{go_on} goes on"
            )
    return result.nets if result.finished else None
