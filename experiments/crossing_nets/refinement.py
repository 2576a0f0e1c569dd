"""Does refining the latent help? `python -m experiments.crossing_nets.refinement --model FILE`.

Rendered NYU poses, cropped as the model wants them: errors of the estimate and of the refined one,
on the validation split for a few settings, of which the one with the least error there is then
measured on the test split, beside the defaults. Two more rows of the test split say where the limit
is: starts from the latents of the true poses (the error that remains is what the pose VAE cannot
carry), and these refined (what they move away is what the generated maps do not tell).

Writes experiments/results/crossing_nets_refinement.json and prints the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data.hand_pool import HandPool, rendered_pool
from dgpose.inference.hand_refinement import RefineConfig, Refinement, refine
from dgpose.metrics.hand_pool import joint_distances
from dgpose.models.crossing_nets import CrossingNets, load_crossing_nets
from dgpose.skeletons import NYU_SCORED14
from experiments.report import print_header, save_results, table_row

DEFAULT = RefineConfig()
SETTINGS = {
    "defaults": DEFAULT,
    "no prior": replace(DEFAULT, prior=0.0),
    "weaker prior": replace(DEFAULT, prior=0.3),
    "stronger prior": replace(DEFAULT, prior=3.0),
    "huber 0.1": replace(DEFAULT, huber=0.1),
    "huber 1": replace(DEFAULT, huber=1.0),
    "4 starts": replace(DEFAULT, starts=4),
    "100 steps": replace(DEFAULT, steps=100),
}
COLUMNS = ("before, mm", "after, mm", "frames better, %", "joints moved, mm", "misfit", "after")
AT_ONCE = 50


def measure(
    nets: CrossingNets, pool: HandPool, config: RefineConfig, start: Tensor | None = None
) -> dict[str, float]:
    """Errors before and after, of the frames of a pool.

    Args:
        start: latents [N, L] to start from in the place of the posterior's.
    """
    parts = []
    for first in range(0, len(pool), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        given = None if start is None else start[part]
        done = refine(nets, pool.depth[part].float(), config, start=given)
        parts.append(_errors(done, pool.joints[part]))
    before, after, moved, misfit, refined = np.concatenate(parts, 1)
    return {
        "before_mm": float(before.mean()),
        "after_mm": float(after.mean()),
        "better_percent": float(100 * (after < before).mean()),
        "moved_mm": float(moved.mean()),
        "misfit": float(misfit.mean()),
        "refined_misfit": float(refined.mean()),
    }


def _errors(done: Refinement, truth: Tensor) -> npt.NDArray[np.float64]:
    def apart(a: Tensor, b: Tensor) -> Tensor:
        return joint_distances(a, b, NYU_SCORED14).mean(1)

    rows = (
        apart(done.joints, truth),
        apart(done.refined_joints, truth),
        apart(done.refined_joints, done.joints),
        done.misfit,
        done.refined_misfit,
    )
    return np.asarray(torch.stack(rows).double().numpy())


def some(pool: HandPool, count: int) -> HandPool:
    """`count` frames, evenly spread."""
    rows = torch.linspace(0, len(pool) - 1, min(count, len(pool))).round().long()
    return HandPool(pool.depth[rows], pool.joints[rows], pool.labelled[rows])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a weight file")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--frames", type=int, default=300, help="of the test split; validation: a third"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    nets, _ = load_crossing_nets(args.model)
    networks = nets.config
    val, test = (
        some(
            rendered_pool(
                args.data,
                split,  # type: ignore[arg-type]
                size=networks.image_size,
                cube_mm=networks.cube_mm,
                normalize=networks.normalize,
            ),
            count,
        )
        for split, count in (("val", max(1, args.frames // 3)), ("test", args.frames))
    )
    print_header(["frames", "setting", *COLUMNS])
    results: list[dict[str, Any]] = []

    def row(split: str, name: str, config: RefineConfig, start: Tensor | None = None) -> float:
        pool = val if split == "val" else test
        values = measure(nets, pool, config, start)
        results.append({"split": split, "name": name, "settings": asdict(config), **values})
        print(table_row([f"{len(pool)} {split}", name, *_cells(list(values.values()))]), flush=True)
        return values["after_mm"]

    errors = {name: row("val", name, config) for name, config in SETTINGS.items()}
    best = min(errors, key=lambda name: errors[name])
    for name in dict.fromkeys(("defaults", best)):
        row("test", name, SETTINGS[name])
    with torch.no_grad():
        true = nets.latent_of(test.joints)
    row("test", "from the true latents", SETTINGS[best], true)
    save_results("crossing_nets_refinement", {"model": args.model.name, "rows": results})


def _cells(values: Sequence[float]) -> list[str]:
    digits = (2, 2, 0, 2, 3, 3)
    return [f"{value:.{places}f}" for value, places in zip(values, digits, strict=True)]


if __name__ == "__main__":
    main()
