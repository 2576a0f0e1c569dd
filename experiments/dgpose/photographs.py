"""DGPose on real photographs: `python -m experiments.dgpose.photographs train|report`.

Leeds Sports Pose Extended, person-centred crops at 64x64; the parts are fixed by the images'
numbers (`dgpose.data.lsp`): 200 are tested on, 100 of the others choose the best weights. Does the
unlabelled part help? Semi-DGPose with a share of the labels stands beside itself without the
images that have none, and beside supervised regression with the same pose encoder on the same
labels. The judge is the shipped one, trained further on the labelled training photographs.

Writes experiments/results/dgpose_photographs.json. No picture: no photograph is published.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from dgpose.data.person_sources import read_people
from dgpose.metrics.person_evaluation import evaluate_person_model
from dgpose.model_zoo import model_path
from dgpose.models.dgpose import DGPoseConfig
from dgpose.nn.keypoint_network import KeypointNetwork
from dgpose.train.keypoints import KeypointTrainConfig, train_keypoints
from experiments.report import save_results

from .grid import (
    SIZE,
    Column,
    Parts,
    Trained,
    command_line,
    facts_of,
    found,
    print_table,
    read_results,
    score,
    train_grid,
)

JUDGE_MINUTES = 8.0
PAPER, STRONG = DGPoseConfig.paper, DGPoseConfig.strong
MODELS = {
    "conditional, paper": PAPER(SIZE, system="conditional"),
    "conditional, strong": STRONG(SIZE, system="conditional"),
    "semi, paper": PAPER(SIZE, system="semi"),
    "semi, strong": STRONG(SIZE, system="semi"),
    "semi, labelled images alone": STRONG(SIZE, system="semi", unlabelled_weight=0.0),
    "regression": STRONG(SIZE, system="regression"),
    "plain VAE": STRONG(SIZE, system="vae"),
}
COLUMNS: list[Column] = [
    ("PSNR, dB", score("reconstruction", "psnr"), 2),
    ("SSIM", score("reconstruction", "ssim"), 3),
    ("PCK@0.1, %", found("model", "0.1"), 1),
    ("PCK@0.2, %", found("model", "0.2"), 1),
    ("PCK@0.5, %", found("model", "0.5"), 1),
    ("judge on reconstructions @0.2, %", score("reconstruction", "pck@0.2", 100), 1),
    ("sharpness, 1e-4", score("reconstruction", "sharpness", 1e4), 1),
    ("Fréchet", score("reconstruction", "frechet"), 2),
    ("steps", lambda result: float(result["steps"]), 0),
]


def grid(seeds: int) -> Iterator[Trained]:
    """What matters most first."""
    for name in ("conditional, strong", "semi, strong", "regression", "plain VAE"):
        yield Trained(name, MODELS[name])
    for name in ("semi, strong", "regression", "semi, labelled images alone"):
        yield Trained(name, MODELS[name], 0.25)
    for name in ("conditional, paper", "semi, paper"):
        yield Trained(name, MODELS[name])
    for share in (0.5, 0.75):
        for name in ("semi, strong", "regression"):
            yield Trained(name, MODELS[name], share)
    for seed in range(1, seeds):
        for name in ("semi, strong", "regression", "semi, labelled images alone"):
            yield Trained(name, MODELS[name], 0.25, seed)
        for name in ("semi, strong", "regression"):
            yield Trained(name, MODELS[name], 1.0, seed)


def photographs(data: Path) -> Parts:
    """The three parts of LSPe."""
    return Parts(*(read_people("lspe", data, split=s, size=SIZE) for s in Parts._fields))


def photograph_judge(parts: Parts, out: Path, minutes: float) -> KeypointNetwork:
    """The shipped judge, trained further on labelled photographs; kept in `out`."""
    result = train_keypoints(
        KeypointTrainConfig(
            out,
            init=model_path("person_judge"),
            learning_rate=2e-3,
            minutes=minutes,
            processor_time=True,
            resume=True,
            validate_every=250,
            precision="bf16-mixed",
            accelerator="cpu",
        ),
        parts.train,
        parts.val,
        data=parts.train.source,
    )
    return result.model


def _train(args: argparse.Namespace) -> None:
    parts = photographs(args.data)
    judge = photograph_judge(parts, args.out / "photograph_judge", args.judge_minutes)
    train_grid(
        grid(args.seeds),
        parts,
        args,
        args.out / "photographs",
        lambda model: facts_of(evaluate_person_model(model, parts.test, judge, parts.train)),
    )


def _report(args: argparse.Namespace) -> None:
    results = read_results(args.out / "photographs")
    save_results("dgpose_photographs", {"size": SIZE, "models": results})
    rows = []
    for name in MODELS:
        shares = sorted({r["labelled"] for r in results if r["name"] == name}, reverse=True)
        for share in shares:
            same = [r for r in results if (r["name"], r["labelled"]) == (name, share)]
            rows.append((f"{name}, {100 * share:g} % of the labels", same))
    print_table("Photographs (LSPe)", rows, COLUMNS)
    nothing: list[Column] = [
        ("PSNR, dB", score("mean image", "psnr"), 2),
        ("SSIM", score("mean image", "ssim"), 3),
        *((f"PCK@{t}, %", found("mean pose", t), 1) for t in ("0.1", "0.2", "0.5")),
    ]
    print_table("Mean image and mean pose", [("of the training images", results[:1])], nothing)
    own: list[Column] = [(f"PCK@{t}, %", found("judge", t), 1) for t in ("0.1", "0.2", "0.5")]
    print_table("The judge on the true images", [("judge", results[:1])], own)


def main() -> None:
    """The command line."""
    parser = command_line(__doc__)
    parser.add_argument("--judge-minutes", type=float, default=JUDGE_MINUTES)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    (_train if args.what == "train" else _report)(args)


if __name__ == "__main__":
    main()
