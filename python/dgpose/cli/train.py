"""`dgpose train`: train the networks, and pack the weights of those that ship."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import HardwareOptions, use_threads
from dgpose.cli.terminal import fail
from dgpose.cli.train_crossing_nets import crossing_nets
from dgpose.cli.train_dgpose import dgpose
from dgpose.cli.train_dpig import dpig_pose, dpig_stage1, dpig_stage2
from dgpose.cli.train_judge import judge
from dgpose.cli.train_options import Out, Resume
from dgpose.cli.train_reid import reid

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Train networks; pack weights.")
app.command()(crossing_nets)
app.command()(dgpose)
app.command()(judge)
app.command()(dpig_stage1)
app.command()(dpig_pose)
app.command()(dpig_stage2)
app.command()(reid)


class PoseSource(str, Enum):
    """Where the poses of rendered hands come from (see `SyntheticHands`)."""

    AUTO = "auto"
    KINEMATIC = "kinematic"
    NYU = "nyu"
    MIXED = "mixed"


class HandSize(str, Enum):
    """Architectures (see `dgpose.nn.hand_regressor.SIZES`)."""

    ACCURATE = "accurate"
    FAST = "fast"


class HandSide(str, Enum):
    """Which hands are rendered."""

    RIGHT = "right"
    LEFT = "left"
    BOTH = "both"


@app.command()
@with_groups
def hand(
    out: Out,
    *,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps; 20000 where --minutes is not given.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Wall-clock budget, which the learning rate then follows: such a run cannot be "
            "repeated number for number."
        ),
    ] = None,
    resume: Resume = False,
    size: Annotated[HandSize, typer.Option(help="Architecture.")] = HandSize.ACCURATE,
    batch: Annotated[int, typer.Option(help="Frames a step and device.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the first weights and of the frames.")] = 0,
    poses: Annotated[PoseSource, typer.Option(help="Source of the poses.")] = PoseSource.AUTO,
    data: Annotated[
        Path | None,
        typer.Option(help="Data folder with hand/nyu/labels.", envvar="DGPOSE_DATA"),
    ] = None,
    actor: Annotated[
        list[int] | None, typer.Option(help="NYU actor whose poses are used; both by default.")
    ] = None,
    side: Annotated[HandSide, typer.Option(help="Hands to render.")] = HandSide.RIGHT,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 3e-3,
    init: Annotated[Path | None, typer.Option(help="Weights to start from (fine-tuning).")] = None,
    precision: Annotated[str, typer.Option(help="bf16-mixed or 32-true.")] = "bf16-mixed",
    hardware: HardwareOptions,
    validate_every: Annotated[
        int, typer.Option(help="Steps between validations, each with a checkpoint.")
    ] = 500,
    validation_frames: Annotated[int, typer.Option(help="Rendered frames a validation.")] = 1024,
) -> None:
    """Train the hand regressor on rendered depth frames.

    The best weights, chosen on rendered validation frames, go to OUT/best.safetensors;
    TensorBoard reads OUT. Ctrl-C stops at a checkpoint.
    """
    from dgpose.data.synthetic_hands import SyntheticHands
    from dgpose.nn.hand_regressor import SIZES
    from dgpose.train.hand import HandTrainConfig, train_hand

    use_threads(hardware.threads)
    try:
        render = partial(
            SyntheticHands,
            poses=poses.value,
            data_dir=data,
            hand=side.value,
            actors=tuple(actor or (0, 1)),
        )
        frames, validation = render(seed, split="train"), render(0, split="val")
        description = f"rendered hands (SyntheticHands), {side.value}, {frames.poses} poses"
        if frames.poses != "kinematic":
            description += f", NYU actors {', '.join(map(str, actor or (0, 1)))}"
        config = HandTrainConfig(
            out=out,
            steps=20_000 if steps is None and minutes is None else steps,
            minutes=minutes,
            batch=batch,
            seed=seed,
            learning_rate=learning_rate,
            precision=precision,
            **hardware.settings(),
            validate_every=validate_every,
            validation_frames=validation_frames,
            resume=resume,
            init=init,
            network=SIZES[size.value],
        )
        result = train_hand(config, frames, validation, data=description)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    if not result.finished:
        typer.echo(f"stopped at step {result.steps}; continue with --resume")
    best = "no validation yet"
    if result.best.is_file():
        best = f"best error on rendered frames {result.best_error_mm:.2f} mm: {result.best}"
    typer.echo(f"{result.frames} frames in {result.minutes:.1f} min; {best}")


@app.command()
def pack(
    source: Annotated[Path, typer.Argument(help="Weights of a run: OUT/best.safetensors.")],
    target: Annotated[Path, typer.Argument(help="File to write.")],
) -> None:
    """Store hand weights as float16, for shipping: half the size."""
    from dgpose.nn.hand_regressor import load_weights, save_weights

    try:
        model, facts = load_weights(source)
        save_weights(model, target, facts)
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(f"{target}: {target.stat().st_size} bytes")
    for name, value in facts.items():
        typer.echo(f"  {name}: {value}")
