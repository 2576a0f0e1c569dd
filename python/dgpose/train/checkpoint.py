"""Checkpoints that a training run continues from, number for number.

One file holds everything: parameters and buffers of the modules, the optimiser's state, the state
of torch's random generators (tensors) and plain values such as the step (JSON). One file, written
atomically, cannot be half of one step and half of another; and there is no pickle in it, so that a
checkpoint from elsewhere cannot run code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dgpose_ext.tensor_file import read_tensor_file, write_tensor_file

_KIND = "training_checkpoint"
_VERSION = 1


def save_checkpoint(
    path: str | Path,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Writes a checkpoint, atomically.

    Args:
        path: the file.
        modules: what to store of the networks, by name; names hold no "/".
        optimizer: its per-parameter state and the settings of its groups.
        state: JSON-serialisable values (step, configuration, best error, ...).
    """
    tensors: dict[str, Tensor] = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        for index, rng in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"rng/cuda/{index}"] = rng
    for name, module in modules.items():
        for key, tensor in module.state_dict().items():
            tensors[f"module/{name}/{key}"] = tensor
    packed = optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for index, entries in packed["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    metadata = {
        "state": dict(state),
        "optimizer_groups": packed["param_groups"],
        "optimizer_plain": plain,
    }
    write_tensor_file(path, tensors, kind=_KIND, version=_VERSION, metadata=metadata)


def read_state(path: str | Path) -> dict[str, Any]:
    """The `state` of a checkpoint alone: what a run must share with it is known before loading.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a foreign, truncated or changed file.
    """
    _, metadata = read_tensor_file(path, kind=_KIND, version=_VERSION)
    state: dict[str, Any] = metadata["state"]
    return state


def load_checkpoint(
    path: str | Path,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: Optimizer,
) -> dict[str, Any]:
    """Puts a checkpoint of `save_checkpoint` into `modules`, `optimizer` and torch's generators.

    Returns:
        The `state` that was saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a foreign, truncated or changed file, or one of another architecture.
    """
    tensors, metadata = read_tensor_file(path, kind=_KIND, version=_VERSION)
    parts: dict[str, dict[str, Tensor]] = {}
    optimizer_state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in metadata["optimizer_plain"].items()
    }
    for name, tensor in tensors.items():
        family, _, rest = name.partition("/")
        owner, _, key = rest.partition("/")
        if family == "module":
            parts.setdefault(owner, {})[key] = tensor
        elif family == "optimizer":
            optimizer_state.setdefault(int(owner), {})[key] = tensor
    if parts.keys() != modules.keys():
        raise ValueError(f"{path}: must hold modules {sorted(modules)}, got {sorted(parts)}")
    try:
        for name, module in modules.items():
            module.load_state_dict(parts[name])
        groups = metadata["optimizer_groups"]
        optimizer.load_state_dict({"state": optimizer_state, "param_groups": groups})
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: does not fit this training run ({error})") from error
    _restore_memory_format(optimizer)
    torch.set_rng_state(tensors["rng/cpu"])
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"rng/cuda/{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"rng/cuda/{index}"], index)
    state: dict[str, Any] = metadata["state"]
    return state


def _restore_memory_format(optimizer: Optimizer) -> None:
    """Lays the optimiser's tensors out as their parameters: files hold them contiguous, and mixed
    layouts would take its slow path."""
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
