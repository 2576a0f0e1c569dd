"""Training of the hand models, renderer in the loop: `python -m benchmarks.hand_training`.

Frames a second of `train_hand` on one core, rendering included, and the same with one batch
rendered beforehand: the difference is what rendering takes. Each figure is the time of a longer run
less that of a shorter one, so that start and validation do not count; median of three. Writes
results/hand_training.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dgpose.data.synthetic_hands import HandBatch, SyntheticHands
from dgpose.nn.hand_regressor import SIZES
from dgpose.train.hand import HandTrainConfig, train_hand

from .harness import RESULTS, environment, write_json

BATCH, SHORT = 64, 5


class Rendered:
    """One batch, rendered beforehand, whatever is asked for."""

    def __init__(self, batch: HandBatch) -> None:
        self.ready = batch

    def batch(self, indices: Sequence[int]) -> HandBatch:
        """The batch."""
        return self.ready


def seconds(size: str, frames: Any, validation: Any, steps: int) -> float:
    """Time of a training run from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        config = HandTrainConfig(
            out=Path(folder),
            steps=steps,
            batch=BATCH,
            network=SIZES[size],
            validate_every=10_000,
            validation_frames=BATCH,
            accelerator="cpu",
        )
        start = time.perf_counter()
        train_hand(config, frames, validation, data="benchmark")
        return time.perf_counter() - start


def measure(size: str, steps: int, repeats: int) -> dict[str, Any]:
    """Seconds a step with and without rendering."""
    frames = SyntheticHands()
    ready = Rendered(frames.batch(range(BATCH)))

    def a_step(source: Any) -> float:
        runs = [
            (seconds(size, source, ready, SHORT + steps) - seconds(size, source, ready, SHORT))
            / steps
            for _ in range(repeats)
        ]
        return statistics.median(runs)

    whole, learning = a_step(frames), a_step(ready)
    return {
        "model": size,
        "poses": frames.poses,
        "batch": BATCH,
        "step_s": whole,
        "learning_s": learning,
        "frames_per_s": BATCH / whole,
        "rendering_share": 1 - learning / whole,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    results = [measure(size, args.steps, args.repeats) for size in SIZES]
    for result in results:
        print(
            f"{result['model']}: {result['frames_per_s']:.0f} frames/s, "
            f"{100 * result['rendering_share']:.0f} % of the time for rendering"
        )
    facts = {"environment": environment(), "results": results}
    write_json(facts, RESULTS / "hand_training.json")


if __name__ == "__main__":
    main()
