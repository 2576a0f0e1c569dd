"""What each part of max-margin retrieval gains: `python -m experiments.max_margin.variants
train|report`.

Every model gets the same minutes of one core, the same people and the same candidates; weights are
the best by validation. `train` goes through the models, writes a file for each under --out, and can
be stopped and started again; `report` gathers them into
experiments/results/max_margin_variants.json and prints the tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgpose.data.pose_pool import PosePool
from dgpose.inference.pose_retriever import PoseRetriever
from dgpose.metrics.body import evaluate_body
from dgpose.metrics.pose_retrieval import CLOSE_MM, evaluate_retrieval, nearest_candidates
from dgpose.models.max_margin import MaxMarginConfig, MaxMarginModel
from dgpose.train.max_margin import MaxMarginTrainConfig, MaxMarginTrainResult, train_max_margin
from dgpose_ext.tensor_file import write_bytes_atomically
from experiments.report import mean_std, print_header, save_results, table_row

from .people import FRAMES, HEADINGS, SIZE, THIN_MM, People, command_line, rendered_people

STRONG, PAPER = MaxMarginConfig.strong(SIZE), MaxMarginConfig.paper(SIZE)


def with_recipe(config: MaxMarginConfig, **changes: Any) -> MaxMarginConfig:
    """A configuration whose recipe differs."""
    return replace(config, recipe=replace(config.recipe, **changes))


VARIANTS: dict[str, MaxMarginConfig] = {
    "strong": STRONG,
    "strong, no auxiliary task": replace(STRONG, auxiliary=False),
    "strong, regression alone": replace(STRONG, loss="none"),
    "paper": PAPER,
    "paper, no auxiliary task": replace(PAPER, auxiliary=False),
    "paper, regression alone": replace(PAPER, loss="none"),
    "paper, raw pose": replace(PAPER, pose_layers="raw"),
    "paper, one random layer": replace(PAPER, pose_layers="random"),
    "paper, one layer": replace(PAPER, pose_layers="one"),
    "paper, end to end": with_recipe(PAPER, freeze_convolutions=False, pretrain_share=0.0),
    "strong, raw pose": replace(STRONG, pose_layers="raw"),
    "strong, one random layer": replace(STRONG, pose_layers="random"),
    "strong, one layer": replace(STRONG, pose_layers="one"),
}
BY_ACTION = tuple(VARIANTS)[:6]
SPLITS = ("sequence", "action")
COLUMNS = ("Max", "Avg(20)", "Avg(500)", "auxiliary")


def grid(seeds: int) -> Iterator[tuple[str, str, int]]:
    """Split, variant and seed of each model: what matters most first."""
    for name in BY_ACTION:
        yield "sequence", name, 0
    for name in BY_ACTION:
        yield "action", name, 0
    for name in tuple(VARIANTS)[6:]:
        yield "sequence", name, 0
    for seed in range(1, seeds):
        for name in VARIANTS:
            yield "sequence", name, seed


def train_variant(
    out: Path, config: MaxMarginConfig, people: People, *, minutes: float, seed: int
) -> MaxMarginTrainResult:
    """Trains on one core, or goes on with a run that was stopped."""
    learned_by_adamw = config.recipe.optimizer == "adamw"
    return train_max_margin(
        MaxMarginTrainConfig(
            out,
            model=config,
            minutes=minutes,
            processor_time=True,
            seed=seed,
            resume=True,
            validate_every=200 if learned_by_adamw else 100,
            precision="bf16-mixed" if learned_by_adamw else "32-true",
            accelerator="cpu",
        ),
        people.train,
        people.val,
        people.candidates,
        data=people.train.source,
    )


def errors_of(model: MaxMarginModel, people: People) -> dict[str, float]:
    """MPJPE in mm on the test part, and the share of close training images."""
    if model.config.loss == "none":
        return {"auxiliary": _mean(model.estimate_auxiliary(people.test.images), people.test)}
    retriever = PoseRetriever.build(model, people.candidates)
    report = evaluate_retrieval(retriever, people.test, bounds=False)
    errors = {name: float(e.errors_mm.mean()) for name, e in report.methods.items()}
    # The paper retrieves from all training poses; so does this share.
    some = torch.arange(0, len(people.train), len(people.train) // FRAMES["val"])
    own = PoseRetriever.build(model, people.train.poses)
    seen = evaluate_retrieval(own, people.train.subset(some), bounds=False)
    return errors | {"close": seen.close_share} | report.guesses


def bounds_of(people: People) -> dict[str, float]:
    """Errors that need no network: the best possible candidate, the best possible one of the
    training crops' own poses, and the mean pose."""
    mean = people.candidates.mean(0, dtype=torch.float64).float()
    seen = people.train.poses
    return {
        "oracle": _mean(people.candidates[people.nearest], people.test),
        "oracle of training crops": _mean(
            seen[nearest_candidates(people.test.poses, seen)], people.test
        ),
        "mean pose": _mean(mean.expand(people.test.poses.shape), people.test),
    }


