"""PoseIndex beside faiss and torch: `python -m benchmarks.bench_pose_index [--quick] [--facts]`.

Rows: real poses (CMU motion capture of DGPOSE_DATA, 24 headings, a fixed-seed two-layer ReLU
network; left out where there are none; queries are noisy poses) and the ReLU of Gaussians. Real
poses are mocap.cs.cmu.edu's (NSF EIA-0196217).

Times go to results/pose_index.json, their plot over B to docs/ops/img/pose_index.png. `--facts`:
building, bytes, loading, survivors, and recall beside faiss's approximate indexes at their
defaults, to results/pose_index_facts.json. `--quick`: a tenth of the rows, results to a temporary
folder; for a look, not for figures.

Limit: at B = 1 one pass over the int8 codes, beyond that their multiply-adds at four times the
measured float32 peak. faiss "BLAS" and "no BLAS" are its two paths, chosen by
faiss.cvar.distance_compute_blas_threshold: the better one is faiss tuned. SQ8 and bfloat16 are not
exact.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import dgpose_ext

from .harness import (
    RESULTS,
    SCHEMA,
    Case,
    environment,
    seconds_per_call,
    spread,
    table,
    write_json,
)

ROOT = Path(__file__).resolve().parents[1]
PLOT = ROOT / "docs/ops/img/pose_index.png"
QUICK = os.environ.get("DGPOSE_BENCH_QUICK") == "1"
THREADS = 2
HEADINGS = 24
BATCHES = (1, 16, 64, 256)
Array = npt.NDArray[np.float32]


def _child(*arguments: str) -> str:
    """What this module prints when it is run with these arguments in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", f"{__package__}.bench_pose_index", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
        | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
    ).stdout


@dataclass(frozen=True)
class Data:
    """Rows and 256 queries, made once and read from a file by every process."""

    kind: str
    rows: int
    dim: int

    @property
    def name(self) -> str:
        return f"{self.kind}, N={self.rows:,}, D={self.dim}"

    def load(self, what: str = "rows") -> Array:
        folder = Path(tempfile.gettempdir()) / f"dgpose-bench-{os.getuid()}"
        path = folder / f"{self.kind.replace(' ', '_')}-{self.rows}-{self.dim}-{what}.npy"
        if not path.exists():  # in another process: no thread pool is left in this one
            folder.mkdir(exist_ok=True, mode=0o700)
            _child("--make", self.kind, str(self.rows), str(self.dim), what, str(path))
        array: Array = np.load(path)
        return array

    def make(self, what: str, path: Path) -> None:
        generator = torch.Generator().manual_seed(0 if what == "rows" else 1)
        count = self.rows if what == "rows" else max(BATCHES)
        if self.kind == "real poses":
            embeddings = _embed(_real_poses(count, generator, noise=what != "rows"), self.dim)
        else:
            embeddings = torch.randn(count, self.dim, generator=generator).relu_()
        temporary = path.with_suffix(f".{os.getpid()}")
        with temporary.open("wb") as file:
            np.save(file, embeddings.numpy())
        temporary.replace(path)


def _mocap() -> Path:
    folder = os.environ.get("DGPOSE_DATA", ROOT.parent / "shared" / "data")
    return Path(folder) / "mocap" / "cmu_h36m17.npz"


