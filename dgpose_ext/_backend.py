"""Which implementation of an op runs: the argument `backend=`, DGPOSE_BACKEND, or what is there."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dgpose_ext import _loader

BACKENDS = ("cpu", "cuda", "triton", "reference")

#: The ops that have a Triton kernel: dgpose_ext/triton/<family>/<op>.py.
TRITON_OPS = frozenset(file.stem for file in Path(__file__).parent.glob("triton/*/[!_]*.py"))


_HAS_TRITON = importlib.util.find_spec("triton") is not None


def missing(backend: str, op: str) -> str:
    """Why `backend` cannot run `op` here, in one sentence; empty if it can."""
    if backend == "cpu":
        return _loader.why_no_core()
    if backend == "cuda":
        why = _loader.why_no_cuda()
        return why or ("" if _loader.has_cuda_kernel(op) else f"{op} has no CUDA kernel.")
    if backend == "triton":
        return why_no_triton() or ("" if op in TRITON_OPS else f"{op} has no Triton kernel.")
    return ""


def _interpreted() -> bool:
    """Whether Triton runs its kernels in its interpreter, which needs no GPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_no_triton() -> str:
    """One sentence: why no Triton kernel can run; empty where one can."""
    if not _HAS_TRITON:
        return "triton is not installed; it comes with a CUDA build of torch."
    if not (_interpreted() or torch.cuda.is_available()):
        return (
            "No CUDA device is available to torch; set TRITON_INTERPRET=1 before the import to run "
            "Triton kernels in the interpreter."
        )
    return ""


def _import_once(module: str) -> bool:
    if module not in sys.modules:
        importlib.import_module(module)
    return True


# torch.compile cannot trace an import: it calls this while it traces.
_import_once._dynamo_marked_constant = True  # type: ignore[attr-defined]


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
    if wanted == "triton" and device.type != "cuda" and not _interpreted():
        raise ValueError(f"{op}: backend 'triton' needs tensors on a CUDA device, got {device}")
    return wanted


def implementation(backend: str, name: str, reference: Callable[..., Any]) -> Callable[..., Any]:
    """The callable behind op `name`: torch.ops.dgpose.<name>, the pure-torch reference, or the
    function of the same name beside the Triton kernels, which are imported at their first use.
    """
    if backend == "reference":
        return reference
    if backend == "triton":
        module = reference.__module__.replace(".reference.", ".triton.")
        _import_once(module)
        return getattr(sys.modules[module], name)  # type: ignore[no-any-return]
    return getattr(torch.ops.dgpose, name)  # type: ignore[no-any-return]
