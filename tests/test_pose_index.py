"""PoseIndex: the defined ranking at every storage, and files that lose nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dgpose_ext import PoseIndex, _index_file, _loader

if _loader.core is None:
    pytest.skip(_loader.why_no_core(), allow_module_level=True)

STORAGES = ("float32", "bfloat16", "int8")
every_storage = pytest.mark.parametrize("storage", STORAGES)


def defined_ranking(queries: Tensor, rows: Tensor, k: int, extra: Tensor | None = None) -> Tensor:
    """Positions of the k best: float32 of the float64 sum, ties to the lower row."""
    exact = queries.double() @ rows.double().T
    scores = (exact if extra is None else exact + extra).float()
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]


def relu_rows(count: int, dim: int, seed: int, latent: int = 12) -> Tensor:
    """Embeddings as a network makes them: non-negative and of low rank."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(latent, dim, generator=torch.Generator().manual_seed(99))
    return (torch.randn(count, latent, generator=generator) @ weights).relu()


def poses_of(count: int, seed: int, joints: int = 5) -> Tensor:
    return torch.randn(count, joints, 3, generator=torch.Generator().manual_seed(seed)) * 200


@every_storage
@pytest.mark.parametrize("dim", [1, 3, 16, 17, 63, 130])
def test_is_the_defined_ranking(storage: str, dim: int) -> None:
    rows, queries = relu_rows(1500, dim, 0), relu_rows(13, dim, 1)
    index = PoseIndex(rows, storage=storage)
    for k in (1, 7, 200, 1500):
        scores, ids = index.search(queries, k)
        want = defined_ranking(queries, rows, k)
        assert torch.equal(ids, want)
        exact = (queries.double() @ rows.double().T).float().gather(1, want)
        assert torch.equal(scores, exact)


