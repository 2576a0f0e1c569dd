"""Options of `dgpose dpig`, and what becomes of them."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from dgpose.inference.person_factors import PersonFactors
from dgpose.models.dpig import FACTORS, Factor

__all__ = ["SMALL", "Estimator", "Model", "Seed", "load_factors", "parse_factors"]

SMALL = "dpig_small"
Model = Annotated[str, typer.Option(help="dpig_small, or a weight file.")]
Estimator = Annotated[
    str | None,
    typer.Option(help="What estimates poses that are not given: person_judge, or a weight file."),
]
Seed = Annotated[int, typer.Option(help="Of the draws.")]


def load_factors(
    model: str, estimator: str | None, device: str, threads: int | None
) -> PersonFactors:
    """Raises as `PersonFactors.load`."""
    if threads is not None:
        torch.set_num_threads(threads)
    return PersonFactors.load(model, estimator=estimator, device=device)


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
