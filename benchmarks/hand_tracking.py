"""Tracking and smoothing on rendered sequences: `python -m benchmarks.hand_tracking`.

Poses that pass the check, mean error over the 14 scored joints, jitter (mean length of the change
of that error from one frame to the next, joint by joint), and the median time a frame, for each
frame alone, tracked, and tracked and smoothed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

from dgpose import HandEstimator, HandPose, HandTracker, OneEuroConfig
from dgpose.data.depth_sources import SourceFrame, synthetic_frames
from dgpose.skeletons import NYU_SCORED14

SCORED = list(NYU_SCORED14)
HZ = 30.0

Follow = Callable[[Any, Any, float], HandPose]


def measure(start: Callable[[], Follow], sequences: list[list[SourceFrame]]) -> str:
    """One line of the table; `start` gives what estimates one sequence."""
    errors, jitter, times, frames = [], [], [], 0
    for sequence in sequences:
        follow, last = start(), None
        for index, frame in enumerate(sequence):
            pose = follow(frame.depth, frame.camera, index / HZ)
            frames += 1
            times.append(pose.timings["total"])
            if not pose.found:
                last = None
                continue
            assert frame.truth_mm is not None
            error = pose.joints_mm[SCORED] - frame.truth_mm[SCORED]
            errors.append(float(np.linalg.norm(error, axis=1).mean()))
            if last is not None:
                jitter.append(float(np.linalg.norm(error - last, axis=1).mean()))
            last = error
    return (
        f"{len(errors)} of {frames} poses, error {np.mean(errors):.1f} mm, "
        f"jitter {np.mean(jitter):.1f} mm, {median(times):.2f} ms a frame"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="accurate")
    parser.add_argument("--sequences", type=int, default=6)
    parser.add_argument("--frames", type=int, default=150, help="of each sequence")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    estimator = HandEstimator.load(arguments.model)
    sequences = [
        list(synthetic_frames(seed, arguments.frames)) for seed in range(arguments.sequences)
    ]
    smoothing = OneEuroConfig()
    contenders: dict[str, Callable[[], Follow]] = {
        "each frame alone": lambda: lambda depth, camera, _: estimator(depth, camera),
        "tracked": lambda: HandTracker(estimator),
        "tracked, smoothed": lambda: HandTracker(estimator, smoothing=smoothing),
    }
    for name, start in contenders.items():
        print(f"{name:18} {measure(start, sequences)}")


if __name__ == "__main__":
    main()
