"""Shared by all benchmarks: timing, limits, isolation of peers, results as JSON.

A benchmark module `bench_<op>.py` defines `CASES`, a list of `Case`. `python -m benchmarks [OP ..]`
runs them, prints one table a case and writes results/<op>.json.
"""

from __future__ import annotations

import ctypes
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
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROUNDS = 15

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
    contenders: dict[str, Contender]
    ours: str  #: the contender that is ours
    limit: str | None = None  #: the contender that measures the physical limit
    note: str = ""
    repeats: int = field(default=3)


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


def seconds_per_call(function: Callable[[], Any]) -> list[float]:
    """Wall seconds of one call, 15 times (fewer, at least 3, where that would take over 5 s).

    Short calls are repeated within a round (>= 20 ms).
    """
    function()
    start = time.perf_counter()
    function()
    once = max(time.perf_counter() - start, 1e-7)
    loops = max(1, round(0.02 / once))
    rounds = max(3, min(ROUNDS, int(5 / (once * loops))))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(loops):
            function()
        times.append((time.perf_counter() - start) / loops)
    return times


def environment() -> dict[str, Any]:
    """Machine, versions and date; names neither host nor user."""
    from dgpose_ext import _loader

    versions = {}
    for package in (
        "torch",
        "numpy",
        "opencv-python-headless",
        "onnxruntime",
        "kornia",
        "pyrender",
        "faiss-cpu",
        "pykeops",
    ):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": _loader.core.cpu_model_name() if _loader.core else platform.processor(),
        "capability": _loader.core.cpu_capability() if _loader.core else "reference",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def run_contender(module: str, case: str, contender: str) -> list[float]:
    """Times one contender in a process of its own."""
    cases: list[Case] = __import__(module, fromlist=["CASES"]).CASES
    threads = str(next(c.threads for c in cases if c.name == case))
    env = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.harness", module, case, contender],
        check=True, stdout=subprocess.PIPE, text=True, env=env,
    ).stdout  # fmt: skip
    return [float(x) for x in json.loads(out.splitlines()[-1])]


def run_case(module: str, case: Case) -> dict[str, Any]:
    """All contenders of a case, in turn; medians over all rounds of all repeats."""
    times: dict[str, list[float]] = {name: [] for name in case.contenders}
    for _ in range(case.repeats):
        for name in list(times):
            try:
                times[name] += run_contender(module, case.name, name)
            except subprocess.CalledProcessError:
                if name == case.ours:
                    raise
                del times[name]  # a peer that does not run here; its error stands on stderr
                print(f"{case.name}: {name} could not be run", file=sys.stderr)
    rows = {
        name: {
            "median_s": statistics.median(values),
            "p10_s": statistics.quantiles(values, n=10)[0],
            "p90_s": statistics.quantiles(values, n=10)[-1],
            "rounds": len(values),
        }
        for name, values in times.items()
    }
    return {
        "case": case.name, "unit": case.unit, "work": case.work, "threads": case.threads,
        "ours": case.ours, "limit": case.limit, "note": case.note, "contenders": rows,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """One case as text: time, spread, rate, and the ratio to ours."""
    rows = result["contenders"]
    ours = rows[result["ours"]]["median_s"]
    lines = [f"{result['case']} ({result['threads']} thread(s)) {result['note']}".rstrip()]
    width = max(len(name) for name in rows)
    for name, row in rows.items():
        mark = " limit" if name == result["limit"] else " ours" if name == result["ours"] else ""
        lines.append(
            f"  {name:<{width}}  {row['median_s'] * 1e6:>12,.1f} us"
            f"  ({row['p10_s'] * 1e6:,.1f} .. {row['p90_s'] * 1e6:,.1f})"
            f"  {result['work'] / row['median_s']:>12,.0f} {result['unit']}/s"
            f"  {row['median_s'] / ours:>7.2f} x ours{mark}"
        )
    return "\n".join(lines)


def run_module(module: str, out: Path = RESULTS) -> Path:
    """Runs all cases of `benchmarks.bench_<op>` and writes results/<op>.json."""
    cases: list[Case] = __import__(module, fromlist=["CASES"]).CASES
    results = []
    for case in cases:
        results.append(run_case(module, case))
        print(table(results[-1]), flush=True)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{module.rpartition('bench_')[2]}.json"
    text = json.dumps({"environment": environment(), "results": results}, indent=1)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    temporary.replace(path)
    return path


def _child(module: str, case: str, contender: str) -> None:
    cases: list[Case] = __import__(module, fromlist=["CASES"]).CASES
    chosen = next(c for c in cases if c.name == case)
    import torch

    torch.set_num_threads(chosen.threads)
    print(json.dumps(seconds_per_call(chosen.contenders[contender]())))


if __name__ == "__main__":
    _child(*sys.argv[1:])
