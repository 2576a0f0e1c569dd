"""Shared by all benchmarks: timing, limits, isolation of peers, results as JSON.

A benchmark module `bench_<op>.py` defines `CASES`, a list of `Case`. `python -m benchmarks [OP ..]`
runs them, prints one table a case and writes results/<op>.json; `dgpose bench` does the same for
users. The folder is `benchmarks` in a checkout and `dgpose.benchmarks` in a wheel: imports within
it are relative.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROUNDS = 15
TIMEOUT_S = 600  # of one contender
SCHEMA = "dgpose.benchmark/1"
#: The extra of dgpose-ext that brings all peers.
INSTALL_PEERS = "pip install 'dgpose-ext[bench]'"
GPU_BACKENDS = ("cuda", "triton")
GPU_LIMIT = "copy of the bytes, GPU"

#: Makes the callable to be timed; imports its library itself: only its own process loads it.
Contender = Callable[[], Callable[[], Any]]


@dataclass(frozen=True)
class Case:
    """One table: contenders on the same input.

    Every contender runs in its own process (two OpenMP pools in one slow each other), with
    `threads` threads, in turn, `repeats` times, so that a drift of the machine's speed meets all of
    them.
    """

    name: str
    unit: str  #: what one call does `work` of, e.g. "frames"
    work: float
    threads: int
    contenders: dict[str, Contender]  #: ours have names that begin with that of `ours`
    ours: str  #: the contender that is ours
    limit: str | None = None  #: the contender that measures the physical limit
    note: str = ""
    repeats: int = field(default=3)
    #: Each call is timed by itself (for p99), not in rounds of 20 ms.
    by_call: bool = False
    #: Our op and its arguments: timed on the backends that `contenders` does not name.
    call: Callable[[], tuple[Callable[..., Any], dict[str, Any]]] | None = None
    #: Bytes that a call must read and write at least; a copy of as many is the limit on a GPU.
    traffic: int = 0


def kept_memory(contender: Contender) -> Contender:
    """The contender in a process whose malloc keeps what is freed (where there is glibc).

    Else large results go back to the kernel, whose page faults cost more than many a kernel.
    """

    def make() -> Callable[[], Any]:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(-4, 0)  # M_MMAP_MAX: no mappings
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        return contender()

    return make


def on_other_backends(case: Case) -> dict[str, tuple[str, Contender]]:
    """Ours on the GPU's backends, their limit and the reference: name -> (backend, contender)."""

    def ours(backend: str) -> Callable[[], Any]:
        import torch

        assert case.call is not None
        function, arguments = case.call()
        if backend in GPU_BACKENDS:
            arguments = {
                name: value.cuda() if isinstance(value, torch.Tensor) else value
                for name, value in arguments.items()
            }
        return lambda: function(**arguments, backend=backend)

    def copy() -> Callable[[], Any]:
        import torch

        source = torch.zeros(case.traffic // 2, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    if case.call is None:
        return {}
    backends = [*GPU_BACKENDS]
    if not any("reference" in name for name in case.contenders):
        backends.append("reference")
    found: dict[str, tuple[str, Contender]] = {
        f"{case.ours}, {backend}": (backend, partial(ours, backend)) for backend in backends
    }
    if case.traffic:
        found[GPU_LIMIT] = "copy", copy
    return found


def why_absent(backend: str, op: str) -> str:
    """Why the op cannot be timed on this backend here; empty if it can."""
    import torch

    from dgpose_ext import _backend

    if backend != "reference" and not torch.cuda.is_available():
        return "no GPU"
    return _backend.missing(backend, op) if backend in GPU_BACKENDS else ""


def seconds_per_call(
    function: Callable[[], Any],
    wait: Callable[[], Any] = lambda: None,
    *,
    seconds: float = 5,
    at_least: int = 3,
) -> list[float]:
    """Wall seconds of one call, 15 times (fewer, `at_least`, where they would take over `seconds`).

    Short calls are repeated within a round (>= 20 ms). `wait` returns when what was called has been
    done, where calls only queue their work.
    """
    function()
    wait()
    start = time.perf_counter()
    function()
    wait()
    once = max(time.perf_counter() - start, 1e-7)
    loops = max(1, round(0.02 / once))
    rounds = max(at_least, min(ROUNDS, int(seconds / (once * loops))))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(loops):
            function()
        wait()
        times.append((time.perf_counter() - start) / loops)
    return times


def seconds_of_calls(function: Callable[[], Any], *, seconds: float = 2) -> list[float]:
    """Wall seconds of every single call, for about `seconds`; 200 to 5,000 calls."""
    start = time.perf_counter()
    for _ in range(20):
        function()
    once = (time.perf_counter() - start) / 20
    times = []
    for _ in range(max(200, min(5000, int(seconds / once)))):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def environment() -> dict[str, Any]:
    """Machine, versions and date; names neither host nor user."""
    import torch

    from dgpose_ext import _loader

    versions = {}
    for package in (
        "dgpose-ext",
        "torch",
        "numpy",
        "opencv-python-headless",
        "onnxruntime",
        "openvino",
        "nncf",
        "kornia",
        "pyrender",
        "faiss-cpu",
        "pykeops",
    ):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    facts = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": _loader.core.cpu_model_name() if _loader.core else platform.processor(),
        "capability": _loader.core.cpu_capability() if _loader.core else "reference",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def modules() -> dict[str, str]:
    """The benchmark modules by op, in alphabetical order."""
    stems = sorted(p.stem.removeprefix("bench_") for p in Path(__file__).parent.glob("bench_*.py"))
    return {stem: f"{__package__}.bench_{stem}" for stem in stems}


def cases_of(module: str) -> list[Case]:
    """The cases of a benchmark module."""
    cases: list[Case] = importlib.import_module(module).CASES
    return cases


class CannotRunError(RuntimeError):
    """A contender that does not run here; the message says why."""


def run_contender(module: str, case: Case, contender: str) -> list[float]:
    """Times one contender in a process of its own.

    Raises:
        CannotRunError: it needs a package that is not installed, fails, or takes too long.
    """
    threads = str(case.threads)
    try:
        child = subprocess.run(
            [sys.executable, "-m", f"{__package__}.harness", module, case.name, contender],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=os.environ
            | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
            | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        )
    except subprocess.TimeoutExpired:
        raise CannotRunError(f"stopped after {TIMEOUT_S} s") from None
    if child.returncode != 0:
        last = (child.stderr.strip() or f"exit code {child.returncode}").splitlines()[-1]
        raise CannotRunError(f"failed: {last}")
    answer = json.loads(child.stdout.splitlines()[-1])
    if isinstance(answer, str):
        raise CannotRunError(answer)
    return [float(seconds) for seconds in answer]


def spread(times: list[float], by_call: bool = False) -> dict[str, Any]:
    """Median and range of the seconds of each round, or call."""
    deciles = statistics.quantiles(times, n=10, method="inclusive")
    tail = {"p99_s": statistics.quantiles(times, n=100, method="inclusive")[-1]} if by_call else {}
    return {
        "median_s": statistics.median(times),
        "p10_s": deciles[0],
        "p90_s": deciles[-1],
        **tail,
        "rounds": len(times),
    }


def write_json(document: dict[str, Any], path: Path) -> None:
    """Writes a file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(path)


def run_case(
    module: str, case: Case, repeats: int | None = None, progress: Callable[[str], Any] = str
) -> dict[str, Any]:
    """All contenders of a case, in turn; medians over all rounds of all repeats.

    Raises:
        CannotRunError: our own contender does not run.
    """
    others, op = on_other_backends(case), module.rpartition("bench_")[2]
    absent = {
        name: why for name, (backend, _) in others.items() if (why := why_absent(backend, op))
    }
    times: dict[str, list[float]] = {
        name: [] for name in (*case.contenders, *others) if name not in absent
    }
    absent.pop(GPU_LIMIT, None)
    for _ in range(repeats or case.repeats):
        for name in list(times):
            progress(f"{case.name}: {name}")
            try:
                times[name] += run_contender(module, case, name)
            except CannotRunError as error:
                if name == case.ours:
                    raise CannotRunError(f"{case.name}: {name} {error}") from None
                del times[name]
                absent[name] = str(error)
    rows = {name: spread(values, case.by_call) for name, values in times.items()}
    for name, (backend, _) in others.items():
        if name in rows and backend != "reference" and GPU_LIMIT in rows:
            rows[name]["limit"] = GPU_LIMIT
    return {
        "case": case.name, "unit": case.unit, "work": case.work, "threads": case.threads,
        "ours": case.ours, "limit": case.limit if case.limit in rows else None, "note": case.note,
        "contenders": rows, "absent": absent,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """One case as text: time, spread, rate, and the ratio to ours."""
    rows = result["contenders"]
    ours = rows[result["ours"]]["median_s"]
    lines = [f"{result['case']} ({result['threads']} thread(s)) {result['note']}".rstrip()]
    width = max(len(name) for name in (*rows, *result["absent"]))
    for name, row in rows.items():
        mark = " limit" if name == result["limit"] else " ours" if name == result["ours"] else ""
        lines.append(
            f"  {name:<{width}}  {row['median_s'] * 1e6:>12,.1f} us"
            f"  ({row['p10_s'] * 1e6:,.1f} .. {row['p90_s'] * 1e6:,.1f})"
            f"  {result['work'] / row['median_s']:>12,.0f} {result['unit']}/s"
            f"  {row['median_s'] / ours:>7.2f} x ours"
            + (f"  p99 {row['p99_s'] * 1e6:>10,.1f} us" if "p99_s" in row else "")
            + mark
        )
    lines += [f"  {name:<{width}}  {why}" for name, why in result["absent"].items()]
    return "\n".join(lines)


def run_module(
    module: str,
    path: Path,
    *,
    repeats: int | None = None,
    report: Callable[[dict[str, Any]], Any] = lambda result: print(table(result), flush=True),
    progress: Callable[[str], Any] = str,
) -> None:
    """Runs all cases of a benchmark module, reports each, and writes the results to `path`.

    Args:
        module: of `modules()`.
        path: JSON file to write.
        repeats: turns of each contender instead of the case's own number.
        report: called with the result of each case.
        progress: called with the name of what is timed next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)  # fails before the minutes of work, not after
    results = []
    for case in cases_of(module):
        results.append(run_case(module, case, repeats, progress))
        report(results[-1])
    write_json({"schema": SCHEMA, "environment": environment(), "results": results}, path)


def _child(module: str, case: str, contender: str) -> list[float] | str:
    """Seconds of each round, or what is not installed."""
    chosen = next(c for c in cases_of(module) if c.name == case)
    import torch

    torch.set_num_threads(chosen.threads)
    others = on_other_backends(chosen)
    try:
        if contender in chosen.contenders:
            time_it = seconds_of_calls if chosen.by_call else seconds_per_call
            return time_it(chosen.contenders[contender]())
        backend, make = others[contender]
        if backend == "reference":
            return seconds_per_call(make())
        return seconds_per_call(make(), torch.cuda.synchronize)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "dgpose", "dgpose_ext"):
            raise
        return f"not installed: {package} ({INSTALL_PEERS})"


if __name__ == "__main__":
    print(json.dumps(_child(*sys.argv[1:])))
