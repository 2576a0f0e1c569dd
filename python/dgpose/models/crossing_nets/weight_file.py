"""Weights of Crossing Nets: one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dgpose.models.crossing_nets.config import CrossingNetsConfig
from dgpose.models.crossing_nets.networks import CrossingNets
from dgpose.nn.weight_files import read_model, write_model

__all__ = ["load_crossing_nets", "save_crossing_nets"]

KIND = "crossing_nets"


def save_crossing_nets(
    nets: CrossingNets,
    path: str | Path,
    training: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Writes all networks and their configuration; see `dgpose.nn.weight_files.write_model`."""
    write_model(nets, path, kind=KIND, config=asdict(nets.config), training=training, dtype=dtype)


def load_crossing_nets(path: str | Path) -> tuple[CrossingNets, dict[str, Any]]:
    """(networks in evaluation mode; facts about their training) of a file of `save_crossing_nets`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a foreign, truncated or changed file, or one of another architecture.
    """
    return read_model(
        path, kind=KIND, build=lambda config: CrossingNets(CrossingNetsConfig.from_dict(config))
    )
