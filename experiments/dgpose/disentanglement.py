"""Are pose and appearance apart? `python -m experiments.dgpose.disentanglement`.

Measured with the models of `photographs` and `people`, after their `train`. Each test image gives
its appearance to the pose of the next one. Keep the pose, swap the appearance: does the judge find
the pose that was asked for? Keep the appearance, swap the pose: how far are the colours of the
parts from the person's? A plain VAE has one code; half of it is taken from each image, which says
what a code without any structure gives. Beside them: what the judge finds in true images, how far
another person's colours are, and how far those of the same person in a true image of another pose.

Writes experiments/results/dgpose_disentanglement.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.report import save_results

from .grid import Column, print_table, read_results, score

COLUMNS: list[Column] = [
    *((f"swap: PCK@{t}, %", score("swap", f"pck@{t}", 100), 1) for t in ("0.1", "0.2", "0.5")),
    ("swap: colours", score("swap", "colors"), 3),
    ("reconstruction: PCK@0.2, %", score("reconstruction", "pck@0.2", 100), 1),
    ("reconstruction: colours", score("reconstruction", "colors"), 3),
]
BOUNDS: list[Column] = [
    ("judge on true images, PCK@0.2, %", score("true images", "pck@0.2", 100), 1),
    ("colours of another person", score("another person", "colors"), 3),
    ("of the same person in another pose", score("true targets", "colors"), 3),
    ("of the mean image", score("mean image", "colors"), 3),
]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/dgpose"), help="as of the others")
    args = parser.parse_args()
    facts = {}
    for data in ("people", "photographs"):
        results = [r for r in read_results(args.out / data) if "swap" in r["report"]["scores"]]
        results = [r for r in results if r["labelled"] == 1]
        if not results:
            continue
        names = list(dict.fromkeys(r["name"] for r in results))
        rows = [(name, [r for r in results if r["name"] == name]) for name in names]
        print_table(data, rows, COLUMNS)
        with_swap = next(r for r in results if "another person" in r["report"]["scores"])
        print_table(f"{data}: bounds", [("true images", [with_swap])], BOUNDS)
        kept = ("swap", "reconstruction", "true images", "another person", "true targets")
        facts[data] = [
            {
                "name": r["name"],
                "seed": r["seed"],
                "scores": {k: v for k, v in r["report"]["scores"].items() if k in kept},
            }
            for r in results
        ]
    save_results("dgpose_disentanglement", facts)


if __name__ == "__main__":
    main()
