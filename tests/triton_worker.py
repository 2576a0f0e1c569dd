"""Runs or compiles the Triton kernels, in a process of its own: TRITON_INTERPRET counts at import.

python tests/triton_worker.py run DEVICE FILE       results of `calls`, by torch.save
python tests/triton_worker.py compile SM FILE       facts about every cubin, as JSON
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dgpose_ext import _backend
from dgpose_ext.testing import OpSpec, Sample, discover, tensors

ROOT = Path(__file__).resolve().parents[1]


def python(*arguments: str, interpret: bool, cache: Path | None = None) -> str:
    """The output of Python, with Triton's interpreter or without."""
    env = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "DGPOSE_BACKEND")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    if interpret:
        env["TRITON_INTERPRET"] = "1"
    if cache is not None:
        env["TRITON_CACHE_DIR"] = str(cache)
    # Values out of range warn in the interpreter, which computes with NumPy.
    command = [sys.executable, "-W", "ignore::RuntimeWarning", *arguments]
    result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def covered() -> list[OpSpec]:
    """The ops that have a Triton kernel."""
    return [spec for spec in discover() if spec.name in _backend.TRITON_OPS]


def spread(samples: list[Sample], most: int) -> list[Sample]:
    """At most so many of the samples: the first, and others evenly."""
    return samples[:: max(1, -(-len(samples) // most))]


def calls(spec: OpSpec, thorough: bool) -> dict[str, tuple[Sample, torch.dtype, bool]]:
    """Calls by name, each with the dtype of its tolerance and whether it is differentiated.

    The interpreter takes milliseconds for an operation: it gets a few of the samples only.
    """
    found: dict[str, tuple[Sample, torch.dtype, bool]] = {}

    def add(kind: str, samples: list[Sample], dtype: torch.dtype, gradient: bool = False) -> None:
        for index, call in enumerate(samples):
            found[f"{kind} {index} {dtype}"] = call, dtype, gradient

    for dtype in spec.dtypes:
        most = 1000 if thorough else 6 if dtype == spec.dtypes[0] else 1
        add("sample", spread(spec.samples(dtype), most), dtype)
    add("hostile", spread(spec.hostile(), 1000 if thorough else 6), torch.float32)
    add("empty", spec.empty(), torch.float32)
    if spec.differentiable:
        for dtype in (torch.float32, torch.float64):
            most = 1000 if thorough else 5 if dtype == torch.float64 else 1
            samples = [
                {k: _cast(v, dtype) for k, v in call.items()}
                for call in spread(spec.gradient_samples(), most)
            ]
            add("gradient", samples, dtype, gradient=True)
    return found


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def evaluate(
    spec: OpSpec, call: Sample, gradient: bool, backend: str, device: str = "cpu"
) -> list[Tensor]:
    """The results of a call, and the gradients of a weighted sum of the first of them."""
    call = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in call.items()}
    if not gradient:
        return [t.cpu() for t in tensors(spec.function(**call, backend=backend))]
    leaves = {name: call[name].clone().requires_grad_() for name in spec.differentiable}
    results = tensors(spec.function(**call | leaves, backend=backend))
    # Not dense: autograd hands the backward any strides.
    weight = torch.linspace(-1, 1, 2 * results[0].numel(), dtype=results[0].dtype, device=device)
    weight = weight.view(*results[0].shape, 2)[..., 0]
    grads = torch.autograd.grad(results[0], list(leaves.values()), weight)
    return [t.detach().cpu() for t in (*results, *grads)]


def triton_modules() -> list[ModuleType]:
    package = importlib.import_module("dgpose_ext.triton")
    names = [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [importlib.import_module(name) for name in names]


def use_small_tiles() -> None:
    """Sets the modules' sizes of tiles to 64, so that small samples have many of them."""
    for module in triton_modules():
        for name, value in vars(module).items():
            if name.isupper() and name[0] != "_" and isinstance(value, int):
                setattr(module, name, 64)


def run(device: str, file: str) -> None:
    torch.set_num_threads(1)
    thorough = device != "cpu"
    results: dict[str, list[Tensor] | str] = {}

    def record(prefix: str, spec: OpSpec, named: dict[str, tuple[Sample, Any, bool]]) -> None:
        for name, (call, _, gradient) in named.items():
            try:
                results[f"{spec.name} {prefix}{name}"] = evaluate(
                    spec, call, gradient, "triton", device
                )
            except Exception as error:  # one op's failure must not hide the others' results
                results[f"{spec.name} {prefix}{name}"] = f"{type(error).__name__}: {error}"

    for spec in covered():
        record("", spec, calls(spec, thorough))
    use_small_tiles()
    for spec in covered():
        named = calls(spec, thorough)
        few = [n for n in named if n.startswith(("sample 0", "gradient 0"))]
        record("small tiles, ", spec, {n: named[n] for n in few})
    torch.save(results, file)


class NoGpu:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, sm: int) -> None:
        self.sm = sm

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.sm, 32)

    def get_current_device(self) -> int:
        return self.sm  # Triton keeps what it compiled by device

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_instead_of_launching(driver: NoGpu) -> list[dict[str, Any]]:
    """Launches become compilations for the GPU of the driver, which need not be there.

    Returns a list that will hold a few facts about each. For sm_90 there is one of every launch,
    for others one of every kernel: they take most of the time of these tests.
    """
    import triton
    from triton.runtime.jit import JITFunction

    launch: Callable[..., Any] = JITFunction.run
    cubins: list[dict[str, Any]] = []
    seen: set[tuple[Any, int]] = set()

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        if driver.sm != 90 and (kernel, driver.sm) in seen:
            return None
        seen.add((kernel, driver.sm))
        compiled = launch(kernel, *args, grid=grid, warmup=True, **kwargs)
        cubins.append(
            {
                "kernel": f"{kernel.module}.{kernel.__name__}",
                "fused": compiled.metadata.enable_fp_fusion,
                "target": compiled.metadata.target.arch,
                "is_elf": compiled.asm["cubin"][:4] == b"\x7fELF",
            }
        )
        return compiled

    triton.runtime.driver.set_active(driver)
    JITFunction.run = compile_only
    _backend._interpreted = lambda: True  # tensors on the CPU serve
    return cubins


def compile_every_kernel(file: str, *architectures: str) -> None:
    from triton.runtime.jit import JITFunction

    driver = NoGpu(90)
    cubins = compile_instead_of_launching(driver)
    launching = []
    for spec in covered():  # on one architecture every dtype
        before = len(cubins)
        for dtype in spec.dtypes:
            evaluate(spec, spec.samples(dtype)[0], False, "triton")
        for call in spec.gradient_samples()[:1]:
            evaluate(spec, call, True, "triton")
        if len(cubins) > before:
            launching.append(spec.name)
    for sm in architectures:
        driver.sm = int(sm)
        for spec in covered():
            reference = importlib.import_module(f"dgpose_ext.reference.{spec.family}.{spec.name}")
            for name, arguments in spec.raw_calls():
                _backend.implementation("triton", name, getattr(reference, name))(*arguments)
    kernels = [
        f"{module.__name__}.{name}"
        for module in triton_modules()
        for name, value in vars(module).items()
        if isinstance(value, JITFunction)
        and name.endswith("_kernel")
        and value.module == module.__name__
    ]
    with open(file, "w") as out:
        json.dump({"kernels": kernels, "cubins": cubins, "launching": launching}, out)


def trace() -> None:
    import torch.utils._triton

    torch.utils._triton.has_triton = lambda: True  # it asks for a GPU
    launched = compile_instead_of_launching(NoGpu(90))
    for spec in covered():
        call = spec.samples(torch.float32)[0]
        compiled = torch.compile(spec.function, fullgraph=True, dynamic=True, backend="eager")
        before = len(launched)
        got = tensors(compiled(**call, backend="triton"))
        assert len(launched) > before, spec.name
        want = tensors(spec.function(**call, backend="reference"))
        assert [(t.shape, t.dtype) for t in got] == [(t.shape, t.dtype) for t in want], spec.name
        torch.compiler.reset()


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]
    if mode == "run":
        run(*arguments)
    elif mode == "compile":
        compile_every_kernel(*arguments)
    else:
        trace()
