"""PoseIndex beside its peers on the same rows and queries, each in a process of its own.

Two OpenMP pools in one process slow each other, so nothing is timed in the caller's.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

__all__ = ["run_benchmark"]

Array = npt.NDArray[Any]
Search = Callable[[Array, int], Array]  # (queries [B, D], k) to row numbers [B, k]

_SEED = 0
_NOISE = 0.1  # of a query, times the spread of each column
_ROUNDS, _SECONDS = 15, 5.0


def _ours(folder: Path) -> dict[str, Search]:
    from dgpose_ext import PoseIndex

    index = PoseIndex.load(folder / "index.dgx", mmap=False)
    return {"": lambda queries, k: index.search(queries, k)[1].numpy()}


def _torch(folder: Path, dtype: str) -> dict[str, Search]:
    import torch

    rows = torch.from_numpy(np.load(folder / "rows.npy")).to(getattr(torch, dtype))

    def search(queries: Array, k: int) -> Array:
        scores = torch.from_numpy(queries).to(rows.dtype) @ rows.T
        return scores.topk(min(k, len(rows)), dim=1).indices.numpy()

    return {"": search}


def _faiss(folder: Path, thresholds: dict[str, int]) -> dict[str, Search]:
    import faiss

    rows = np.load(folder / "rows.npy")
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    del rows

    def search_with(threshold: int) -> Search:
        def search(queries: Array, k: int) -> Array:
            if threshold:
                faiss.cvar.distance_compute_blas_threshold = threshold
            found: Array = index.search(queries, k)[1]
            return found

        return search

    return {name: search_with(threshold) for name, threshold in thresholds.items()}


#: Of several ways of one contender, the fastest counts: faiss takes BLAS from 20 queries on, unless
#: it is told otherwise, which is far from the best choice at many sizes.
_CONTENDERS: dict[str, Callable[[Path], dict[str, Search]]] = {
    "PoseIndex": _ours,
    "torch float32": lambda folder: _torch(folder, "float32"),
    "torch bfloat16 (not exact)": lambda folder: _torch(folder, "bfloat16"),
    "faiss IndexFlatIP": lambda folder: _faiss(folder, {"": 0}),
    "faiss, tuned": lambda folder: _faiss(folder, {"BLAS": 1, "no BLAS": 1 << 30}),
}


def run_benchmark(
    data: Path | Sequence[int],
    *,
    k: int,
    batches: Sequence[int],
    storage: Literal["auto", "int8", "bfloat16", "float32"] = "auto",
    threads: int | None = None,
    watch: Callable[[list[str]], Iterable[str]] = lambda names: names,
) -> dict[str, Any]:
    """Times every contender at every batch size.

    Args:
        data: an index file, or (N, D) of Gaussian rows.
        k: rows to find. batches: numbers of queries.
        storage: of the index of Gaussian rows.
        threads: of every contender; None: as many as torch takes.
        watch: sees the names of the contenders go by.

    Returns:
        JSON-serialisable: data, k, threads, environment, ours, absent {contender: reason} and
        contenders {name: [{batch, median_s, p10_s, p90_s, rounds, same}]}, where same is the share
        of queries with the rows of ours in their order.
    """
    import torch

    from dgpose_ext import PoseIndex, cpu_capability

    threads = threads or torch.get_num_threads()
    if isinstance(data, Path):
        index = PoseIndex.load(data)
        rows = index.arrays()["embeddings"]
        what = str(data.name)
    else:
        count, dim = data
        rows = np.random.default_rng(_SEED).standard_normal((count, dim), np.float32)
        index = PoseIndex(rows, storage=storage)
        what = "Gaussian rows"
    if len(rows) == 0:
        raise ValueError(f"{what}: must hold at least one row")
    k = min(k, len(rows))
    report: dict[str, Any] = {
        "data": f"{what}: N={len(rows):,}, D={index.dim}, {index.storage}",
        "k": k,
        "threads": threads,
        "ours": "PoseIndex",
        "environment": {
            "capability": cpu_capability(),
            "cores": os.cpu_count(),
            "versions": {"torch": torch.__version__} | _versions("numpy", "faiss-cpu"),
        },
        "contenders": {},
        "absent": {},
    }
    with tempfile.TemporaryDirectory(prefix="dgpose_bench_") as name:
        folder = Path(name)
        PoseIndex(rows, storage=cast(Any, index.storage)).save(
            folder / "index.dgx"
        )  # ids are row numbers
        np.save(folder / "rows.npy", rows)
        np.save(folder / "queries.npy", _queries(rows, max(batches)))
        del rows, index
        for contender in watch(list(_CONTENDERS)):
            result = _in_own_process(folder, contender, k, batches, threads)
            if isinstance(result, str):
                if contender == report["ours"]:
                    raise RuntimeError(f"{contender} could not be timed: {result}")
                report["absent"][contender] = result
            else:
                report["contenders"][contender] = result
    want = {row["batch"]: row.pop("ids") for row in report["contenders"][report["ours"]]}
    for timed in report["contenders"].values():
        for row in timed:
            best = want[row["batch"]]
            found = row.pop("ids", best)
            row["same"] = statistics.mean(a == b for a, b in zip(found, best, strict=True))
    return report


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _queries(rows: Array, count: int) -> Array:
    """Rows with noise."""
    random = np.random.default_rng(_SEED + 1)
    spread = rows[:: max(1, len(rows) // 4096)].std(axis=0)
    noise = _NOISE * spread * random.standard_normal((count, rows.shape[1]))
    chosen = rows[random.integers(0, len(rows), count)]
    return cast(Array, (chosen + noise).astype(np.float32))


def _in_own_process(
    folder: Path, contender: str, k: int, batches: Sequence[int], threads: int
) -> list[dict[str, Any]] | str:
    """The rows of the contender's report, or why there are none."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    job = json.dumps([str(folder), contender, k, list(batches), threads])
    done = subprocess.run(
        [sys.executable, "-m", "dgpose.inference.index_bench", job],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"
    found: list[dict[str, Any]] = json.loads((folder / "result.json").read_text())
    return found


def _time(call: Callable[[], Any]) -> list[float]:
    """Seconds of a call, 15 times, fewer where that would take over 5 s."""
    call()
    times: list[float] = []
    while len(times) < 3 or (len(times) < _ROUNDS and sum(times) < _SECONDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def _work(job: str) -> None:
    """Times one contender, in the process that is left to it."""
    import torch

    name, contender, k, batches, threads = json.loads(job)
    torch.set_num_threads(threads)
    folder = Path(name)
    queries = np.load(folder / "queries.npy")
    ways = _CONTENDERS[contender](folder)
    report = []
    for batch in batches:
        part = np.ascontiguousarray(queries[:batch])
        timed = {way: _time(partial(search, part, k)) for way, search in ways.items()}
        way = min(timed, key=lambda name: statistics.median(timed[name]))
        deciles = statistics.quantiles(timed[way], n=10)
        report.append(
            {
                "batch": batch,
                "median_s": statistics.median(timed[way]),
                "p10_s": deciles[0],
                "p90_s": deciles[-1],
                "rounds": len(timed[way]),
                "ids": ways[way](part, k).tolist(),
            }
            | ({"way": way} if way else {})
        )
    (folder / "result.json").write_text(json.dumps(report))


if __name__ == "__main__":
    _work(sys.argv[1])
