"""The kernels on a GPU: `python -m benchmarks.gpu [OP ...]` times them with CUDA events.

A benchmark module `bench_<op>.py` may define `GPU_CASES`, a list of `GpuCase`. Each is timed on the
backends cuda and triton, beside the reference in torch (eager and compiled), beside peers of the
module, and beside a copy on the device that moves as many bytes: the limit. Contenders take turns;
before each call a buffer larger than the L2 cache is read, so inputs come from memory. Results go
to results/gpu_<op>.json.

`--device cpu` runs the same on the CPU with a clock, to try the cases (`--batch 1` makes them
small). Exit status: 0, or 1 where ours could not be run.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .harness import (
    RESULTS,
    SCHEMA,
    CannotRunError,
    environment,
    modules,
    spread,
    table,
    write_json,
)

ROUNDS = 30
LEAST_ROUNDS = 15  # also of what takes long: at most SECONDS a contender otherwise
SECONDS = 3.0
WARM_UP = 3
#: Read before each timed call. Larger than any L2 cache; the time it takes hides that of Python.
FLUSH_BYTES = 1 << 30
LIMIT = "copy of the bytes"

Arguments = dict[str, Any]
Call = Callable[[], Any]


@dataclass(frozen=True)
class GpuCase:
    """One table of contenders on the same input."""

    name: str
    unit: str  #: what a batch consists of, e.g. "frames"
    batch: int
    #: Our op and its arguments for a batch, on the CPU.
    call: Callable[[int], tuple[Callable[..., Any], Arguments]]
    traffic: int  #: bytes that must be read and written at least, for one of the batch
    #: Arguments by which the first result is differentiated: forward and backward are timed.
    differentiable: tuple[str, ...] = ()
    compiled: bool = True  #: whether torch.compile of the reference is a peer
    #: Further peers: each makes its call from the arguments, on the device.
    peers: dict[str, Callable[[Arguments], Call]] = field(default_factory=dict)
    slow: bool = False  #: a peer takes minutes to compile: its op comes last


class CudaClock:
    """Times calls on the current GPU, with cold caches."""

    def __init__(self) -> None:
        self._flush = torch.zeros(FLUSH_BYTES // 4, device="cuda")

    def seconds(self, call: Call) -> float:
        """GPU seconds of one call."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.amax()  # read, not written: dirty lines would be written back in the call
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


class CpuClock:
    """Times calls on the CPU, with warm caches."""

    def seconds(self, call: Call) -> float:
        """Wall seconds of one call."""
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


def ours(case: GpuCase, function: Callable[..., Any], arguments: Arguments, backend: str) -> Call:
    """Calls our op on a backend, and its gradient where the case asks for it."""
    if not case.differentiable:
        return lambda: function(**arguments, backend=backend)
    leaves = {name: arguments[name].clone().requires_grad_() for name in case.differentiable}

    def forward() -> torch.Tensor:
        result = function(**arguments | leaves, backend=backend)
        return result if isinstance(result, torch.Tensor) else result[0]

    weight = torch.rand_like(forward())
    return lambda: torch.autograd.grad(forward(), list(leaves.values()), weight)


