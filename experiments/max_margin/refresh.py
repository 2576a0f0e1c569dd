"""Sampled candidates against all of them: `python -m experiments.max_margin.refresh train|report`.

The violated pose of an image is looked for among 2,000 random candidates and the 10 most frequent
violators, embedded anew in each step; among all candidates, embedded anew every R steps; or in the
one way, and the other in the last quarter of the time. Same
network (`strong`), same minutes of one core; the time of searches and refreshes is part of them.
Writes experiments/results/max_margin_refresh.json and docs/systems/img/max_margin_refresh.png.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

from dgpose_ext.tensor_file import write_bytes_atomically
from experiments.report import mean_std, print_header, save_figure, save_results, table_row

from .people import command_line, rendered_people
from .variants import COLUMNS, STRONG, errors_of, train_variant, with_recipe

SEARCHES = {
    "sampled": STRONG,
    "all, R = 1": with_recipe(STRONG, candidates="full", refresh=1),
    "all, R = 10": with_recipe(STRONG, candidates="full", refresh=10),
    "all, R = 100": with_recipe(STRONG, candidates="full", refresh=100),
    "sampled, then all": with_recipe(STRONG, candidates="full", full_share=0.25, refresh=100),
}
PICTURE = Path(__file__).parents[2] / "docs/systems/img/max_margin_refresh.png"


def _train(args: argparse.Namespace) -> None:
    people = rendered_people(args.data, "sequence", args.out / "people")
    for seed in range(args.seeds):
        for name, config in SEARCHES.items():
            key = f"{name.replace(' ', '').replace(',', '-').replace('=', '')}-{seed}"
            done = args.out / f"refresh-{key}.json"
            if done.exists():
                continue
            result = train_variant(
                args.out / f"refresh-{key}", config, people, minutes=args.minutes, seed=seed
            )
            if not result.finished:
                return
            facts: dict[str, Any] = {
                "search": name,
                "seed": seed,
                "steps": result.validations[-1].step,
                "search_share": result.search_seconds / result.seconds,
                "refresh_share": result.refresh_seconds / result.seconds,
                "errors": errors_of(result.model, people),
                "validations": [
                    [v.step, v.seconds, *(None if math.isnan(e) else e for e in v.errors)]
                    for v in result.validations
                ],
            }
            write_bytes_atomically(done, (json.dumps(facts, indent=1) + "\n").encode())
            print(key, {k: round(v, 3) for k, v in facts["errors"].items()}, flush=True)


def _report(args: argparse.Namespace) -> None:
    models = [json.loads(path.read_text()) for path in sorted(args.out.glob("refresh-*.json"))]
    save_results("max_margin_refresh", {"models": models})
    errors_mm = [f"{column}, mm" for column in COLUMNS[:3]]
    print_header(["candidates", "steps", "time of search", "of refreshes", *errors_mm])
    for name in SEARCHES:
        here = [m for m in models if m["search"] == name]
        if here:
            shares = [
                f"{mean_std([100 * m[k] for m in here], 0)} %"
                for k in ("search_share", "refresh_share")
            ]
            errors = [mean_std([m["errors"][c] for m in here]) for c in COLUMNS[:3]]
            print(table_row([name, mean_std([m["steps"] for m in here], 0), *shares, *errors]))
    save_figure(_figure(models), PICTURE)


def _figure(models: list[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for number, name in enumerate(SEARCHES):
        for model in (m for m in models if m["search"] == name):
            minutes = [v[1] / 60 for v in model["validations"]]
            errors = [v[3] for v in model["validations"]]
            label = name if model["seed"] == 0 else None
            axes.plot(minutes, errors, color=f"C{number}", label=label, linewidth=1)
    axes.set(xlabel="minutes of one core", ylabel="Avg(20) on validation people, mm")
    axes.set_yscale("log")
    axes.set_yticks((100, 150, 200, 300, 400), labels=("100", "150", "200", "300", "400"))
    axes.minorticks_off()
    axes.legend()
    return figure


def main() -> None:
    """The command line."""
    parser = command_line(__doc__, threads=1)
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    (_train if args.what == "train" else _report)(args)


if __name__ == "__main__":
    main()
