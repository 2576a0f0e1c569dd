"""`python -m dgpose_ext.info`: versions, CPU capability, and which backend each op uses here."""

from __future__ import annotations

import os
import platform

import torch

import dgpose_ext
from dgpose_ext import _backend, _loader
from dgpose_ext.testing import discover


def collect() -> dict[str, object]:
    """Everything that a bug report needs, as plain values."""
    core = _loader.core
    facts: dict[str, object] = {
        "dgpose_ext": dgpose_ext.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "compiled core": "loaded" if core is not None else _loader.why_no_core(),
    }
    if core is not None:
        build = core.build_info()
        facts |= {
            "processor": core.cpu_model_name(),
            "CPU capability": f"{core.cpu_capability()} (has {core.detected_cpu_capability()})",
            "CPU extensions": ", ".join(k for k, v in core.cpu_features().items() if v) or "none",
            "core built with": f"{build['compiler']}, {build['build_type']}, "
            f"stable ABI of torch {build['torch_target']}",
        }
    facts["CUDA"] = _loader.why_no_cuda() or ", ".join(
        torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
    )
    facts["Triton"] = _backend.why_no_triton() or "available"
    facts["DGPOSE_BACKEND"] = os.environ.get("DGPOSE_BACKEND") or "not set"
    facts["threads"] = torch.get_num_threads()
    return facts


def main() -> None:
    """Prints the facts and the ops."""
    for name, value in collect().items():
        print(f"{name + ':':<18}{value}")
    print("\nop                  backends here (the first is the default for tensors on the CPU,")
    print("                    unless DGPOSE_BACKEND is set)")
    for spec in discover():
        default = _backend.default(torch.device("cpu"), spec.name)
        there = [b for b in _backend.BACKENDS if not _backend.missing(b, spec.name)]
        others = [b for b in there if b != default]
        print(f"{spec.name:<20}{', '.join([default, *others])}")


if __name__ == "__main__":
    main()
