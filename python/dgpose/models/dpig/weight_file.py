"""Weights of DPIG: one safetensors file, without the discriminator and the critics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dgpose.models.dpig.config import DPIGConfig
from dgpose.models.dpig.model import DPIG, TRAINABLE
from dgpose.nn.weight_files import read_model, write_model

__all__ = ["load_dpig", "save_dpig"]

_KIND = "dpig"


def save_dpig(
    model: DPIG,
    path: str | Path,
    training: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a model with its configuration, what of it is trained, and facts about the training;
    float16 takes half the space. See `dgpose.nn.weight_files.write_model`."""
    facts = {**(training or {}), "trained": sorted(model.trained)}
    write_model(model, path, kind=_KIND, config=asdict(model.config), training=facts, dtype=dtype)


def load_dpig(path: str | Path) -> DPIG:
    """The model of a file of `save_dpig`, in evaluation mode, on the CPU;
    `model.training_facts` is what the file says about its training.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a foreign, truncated or changed file, or one of another architecture.
    """
    model, training = read_model(
        path, kind=_KIND, build=lambda config: DPIG(DPIGConfig.from_dict(config))
    )
    trained = training.get("trained")
    if not isinstance(trained, list) or any(part not in TRAINABLE for part in trained):
        raise ValueError(f"{path}: what is trained must be among {TRAINABLE}, got {trained}")
    model.trained = frozenset(trained)
    model.training_facts = training
    return model
