"""`dgpose train judge`: the keypoint network that judges generated people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import HardwareOptions, Precision, TrainPrecision, use_threads
from dgpose.cli.terminal import counted, fail, is_first_rank
from dgpose.cli.train_options import Out, RunOptions, tell_result

if TYPE_CHECKING:
    from dgpose.data.person_pool import PersonPool

__all__ = ["judge"]

_STEPS = 8000
_RENDERED = {"train": 30_000, "val": 1000}


@dataclass(frozen=True)
class _Run(RunOptions):
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and variations.")] = 0


@with_groups
def judge(
    out: Out,
    *,
    source: Annotated[
        str,
        typer.Option(
            help="rendered, a data set of photographs (lsp, lspe, h36m, deepfashion, chictopia, "
            "market), or a file of a PersonPool, which needs --validation."
        ),
    ] = "rendered",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data set; of rendered people that with mocap/, without which their "
            "poses are kinematic.",
            envvar="DGPOSE_DATA",
        ),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="PersonPool that the best weights are chosen by.")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="So many; 30000 rendered people, else all by default."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Weights to start from (fine-tuning): a file, or person_judge."),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 4e-3,
    batch: Annotated[int, typer.Option(help="Images a step and device.")] = 64,
    precision: Precision = TrainPrecision.BFLOAT16,
    run: _Run,
    hardware: HardwareOptions,
) -> None:
    """Train the network that judges generated people, on true images alone.

    The best weights by PCK on validation images go to OUT/weights.safetensors; its PCK on images of
    the test part is printed at the end. Ctrl-C stops at a checkpoint.
    """
    from dgpose.data.person_sources import PHOTO_SETS, read_people
    from dgpose.metrics.keypoints import THRESHOLDS
    from dgpose.model_zoo import model_path
    from dgpose.train.keypoints import (
        KeypointTrainConfig,
        judge_errors,
        train_keypoints,
    )
    from dgpose.train.run import check_devices, require_resume

    use_threads(hardware.threads)
    named = source == "rendered" or source in PHOTO_SETS
    try:
        config = KeypointTrainConfig(
            out,
            init=None if init is None else model_path(init),
            batch=batch,
            learning_rate=learning_rate,
            precision=precision.value,
            **run.settings(_STEPS),
            **hardware.settings(),
        )
        require_resume(config)
        check_devices(config)
        if named != (validation is None):
            raise ValueError("--validation must be given with a file as --source, and only then")
        size = config.network.image_size

        def people(split: str, count: int | None) -> PersonPool:
            name = str(validation) if validation is not None and split == "val" else source
            if source == "rendered" and count is None:
                count = _RENDERED.get(split)
            with counted("reading", shown=is_first_rank()) as watch:
                return read_people(name, data, split=split, size=size, count=count, progress=watch)

        pool, judged = people("train", images), people("val", None)
        result = train_keypoints(config, pool, judged, data=pool.source)
        errors = judge_errors(result.model, people("test", None)) if named else None
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    if errors is not None and is_first_rank():
        found = ", ".join(f"@{t:g} {100 * errors.pck(t):.1f} %" for t in THRESHOLDS)
        typer.echo(f"PCK on {errors.scored:,} images of the test part: {found}")
    tell_result(out, finished=result.finished, validated=bool(result.validations))
