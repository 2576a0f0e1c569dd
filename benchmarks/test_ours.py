"""Our side of every benchmark under pytest-benchmark: `pytest benchmarks --benchmark-autosave`.

For watching one machine over time (`--benchmark-compare`). Ratios to peers come from
`python -m benchmarks`, where each has a process of its own.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from .harness import Case, cases_of, modules

CASES = [
    pytest.param(case, id=f"{op}: {case.name}")
    for op, module in modules().items()
    for case in cases_of(module)
]


@pytest.mark.parametrize("case", CASES)
def test_ours(case: Case, benchmark: BenchmarkFixture) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        benchmark(case.contenders[case.ours]())
    finally:
        torch.set_num_threads(threads)
