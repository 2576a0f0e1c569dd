"""Our side of every benchmark under pytest-benchmark: `pytest benchmarks --benchmark-autosave`.

For watching one machine over time (`--benchmark-compare`). Ratios to peers come from
`python -m benchmarks`, where each has a process of its own.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import Case

STEMS = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
CASES = [
    pytest.param(case, id=f"{stem.removeprefix('bench_')}: {case.name}")
    for stem in STEMS
    for case in importlib.import_module(f"benchmarks.{stem}").CASES
]


@pytest.mark.parametrize("case", CASES)
def test_ours(case: Case, benchmark: BenchmarkFixture) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        benchmark(case.contenders[case.ours]())
    finally:
        torch.set_num_threads(threads)
