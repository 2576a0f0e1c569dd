"""`dgpose train reid`: the network that finds people again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import HardwareOptions, Precision, TrainPrecision, use_threads
from dgpose.cli.terminal import fail
from dgpose.cli.train_options import Out, PeopleOptions, RunOptions, check_run, tell_result

if TYPE_CHECKING:
    from dgpose.data.person_pool import PersonPool

__all__ = ["reid"]

_STEPS = 4000
_RENDERED = {"train": (12_000, 500), "val": (1000, 100)}  # images and persons


@dataclass(frozen=True)
class _People(PeopleOptions):
    people: Annotated[
        str,
        typer.Option(
            help="rendered (who share outfits), market or deepfashion, or a file of a pool with "
            "identities, such as a virtual market's, which needs --validation."
        ),
    ] = "rendered"
    count: Annotated[
        int | None,
        typer.Option(min=2, help=f"Images; {_RENDERED['train'][0]} rendered people, else all."),
    ] = None
    validation_count: Annotated[
        int | None,
        typer.Option(min=2, help=f"Images of it; {_RENDERED['val'][0]} rendered people, else all."),
    ] = None
    persons: Annotated[int, typer.Option(min=2, help="Of rendered people.")] = _RENDERED["train"][1]

    def _part(self, name: str, split: str, count: int | None, **how: Any) -> PersonPool:
        from dgpose.data.reid_sets import rendered_reid_people

        if name != "rendered":
            return super()._part(name, split, count, **how)
        images, persons = _RENDERED[split]
        return rendered_reid_people(
            self.data,
            persons=self.persons if split == "train" else persons,
            count=count or images,
            split=split,
            **how,
        )


@dataclass(frozen=True)
class _Run(RunOptions):
    steps: Annotated[
        int | None, typer.Option(help=f"Optimiser steps; {_STEPS} where --minutes is not given.")
    ] = None


@with_groups
def reid(
    out: Out,
    *,
    people: _People,
    precision: Precision = TrainPrecision.BFLOAT16,
    run: _Run,
    hardware: HardwareOptions,
) -> None:
    """Train a small network to find people again, on images whose persons are known.

    The best weights by mAP on the validation people, none of whom is in training, go to
    OUT/weights.safetensors: a network for dgpose dpig reid --by. Ctrl-C stops at a checkpoint.
    """
    from dgpose.train.reid import ReidTrainConfig, train_reid

    use_threads(hardware.threads)
    try:
        settings = ReidTrainConfig(
            out,
            precision=precision.value,
            **run.settings(_STEPS),
            **hardware.settings(),
        )
        check_run(settings, people)
        result = train_reid(settings, *people.read(size=settings.network.size, seed=run.seed))
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    tell_result(out, finished=result.finished, validated=bool(result.validations))
