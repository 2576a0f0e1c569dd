"""Do unlabelled frames help? `python -m experiments.crossing_nets.semi_supervised train|report`.

Rendered NYU poses at 64x64, one render a pose, split into blocks of rows with gaps of 60 between,
or by actor. A share of the training frames keeps its labels; the others may enter the GAN with
the generator. All models get the same updates, batches and augmentation; their losses differ:

- supervised: L_pos of labelled frames;
- gan: also the generator's reconstruction, L_gan and feature matching, of all frames;
- smoothness: also the reconstruction and L_smo, of labelled frames;
- full: everything, the published system;
- cycle: full, and unlabelled frames are made again from their estimated latents; generated frames
  are estimated to the latents they came from. Both are options that the paper does not have.

`train` goes through the grid, writes a file a model under runs/ and can be stopped and started
again; `report` gathers them into experiments/results and draws the curves.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dgpose.data.hand_pool import HandPool, rendered_pool
from dgpose.metrics.hand import success_rate
from dgpose.metrics.hand_pool import joint_distances, pool_errors
from dgpose.models.crossing_nets import (
    CrossingNets,
    CrossingNetsConfig,
    JointWeights,
    StageConfig,
)
from dgpose.skeletons import NYU_SCORED14
from dgpose.train.crossing_nets import CrossingNetsTrainConfig, train_crossing_nets
from dgpose_ext.tensor_file import write_bytes_atomically
from experiments.report import mean_std, print_header, save_figure, save_results, table_row

CURVE_MM = np.arange(0.0, 81.0)
SIZE, BATCH = 64, 50
ROTATION_DEG = 30.0
NOTHING = JointWeights(reconstruction=0, smoothness=0, adversarial=0, feature_matching=0)
VARIANTS = {
    "supervised": NOTHING,
    "gan": replace(NOTHING, reconstruction=1, adversarial=1, feature_matching=1),
    "smoothness": replace(NOTHING, reconstruction=1, smoothness=1),
    "full": JointWeights(),
    "cycle": JointWeights(cycle=1, generated_posterior=1),
}


@dataclass(frozen=True)
class Model:
    """One cell of the grid."""

    split_by: str
    fraction: float
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.split_by}-{100 * self.fraction:g}-{self.variant}-{self.seed}"

    def networks(self) -> CrossingNetsConfig:
        """The published networks and losses on smaller frames, batches and budgets."""
        return CrossingNetsConfig(
            image_size=SIZE,
            weights=VARIANTS[self.variant],
            vae=StageConfig(1, BATCH, 1e-3, schedule="cosine"),
            gan=StageConfig(1, BATCH, 3e-4),
            joint=StageConfig(101, BATCH, 1e-3, schedule="cosine"),
        )


def grid(splits: list[str]) -> Iterator[Model]:
    """The models, in the order in which they are worth having."""
    for split in splits:
        for seed in range(3):
            for variant in ("supervised", "full", "gan", "smoothness"):
                yield Model(split, 0.02, variant, seed)
            if seed == 0:
                yield Model(split, 1.0, "supervised", 0)
                yield Model(split, 1.0, "full", 0)
        for seed in range(3):
            yield Model(split, 0.02, "cycle", seed)


def train(
    model: Model, pools: dict[str, HandPool], out: Path, steps: tuple[int, int, int]
) -> dict[str, Any]:
    """Trains a model, and says how it does on the test split."""
    uses_gan = VARIANTS[model.variant].uses_gan
    pool = pools["train"].with_labelled_fraction(model.fraction, model.seed)
    steps = (steps[0], steps[1] if uses_gan else 0, steps[2])
    nets = train_to_the_end(out / model.name, model.networks(), pool, steps, model.seed)
    errors = pool_errors(nets, pools["test"], NYU_SCORED14)
    return {
        "split_by": model.split_by,
        "fraction": model.fraction,
        "variant": model.variant,
        "seed": model.seed,
        "labelled": int(pool.labelled.sum()),
        "frames": len(pool),
        "test_frames": len(pools["test"]),
        "steps": list(steps),
        "mean_mm": float(errors.mean()),
        "max_joint_mm": float(errors.max(1).mean()),
        "train_mm": float(pool_errors(nets, _labelled(pool), NYU_SCORED14).mean()),
        "bottleneck_mm": _bottleneck(nets, pools["test"]),
        "mean_pose_mm": _mean_pose(pool, pools["test"]),
        "success_rate_max_error": success_rate(errors, CURVE_MM).tolist(),
    }


def train_to_the_end(
    out: Path, networks: CrossingNetsConfig, pool: HandPool, steps: tuple[int, int, int], seed: int
) -> CrossingNets:
    """The trained networks; ends the program where the training was stopped before its end."""
    config = CrossingNetsTrainConfig(
        out,
        networks=networks,
        steps=steps,
        rotation_deg=ROTATION_DEG,
        seed=seed,
        resume=True,
        accelerator="cpu",
        precision="bf16-mixed",
    )
    result = train_crossing_nets(config, pool)
    if not result.finished:
        raise SystemExit(f"{out}: stopped, the same command goes on")
    return result.nets


def _labelled(pool: HandPool) -> HandPool:
    kept = pool.labelled
    return HandPool(pool.depth[kept], pool.joints[kept], kept[kept])


@torch.no_grad()
def _bottleneck(nets: CrossingNets, test: HandPool) -> float:
    """Error of the pose VAE alone: true poses through its 20 numbers."""
    again = nets.joints_of(nets.latent_of(test.joints))
    return float(joint_distances(again, test.joints, NYU_SCORED14).mean())


def _mean_pose(pool: HandPool, test: HandPool) -> float:
    mean = pool.joints[pool.labelled].mean(0)
    return float(joint_distances(mean, test.joints, NYU_SCORED14).mean())


def _train_all(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    pools: dict[str, dict[str, HandPool]] = {}
    for model in grid(args.splits):
        path = args.out / f"{model.name}.json"
        if model.variant not in args.losses or path.is_file():
            continue
        if model.split_by not in pools:
            pools[model.split_by] = {
                split: rendered_pool(args.data, split, by=model.split_by, size=SIZE)  # type: ignore[arg-type]
                for split in ("train", "test")
            }
        result = train(model, pools[model.split_by], args.out, tuple(args.steps))
        write_bytes_atomically(path, (json.dumps(result) + "\n").encode())
        print(f"{model.name}: {result['mean_mm']:.2f} mm", flush=True)


def _report(args: argparse.Namespace) -> None:
    results = [json.loads(path.read_text()) for path in sorted(args.out.glob("*.json"))]
    if not results:
        raise SystemExit(f"{args.out}: no model has been trained yet")
    save_results("crossing_nets_semi_supervised", {"models": results})
    groups: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for result in results:
        key = (result["split_by"], result["fraction"], result["variant"])
        groups.setdefault(key, []).append(result)
    columns = ("split", "labels", "losses", "models", "mean error, mm", "largest of a frame, mm")
    print_header([*columns, "largest < 30 mm, %", "labelled frames, mm"])
    for (split, fraction, variant), models in groups.items():
        row = [split, f"{100 * fraction:g} %", variant, str(len(models))]
        row += [mean_std([m[key] for m in models]) for key in ("mean_mm", "max_joint_mm")]
        row.append(mean_std([100 * m["success_rate_max_error"][30] for m in models]))
        row.append(mean_std([m["train_mm"] for m in models]))
        print(table_row(row))
    for split in dict.fromkeys(key[0] for key in groups):
        _draw({key: m for key, m in groups.items() if key[0] == split}, split, args.pictures)


def _draw(groups: dict[Any, list[dict[str, Any]]], split: str, folder: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = {name: f"C{i}" for i, name in enumerate(VARIANTS)}
    for (_, fraction, variant), models in groups.items():
        curves = 100 * np.array([m["success_rate_max_error"] for m in models])
        middle, spread = curves.mean(0), curves.std(0, ddof=1) if len(curves) > 1 else 0
        dash = "-" if fraction < 1 else "--"
        label = f"{100 * fraction:g} %, {variant}"
        axes.plot(CURVE_MM, middle, dash, color=colors[variant], label=label)
        axes.fill_between(
            CURVE_MM,
            middle - spread,
            middle + spread,
            color=colors[variant],
            alpha=0.2,
            linewidth=0,
        )
    axes.set(
        xlabel="threshold on the maximum joint error of a frame (mm)",
        ylabel="frames below the threshold (%)",
        xlim=(0, 80),
        ylim=(0, 100),
        title=f"rendered NYU poses, split by {split}: share of labels and losses",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    save_figure(figure, folder / f"crossing_nets_semi_{split}.png")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/crossing_nets_semi"))
    parser.add_argument("--pictures", type=Path, default=Path("docs/systems/img"))
    parser.add_argument("--splits", nargs="+", default=["block", "actor"])
    parser.add_argument("--steps", type=int, nargs=3, default=(8000, 300, 2000))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--losses", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    (_train_all if args.what == "train" else _report)(args)


if __name__ == "__main__":
    main()
