"""Rendered people: images a second, `python -m benchmarks.synthetic_people`.

One process with one thread, and two workers of a DataLoader, at three sizes; and the processor time
of an image in one process, which other programs on the machine disturb less. Medians of five
batches. Kinematic poses: no data folder is needed, and CMU's poses cost less. Writes
results/synthetic_people.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from dgpose.data.synthetic_people import PeopleBatch, SyntheticPeople

from .harness import RESULTS, environment, write_json

BATCH = 64
SIZES = ((128, 128), (64, 64), (128, 64))


class Batches(Dataset[PeopleBatch]):
    """Batch i: samples 64 i to 64 i + 63."""

    def __init__(self, people: SyntheticPeople, count: int) -> None:
        self.people = people
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PeopleBatch:
        return self.people.batch(range(BATCH * index, BATCH * (index + 1)))


def measure(size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Speed at one size."""
    batches = Batches(SyntheticPeople(0, poses="kinematic", size=size), 4 * repeats)
    batches[0]
    wall, processor = [], []
    for i in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        batches[i]
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - cpu)
    arrivals = []
    loader = DataLoader(batches, batch_size=None, num_workers=2, worker_init_fn=_one_thread)
    for _ in loader:
        arrivals.append(time.perf_counter())
    # Once both have begun, and in pairs: they finish nearly together.
    pairs = [b - a for a, b in zip(arrivals[1::2], arrivals[3::2], strict=False)]
    return {
        "size": list(size),
        "images_per_s": BATCH / statistics.median(wall),
        "processor_ms_per_image": 1e3 * statistics.median(processor) / BATCH,
        "images_per_s_two_workers": 2 * BATCH / statistics.median(pairs),
    }


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    _one_thread(0)
    load = os.getloadavg()[0]
    results = [measure(size, args.repeats) for size in SIZES]
    for r in results:
        print(
            f"{r['size'][0]}x{r['size'][1]}: {r['images_per_s']:.0f} images/s in one process "
            f"({r['processor_ms_per_image']:.2f} ms of processor time each), "
            f"{r['images_per_s_two_workers']:.0f} with two workers"
        )
    facts = {"environment": environment(), "load_before": load, "results": results}
    write_json(facts, RESULTS / "synthetic_people.json")


if __name__ == "__main__":
    main()
