"""Loads the compiled core; says in one sentence why not, and what to do.

Importing dgpose_ext never fails for want of the core: the pure-torch reference serves then.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

import torch  # before _C: it brings the libraries that _C is linked against, by name


def _load() -> tuple[ModuleType | None, str]:
    if os.environ.get("DGPOSE_SKIP_CORE", "0") not in ("", "0"):
        return None, "it is switched off by DGPOSE_SKIP_CORE; unset it to use the compiled kernels"
    try:
        module = importlib.import_module("dgpose_ext._C")
    except ModuleNotFoundError:
        return None, (
            "dgpose_ext._C was not built for this Python; "
            "`pip install --no-build-isolation .` in a checkout builds it"
        )
    except ImportError as error:
        return None, (
            f"dgpose_ext._C does not load with torch {torch.__version__} ({error}); "
            "it needs torch >= 2.11, or a rebuild with `pip install --no-build-isolation .`"
        )
    # Reads DGPOSE_CPU_CAPABILITY: a wrong level is an error here, not in the threads of a kernel.
    module.cpu_capability()
    return module, ""


def _load_cuda() -> str:
    """Loads the CUDA kernels; the reason why not, or an empty string."""
    if core is None:
        return _why_not  # the schemas of the ops are in the core
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a CUDA build of torch"
    library = importlib.util.find_spec("dgpose_ext._C_cuda")
    if library is None or library.origin is None:
        return (
            "dgpose_ext._C_cuda was not built; `DGPOSE_CUDA=1 pip install --no-build-isolation .` "
            "in a checkout builds it (needs nvcc, no GPU)"
        )
    try:
        torch.ops.load_library(library.origin)  # type: ignore[no-untyped-call]
    except OSError as error:
        return (
            f"dgpose_ext._C_cuda does not load with torch {torch.__version__} ({error}); rebuild "
            "it with `DGPOSE_CUDA=1 pip install --no-build-isolation .`"
        )
    return ""


#: The pybind11 module `dgpose_ext._C`, or None.
core, _why_not = _load()
_why_not_cuda = _load_cuda()


def why_no_core() -> str:
    """One sentence: why the compiled core is missing and what to do; empty where it is there."""
    return f"The compiled core is missing: {_why_not}." if _why_not else ""


def why_no_cuda() -> str:
    """One sentence: why no CUDA kernels can run and what to do; empty where they can."""
    if _why_not_cuda:
        return f"The CUDA kernels are missing: {_why_not_cuda}."
    return "" if torch.cuda.is_available() else "No CUDA device is available to torch."


def has_cuda_kernel(op: str) -> bool:
    """Whether a loaded library has a CUDA kernel of torch.ops.dgpose.<op>."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"dgpose::{op}", "CUDA"))


def cpu_capability() -> str:
    """The instruction set that the kernels use ("scalar", "avx2", "avx512"), or "reference"."""
    return "reference" if core is None else str(core.cpu_capability())