def _mean(estimates: Tensor, pool: PosePool) -> float:
    return float(evaluate_body(estimates, pool.poses).errors_mm.mean())


def _train(args: argparse.Namespace) -> None:
    people: dict[str, People] = {}
    for split_by, name, seed in grid(args.seeds):
        if args.splits and split_by not in args.splits:
            continue
        key = f"{split_by}-{name.replace(', ', '-').replace(' ', '_')}-{seed}"
        done = args.out / f"{key}.json"
        if done.exists():
            continue
        if split_by not in people:
            people[split_by] = rendered_people(args.data, split_by, args.out / "people")
            bounds = json.dumps(bounds_of(people[split_by]), indent=1) + "\n"
            write_bytes_atomically(args.out / f"bounds-{split_by}.json", bounds.encode())
        result = train_variant(
            args.out / key, VARIANTS[name], people[split_by], minutes=args.minutes, seed=seed
        )
        if not result.finished:
            return
        facts: dict[str, Any] = {
            "split_by": split_by,
            "variant": name,
            "seed": seed,
            "minutes": result.seconds / 60,
            "steps": result.validations[-1].step,
            "search_share": result.search_seconds / result.seconds,
            "refresh_share": result.refresh_seconds / result.seconds,
            "errors": errors_of(result.model, people[split_by]),
        }
        write_bytes_atomically(done, (json.dumps(facts, indent=1) + "\n").encode())
        print(key, {k: round(v, 3) for k, v in facts["errors"].items()}, flush=True)


def _report(args: argparse.Namespace) -> None:
    found = sorted(p for s in SPLITS for p in args.out.glob(f"{s}-*-[0-9].json"))
    models = [json.loads(path.read_text()) for path in found]
    bounds = {
        path.stem.removeprefix("bounds-"): json.loads(path.read_text())
        for path in sorted(args.out.glob("bounds-*.json"))
    }
    save_results(
        "max_margin_variants",
        {
            "frames": FRAMES,
            "size": SIZE,
            "thinned_mm": THIN_MM,
            "headings": HEADINGS,
            "bounds": bounds,
            "models": models,
        },
    )
    for split_by in SPLITS:
        here = [m for m in models if m["split_by"] == split_by]
        if not here:
            continue
        known = {k: round(v, 1) for k, v in bounds.get(split_by, {}).items()}
        print(f"\nby {split_by}:", known)
        print_header(["model", *(f"{c}, mm" for c in COLUMNS), f"within {CLOSE_MM:g} mm", "steps"])
        for name in VARIANTS:
            seeds = [m for m in here if m["variant"] == name]
            if seeds:
                cells = [mean_std([m["errors"].get(c) for m in seeds]) for c in COLUMNS]
                shares = [m["errors"].get("close") for m in seeds]
                close = mean_std([None if share is None else 100 * share for share in shares])
                steps = mean_std([m["steps"] for m in seeds], 0)
                print(table_row([name, *cells, close, steps]))


def main() -> None:
    """The command line."""
    parser = command_line(__doc__, threads=1)
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--splits", nargs="+", choices=SPLITS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    (_train if args.what == "train" else _report)(args)


if __name__ == "__main__":
    main()
