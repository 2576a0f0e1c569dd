"""People found again: `python -m experiments.dpig.reidentification`.

Rendered people of the test part, who share outfits, before six cameras in changing light
(`dgpose.data.reid_sets`), by Market-1501's protocol. By the foreground codes of DPIG, which needed
no label; by the small network after training on a virtual market, whose persons are drawn
foreground codes (the paper's experiment); by the same network trained on as many labelled rendered
images of as many persons; by colour histograms; by chance. Both networks get the same minutes of
one core, and choose their best weights by persons of their own kind.

Writes experiments/results/dpig_reidentification.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from dgpose.data.person_pool import PersonPool
from dgpose.data.person_sources import read_people
from dgpose.data.reid_sets import rendered_reid_people, rendered_reid_set
from dgpose.inference.virtual_market import virtual_market
from dgpose.metrics.reid_features import (
    chance,
    color_histograms,
    foreground_codes,
    reidentify_by,
)
from dgpose.metrics.reidentification import RANKS
from dgpose.model_zoo import model_path
from dgpose.models.dpig import DPIG, load_dpig
from dgpose.train.reid import ReidTrainConfig, ReidTrainResult, train_reid
from experiments.report import mean_std, print_header, save_results, table_row

PERSONS, IMAGES = 500, 24  # to learn from
VALIDATION = 50  # persons
POSES = 2000  # real ones of the virtual people
BY = ("foreground codes", "virtual market", "labelled images", "colours", "chance")


def _network(
    out: Path, pool: PersonPool, validation: PersonPool, minutes: float, seed: int
) -> ReidTrainResult:
    config = ReidTrainConfig(
        out,
        minutes=minutes,
        processor_time=True,
        seed=seed,
        resume=True,
        precision="bf16-mixed",
        accelerator="cpu",
    )
    return train_reid(config, pool, validation)


def virtual_people(model: DPIG, data: Path) -> tuple[PersonPool, PersonPool]:
    """A virtual market to learn from, and other drawn persons to choose the weights by."""
    poses = read_people("rendered", data, size=model.config.size, count=POSES)
    everybody = virtual_market(model, poses, PERSONS + VALIDATION, backgrounds=IMAGES)
    assert everybody.identity is not None
    learned = everybody.identity <= PERSONS
    return everybody.subset(learned), everybody.subset(~learned)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each seed: scores by what people were found by."""
    model = load_dpig(model_path(args.model))
    size = model.config.size
    results: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        people = rendered_reid_set(args.data, seed=seed, size=size)
        sets = {
            "virtual market": virtual_people(model, args.data),
            "labelled images": tuple(
                rendered_reid_people(
                    args.data, persons=persons, count=IMAGES * persons, split=split, size=size
                )
                for split, persons in (("train", PERSONS), ("val", VALIDATION))
            ),
        }
        by: dict[str, Any] = {
            "foreground codes": lambda pool: foreground_codes(model, pool),
            "colours": color_histograms,
            "chance": chance(seed),
        }
        facts = {}
        for name, (pool, validation) in sets.items():
            out = args.out / "reidentification" / f"{name.replace(' ', '_')}-{seed}"
            trained = _network(out, pool, validation, args.minutes, seed)
            if not trained.finished:
                return results
            by[name] = lambda pool, network=trained.model: network.embed(pool.images)
            facts[name] = {"images": len(pool), "steps": trained.steps}
        scores = {name: reidentify_by(by[name], people).as_json() for name in BY}
        results.append({"seed": seed, "by": scores, "trained": facts})
        print(f"seed {seed} done", flush=True)
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="dpig_small", help="a shipped DPIG or a weight file")
    parser.add_argument("--out", type=Path, default=Path("runs/dpig"), help="runs")
    parser.add_argument("--minutes", type=float, default=5.0, help="of one core, a network")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = measure(args)
    facts = {"model": args.model, "persons": PERSONS, "images": IMAGES, "minutes": args.minutes}
    save_results("dpig_reidentification", {**facts, "results": results})
    print_header(["by", *(f"rank-{k}, %" for k in RANKS), "mAP, %"])
    for name in BY:
        rows = [result["by"][name] for result in results]
        figures = [*(f"rank_{k}" for k in RANKS), "mAP"]
        print(table_row([name, *(mean_std([100 * r[figure] for r in rows]) for figure in figures)]))


if __name__ == "__main__":
    main()