def copy(traffic: int, device: str) -> Call:
    """A copy on the device that reads half the bytes and writes half."""
    source = torch.zeros(max(1, traffic // 2), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def contenders(
    case: GpuCase, batch: int, device: str, compiled: bool
) -> tuple[dict[str, Callable[[], Call]], dict[str, str]]:
    """What makes the calls, by name, ours first; and why a backend is missing, by name."""
    from dgpose_ext import _backend

    function, arguments = case.call(batch)
    arguments = {
        # A clone: of what was expanded, every element.
        name: value.to(device).clone() if isinstance(value, torch.Tensor) else value
        for name, value in arguments.items()
    }
    found: dict[str, Callable[[], Call]] = {}
    absent: dict[str, str] = {}
    for backend in (device, "triton") if device == "cuda" else (device,):
        name = f"dgpose_ext, {backend}"
        if why := _backend.missing(backend, function.__name__):
            absent[name] = why
        else:
            found[name] = partial(ours, case, function, arguments, backend)
    reference = "dgpose_ext reference (torch)"
    found[reference] = partial(ours, case, function, arguments, "reference")
    if compiled and case.compiled:
        found[f"{reference}, torch.compile"] = lambda: ours(
            case, torch.compile(function), arguments, "reference"
        )
    for name, make in case.peers.items():
        if compiled or not name.endswith("torch.compile"):
            found[name] = partial(make, arguments)
    found[LIMIT] = partial(copy, case.traffic * batch, device)
    return found, absent


def started(make: Callable[[], Call]) -> tuple[Call, float]:
    """The call, warm, and about how long it takes; CannotRunError where it does not run."""
    try:
        call = make()
        for _ in range(WARM_UP):
            call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except ModuleNotFoundError as error:
        raise CannotRunError(f"not installed: {error.name}") from error
    except Exception as error:
        lines = str(error).splitlines() or [""]
        raise CannotRunError(f"failed: {type(error).__name__}: {lines[0]}") from error
    return call, time.perf_counter() - start


def run_case(
    case: GpuCase, device: str, *, batch: int | None = None, rounds: int = ROUNDS,
    compiled: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """The contenders of a case, in turn: a result as of harness.run_case, and shares of the limit.

    Raises:
        CannotRunError: our kernel for this device does not run.
    """
    batch = case.batch if batch is None else batch
    makers, absent = contenders(case, batch, device, compiled)
    own = f"dgpose_ext, {device}"
    if own in absent:
        raise CannotRunError(f"{case.name}: {absent[own]}")
    calls: dict[str, Call] = {}
    left: dict[str, int] = {}
    for name, make in makers.items():
        try:
            calls[name], seconds = started(make)
        except CannotRunError as error:
            if name == own:
                raise CannotRunError(f"{case.name}: {name} {error}") from error
            absent[name] = str(error)
        else:
            least = min(rounds, LEAST_ROUNDS)
            left[name] = max(least, min(rounds, int(SECONDS / max(seconds, 1e-9))))
    clock = CudaClock() if device == "cuda" else CpuClock()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            if turn < left[name]:
                times[name].append(clock.seconds(call))
    limit = statistics.median(times[LIMIT])
    return {
        "case": case.name, "unit": case.unit, "work": batch, "threads": torch.get_num_threads(),
        "ours": own, "limit": LIMIT, "note": f"{case.traffic * batch / 1e6:,.1f} MB must move",
        "contenders": {name: spread(values) for name, values in times.items()}, "absent": absent,
        "traffic_bytes": case.traffic * batch,
        "copy_gb_per_s": case.traffic * batch / limit / 1e9,
        "share_of_copy": {
            name: limit / statistics.median(values)
            for name, values in times.items() if name != LIMIT
        },
    }  # fmt: skip


def gpu_environment(device: str) -> dict[str, Any]:
    """harness.environment(), and the GPU: its name, driver and caches."""
    facts = environment() | {"device": device}
    if device != "cuda":
        return facts
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    facts |= {
        "device": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "cuda": torch.version.cuda,
    }
    if program := shutil.which("nvidia-smi"):
        query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True)
        facts["driver"] = (answer.stdout.splitlines() or [""])[0].strip()
    for package in ("triton", "torchvision"):
        try:
            facts["versions"][package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return facts


def gpu_cases(module: str) -> list[GpuCase]:
    """The cases on a GPU of a benchmark module; none for an op that has no CUDA kernel."""
    cases: list[GpuCase] = getattr(importlib.import_module(module), "GPU_CASES", [])
    return cases


def report(result: dict[str, Any]) -> str:
    """A case as text."""
    shares = ", ".join(
        f"{name.removeprefix('dgpose_ext, ')} {share:.0%}"
        for name, share in result["share_of_copy"].items()
        if name.startswith("dgpose_ext, ")
    )
    rate = result["copy_gb_per_s"]
    return f"{table(result)}\n  share of the copy ({rate:,.0f} GB/s): {shares}"


def main(arguments: list[str] | None = None) -> int:
    """Runs and writes one file an op."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = {op: module for op, module in modules().items() if gpu_cases(module)}
    parser.add_argument("ops", nargs="*", metavar="OP", help=f"of {', '.join(known)}; default all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for gpu_<op>.json")
    parser.add_argument("--batch", type=int, help="batch instead of that of the case")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args(arguments)
    if unknown := set(options.ops) - set(known):
        parser.error(f"OP must be one of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; --device cpu tries the cases without one")
    facts = gpu_environment(options.device)
    failed = False
    slow = {op: any(case.slow for case in gpu_cases(module)) for op, module in known.items()}
    for op in options.ops or sorted(known, key=slow.__getitem__):
        results = []
        for case in gpu_cases(known[op]):
            try:
                result = run_case(
                    case, options.device, batch=options.batch, rounds=options.rounds,
                    compiled=not options.no_compile,
                )  # fmt: skip
            except CannotRunError as error:
                print(f"error: {op}: {error}", file=sys.stderr)
                failed = True
                continue
            results.append(result)
            print(f"{op}: {report(result)}", flush=True)
            torch.compiler.reset()
        if results:
            path = options.out / f"gpu_{op}.json"
            write_json({"schema": SCHEMA, "environment": facts, "results": results}, path)
            print(f"wrote {path}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
