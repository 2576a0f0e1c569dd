"""Weights of DGPose: one safetensors file, without the discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dgpose.models.dgpose.config import DGPoseConfig
from dgpose.models.dgpose.systems import DGPoseModel, make_model
from dgpose.nn.weight_files import read_model, write_model

__all__ = ["load_model", "save_model"]

_KIND = "dgpose"


def save_model(
    model: DGPoseModel,
    path: str | Path,
    training: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a model with its configuration and facts about the training; float16 takes half the
    space. See `dgpose.nn.weight_files.write_model`."""
    config = asdict(model.config)
    write_model(model, path, kind=_KIND, config=config, training=training, dtype=dtype)


def load_model(path: str | Path) -> DGPoseModel:
    """The model of a file of `save_model`, whichever of the systems it is, in evaluation mode, on
    the CPU; `model.training_facts` is what the file says about its training.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a foreign, truncated or changed file, or one of another architecture.
    """
    model, training = read_model(
        path, kind=_KIND, build=lambda config: make_model(DGPoseConfig.from_dict(config))
    )
    model.training_facts = training
    return model
