"""Can one tell that nothing close is among the candidates?
`python -m experiments.max_margin.unknown WEIGHTS`.

WEIGHTS is a model of `variants train`. The same images of walking and running people are estimated
twice: among all candidates, and among those of the other actions. Each quantity that an estimate
has without labels is then asked to tell the one from the other: the area under its ROC curve is 0.5
where it cannot, 1 where it always can. Writes experiments/results/max_margin_unknown.json.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dgpose.data.body_poses import BodyPoses
from dgpose.data.pose_candidates import thin_poses, with_headings
from dgpose.data.pose_pool import PosePool
from dgpose.inference.pose_retriever import PoseEstimate, PoseRetriever
from dgpose.metrics.pose_retrieval import nearest_candidates
from dgpose.models.max_margin import load_model
from experiments.report import print_header, save_results, table_row

from .people import HEADINGS, THIN_MM, command_line, rendered_people

LEFT_OUT = ("walking", "running")


def main() -> None:
    """The command line."""
    parser = command_line(__doc__, threads=2)
    parser.add_argument("weights", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.weights)
    people = rendered_people(args.data, "sequence", args.out / "people")
    test = _of_actions(people.test)
    bodies = BodyPoses.load(args.data)
    rows = bodies.rows("train")
    poses = torch.from_numpy(bodies.positions[rows])
    kept = thin_poses(poses, THIN_MM)
    left_out = [bodies.action_names.index(name) for name in LEFT_OUT]
    others = torch.from_numpy(~np.isin(bodies.action[rows], left_out))[kept]
    estimates, errors, nearest = {}, {}, {}
    for name, part in (("all", kept), ("others", kept[others])):
        candidates = with_headings(poses[part], HEADINGS)
        retriever = PoseRetriever.build(model, candidates)
        retriever.calibrate(people.val.images)
        estimates[name] = retriever.estimate(test.images, 500)
        errors[name] = _mean_distance(estimates[name].pose_mm, test.poses)
        near = candidates[nearest_candidates(test.poses, candidates)]
        nearest[name] = _mean_distance(near, test.poses)
    areas = {
        name: _area(values["all"], values["others"])
        for name, values in _known_without_labels(estimates).items()
    }
    facts = {
        "images": len(test),
        "left_out": LEFT_OUT,
        "error_mm": {name: float(error.mean()) for name, error in errors.items()},
        "nearest_mm": {name: float(error.mean()) for name, error in nearest.items()},
        "median": {
            quantity: {name: float(value.median()) for name, value in values.items()}
            for quantity, values in _known_without_labels(estimates).items()
        },
        "area": areas,
    }
    save_results("max_margin_unknown", facts)
    print({name: facts[name] for name in ("images", "error_mm", "nearest_mm")})
    print_header(["quantity", "among all", "without them", "area under ROC"])
    for quantity, median in facts["median"].items():  # type: ignore[attr-defined]
        cells = [f"{median['all']:.2f}", f"{median['others']:.2f}", f"{areas[quantity]:.2f}"]
        print(table_row([quantity, *cells]))


def _of_actions(pool: PosePool) -> PosePool:
    assert pool.actions is not None
    left_out = torch.tensor([pool.action_names.index(name) for name in LEFT_OUT])
    return pool.subset(torch.isin(pool.actions, left_out))


def _mean_distance(one: Tensor, other: Tensor) -> Tensor:
    distance: Tensor = (one - other).norm(dim=2).mean(1)
    return distance


def _known_without_labels(estimates: dict[str, PoseEstimate]) -> dict[str, dict[str, Tensor]]:
    """By quantity, then by candidate set."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, estimate in estimates.items():
        values = {
            "spread_mm": estimate.spread_mm,
            "best score": estimate.scores[:, 0],
            "auxiliary_distance_mm": estimate.auxiliary_distance_mm,
            "confidence": estimate.confidence,
        }
        for quantity, value in values.items():
            if value is not None:
                found.setdefault(quantity, {})[name] = value
    return found


def _area(one: Tensor, other: Tensor) -> float:
    """Area under the ROC curve, at least 0.5: the better of "larger" and "smaller"."""
    from scipy.stats import rankdata

    ranks = rankdata(torch.cat((one, other)).numpy())[len(one) :]
    area = (ranks.sum() - len(other) * (len(other) + 1) / 2) / (len(one) * len(other))
    return float(max(area, 1 - area))


if __name__ == "__main__":
    main()
