"""inner_product_topk against the defined scores, and its laws.

What holds for every op stands in test_every_op.py.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_oracle import assert_same, best, score_matrix

from dgpose_ext import _loader, inner_product_topk
from dgpose_ext.pose_index import PoseIndex
from dgpose_ext.testing.inner_product_topk import adversarial_embeddings, random_embeddings

needs_core = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())
ADVERSARIAL = adversarial_embeddings()


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("k", [1, 10, 700, 1499])
def test_defined_ranking(name: str, k: int) -> None:
    call = ADVERSARIAL[name]
    assert_same(inner_product_topk(**call, k=k), best(score_matrix(**call), k))


@pytest.mark.parametrize(("count", "dim", "k"), [(9000, 64, 100), (20000, 17, 2048)])
def test_many_candidates(count: int, dim: int, k: int) -> None:
    """Enough for thresholds to rise and for several tasks."""
    call = random_embeddings(5, count, dim)
    assert_same(inner_product_topk(**call, k=k), best(score_matrix(**call), k))


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(0, 9), count=st.integers(0, 150), dim=st.integers(0, 40),
    k=st.integers(1, 160), levels=st.sampled_from([1, 2, 1000]), seed=st.integers(0, 99),
)  # fmt: skip
def test_equals_sorting(batch: int, count: int, dim: int, k: int, levels: int, seed: int) -> None:
    """Integers of few levels: most scores are equal to others."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-levels, levels + 1, (batch, dim), generator=generator).float()
    candidates = torch.randint(-levels, levels + 1, (count, dim), generator=generator).float()
    got = inner_product_topk(queries, candidates, k)
    assert_same(got, best(score_matrix(queries, candidates), k))
    exact = queries.double() @ candidates.double().T  # integers: exact in any order
    want = exact.sort(dim=1, descending=True, stable=True)
    shown = min(k, count)
    assert torch.equal(got[0][:, :shown].double(), want.values[:, :shown].float().double())
    assert torch.equal(got[1][:, :shown], want.indices[:, :shown])


def test_by_hand() -> None:
    queries = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    values, indices = inner_product_topk(queries, candidates, 5)
    inf = torch.inf
    assert values.tolist() == [[4, 2, 2, 1, -inf], [0, -1, -1, -1, -inf]]
    assert indices.tolist() == [[2, 1, 3, 0, -1], [0, 1, 2, 3, -1]]
    assert (values.dtype, indices.dtype) == (torch.float32, torch.int64)
    assert not values[1, 0].signbit()


def test_nan_ranks_last() -> None:
    candidates = torch.tensor([[torch.nan], [-torch.inf], [1.0], [torch.nan], [torch.inf], [-1.0]])
    values, indices = inner_product_topk(torch.ones(1, 1), candidates, 7)
    assert indices.tolist() == [[4, 2, 5, 1, 0, 3, -1]]
    assert values[0, 4:6].isnan().all()


def test_threads_and_batch_split_change_nothing() -> None:
    call = random_embeddings(300, 5000, 48)
    call["candidates"][2000:3000] = call["candidates"][:1000]  # ties
    want = inner_product_topk(**call, k=60)
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            assert_same(inner_product_topk(**call, k=60), want)
    finally:
        torch.set_num_threads(threads)
    for size in (1, 7, 253):
        parts = [
            inner_product_topk(q, call["candidates"], 60) for q in call["queries"][:260].split(size)
        ]
        got = torch.cat([values for values, _ in parts]), torch.cat([rows for _, rows in parts])
        assert_same(got, (want[0][:260], want[1][:260]))


def test_a_slice_of_columns() -> None:
    wide = torch.randn((700, 90), generator=torch.Generator().manual_seed(0))
    queries, rows = wide[:4, :50], wide[:, 30:80]
    assert_same(inner_product_topk(queries, rows, 9), inner_product_topk(queries, rows.clone(), 9))
    one = wide[:1, 30:80].expand(40, 50)
    assert inner_product_topk(queries, one, 40)[1].tolist() == [list(range(40))] * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_exact(dtype: torch.dtype) -> None:
    call = {name: t.to(dtype) for name, t in random_embeddings(3, 300, 40).items()}
    full = {name: t.float() for name, t in call.items()}
    assert_same(inner_product_topk(**call, k=20), inner_product_topk(**full, k=20))


def test_float64_is_rounded_first() -> None:
    call = random_embeddings(2, 100, 9)
    wide = {name: t.double() + 1e-12 for name, t in call.items()}
    full = {name: t.float() for name, t in wide.items()}
    assert_same(inner_product_topk(**wide, k=20), inner_product_topk(**full, k=20))


@needs_core
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_pose_index_agrees(storage: str) -> None:
    call = random_embeddings(5, 4000, 64)
    index = PoseIndex(call["candidates"], storage=storage)  # type: ignore[arg-type]
    assert_same(index.search(call["queries"], 50), inner_product_topk(**call, k=50))


@needs_core
def test_k_may_be_symbolic() -> None:
    call = random_embeddings(2, 50, 8)
    compiled = torch.compile(inner_product_topk, fullgraph=True, dynamic=True, backend="aot_eager")
    for k in (3, 5, 60):
        assert_same(compiled(**call, k=k), inner_product_topk(**call, k=k))
    torch.compiler.reset()


MEASURE_MEMORY = """
import resource, torch
from dgpose_ext import inner_product_topk

torch.set_num_threads(2)
queries, candidates = torch.ones(4096, 1), torch.rand(16384, 1)
inner_product_topk(queries[:2], candidates, 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
inner_product_topk(queries, candidates, 1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@needs_core
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_no_matrix_of_all_scores() -> None:
    """It would take 256 MiB."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE_MEMORY], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 100 * 1024


def test_oracle_by_hand() -> None:
    """The oracle of the tests itself: folded lanes, not a plain sum."""
    dim = 40
    queries, rows = torch.ones(1, dim), torch.arange(float(dim))[None]
    assert score_matrix(queries, rows)[0, 0] == dim * (dim - 1) / 2
    values, indices = best(np.array([[1.0, np.nan, -np.inf, 1.0]]), 5)
    assert indices.tolist() == [[0, 3, 2, 1, -1]]
    assert values[0, 3].isnan()
