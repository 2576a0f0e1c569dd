"""PoseIndex and inner_product_topk against the defined ranking at full size.

    python -m benchmarks.exactness_pose_index [--rows N] [--dim D] [--queries B]

Rows: every real pose (CMU) at 24 headings, 967,032 of them, through the network of
bench_pose_index. The oracle computes all scores in NumPy by their definition and sorts them. Every
storage, CPU capability, number of threads and split of the batch must give its values and its
indices to the bit; results/pose_index_exactness.json says what was compared. Not a timing: it may
run beside anything.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from .bench_pose_index import HEADINGS, Data
from .harness import RESULTS, environment, write_json

STORAGES = ("int8", "bfloat16", "float32", "no index")
CAPABILITIES = ("scalar", "avx2", "avx512")
K = 500
ALL_ROWS = 40_293 * HEADINGS
Array = npt.NDArray[np.float32]


def defined_scores(rows: Array, query: Array) -> Array:
    """[N]: float32 of the float64 sum in 16 partial sums; element i goes to sum i mod 16."""
    scores = np.empty(len(rows), np.float32)
    wide = query.astype(np.float64)
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096].astype(np.float64) * wide
        sums = np.zeros((len(part), 16))
        for i in range(0, part.shape[1], 16):
            columns = part[:, i : i + 16]
            sums[:, : columns.shape[1]] += columns
        for width in (8, 4, 2, 1):
            sums = sums[:, :width] + sums[:, width : 2 * width]
        scores[start : start + 4096] = sums[:, 0]
    scores += 0  # -0 becomes +0
    return scores


def oracle(rows: Array, queries: Array, k: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Values [B, k] and indices [B, k] of the defined ranking."""
    values, indices = [], []
    for query in queries:
        scores = defined_scores(rows, query)
        best = np.argsort(-scores, kind="stable")[:k]  # stable: ties by the lower row
        values.append(scores[best])
        indices.append(best)
    return np.stack(values), np.stack(indices)


def compare(data: Data, storage: str, truth: Path, count: int) -> None:
    """All splits and numbers of threads, in a process of one capability; prints the result."""
    from dgpose_ext import PoseIndex, inner_product_topk

    rows, queries = data.load(), data.load("queries")[:count]
    with np.load(truth) as file:
        values, indices = file["values"], file["indices"]
    if storage == "no index":
        candidates = torch.from_numpy(rows)

        def search(part: Array) -> tuple[Array, npt.NDArray[np.int64]]:
            found = inner_product_topk(torch.from_numpy(part), candidates, K)
            return found[0].numpy(), found[1].numpy()
    else:
        index = PoseIndex(rows, storage=storage)  # type: ignore[arg-type]
        del rows

        def search(part: Array) -> tuple[Array, npt.NDArray[np.int64]]:
            found = index.search(part, K)
            return found[0], found[1]  # type: ignore[return-value]

    splits = {"at once": [count], "one by one": [1] * count, "uneven": [3, count - 3]}
    for threads, (name, sizes) in itertools.product((1, 2), splits.items()):
        torch.set_num_threads(threads)
        ends = np.cumsum(sizes)
        found = [search(queries[e - n : e]) for n, e in zip(sizes, ends, strict=True)]
        same = np.array_equal(np.concatenate([f[1] for f in found]), indices) and np.array_equal(
            np.concatenate([f[0] for f in found]).view(np.int32), values.view(np.int32)
        )
        print(json.dumps({"threads": threads, "split": name, "equal": same}), flush=True)


def main() -> int:
    """Runs all comparisons; 1 where any differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ALL_ROWS, help="fewer: nothing is written")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--compare", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = Data("real poses", options.rows, options.dim)
    if options.compare:
        compare(data, options.compare[0], Path(options.compare[1]), options.queries)
        return 0
    results = []
    with tempfile.TemporaryDirectory() as folder:
        truth = Path(folder) / "truth.npz"
        values, indices = oracle(data.load(), data.load("queries")[: options.queries], K)
        ties = int((values[:, 1:] == values[:, :-1]).sum())
        np.savez(truth, values=values, indices=indices)
        print(f"oracle done: {ties} of {values.size} values equal the one before", flush=True)
        for capability, storage in itertools.product(CAPABILITIES, STORAGES):
            command = [sys.executable, "-m", f"{__package__}.exactness_pose_index"]
            command += ["--rows", str(data.rows), "--dim", str(data.dim)]
            command += ["--queries", str(options.queries), "--compare", storage, str(truth)]
            child = subprocess.run(
                command,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"DGPOSE_CPU_CAPABILITY": capability},
            )
            for line in child.stdout.splitlines():
                results.append({"capability": capability, "storage": storage, **json.loads(line)})
                print(results[-1], flush=True)
    equal = all(result["equal"] for result in results)
    summary = {"data": data.name, "queries": options.queries, "k": K, "ties": ties, "equal": equal}
    if data.rows == ALL_ROWS:
        write_json(
            {"environment": environment(), **summary, "results": results},
            RESULTS / "pose_index_exactness.json",
        )
    print(f"{len(results)} comparisons, {'all equal' if equal else 'NOT ALL EQUAL'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
