"""Weights of max-margin pose retrieval: one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dgpose.models.max_margin.config import MaxMarginConfig
from dgpose.models.max_margin.networks import MaxMarginModel
from dgpose.nn.weight_files import read_model, write_model

__all__ = ["load_model", "save_model"]

_KIND = "max_margin"


def save_model(
    model: MaxMarginModel, path: str | Path, training: Mapping[str, Any] | None = None
) -> None:
    """Writes the networks in float32, so that embeddings and fingerprint stay as they are, with
    their configuration and facts about the training; see `dgpose.nn.weight_files.write_model`."""
    config = asdict(model.config)
    write_model(model, path, kind=_KIND, config=config, training=training, dtype=torch.float32)


def load_model(path: str | Path) -> MaxMarginModel:
    """The model of a file of `save_model`, in evaluation mode, on the CPU; `model.training_facts`
    is what the file says about its training.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a foreign, truncated or changed file, or one of another architecture.
    """
    model, training = read_model(
        path, kind=_KIND, build=lambda config: MaxMarginModel(MaxMarginConfig.from_dict(config))
    )
    model.training_facts = training
    return model