def adversarial_sets() -> dict[str, tuple[Tensor, Tensor]]:
    """(rows, queries) that break bounds which forget a rounding."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    queries = normal(13, 40)  # enough for float32 rows to be narrowed on the way
    one = normal(1, 40)
    steps = torch.randint(-2, 3, (3000, 40), generator=generator, dtype=torch.int32)
    ulps = one.view(torch.int32) + steps
    signs = torch.where(torch.rand(3000, 1, generator=generator) < 0.5, -1.0, 1.0)
    mixed = normal(3000, 40) * 10.0 ** torch.randint(-30, 12, (3000, 1), generator=generator)
    return {
        "huge norms": (normal(2000, 40) * 1e30, queries),
        "norms from 1e-30 to 1e12": (mixed.float(), queries),
        "denormals": (normal(2000, 40) * 1e-39, queries * 1e-3),
        "denormal products": (normal(2000, 40) * 1e-25, queries * 1e-20),
        "near ties by the thousand": (ulps.view(torch.float32), queries),
        "duplicates": (normal(20, 40).repeat(150, 1), queries),
        "all equal": (one.expand(2500, 40).contiguous(), queries),
        "rows of zeros": (torch.cat([torch.zeros(1500, 40), normal(500, 40)]), queries),
        "opposite signs": (one * signs, queries),
        "a far mean": (normal(3000, 40) + 1e4, queries),
        "a far mean, far queries": (normal(3000, 40) + 1e4, queries + 1e4),
        "queries along the mean": ((one + normal(3000, 40) * 1e-6), one * normal(13, 1) * 1e5),
        "long queries, a mean of denormals": ((one + normal(3000, 40)) * 1e-38, one * 1e30),
        "long queries, b underflows": (
            (one + normal(3000, 40)) * 1e-20,
            one * 1e-14 + queries * 1e-20,
        ),
        "one outlier": (torch.cat([normal(2000, 40), normal(1, 40) * 1e8]), queries),
        "a zero query": (normal(2000, 40), torch.zeros(2, 40)),
        "overflow to Inf": (normal(2000, 40) * 1e25, queries * 1e20),
        # Offsets mu.(x - mu) and sums on the way overflow; the scores do not.
        "a mean of 2e19": ((normal(3000, 40) * 0.3 + 1) * 2e19, queries * 1e-10),
        "a mean of 5e19": ((normal(3000, 40) * 0.3 + 1) * 5e19, queries * 1e-10),
        # Scores of which most tie as -Inf, and on both sides of the largest float32.
        "ties at -Inf": (normal(4000, 40).abs() * -2.6e18, queries.abs() * 1e19),
        "around the largest": (normal(4000, 40) * 2.6e18, queries * 2e19),
        "around the largest, far mean": (normal(4000, 40).abs() * 2.6e18, queries.abs() * 4e18),
    }


@every_storage
@pytest.mark.parametrize("name", list(adversarial_sets()))
def test_attacks_on_the_certificate(storage: str, name: str) -> None:
    rows, queries = adversarial_sets()[name]
    index = PoseIndex(rows, storage=storage)
    for k in (1, 10, 500):
        assert torch.equal(index.search(queries, k)[1], defined_ranking(queries, rows, k)), k


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 400),
    dim=st.integers(1, 70),
    k=st.integers(1, 450),
    exponent=st.integers(-20, 15),
    storage=st.sampled_from(STORAGES),
)
def test_law(seed: int, count: int, dim: int, k: int, exponent: int, storage: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-3, 4, (count, dim), generator=generator) * 2.0**exponent  # many ties
    queries = torch.randn(3, dim, generator=generator)
    scores, ids = PoseIndex(rows, storage=storage).search(queries, k)
    found = min(k, count)
    assert torch.equal(ids[:, :found], defined_ranking(queries, rows, k))
    assert (ids[:, found:] == -1).all()
    assert (scores[:, found:] == -torch.inf).all()


@every_storage
def test_threads_and_splits_change_nothing(storage: str) -> None:
    rows, queries = relu_rows(5000, 64, 2), relu_rows(300, 64, 3)
    index = PoseIndex(rows, storage=storage)
    whole = index.search(queries, 50)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for size in (1, 7, 253):
            parts = [index.search(part, 50) for part in queries.split(size)]
            assert torch.equal(torch.cat([p[1] for p in parts]), whole[1])
            assert torch.equal(torch.cat([p[0] for p in parts]), whole[0])
    finally:
        torch.set_num_threads(threads)


@every_storage
def test_add_and_remove(storage: str) -> None:
    rows, queries = relu_rows(2000, 33, 4), relu_rows(9, 33, 5)
    index = PoseIndex(rows[:700], storage=storage)
    index.add(rows[700:1501])
    index.add(rows[1501:])
    assert len(index) == 2000
    assert torch.equal(index.search(queries, 40)[1], defined_ranking(queries, rows, 40))
    kept = torch.arange(2000)
    for step in (11, 3, 2):  # few gaps, then so many that they are closed
        gone = kept[::step]
        index.remove(gone)
        kept = kept[~torch.isin(kept, gone)]
        want = kept[defined_ranking(queries, rows[kept], 40)]
        assert torch.equal(index.search(queries, 40)[1], want)
    index.add(rows[:5])  # new ids count on, gone ones stay gone
    everything = torch.cat([rows[kept], rows[:5]])
    ids = torch.cat([kept, torch.arange(2000, 2005)])
    assert torch.equal(index.search(queries, 40)[1], ids[defined_ranking(queries, everything, 40)])


@every_storage
def test_own_ids_in_any_order(storage: str) -> None:
    rows, queries = relu_rows(900, 20, 6), relu_rows(4, 20, 7)
    ids = torch.randperm(10**6, generator=torch.Generator().manual_seed(0))[:900]
    index = PoseIndex(rows, ids=ids, storage=storage)
    assert torch.equal(index.search(queries, 30)[1], ids[defined_ranking(queries, rows, 30)])
    index.remove(ids[::5])
    kept = torch.arange(900)[torch.arange(900) % 5 != 0]
    want = ids[kept][defined_ranking(queries, rows[kept], 30)]
    assert torch.equal(index.search(queries, 30)[1], want)
    only = ids[kept][::3]
    want = only[defined_ranking(queries, rows[kept][::3], 30)]
    assert torch.equal(index.search(queries, 30, filter=only)[1], want)


@every_storage
def test_filters(storage: str) -> None:
    rows, queries = relu_rows(1200, 24, 8), relu_rows(5, 24, 9)
    index = PoseIndex(rows, storage=storage)
    mask = torch.rand(1200, generator=torch.Generator().manual_seed(1)) < 0.2
    chosen = mask.nonzero()[:, 0]
    want = chosen[defined_ranking(queries, rows[mask], 25)]
    for filter in (mask, mask.numpy(), chosen, chosen.tolist(), chosen.flip(0)):
        assert torch.equal(index.search(queries, 25, filter=filter)[1], want)
    scores, ids = index.search(queries, 2, filter=[7])
    assert (ids == torch.tensor([7, -1])).all()
    assert (scores[:, 1] == -torch.inf).all()
    assert (index.search(queries, 3, filter=torch.zeros(1200, dtype=torch.bool))[1] == -1).all()
    assert (index.search(queries, 3, filter=[])[1] == -1).all()


@every_storage
def test_mean_pose_and_most_violated(storage: str) -> None:
    rows, queries = relu_rows(1500, 30, 10), relu_rows(8, 30, 11)
    poses, targets = poses_of(1500, 12), poses_of(8, 13)
    index = PoseIndex(rows, poses=poses, storage=storage)
    best = defined_ranking(queries, rows, 60)
    mean = poses[best].double().mean(dim=1)
    torch.testing.assert_close(
        index.search_mean_pose(queries, 60).double(), mean, rtol=0, atol=1e-4
    )
    distance = (poses.double() - targets.double()[:, None]).norm(dim=-1).mean(-1)
    for weight in (0.0, 0.01, 1.0, 1000.0):
        values, ids = index.most_violated(queries, targets, margin_weight=weight)
        augmented = (queries.double() @ rows.double().T + weight * distance).float()
        assert torch.equal(ids, defined_ranking(queries, rows, 1, weight * distance)[:, 0])
        assert torch.equal(values, augmented.gather(1, ids[:, None])[:, 0])
    few = index.search_mean_pose(queries, 9, filter=[3, 4])
    torch.testing.assert_close(few, poses[[3, 4]].mean(0).expand_as(few), rtol=0, atol=1e-4)


def test_margin_that_ties_every_pair() -> None:
    """Scores of -MPJPE: no bound can drop a pair, the answer must hold all the same."""
    poses = poses_of(3000, 14, joints=4)
    target = poses[17:18]
    distance = (poses.double() - target.double()).norm(dim=-1).mean(-1)
    rows = torch.stack([-distance.float(), torch.ones(3000)], 1)
    query = torch.tensor([[1.0, 0.0]])
    index = PoseIndex(rows, poses=poses, storage="float32")
    want = defined_ranking(query, rows, 1, distance[None])
    assert torch.equal(index.most_violated(query, target)[1], want[:, 0])


@pytest.mark.parametrize(
    ("scale", "weight", "rows_scale"),
    [
        (1e20, 1e-20, 1.0),  # squares of poses overflow
        (3e19, 1e-18, 1.0),
        (1e-25, 1e26, 1.0),  # and underflow
        (1e-30, 1e30, 1.0),
        (1e17, 1e-44, 1e-27),  # the weight is a denormal in float32
    ],
)
def test_attacks_on_the_margin(scale: float, weight: float, rows_scale: float) -> None:
    rows, queries = relu_rows(3000, 16, 40) * rows_scale, relu_rows(4, 16, 41)
    poses, targets = poses_of(3000, 42) / 200 * scale, poses_of(4, 43) / 200 * scale
    distance = (poses.double() - targets.double()[:, None]).norm(dim=-1).mean(-1)
    want = defined_ranking(queries, rows, 1, weight * distance)[:, 0]
    for storage in STORAGES:
        index = PoseIndex(rows, poses=poses, storage=storage)
        got = index.most_violated(queries, targets, margin_weight=weight)[1]
        assert torch.equal(got, want), storage


def test_many_columns() -> None:
    """Integer sums of 65,536 extreme codes fit; more columns are refused."""
    signs = torch.where(torch.arange(48)[:, None] % 2 == 0, 1.0, -1.0)
    rows = (signs * (1 + torch.arange(48)[:, None] / 64)).repeat(1, 65536)
    queries = torch.stack([rows[0], -rows[0]])
    for storage in STORAGES:
        got = PoseIndex(rows, storage=storage).search(queries, 5)[1]
        assert torch.equal(got, defined_ranking(queries, rows, 5)), storage
    with pytest.raises(ValueError, match="int8 takes at most 65536 columns, got 65537"):
        PoseIndex(torch.zeros(1, 65537), storage="int8")


def test_a_k_beyond_all_rows_and_many_queries() -> None:
    rows, queries = relu_rows(90, 8, 44), relu_rows(300, 8, 45)
    scores, ids = PoseIndex(rows, storage="int8").search(queries, 20_000)
    assert torch.equal(ids[:, :90], defined_ranking(queries, rows, 90))
    assert (ids[:, 90:] == -1).all()
    assert (scores[:, 90:] == -torch.inf).all()


def test_dtypes_strides_and_devices_of_input() -> None:
    rows, queries = relu_rows(300, 16, 15), relu_rows(3, 16, 16)
    want = PoseIndex(rows, storage="int8").search(queries, 5)
    store = torch.zeros(300, 32)
    store[:, ::2] = rows
    frozen = rows.numpy().copy()
    frozen.flags.writeable = False
    backwards = rows.flip(1).numpy()[:, ::-1]
    tensors = (store[:, ::2], rows.double(), rows.T.contiguous().T)
    for same in (*tensors, rows.numpy(), frozen, backwards):
        assert torch.equal(PoseIndex(same, storage="int8").search(queries, 5)[1], want[1])
    half = rows.half()
    got = PoseIndex(half, storage="int8").search(queries.half(), 5)
    assert torch.equal(got[1], defined_ranking(queries.half().float(), half.float(), 5))
    assert got[0].dtype == torch.float32
    assert got[1].dtype == torch.int64


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda i: i.search(torch.zeros(2, 9), 1),
            ValueError,
            r"\[B, D\] with D = 8, got \[2, 9\]",
        ),
        (lambda i: i.search(torch.zeros(8), 1), ValueError, r"queries must have shape \[B, D\]"),
        (lambda i: i.search([1.0], 1), TypeError, "queries must be a torch.Tensor, got list"),
        (lambda i: i.search(torch.zeros(2, 8).int(), 1), TypeError, "queries must be of dtype"),
        (lambda i: i.search(torch.zeros(2, 8), 0), ValueError, "k must be at least 1, got 0"),
        (lambda i: i.search(torch.zeros(2, 8), 1.5), TypeError, "k must be an integer, got 1.5"),
        (lambda i: i.search(torch.full((2, 8), torch.nan), 1), ValueError, "NaN or Inf in row 0"),
        (
            lambda i: i.search(torch.zeros(2, 8), 1, filter=torch.ones(3, dtype=torch.bool)),
            ValueError,
            r"filter must be a mask of shape \[N\] with N = 50, got \[3\]",
        ),
        (
            lambda i: i.search(torch.zeros(2, 8), 1, filter=[999]),
            ValueError,
            "id 999 is not in the index",
        ),
        (
            lambda i: i.search(torch.zeros(2, 8), 1, filter=[0.5]),
            TypeError,
            "filter must be integers",
        ),
        (lambda i: i.search_mean_pose(torch.zeros(2, 8), 1), ValueError, "an index with poses"),
        (
            lambda i: i.most_violated(torch.zeros(2, 8), torch.zeros(2, 5, 3)),
            ValueError,
            "an index with poses",
        ),
        (lambda i: i.remove([50]), ValueError, "id 50 is not in the index"),
        (lambda i: i.remove([3, 3]), ValueError, "ids must be unique, got 3 twice"),
        (
            lambda i: i.add(torch.zeros(1, 8), ids=[4]),
            ValueError,
            "ids must be unique, got 4 twice",
        ),
        (
            lambda i: i.add(torch.zeros(2, 8), ids=[70, 70]),
            ValueError,
            "ids must be unique, got 70 twice",
        ),
        (lambda i: i.add(torch.zeros(1, 8), ids=[-1]), ValueError, "ids must not be negative"),
        (lambda i: i.add(torch.zeros(1, 8), ids=[2**63 - 1]), ValueError, r"at most 2\^62"),
        (
            lambda i: i.search(torch.zeros(2, 8), 1, filter=torch.ones(5, 10, dtype=torch.bool)),
            ValueError,
            r"filter must be a mask of shape \[N\], got \[5, 10\]",
        ),
        (lambda i: i.add(torch.zeros(2, 8), ids=[70]), ValueError, r"ids must have shape \[N\]"),
        (
            lambda i: i.add(torch.zeros(1, 8), poses=torch.zeros(1, 5, 3)),
            ValueError,
            "poses must be None: this has no poses",
        ),
        (
            lambda i: i.add(torch.tensor([[0.0] * 8, [torch.inf] * 8])),
            ValueError,
            "embeddings must be finite, got NaN or Inf in row 1",
        ),
    ],
)
def test_bad_input_changes_nothing(
    call: Callable[[PoseIndex], object], error: type[Exception], message: str
) -> None:
    rows, queries = relu_rows(50, 8, 17), relu_rows(3, 8, 18)
    index = PoseIndex(rows, storage="int8")
    with pytest.raises(error, match=message):
        call(index)
    assert len(index) == 50
    assert torch.equal(index.search(queries, 50)[1], defined_ranking(queries, rows, 50))


def test_the_bad_row_is_named_where_auto_looks_at_a_sample() -> None:
    rows = torch.ones(70_000, 2)
    rows[50_000, 1] = torch.nan
    with pytest.raises(ValueError, match="embeddings must be finite, got NaN or Inf in row 50000"):
        PoseIndex(rows)


def test_bad_constructions() -> None:
    with pytest.raises(ValueError, match="storage must be one of auto, float32, bfloat16, int8"):
        PoseIndex(torch.zeros(2, 3), storage="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"embeddings must have at least one column"):
        PoseIndex(torch.zeros(2, 0))
    with pytest.raises(ValueError, match=r"poses must have shape \[N, J, 3\] with N = 2"):
        PoseIndex(torch.zeros(2, 4), poses=torch.zeros(3, 5, 3))
    with pytest.raises(ValueError, match="poses must be finite, got NaN or Inf in row 1"):
        PoseIndex(torch.zeros(2, 4), poses=torch.tensor([[[0.0] * 3], [[torch.nan] * 3]]))


@every_storage
def test_empty_index(storage: str) -> None:
    index = PoseIndex(torch.zeros(0, 6), poses=torch.zeros(0, 5, 3), storage=storage)
    scores, ids = index.search(torch.ones(2, 6), 3)
    assert (ids == -1).all()
    assert (scores == -torch.inf).all()
    assert index.search(torch.ones(0, 6), 3)[1].shape == (0, 3)
    assert index.search_mean_pose(torch.ones(2, 6), 3).isnan().all()
    assert (index.most_violated(torch.ones(2, 6), torch.zeros(2, 5, 3))[1] == -1).all()
    index.add(torch.ones(2, 6), poses=torch.zeros(2, 5, 3))
    assert index.search(torch.ones(1, 6), 1)[1].tolist() == [[0]]
    index.remove([0, 1])
    assert len(index) == 0


def test_auto_takes_the_storage_that_reads_least() -> None:
    assert PoseIndex(relu_rows(100, 16, 0)).storage == "float32"
    assert PoseIndex(relu_rows(6000, 128, 0)).storage == "int8"
    near = torch.ones(6000, 16) + torch.randn(6000, 16) * 1e-7  # codes cannot tell these apart
    assert PoseIndex(near * torch.ones(16).cumsum(0)).storage in STORAGES


def test_auto_asks_the_given_queries() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.zeros(6000, 128)
    rows[:, :12] = torch.randn(6000, 12, generator=generator)
    rows[:, 12:] = torch.randn(6000, 116, generator=generator) * 0.05
    assert PoseIndex(rows).storage == "int8"
    queries = torch.randn(16, 128, generator=generator)
    queries[:, :12] = 0  # see only what 8 bits can hardly tell apart
    assert PoseIndex(rows, sample_queries=queries).storage != "int8"
    with pytest.raises(ValueError, match=r"sample_queries must have shape \[B, D\] with D = 128"):
        PoseIndex(rows, sample_queries=queries[:, :5])


def test_statistics() -> None:
    rows, queries = relu_rows(6000, 64, 19), relu_rows(10, 64, 20)
    index = PoseIndex(rows, storage="int8")
    index.search(queries, 20)
    index.search(queries[:3], 20)
    stats = index.stats
    assert (stats.searches, stats.queries, stats.roots) == (2, 13, 0)
    assert 20 <= stats.survivors_per_query < 2000
    assert stats.seconds > 0
    assert index.memory_bytes >= rows.numel() * 5  # float32 rows and int8 codes
    assert repr(index) == "PoseIndex(N=6000, D=64, storage='int8')"


def test_short_queries_are_bounded_by_their_own_length() -> None:
    # Images among poses: far from the rows' mean, whose length says nothing about them.
    rows = relu_rows(6000, 64, 19) + 5
    queries = torch.randn(10, 64, generator=torch.Generator().manual_seed(20)) * 0.05
    index = PoseIndex(rows, storage="int8")
    index.search(queries, 20)
    assert index.stats.survivors_per_query < 600


def test_searches_and_changes_from_many_threads() -> None:
    rows, queries = relu_rows(3000, 32, 21), relu_rows(4, 32, 22)
    index = PoseIndex(rows, storage="int8")
    want = defined_ranking(queries, rows, 10)
    stop, wrong = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            ids = index.search(queries, 10)[1]
            if not torch.equal(ids, want):
                wrong.append(ids)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    low = torch.full((40, 32), -1.0)  # never among the best
    for _ in range(15):
        index.add(low)
        index.remove(index.arrays()["ids"][3000:])
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_ids_of_rows_added_where_there_are_gaps() -> None:
    index = PoseIndex(torch.eye(64), storage="int8")
    index.remove([0])
    falling = list(range(400, 270, -1))
    index.add(torch.eye(64).repeat(3, 1)[:130], ids=falling)
    with pytest.raises(ValueError, match="got 271 twice"):
        index.add(torch.zeros(1, 64), ids=[271])
    assert index.search(torch.eye(64)[:1], 1, filter=[336])[1].tolist() == [[336]]
    index.remove(falling)
    assert len(index) == 63


def test_filters_while_another_thread_adds_and_removes() -> None:
    """A filter is compared with the rows of the very search that it is for."""
    rows = relu_rows(500, 8, 46)
    index = PoseIndex(rows, storage="int8")
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            index.add(rows, ids=torch.arange(1000, 1500))
            index.remove(torch.arange(1000, 1500))

    thread = threading.Thread(target=change)
    thread.start()
    want = torch.arange(100)[defined_ranking(rows[:2], rows[:100], 5)]
    mask = torch.ones(500, dtype=torch.bool)
    try:
        for _ in range(200):
            assert torch.equal(index.search(rows[:2], 5, filter=range(100))[1], want)
            try:
                index.search(rows[:2], 5, filter=mask)
            except ValueError as error:
                assert "N = 1000, got [500]" in str(error)  # noqa: PT017
    finally:
        stop.set()
        thread.join()


def test_overlapping_searches_do_not_keep_an_addition_waiting() -> None:
    rows = relu_rows(4000, 64, 47)
    index = PoseIndex(rows, storage="float32")
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            index.search(rows[:16], 10)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    adding = threading.Thread(target=lambda: index.add(rows[:1]), daemon=True)
    adding.start()
    adding.join(timeout=20)
    alive = adding.is_alive()
    stop.set()
    for thread in threads:
        thread.join()
    assert not alive


# ---- files ----


@every_storage
@pytest.mark.parametrize("with_poses", [True, False])
def test_save_and_load(storage: str, with_poses: bool, tmp_path: Path) -> None:
    rows, queries = relu_rows(777, 19, 23), relu_rows(5, 19, 24)
    poses = poses_of(777, 25) if with_poses else None
    index = PoseIndex(rows, poses=poses, ids=torch.arange(777) * 3, storage=storage)
    index.remove([0, 9])
    index.save(tmp_path / "poses.dgx")
    want = index.search(queries, 30)
    for mmap in (True, False):
        loaded = PoseIndex.load(tmp_path / "poses.dgx", mmap=mmap, verify=True)
        assert (len(loaded), loaded.storage, loaded.joints) == (775, storage, 5 * with_poses)
        assert torch.equal(loaded.search(queries, 30)[0], want[0])
        assert torch.equal(loaded.search(queries, 30)[1], want[1])
        if with_poses:
            means = index.search_mean_pose(queries, 30)
            assert torch.equal(loaded.search_mean_pose(queries, 30), means)
    assert (
        PoseIndex.load(tmp_path / "poses.dgx", mmap=False).memory_bytes >= rows.numel() * 4 * 0.99
    )
    loaded = PoseIndex.load(tmp_path / "poses.dgx")
    assert loaded.memory_bytes < 10_000
    before = (tmp_path / "poses.dgx").read_bytes()
    loaded.add(rows[:4], poses=None if poses is None else poses[:4])
    loaded.remove([3])
    assert len(loaded) == 778
    assert (tmp_path / "poses.dgx").read_bytes() == before
    loaded.save(tmp_path / "poses.dgx")  # over the file that it maps
    assert len(PoseIndex.load(tmp_path / "poses.dgx", verify=True)) == 778


def test_metadata_stays_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "poses.dgx"
    metadata = {"model": "strong", "fingerprint": "é" * 5000, "heads": [1, 2]}
    index = PoseIndex(torch.eye(4), metadata=metadata)
    index.metadata["model"] = "another"  # of a copy
    index.save(path)
    for mmap in (True, False):
        loaded = PoseIndex.load(path, mmap=mmap, verify=True)
        assert loaded.metadata == metadata
        assert loaded.search(torch.eye(4), 1)[1][:, 0].tolist() == [0, 1, 2, 3]
    loaded.add(torch.ones(1, 4))
    loaded.save(path)
    assert PoseIndex.load(path).metadata == metadata
    loaded.metadata = {"other": 1}
    loaded.save(path)
    assert PoseIndex.load(path).metadata == {"other": 1}
    PoseIndex(torch.eye(4)).save(path)
    assert b"metadata" not in path.read_bytes()  # as files were written before
    assert PoseIndex.load(path).metadata == {}
    with pytest.raises(TypeError, match="not JSON serializable"):
        PoseIndex(torch.eye(4), metadata={"tensor": torch.eye(4)})


def test_empty_index_as_a_file(tmp_path: Path) -> None:
    PoseIndex(torch.zeros(0, 4), storage="int8").save(tmp_path / "empty.dgx")
    loaded = PoseIndex.load(tmp_path / "empty.dgx")
    assert len(loaded) == 0
    loaded.add(torch.eye(4))
    assert loaded.search(torch.eye(4), 1)[1][:, 0].tolist() == [0, 1, 2, 3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    PoseIndex(relu_rows(300, 12, 26), poses=poses_of(300, 27), storage="int8").save(
        tmp_path / "good.dgx"
    )
    return tmp_path / "good.dgx"


def test_foreign_and_damaged_files(file: Path) -> None:
    good = file.read_bytes()
    with pytest.raises(FileNotFoundError, match="no such file"):
        PoseIndex.load(file.with_name("none.dgx"))
    for content, message in (
        (b"", "not a PoseIndex file"),
        (b"\x93NUMPY" + good[6:], "not a PoseIndex file"),
        (good[:8] + (9).to_bytes(4, "little") + good[12:], "of version 1, got 9"),
        (good[:30] + b"!" + good[31:], "header is damaged or cut short"),
        (good[:60], "header is damaged or cut short"),
        (good[:-1], "cut short"),
        (good[:5000], "cut short"),
    ):
        file.write_bytes(content)
        for mmap in (True, False):
            with pytest.raises(ValueError, match=message):
                PoseIndex.load(file, mmap=mmap)
    file.write_bytes(good[:-100] + bytes([good[-100] ^ 1]) + good[-99:])
    with pytest.raises(ValueError, match=r"checksum of .* differs, the file is damaged"):
        PoseIndex.load(file, verify=True)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_fuzzed_headers_raise_value_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever stands in the description: an error, or an index that can be searched."""
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    path = folder / "index.dgx"
    if not path.exists():
        PoseIndex(relu_rows(40, 5, 28), poses=poses_of(40, 29), storage="int8").save(path)
        (folder / "good").write_bytes(path.read_bytes())
    good = (folder / "good").read_bytes()
    magic, version, length, _ = _index_file._PREFIX.unpack(good[: _index_file._PREFIX.size])
    start = _index_file._PREFIX.size
    description = bytearray(good[start : start + length])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, length - 1))
        description[at] = data.draw(st.sampled_from(b'0123456789-.e[]{}",:abx'))

    prefix = _index_file._PREFIX.pack(magic, version, length, zlib.crc32(bytes(description)))
    path.write_bytes(prefix + bytes(description) + good[start + length :])
    try:
        index = PoseIndex.load(path)
    except ValueError:
        return
    index.search(torch.ones(1, index.dim), 3)


