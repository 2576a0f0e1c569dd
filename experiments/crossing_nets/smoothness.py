"""How even walks through the latent are: `python -m experiments.crossing_nets.smoothness RUNS`.

RUNS are the models of `semi_supervised train`. Walks go straight from the latent of one random test
pose to that of another, the same poses for all models, in equal steps. Per step:

- joints by the pose decoder. L_smo does not teach it: a control.
- joints that the posterior sees in the generated depth maps, where L_smo can act, and how far apart
  it sees a walk's two ends: a generator that always makes the same map is smooth, too;
- change of the depth map.

Means over steps, largest step of a walk, and the ratio of the two (1: all steps alike), over 200
walks; models whose losses do not teach the generator have the first alone. Writes
experiments/results/crossing_nets_smoothness.json and prints the table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpose.data.hand_pool import rendered_pool
from dgpose.inference.hand_generation import walk
from dgpose.metrics.hand_pool import joint_distances
from dgpose.models.crossing_nets import CrossingNets
from dgpose.skeletons import NYU_SCORED14
from experiments.report import mean_std, print_header, save_results, table_row

from .grid_models import arguments, grid_models, groups_of, name_of
from .semi_supervised import SIZE

STEPS = 33
COLUMNS = {
    "decoder_mean": "decoder: mean step, mm",
    "decoder_ratio": "largest / mean",
    "seen_mean": "seen: mean step, mm",
    "seen_largest": "largest step, mm",
    "seen_ratio": "largest / mean",
    "seen_ends": "ends apart, mm",
    "depth_mean": "depth: mean step, %",
    "depth_ratio": "largest / mean",
}


def measures(steps: Tensor) -> dict[str, float]:
    """Mean, largest and their ratio of steps [W, T], of each walk, then over walks."""
    mean, largest = steps.mean(1), steps.amax(1)
    ratio = largest / mean.clamp_min(1e-9)
    values = {"mean": mean, "largest": largest, "ratio": ratio}
    return {name: float(value.mean()) for name, value in values.items()}


@torch.no_grad()
def along_walks(nets: CrossingNets, starts: Tensor, ends: Tensor) -> dict[str, float]:
    """The columns of the table from poses [W, J, 3] to poses [W, J, 3]."""

    def apart(joints: Tensor, others: Tensor) -> Tensor:
        return joint_distances(joints, others, NYU_SCORED14).mean(1)

    found: dict[str, list[Tensor]] = {name: [] for name in ("decoder", "seen", "depth", "ends")}
    for start, end in zip(nets.latent_of(starts), nets.latent_of(ends), strict=True):
        latent = walk(start, end, STEPS)
        decoded = nets.joints_of(latent)
        found["decoder"].append(apart(decoded[1:], decoded[:-1]))
        if nets.config.weights.generates_from_labels:
            depth = nets.depth_of(latent)
            seen = nets.estimate(depth)
            found["seen"].append(apart(seen[1:], seen[:-1]))
            found["ends"].append(apart(seen[-1:], seen[:1]))
            # A crop is 2 deep.
            found["depth"].append((depth[1:] - depth[:-1]).abs().mean((1, 2, 3)) * 50)
    result = {}
    for name in ("decoder", "seen", "depth"):
        if found[name]:
            for measure, value in measures(torch.stack(found[name])).items():
                result[f"{name}_{measure}"] = value
    if found["ends"]:
        result["seen_ends"] = float(torch.cat(found["ends"]).mean())
    return result


def main() -> None:
    """The command line."""
    parser = arguments(__doc__)
    parser.add_argument("--walks", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    poses = rendered_pool(args.data, "test", by=args.split_by, size=SIZE).joints
    order = torch.randint(len(poses), (2, args.walks), generator=torch.Generator().manual_seed(0))
    results: list[dict[str, Any]] = [
        {
            "fraction": model.fraction,
            "variant": model.variant,
            "seed": model.seed,
            **along_walks(model.nets, poses[order[0]], poses[order[1]]),
        }
        for model in grid_models(args.runs, args.split_by)
    ]
    facts = {"split_by": args.split_by, "walks": args.walks, "steps": STEPS, "models": results}
    save_results("crossing_nets_smoothness", facts)
    print_header(["labels, losses", *COLUMNS.values()])
    for group, models in groups_of(results).items():
        row = [mean_std([model.get(name) for model in models], 2) for name in COLUMNS]
        print(table_row([name_of(group), *row]))


if __name__ == "__main__":
    main()
