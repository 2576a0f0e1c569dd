"""Options of `dgpose dpig`, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from dgpose.cli.options import Threads, use_threads
from dgpose.cli.person_options import Device, SourceOptions
from dgpose.inference.person_factors import PersonFactors
from dgpose.models.dpig import FACTORS, Factor

__all__ = ["DPIGModelOptions", "DPIGSourceOptions", "Seed", "parse_factors"]

Seed = Annotated[int, typer.Option(help="Of the draws.")]


@dataclass(frozen=True)
class DPIGSourceOptions(SourceOptions):
    """As of `dgpose person`, but DPIG itself estimates no poses, and takes visible joints."""

    estimator: Annotated[
        str | None,
        typer.Option(
            help="What estimates poses that are not given: person_judge, or a weight file."
        ),
    ] = None

    seen: ClassVar[bool] = True


@dataclass(frozen=True)
class DPIGModelOptions:
    """A model of `dgpose dpig`."""

    model: Annotated[str, typer.Option(help="dpig_small, or a weight file.")] = "dpig_small"
    device: Device = "cpu"
    threads: Threads = None

    @property
    def name(self) -> str:
        """For headlines."""
        return Path(self.model).name

    def load(self, estimator: str | None = None) -> PersonFactors:
        """Raises as `PersonFactors.load`."""
        use_threads(self.threads)
        return PersonFactors.load(self.model, estimator=estimator, device=self.device)


def parse_factors(text: str, known: tuple[Factor, ...]) -> tuple[Factor, ...]:
    """A value of --vary: factors separated by commas, or "all".

    Raises:
        ValueError: something else.
    """
    words = known if text == "all" else tuple(word.strip() for word in text.split(","))
    if not set(words) <= set(known):
        said = "" if known == FACTORS else " (this model has no background)"
        raise ValueError(
            f"--vary must be all, or of {', '.join(known)}, separated by commas, got {text!r}{said}"
        )
    return tuple(factor for factor in known if factor in words)