def _real_poses(count: int, generator: torch.Generator, noise: bool) -> torch.Tensor:
    """`count` of all poses x headings, [count, 17, 3] in mm, y up; queries at any heading."""
    with np.load(_mocap()) as file:
        poses = torch.from_numpy(file["pos"].astype(np.float32))
    if noise:
        chosen = poses[torch.randint(len(poses), (count,), generator=generator)]
        chosen = chosen + 30 * torch.randn(chosen.shape, generator=generator)
        angle = 2 * math.pi * torch.rand(count, generator=generator)
    else:
        picked = torch.randperm(len(poses) * HEADINGS, generator=generator)[:count]
        chosen = poses[picked // HEADINGS]
        angle = 2 * math.pi / HEADINGS * (picked % HEADINGS)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    x, y, z = chosen.unbind(-1)
    return torch.stack((cos * x + sin * z, y, cos * z - sin * x), -1)


def _embed(poses: torch.Tensor, dim: int) -> torch.Tensor:
    """Two layers, 51 -> 1024 -> dim, ReLU after both, weights of seed 0."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(51, 1024, generator=generator) / 51**0.5
    bias = 0.1 * torch.randn(1024, generator=generator)
    second = torch.randn(1024, dim, generator=generator) / 1024**0.5
    out = torch.empty(len(poses), dim)
    for part, into in zip(poses.flatten(1).split(8192), out.split(8192), strict=True):
        hidden = torch.addmm(bias, part / 260, first).relu_()
        into.copy_((hidden @ second).relu_())
    return out


# ---- contenders: an index of the data, made once a process, and one search with it ----

Search = Callable[[Array, int], Any]


@functools.lru_cache(maxsize=1)
def _pose_index(data: Data, storage: str) -> Search:
    from dgpose_ext import PoseIndex

    return PoseIndex(data.load(), storage=storage).search  # type: ignore[arg-type]


@functools.lru_cache(maxsize=1)
def _inner_product_topk(data: Data) -> Search:
    search = dgpose_ext.inner_product_topk  # type: ignore[attr-defined]
    rows = torch.from_numpy(data.load())
    return lambda queries, k: search(torch.from_numpy(queries), rows, k)


@functools.lru_cache(maxsize=1)
def _faiss(data: Data, kind: str, blas_threshold: int | None = None) -> Search:
    import faiss

    if blas_threshold is not None:
        faiss.cvar.distance_compute_blas_threshold = blas_threshold
    rows, dim = data.load(), data.dim
    if kind == "Flat":
        index = faiss.IndexFlatIP(dim)
    elif kind == "SQ8":
        index = faiss.IndexScalarQuantizer(
            dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
    elif kind == "IVF":
        cells = int(4 * len(rows) ** 0.5)
        index = faiss.index_factory(dim, f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.index_factory(dim, "HNSW32,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    search: Search = index.search
    return search


@functools.lru_cache(maxsize=1)
def _torch(data: Data, dtype: torch.dtype) -> Search:
    rows = torch.from_numpy(data.load()).to(dtype).T
    return lambda queries, k: (torch.from_numpy(queries).to(dtype) @ rows).topk(k)


def _limit(data: Data, batch: int) -> Callable[[], Any]:
    if batch == 1:
        codes = torch.zeros(data.rows * data.dim // 4)  # as many bytes
        return lambda: codes.sum()
    from dgpose_ext import _loader

    core = _loader.core
    assert core is not None
    share = data.rows * data.dim * batch // 4 // THREADS
    pool = ThreadPoolExecutor(THREADS)
    return lambda: list(pool.map(core.spend_multiply_adds, [share] * THREADS))


SEARCHES: dict[str, Callable[[Data], Search]] = {
    "PoseIndex auto": lambda data: _pose_index(data, "auto"),
    "PoseIndex int8": lambda data: _pose_index(data, "int8"),
    "PoseIndex bfloat16": lambda data: _pose_index(data, "bfloat16"),
    "PoseIndex float32": lambda data: _pose_index(data, "float32"),
    "inner_product_topk": _inner_product_topk,
    "faiss Flat, default": lambda data: _faiss(data, "Flat"),
    "faiss Flat, BLAS": lambda data: _faiss(data, "Flat", 1),
    "faiss Flat, no BLAS": lambda data: _faiss(data, "Flat", 1 << 30),
    "faiss SQ8 (not exact)": lambda data: _faiss(data, "SQ8"),
    "torch f32": lambda data: _torch(data, torch.float32),
    "torch bf16 (not exact)": lambda data: _torch(data, torch.bfloat16),
}
if "inner_product_topk" not in dgpose_ext.__all__:
    del SEARCHES["inner_product_topk"]


def _contenders(data: Data, batch: int, k: int) -> dict[str, Callable[[], Callable[[], Any]]]:
    def contender(search: Callable[[Data], Search]) -> Callable[[], Callable[[], Any]]:
        def make() -> Callable[[], Any]:
            found = search(data)
            queries = data.load("queries")[:batch]
            return lambda: found(queries, k)

        return make

    return {name: contender(search) for name, search in SEARCHES.items()} | {
        "limit": lambda: _limit(data, batch)
    }


SIZES = ((200_000, 1024), (500_000, 256))
TOP = (100, 500)
KINDS = ("real poses", "Gaussian") if _mocap().is_file() else ("Gaussian",)
SETS = [Data(kind, rows // 10 if QUICK else rows, dim) for rows, dim in SIZES for kind in KINDS]
TABLES = [
    Case(
        name=f"{data.name}, k={k}, B={batch}",
        unit="queries",
        work=batch,
        threads=THREADS,
        contenders=_contenders(data, batch, k),
        ours="PoseIndex auto",
        limit="limit",
        repeats=1,
    )
    for data in SETS
    for k in TOP
    for batch in BATCHES
]
#: What `python -m benchmarks` runs, a process for every contender of every case: one batch size.
CASES = [case for case in TABLES if case.name.endswith("D=1024, k=500, B=16")]


def _times(first: int, last: int, contender: str) -> list[list[float]]:
    """One contender on TABLES[first:last], which share their data."""
    calls = (case.contenders[contender]() for case in TABLES[first:last])
    return [seconds_per_call(call, seconds=1, at_least=7) for call in calls]


def run_times(path: Path) -> None:
    """All tables; a contender has one process for a data set, since indexes take long to make."""
    results = []
    step = len(TABLES) // len(SETS)
    for first in range(0, len(TABLES), step):
        cases = TABLES[first : first + step]
        rows: list[dict[str, Any]] = [{} for _ in cases]
        for name in cases[0].contenders:
            try:
                found = json.loads(_child("--times", str(first), str(first + step), name))
            except subprocess.CalledProcessError:
                if name == cases[0].ours:
                    raise
                print(f"{name} does not run here", file=sys.stderr)  # why, it said itself
                continue
            for row, seconds in zip(rows, found, strict=True):
                row[name] = spread(seconds)
        for case, row in zip(cases, rows, strict=True):
            results.append(
                {
                    "case": case.name, "unit": case.unit, "work": case.work,
                    "threads": case.threads, "ours": case.ours, "limit": case.limit,
                    "note": case.note, "contenders": row, "absent": {},
                }
            )  # fmt: skip
            print(table(results[-1]), flush=True)
    write_json({"schema": SCHEMA, "environment": environment(), "results": results}, path)
    print(f"wrote {path}")


# ---- what exactness costs: building, memory, loading, and approximate indexes ----


def _fact(data: Data, k: int, engine: str, folder: Path) -> dict[str, float]:
    """One engine on one data set, in a process of its own; the exact ids are passed by a file."""
    queries = data.load("queries")
    truth = folder / f"{data.name}.npy"
    fact: dict[str, float] = {}
    start = time.perf_counter()
    search: Search
    if engine in ("int8", "bfloat16", "float32"):
        from dgpose_ext import PoseIndex

        rows = data.load()
        start = time.perf_counter()
        index = PoseIndex(rows, storage=engine)  # type: ignore[arg-type]
        fact["build_s"] = time.perf_counter() - start
        fact["bytes_per_row"] = index.memory_bytes / data.rows
        path = folder / "index.dgx"
        index.save(path)
        fact["file_bytes_per_row"] = path.stat().st_size / data.rows
        fact["load_mmap_s"] = min(seconds_per_call(lambda: PoseIndex.load(path), seconds=1))
        ids = index.search(queries, k)[1].numpy()
        fact["survivors_per_query"] = index.stats.survivors_per_query
        np.save(truth, ids)
        search = index.search
    else:
        data.load()  # is there and warm
        start = time.perf_counter()
        search = _faiss(data, engine)
        fact["build_s"] = time.perf_counter() - start  # with one read of the rows
        ids = np.asarray(search(queries, k)[1])
    exact = np.load(truth)
    same = [len(np.intersect1d(a, b)) for a, b in zip(ids, exact, strict=True)]
    fact["recall"] = sum(same) / exact.size
    for batch in (1, 64):
        times = seconds_per_call(lambda batch=batch: search(queries[:batch], k), seconds=2)  # type: ignore[misc]
        fact[f"ms_B{batch}"] = float(np.median(times)) * 1e3
    return fact


def run_facts(out: Path) -> None:
    """Every engine on the sets of D = 1024."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for i, data in enumerate(SETS):
            if data.dim != 1024:
                continue
            for engine in ("int8", "bfloat16", "float32", "SQ8", "IVF", "HNSW"):
                fact = json.loads(_child("--fact", str(i), engine, folder))
                results.append({"data": data.name, "k": TOP[-1], "engine": engine, **fact})
                print(results[-1], flush=True)
    write_json({"environment": environment(), "results": results}, out / "pose_index_facts.json")
    print(f"wrote {out / 'pose_index_facts.json'}")


def plot(results: Path, picture: Path) -> None:
    """Milliseconds a query over B, a panel for each data set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = json.loads(results.read_text())
    sets = [(data, k) for data in SETS for k in TOP]
    figure = Figure(figsize=(12, 4.2 * len(SETS)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(SETS), len(TOP), squeeze=False).flat
    by_case = {result["case"]: result["contenders"] for result in found["results"]}
    for axes, (data, k) in zip(panels, sets, strict=True):
        for name in (*SEARCHES, "limit"):
            points = [
                (batch, by_case[case][name]["median_s"] * 1e3 / batch)
                for batch in BATCHES
                if name in by_case.get(case := f"{data.name}, k={k}, B={batch}", {})
            ]
            if not points:
                continue
            ours = name.startswith("PoseIndex")
            dash = ":" if name == "limit" else "--" if "not exact" in name else "-"
            width, marker = (2.2, "o") if ours else (1.2, ".")
            axes.loglog(*zip(*points, strict=True), dash, label=name, lw=width, marker=marker)
        axes.set_title(f"{data.name}, k={k}", fontsize=10)
        axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
        axes.set_xlabel("queries at once (B)")
        axes.set_ylabel("ms a query")
        axes.grid(alpha=0.3, which="both")
    figure.axes[0].legend(fontsize=7)
    environment_ = found["environment"]
    figure.suptitle(f"{environment_['processor']}, {THREADS} threads", fontsize=10)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    print(f"wrote {picture}")


def main() -> None:
    """Measures, writes, draws; the child processes of this module start here, too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--facts", action="store_true", help="instead of the times")
    parser.add_argument("--plot", action="store_true", help="draw what was measured; measure none")
    parser.add_argument("--make", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--fact", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--times", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        kind, rows, dim, what, path = options.make
        Data(kind, int(rows), int(dim)).make(what, Path(path))
    elif options.fact:
        torch.set_num_threads(THREADS)
        number, engine, folder = options.fact
        print(json.dumps(_fact(SETS[int(number)], TOP[-1], engine, Path(folder))))
    elif options.times:
        torch.set_num_threads(THREADS)
        first, last, contender = options.times
        print(json.dumps(_times(int(first), int(last), contender)))
    elif options.quick and not QUICK:
        os.environ["DGPOSE_BENCH_QUICK"] = "1"
        os.execv(
            sys.executable, [sys.executable, "-m", f"{__package__}.bench_pose_index", *sys.argv[1:]]
        )
    else:
        out = Path(tempfile.mkdtemp()) if QUICK else RESULTS
        picture = out / "pose_index.png" if QUICK else PLOT
        if options.facts:
            run_facts(out)
            return
        times = out / "pose_index.json"
        if not options.plot:
            run_times(times)
        plot(times, picture)


if __name__ == "__main__":
    main()
