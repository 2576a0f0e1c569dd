"""Loads the compiled core; says in one sentence why not, and what to do.

Importing dgpose_ext never fails for want of the core: the pure-torch reference serves then.
"""

from __future__ import annotations

import importlib
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


#: The pybind11 module `dgpose_ext._C`, or None.
core, _why_not = _load()


def why_no_core() -> str:
    """One sentence: why the compiled core is missing and what to do; empty where it is there."""
    return f"The compiled core is missing: {_why_not}." if _why_not else ""


def why_no_cuda() -> str:
    """One sentence: why no CUDA kernels are loaded."""
    if not torch.cuda.is_available():
        return "No CUDA device is available to torch."
    return "The CUDA kernels (dgpose_ext._C_cuda) are not part of this version."


def cpu_capability() -> str:
    """The instruction set that the kernels use ("scalar", "avx2", "avx512"), or "reference"."""
    return "reference" if core is None else str(core.cpu_capability())