def test_a_failed_save_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        PoseIndex(relu_rows(10, 12, 30)).save(file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_killed_save_leaves_the_old_file(file: Path) -> None:
    before = file.read_bytes()
    script = (
        "import os, sys, torch\n"
        "from dgpose_ext import PoseIndex\n"
        "os.fsync = lambda descriptor: os._exit(9)\n"
        "PoseIndex(torch.ones(10, 4)).save(sys.argv[1])\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(file)])
    assert result.returncode == 9
    assert file.read_bytes() == before
    assert len(PoseIndex.load(file, verify=True)) == 300


def test_read_only_folder(file: Path) -> None:
    file.parent.chmod(0o500)
    try:
        if os.access(file.parent, os.W_OK):
            pytest.skip("this user writes everywhere")
        with pytest.raises(PermissionError):
            PoseIndex(torch.ones(2, 4)).save(file)
    finally:
        file.parent.chmod(0o700)
    assert len(PoseIndex.load(file)) == 300


def test_arrays_come_back(file: Path) -> None:
    arrays = PoseIndex.load(file).arrays()
    assert np.array_equal(arrays["embeddings"], relu_rows(300, 12, 26).numpy())
    assert np.array_equal(arrays["ids"], np.arange(300))
    assert np.array_equal(arrays["poses"], poses_of(300, 27).numpy())
