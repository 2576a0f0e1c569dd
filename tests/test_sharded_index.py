"""ShardedPoseIndex: what one index finds, on every rank; errors of one rank hang none."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dgpose_ext import PoseIndex, ShardedPoseIndex, _loader, sharded_index

if _loader.core is None:
    pytest.skip(_loader.why_no_core(), allow_module_level=True)
if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("needs torch.distributed with gloo", allow_module_level=True)

D, J = 12, 4
ROOT = Path(__file__).resolve().parents[1]

# Forks of a process that has imported torch, but run nothing: seconds less than new ones.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["dgpose_ext.sharded_index"])


def tied_rows(count: int, seed: int) -> Tensor:
    """Rows of few values: most scores tie within a shard and between shards."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, (count, D), generator=generator).float()


def poses_of(count: int, seed: int) -> Tensor:
    return torch.randn(count, J, 3, generator=torch.Generator().manual_seed(seed)) * 200


def run_rank(
    task: Callable[..., object], rank: int, world: int, folder: Path, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    try:
        said = task(rank, world, *arguments)
        (folder / f"{rank}.txt").write_text(str(said))
    except BaseException:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
    finally:
        os._exit(0)  # no tear-down that waits for ranks which have gone


def run(task: Callable[..., object], world: int, folder: Path, *arguments: Any) -> list[str]:
    """What task(rank, world, ...) says on every rank; "" of one that died."""
    folder.mkdir(exist_ok=True)
    processes = [
        CONTEXT.Process(target=run_rank, args=(task, rank, world, folder, arguments))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
        assert process.exitcode is not None, "a rank hangs"
    files = [folder / f"{rank}.txt" for rank in range(world)]
    return [file.read_text() if file.exists() else "" for file in files]


def error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


# ---- the tasks of a rank ----


def equals_one_index(rank: int, world: int, counts: list[int], gather_bytes: int) -> str:
    sharded_index._GATHER_BYTES = gather_bytes
    first = sum(counts[:rank])
    rows, poses = tied_rows(sum(counts), 0), poses_of(sum(counts), 1)
    own = slice(first, first + counts[rank])
    one = PoseIndex(rows, poses=poses, storage="float32")
    sharded = ShardedPoseIndex.build(
        rows[own], poses=poses[own], storage=("int8", "bfloat16", "float32")[rank % 3]
    )
    assert len(sharded) == sum(counts)
    queries = torch.cat([tied_rows(5, 2), torch.randn(4, D, generator=torch.manual_seed(3))])
    targets = poses_of(9, 4)
    mask = torch.arange(sum(counts)) % 3 == 1
    for k in (1, 7, 100, sum(counts) + 3):
        for filter in (None, mask):
            options = {"filter": filter}, {"filter": None if filter is None else filter[own]}
            want, got = (
                one.search(queries, k, **options[0]),
                sharded.search(queries, k, **options[1]),
            )
            assert torch.equal(want[0], got[0]), ("scores", k)
            assert torch.equal(want[1], got[1]), ("ids", k)
            want_mean = one.search_mean_pose(queries, k, **options[0])
            got_mean = sharded.search_mean_pose(queries, k, **options[1])
            assert torch.equal(want_mean.nan_to_num(), got_mean.nan_to_num()), ("poses", k)
            assert torch.equal(want_mean.isnan(), got_mean.isnan())
            best = one.most_violated(queries, targets, margin_weight=0.01, **options[0])
            found = sharded.most_violated(queries, targets, margin_weight=0.01, **options[1])
            assert torch.equal(best[0], found[0])
            assert torch.equal(best[1], found[1])
    assert sharded.search(queries[:0], 3)[1].shape == (0, 3)
    assert sharded.search_mean_pose(queries[:0], 3).shape == (0, J, 3)
    return "fine"


def overflows(rank: int, world: int) -> str:
    """Scores of Inf, -Inf and NaN between finite ones."""
    rows = torch.tensor([[1.0, 0], [3e38, 3e38], [-3e38, -3e38], [3e38, -3e38], [2, 0]]).repeat(
        2, 1
    )
    queries = torch.tensor([[3e38, 3e38], [1, 1]])
    want = PoseIndex(rows).search(queries, 12)
    got = ShardedPoseIndex.build(rows[rank * 5 : rank * 5 + 5]).search(queries, 12)
    assert torch.equal(want[1], got[1])
    assert torch.equal(want[0].isnan(), got[0].isnan())
    assert torch.equal(want[0].nan_to_num(), got[0].nan_to_num())
    return "fine"


def calls_that_differ(rank: int, world: int) -> str:
    index = ShardedPoseIndex.build(tied_rows(20, rank))
    queries = tied_rows(3, 9)
    said = [
        error_of(lambda: index.search(queries + rank, 2)),
        error_of(lambda: index.search(queries, 2 + rank)),
        error_of(lambda: index.search(queries[: 3 - rank], 2)),
        error_of(lambda: index.search(queries if rank else queries * torch.nan, 2)),
        error_of(lambda: index.search(queries, 2, filter=[10**6] if rank else None)),
        error_of(lambda: index.search_mean_pose(queries, 2)),
        error_of(lambda: index.search(queries, 2) if rank else len(index)),
        error_of(lambda: index.search(queries, 2)),  # and it goes on
    ]
    return "\n".join(said)


def shards_that_differ(rank: int, world: int) -> str:
    rows = tied_rows(20, rank)
    same, dim = PoseIndex(rows), PoseIndex(rows[:, : D - rank])
    twice = PoseIndex(rows, ids=torch.arange(20) * 2 + 6 * rank)
    apart = PoseIndex(rows, ids=torch.arange(20).flip(0) * 2 + rank)
    said = [error_of(lambda shard=shard: ShardedPoseIndex(shard)) for shard in (same, dim, twice)]
    said.append(error_of(lambda: ShardedPoseIndex.build(rows * (torch.nan if rank else 1))))
    index = ShardedPoseIndex(apart)
    said.append(str(len(index)))
    one = PoseIndex(
        torch.cat([tied_rows(20, 0), tied_rows(20, 1)]),
        ids=torch.cat([torch.arange(20).flip(0) * 2 + r for r in (0, 1)]),
    )
    assert torch.equal(one.search(rows[:3] * 0 + 1, 9)[1], index.search(rows[:3] * 0 + 1, 9)[1])
    return "\n".join(said)


def wait_for_others(rank: int, world: int, folder: Path) -> str:
    """Sleeps until all others have said what they have to say."""
    others = [folder / f"{other}.txt" for other in range(world) if other != rank]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(file.exists() for file in others):
        time.sleep(0.05)
    return "slept"


def one_never_comes(rank: int, world: int, folder: Path) -> str:
    if rank == 1:
        return wait_for_others(rank, world, folder)
    return error_of(lambda: ShardedPoseIndex(PoseIndex(tied_rows(3, 0)), timeout=1.0))


def one_does_not_answer(rank: int, world: int, how: str, folder: Path) -> str:
    index = ShardedPoseIndex.build(tied_rows(30, rank), timeout=3.0 if how == "sleeps" else 60.0)
    queries = tied_rows(3, 9)
    index.search(queries, 2)
    if rank == 1:
        if how == "dies":
            os._exit(1)
        return wait_for_others(rank, world, folder)
    start = time.monotonic()
    said = error_of(lambda: index.search(queries, 2))
    seconds = time.monotonic() - start
    again = error_of(lambda: index.search(queries, 2))
    return f"{said}\n{again}\n{seconds}"


# ---- tests ----


@pytest.mark.parametrize(
    ("counts", "gather_bytes"),
    [([150, 90], 1 << 26), ([3, 200, 50], 1 << 26), ([0, 40, 0], 700), ([0, 0], 1 << 26)],
    ids=str,
)
def test_equals_one_index(counts: list[int], gather_bytes: int, tmp_path: Path) -> None:
    said = run(equals_one_index, len(counts), tmp_path, counts, gather_bytes)
    assert said == ["fine"] * len(counts)


def test_scores_that_overflow(tmp_path: Path) -> None:
    assert run(overflows, 2, tmp_path) == ["fine"] * 2


def test_calls_that_differ_are_errors_on_every_rank(tmp_path: Path) -> None:
    differ = "ValueError: search must be called alike on every rank"
    first, second = (said.splitlines() for said in run(calls_that_differ, 2, tmp_path))
    for said in (first, second):
        assert said[0].startswith(differ), said
        assert said[1].endswith("rank 1 differ from those of rank 0 (B=3, k=3 and B=3, k=2)")
        assert said[2].endswith("rank 1 differ from those of rank 0 (B=2, k=2 and B=3, k=2)")
        assert said[5].startswith("ValueError: search_mean_pose needs an index with poses")
        assert "must be called on every rank, got another call" in said[6]
        assert said[7] == "no error"
    assert first[3] == "ValueError: queries must be finite, got NaN or Inf in row 0"
    assert second[3] == "RuntimeError: search failed on rank 0: see the error there"
    assert first[4] == "RuntimeError: search failed on rank 1: see the error there"
    assert second[4] == "ValueError: id 1000000 is not in the index"


def test_shards_that_differ_are_errors_on_every_rank(tmp_path: Path) -> None:
    first, second = (said.splitlines() for said in run(shards_that_differ, 2, tmp_path))
    for said in (first, second):
        assert said[0].startswith("ValueError: ids must be unique over all ranks, got 0 on rank")
        assert said[1].endswith("got D=11, J=0 on rank 1 and D=12, J=0 on rank 0")
        assert said[2].startswith("ValueError: ids must be unique over all ranks, got 6 on rank 0")
        assert said[4] == "40"
    assert first[3] == "RuntimeError: ShardedPoseIndex.build failed on rank 1: see the error there"
    assert second[3] == "ValueError: embeddings must be finite, got NaN or Inf in row 0"


@pytest.mark.parametrize("how", ["dies", "sleeps"])
def test_a_rank_that_does_not_answer_is_an_error(how: str, tmp_path: Path) -> None:
    said = run(one_does_not_answer, 3, tmp_path, how, tmp_path)
    assert said[1] == ("" if how == "dies" else "slept")
    for rank in (0, 2):
        error, again, seconds = said[rank].splitlines()
        assert error.startswith("RuntimeError: search: a rank has died, or did not call within")
        assert again == error  # at once
        assert float(seconds) < 50  # far from torch's own half an hour


def test_a_rank_that_never_comes_is_an_error(tmp_path: Path) -> None:
    for said in run(one_never_comes, 3, tmp_path, tmp_path)[::2]:
        assert said.startswith("RuntimeError: ShardedPoseIndex: a rank has died, or did not call")


def test_needs_a_process_group() -> None:
    with pytest.raises(RuntimeError, match=r"needs torch.distributed: call .*init_process_group"):
        ShardedPoseIndex(PoseIndex(tied_rows(3, 0)))


def test_example() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, str(ROOT / "examples" / "sharded_search.py"), "--rows", "2000"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "4,000 rows on 2 ranks, k=500: 64 queries" in result.stdout
