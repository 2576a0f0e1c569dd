"""Errors by the angle to the training views: `python -m experiments.crossing_nets.viewpoint RUNS`.

RUNS are the models of `semi_supervised train`: with losses "supervised" (no generative part) and
with the others. The test poses are turned about random axes in the image plane before they are
rendered, by 0 to 90 degrees, each frame about the same axis at every angle. The same errors are
also sorted by the angle between the palm's orientation and the nearest labelled training frame's,
where training frames may be rolled in the image plane by up to 30 degrees, as training rolls them.

Writes experiments/results/crossing_nets_viewpoint.json and
docs/systems/img/crossing_nets_viewpoint.png, and prints both tables.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dgpose.data.hand_kinematics import palm_frame
from dgpose.data.hand_pool import HandPool, rendered_pool
from dgpose.data.nyu import CENTER_JOINT
from dgpose.data.rotations import apply_rotation, rotation_from_vector
from dgpose.metrics.hand_pool import pool_errors
from dgpose.skeletons import NYU_SCORED14
from experiments.report import mean_std, print_header, save_figure, save_results, table_row

from .grid_models import Group, arguments, grid_models, groups_of, name_of
from .semi_supervised import ROTATION_DEG, SIZE

TURNS_DEG = (0.0, 15.0, 30.0, 45.0, 60.0, 90.0)
VIEW_EDGES_DEG = (0.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 180.0)
VIEW_BINS = [f"{a:g}-{b:g}" for a, b in pairwise(VIEW_EDGES_DEG)]
FEWEST_FRAMES = 30
DRAWN = ("supervised", "full")
PICTURE = Path("docs/systems/img/crossing_nets_viewpoint.png")

Floats = npt.NDArray[np.float64]


def turned(joints_mm: Floats, degrees: float) -> Floats:
    """Poses [N, 36, 3], each about its palm and its own random axis in the image plane."""
    direction = np.random.default_rng(0).uniform(0, 2 * math.pi, len(joints_mm))
    axis = np.stack([np.cos(direction), np.sin(direction), np.zeros_like(direction)], 1)
    rotation = rotation_from_vector(axis * math.radians(degrees))
    middle = joints_mm[:, CENTER_JOINT : CENTER_JOINT + 1]
    return middle + apply_rotation(joints_mm - middle, rotation[:, None])


def angle_to_nearest_view(joints: torch.Tensor, labelled: torch.Tensor) -> Floats:
    """Degrees between palm orientations [N] and the nearest of the labelled ones.

    Args:
        joints, labelled: [N, 36, 3], [M, 36, 3], of any unit.
    """
    views, known = (palm_frame(j.double().numpy())[0] for j in (joints, labelled))
    nearest = np.zeros(len(views))
    limit = math.radians(ROTATION_DEG)
    for first in range(0, len(known), 500):
        # The trace of the relative rotation is a cos + b sin + c of the roll.
        relative = np.einsum("nki,mkj->nmij", views, known[first : first + 500])
        a = relative[..., 0, 0] + relative[..., 1, 1]
        b = relative[..., 0, 1] - relative[..., 1, 0]
        best = np.arctan2(b, a)
        roll = np.clip(best, -limit, limit)
        trace = relative[..., 2, 2] + np.hypot(a, b) * np.cos(best - roll)
        angle = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
        nearest = angle.min(1) if first == 0 else np.minimum(nearest, angle.min(1))
    return nearest


def by_view(errors: Floats, angles: Floats) -> list[float | None]:
    """Mean error of the frames in each bin of VIEW_EDGES_DEG; None: hardly any frame is in it."""
    bins = np.digitize(angles, VIEW_EDGES_DEG[1:-1])
    means: list[float | None] = []
    for place in range(len(VIEW_BINS)):
        here = errors[bins == place]
        means.append(float(here.mean()) if len(here) >= FEWEST_FRAMES else None)
    return means


def main() -> None:
    """The command line."""
    parser = arguments(__doc__)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    models = grid_models(args.runs, args.split_by)
    train = rendered_pool(args.data, "train", by=args.split_by, size=SIZE)
    tests = [
        rendered_pool(
            args.data, "test", by=args.split_by, size=SIZE, turn=partial(turned, degrees=degrees)
        )
        for degrees in TURNS_DEG
    ]
    results, view_angles = [], {}
    for model in models:
        labels = (model.fraction, model.seed)
        if labels not in view_angles:
            view_angles[labels] = _angles(train.with_labelled_fraction(*labels), tests)
        errors = [pool_errors(model.nets, test, NYU_SCORED14).mean(1) for test in tests]
        results.append(
            {
                "fraction": model.fraction,
                "variant": model.variant,
                "seed": model.seed,
                "by_turn_mm": [float(part.mean()) for part in errors],
                "by_nearest_view_mm": by_view(np.concatenate(errors), view_angles[labels]),
            }
        )
    facts = {
        "split_by": args.split_by,
        "turns_deg": TURNS_DEG,
        "view_edges_deg": VIEW_EDGES_DEG,
        "frames_per_turn": len(tests[0]),
        "models": results,
    }
    save_results("crossing_nets_viewpoint", facts)
    groups = groups_of(results)
    _print("turned by", [f"{degrees:g}°" for degrees in TURNS_DEG], groups, "by_turn_mm")
    _print("nearest view", [f"{name}°" for name in VIEW_BINS], groups, "by_nearest_view_mm")
    _draw(groups, args.picture)


def _angles(train: HandPool, tests: list[HandPool]) -> Floats:
    labelled = train.joints[train.labelled]
    return np.concatenate([angle_to_nearest_view(test.joints, labelled) for test in tests])


def _print(
    what: str, columns: list[str], groups: dict[Group, list[dict[str, Any]]], key: str
) -> None:
    print()
    print_header([f"labels, losses; {what}", *columns])
    for group, models in groups.items():
        values = zip(*(model[key] for model in models), strict=True)
        print(table_row([name_of(group), *(mean_std(value) for value in values)]))


def _draw(groups: dict[Group, list[dict[str, Any]]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    places = np.arange(len(VIEW_BINS))
    panels = zip(
        figure.subplots(1, 2, sharey=True),
        ("by_turn_mm", "by_nearest_view_mm"),
        (np.array(TURNS_DEG), places),
        strict=True,
    )
    for axes, key, x in panels:
        for group, models in groups.items():
            if group[1] not in DRAWN:
                continue
            values = np.array([model[key] for model in models], np.float64)  # None: NaN
            color, dash = f"C{DRAWN.index(group[1])}", "-" if group[0] < 1 else "--"
            axes.errorbar(
                x,
                values.mean(0),
                values.std(0, ddof=1) if len(values) > 1 else None,
                color=color,
                linestyle=dash,
                marker="o",
                markersize=4,
                capsize=3,
                label=name_of(group),
            )
        axes.grid(alpha=0.3)
        axes.legend()
    turn, view = figure.axes
    turn.set_ylim(bottom=0)  # of both
    turn.set(
        xlabel="test pose turned out of the image plane by (degrees)",
        ylabel="mean joint error (mm)",
        xticks=TURNS_DEG,
    )
    view.set_xticks(places, VIEW_BINS)
    view.set_xlabel("angle to the nearest labelled training view (degrees)")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
