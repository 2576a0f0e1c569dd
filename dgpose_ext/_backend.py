"""Which implementation of an op runs: the argument `backend=`, DGPOSE_BACKEND, or what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from dgpose_ext import _loader

BACKENDS = ("cpu", "cuda", "triton", "reference")


def missing(backend: str, op: str) -> str:
    """Why `backend` cannot run `op` here, in one sentence; empty if it can."""
    if backend == "cpu":
        return _loader.why_no_core()
    if backend == "cuda":
        why = _loader.why_no_cuda()
        return why or ("" if _loader.has_cuda_kernel(op) else f"{op} has no CUDA kernel.")
    if backend == "triton":
        return "No Triton kernels are part of this version."
    return ""


def choose(backend: str | None, device: torch.device, op: str) -> str:
    """The backend that serves `op` for tensors on `device`.

    Raises ValueError for an unknown name or one that does not fit the device, RuntimeError for one
    that is absent here (and says why).
    """
    wanted = backend if backend is not None else os.environ.get("DGPOSE_BACKEND") or None
    if wanted is None:
        return (
            device.type if device.type in BACKENDS and not missing(device.type, op) else "reference"
        )
    if wanted not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)} or None, got {wanted!r}")
    if why := missing(wanted, op):
        raise RuntimeError(f"{op}: backend {wanted!r} is not available. {why}")
    if wanted == "cpu" and device.type != "cpu":
        raise ValueError(f"{op}: backend 'cpu' needs tensors on the CPU, got {device}")
    if wanted == "cuda" and device.type != "cuda":
        raise ValueError(f"{op}: backend 'cuda' needs tensors on a CUDA device, got {device}")
    return wanted


def implementation(backend: str, name: str, reference: Callable[..., Any]) -> Callable[..., Any]:
    """The callable behind op `name`: torch.ops.dgpose.<name>, or the pure-torch reference."""
    return reference if backend == "reference" else getattr(torch.ops.dgpose, name)
