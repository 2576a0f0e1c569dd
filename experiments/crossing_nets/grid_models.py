"""The trained models of the semi-supervised grid, read back from its folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dgpose.models.crossing_nets import CrossingNets, load_crossing_nets

Group = tuple[float, str]
"""Share of labels, losses."""


class GridModel(NamedTuple):
    """A model of the grid, in eval mode."""

    fraction: float
    variant: str
    seed: int
    nets: CrossingNets


def grid_models(runs: Path, split_by: str) -> list[GridModel]:
    """The models of a split that are done, by share of labels, losses and seed.

    Raises:
        SystemExit: there is none.
    """
    models = []
    for path in sorted(runs.glob("*.json")):
        facts = json.loads(path.read_text())
        if facts["split_by"] == split_by:
            nets, _ = load_crossing_nets(path.with_suffix("") / "weights.safetensors")
            models.append(GridModel(facts["fraction"], facts["variant"], facts["seed"], nets))
    if not models:
        raise SystemExit(f"{runs}: no model of the split by {split_by} has been trained yet")
    return models


def groups_of(models: Sequence[dict[str, Any]]) -> dict[Group, list[dict[str, Any]]]:
    """Results by share of labels and losses, the seeds together."""
    groups: dict[Group, list[dict[str, Any]]] = {}
    for model in models:
        groups.setdefault((model["fraction"], model["variant"]), []).append(model)
    return groups


def name_of(group: Group) -> str:
    """For tables and legends."""
    return f"{100 * group[0]:g} %, {group[1]}"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What the scripts that read the grid share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("runs", type=Path, help="the --out of semi_supervised train")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--split-by", choices=("block", "actor"), default="block")
    parser.add_argument("--threads", type=int, default=1)
    return parser
