"""Weights of the models as one safetensors file each: tensors, architecture, facts, checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from dgpose_ext.tensor_file import read_tensor_file, write_tensor_file

__all__ = ["fingerprint", "read_model", "write_model"]

_VERSION = 1
Model = TypeVar("Model", bound=nn.Module)


def write_model(
    model: nn.Module,
    path: str | Path,
    *,
    kind: str,
    config: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Writes a model's weights, atomically.

    Matrices and convolutions are stored as `dtype`; biases and batch-norm vectors, which are few
    and whose range is wide (running variances), as float32.

    Args:
        model: the network; its weights are not changed.
        path: the file to write.
        kind: what the file holds; `read_model` asks for it.
        config: JSON-serialisable architecture.
        training: JSON-serialisable facts about the training.
        dtype: torch.float16 or torch.float32.

    Raises:
        ValueError: another dtype, weights that are not finite in it.
        TypeError: facts that JSON cannot hold.
    """
    if dtype not in (torch.float16, torch.float32):
        raise ValueError(f"dtype must be torch.float16 or torch.float32, got {dtype}")
    tensors = {}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue  # num_batches_tracked: of no use to inference
        stored = tensor.to("cpu", dtype if tensor.dim() > 1 else torch.float32).contiguous()
        if not bool(stored.isfinite().all()):
            raise ValueError(f"weights must be finite in {dtype}, {name} is not")
        tensors[name] = stored
    description = {"config": dict(config), "training": dict(training or {})}
    write_tensor_file(path, tensors, kind=kind, version=_VERSION, metadata=description)


def read_model(
    path: str | Path, *, kind: str, build: Callable[[dict[str, Any]], Model]
) -> tuple[Model, dict[str, Any]]:
    """Reads a file of `write_model`.

    Args:
        path: the file.
        kind: what it must hold.
        build: makes the network from the stored architecture.

    Returns:
        (network in evaluation mode, float32, on the CPU; the facts about its training).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a foreign, truncated or changed file, or tensors that do not fit its config.
    """
    tensors, description = read_tensor_file(path, kind=kind, version=_VERSION)
    try:
        model = build(description["config"])
        training: dict[str, Any] = description["training"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: its architecture is not one this version knows") from error
    expected = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    for name in sorted(expected.keys() | tensors.keys()):
        want = list(expected[name].shape) if name in expected else None
        have = list(tensors[name].shape) if name in tensors else None
        if want != have:
            raise ValueError(f"{path}: {name} must have shape {want}, got {have}")
    model.load_state_dict({name: t.float() for name, t in tensors.items()}, strict=False)
    return model.eval(), training


def fingerprint(module: nn.Module, settings: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of the weights of a network, as float32, and of JSON-serialisable settings, in
    hexadecimal."""
    digest = hashlib.sha256(json.dumps(dict(settings or {})).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
