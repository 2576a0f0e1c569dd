"""All 12,936 keypoint sets of Market-1501 (train): `python -m benchmarks.market_keypoints`.

Real OpenPose detections (folder DGPOSE_DATA), in one run: pose maps (disks of radius 4), Gaussian
maps (sigma 2), DPIG's masks (radius 4 and 7) and seven part boxes of each person, 128x64, in
batches of 32, float32, 2 threads. Writes results/market_keypoints.json: people a second for each op
and for all, and sums of what was drawn, which are the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dgpose_ext
from dgpose.data.dpig_parts import dpig_part_boxes
from dgpose.data.keypoint_files import read_keypoints
from dgpose.skeletons import DPIG_LIMBS

from .harness import RESULTS, environment

SIZE, BATCH, THREADS = (128, 64), 32, 2

#: What is made of keypoints [B, 18, 2] and visible [B, 18].
OPS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "disk_heatmap, radius 4": lambda k, v: dgpose_ext.disk_heatmap(k, SIZE, 4, visible=v),
    "gaussian_heatmap, sigma 2": lambda k, v: dgpose_ext.gaussian_heatmap(k, SIZE, 2.0, visible=v),
    "body_mask, radius 4": lambda k, v: dgpose_ext.body_mask(k, DPIG_LIMBS, SIZE, 4, visible=v),
    "body_mask, radius 7": lambda k, v: dgpose_ext.body_mask(k, DPIG_LIMBS, SIZE, 7, visible=v),
    "part_boxes, DPIG's seven": lambda k, v: dpig_part_boxes(k, SIZE, v)[0],
}


def measure(keypoints: torch.Tensor, visible: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Seconds of each op over all people, every round one pass through all batches and ops."""
    batches = list(zip(keypoints.split(BATCH), visible.split(BATCH), strict=True))
    for run in OPS.values():
        run(*batches[0])
    sums = {name: sum(float(run(*b).double().sum()) for b in batches) for name, run in OPS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in (*OPS, "all")}
    for _ in range(rounds):
        spent = dict.fromkeys(OPS, 0.0)
        begin = time.perf_counter()
        for batch in batches:
            for name, run in OPS.items():
                start = time.perf_counter()
                run(*batch)
                spent[name] += time.perf_counter() - start
        seconds["all"].append(time.perf_counter() - begin)
        for name, value in spent.items():
            seconds[name].append(value)
    people = len(keypoints)
    return {
        name: {
            "people_per_s": people / statistics.median(values),
            "people_per_s_slowest_and_fastest": [people / max(values), people / min(values)],
            **({} if name == "all" else {"sum": sums[name]}),
        }
        for name, values in seconds.items()
    }


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "market_keypoints.json")
    options = parser.parse_args()
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("DGPOSE_DATA", default))
    torch.set_num_threads(THREADS)
    start = time.perf_counter()
    people = read_keypoints(data / "body" / "keypoints18" / "market-annotation-train.npz")
    reading = time.perf_counter() - start
    keypoints = torch.from_numpy(np.stack([person.xy for person in people]))
    visible = torch.from_numpy(np.stack([person.visible for person in people]))
    result = {
        "environment": environment(),
        "people": len(people),
        "visible_joints": int(visible.sum()),
        "size": SIZE,
        "batch": BATCH,
        "threads": THREADS,
        "rounds": options.rounds,
        "seconds_to_read_the_file": reading,
        "ops": measure(keypoints, visible, options.rounds),
    }
    for name, row in result["ops"].items():
        slowest, fastest = row["people_per_s_slowest_and_fastest"]
        print(
            f"{name:<28} {row['people_per_s']:>12,.0f} people/s  ({slowest:,.0f} .. {fastest:,.0f})"
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
