"""What each change of `strong` gains: `python -m experiments.crossing_nets.strong`.

All frames labelled, supervised (L_pos, and the direct head's loss where there is one), as in
`semi_supervised`, three seeds: the published network, then one change after the other. Writes
experiments/results/crossing_nets_strong.json and prints the table.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dgpose.data.hand_pool import HandPool, rendered_pool
from dgpose.metrics.hand_pool import pool_errors
from dgpose.skeletons import NYU_SCORED14
from experiments.report import mean_std, print_header, save_results, table_row

from .semi_supervised import SIZE, Model, train_to_the_end

PALM_JOINTS = (35, 23, 5)
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"normalize": "nearest_pixel"},
    "absolute depth": {"normalize": "cube"},
    "absolute depth, direct head": {"normalize": "cube", "direct_head": True},
    "absolute depth, palm frame": {"normalize": "cube", "palm_joints": PALM_JOINTS},
    "absolute depth, direct head, palm frame": {
        "normalize": "cube",
        "direct_head": True,
        "palm_joints": PALM_JOINTS,
    },
}


def train(
    name: str, seed: int, pools: dict[str, HandPool], out: Path, steps: tuple[int, int, int]
) -> dict[str, Any]:
    """Trains a variant, and says how it does on the test split."""
    networks = replace(Model("block", 1.0, "supervised", seed).networks(), **VARIANTS[name])
    folder = out / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"
    nets = train_to_the_end(folder, networks, pools["train"], steps, seed)
    return {
        "variant": name,
        "seed": seed,
        "train_mm": float(pool_errors(nets, pools["train"], NYU_SCORED14).mean()),
        "test_mm": float(pool_errors(nets, pools["test"], NYU_SCORED14).mean()),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/crossing_nets_strong"))
    parser.add_argument("--steps", type=int, nargs=3, default=(8000, 0, 2000))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pools = {
        normalize: {
            split: rendered_pool(args.data, split, size=SIZE, normalize=normalize)
            for split in ("train", "test")
        }
        for normalize in ("nearest_pixel", "cube")
    }
    results = [
        train(name, seed, pools[changes["normalize"]], args.out, tuple(args.steps))
        for seed in range(args.seeds)
        for name, changes in VARIANTS.items()
    ]
    save_results("crossing_nets_strong", {"steps": list(args.steps), "models": results})
    print_header(["network", "training frames, mm", "test frames, mm"])
    for name in VARIANTS:
        models = [m for m in results if m["variant"] == name]
        print(
            table_row([name, *(mean_std([m[k] for m in models]) for k in ("train_mm", "test_mm"))])
        )


if __name__ == "__main__":
    main()
