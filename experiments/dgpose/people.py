"""DGPose on rendered people: `python -m experiments.dgpose.people train|report`.

Identities, outfits, textures, places and motions of the test part are all unseen. There is a true
image of everything: of the same person in another pose (transfer; indirect transfer, where the pose
is estimated in the true image), and of the same person taller or shorter. Compared: the learned
mapper with the rendered one, `paper` with `strong`, and what nothing gives: the source image as it
is. Diversity of samples stands beside that of the images themselves.

Writes experiments/results/dgpose_people.json and contact sheets to docs/systems/img. The poses were
obtained from mocap.cs.cmu.edu; that database was created with funding from NSF EIA-0196217.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgpose.data.person_pairs import PersonPairs, height_pairs, pose_pairs
from dgpose.data.person_pool import PersonPool, rendered_people
from dgpose.data.person_sources import synthetic_people
from dgpose.data.pose_edits import scale_height
from dgpose.metrics.person_evaluation import (
    estimate,
    evaluate_person_model,
    reconstruct,
    sample,
    score_images,
    transfer,
)
from dgpose.models.dgpose import (
    ConditionalDGPose,
    DGPoseConfig,
    DGPoseModel,
    SemiDGPose,
)
from dgpose.nn.keypoint_network import KeypointNetwork
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
    save_sheet,
    score,
    train_grid,
    trained_model,
)

FRAMES = {"train": 20_000, "val": 500, "test": 1_000}
PAIRS = 500
HEIGHTS = (0.8, 0.9, 1.1)
SHOWN = 8
_CONDITIONAL = DGPoseConfig.strong(SIZE, system="conditional")
MODELS = {
    "conditional, strong": _CONDITIONAL,
    "conditional, strong, learned mapper": replace(_CONDITIONAL, mapper="learned"),
    "semi, strong": DGPoseConfig.strong(SIZE, system="semi"),
    "plain VAE": DGPoseConfig.strong(SIZE, system="vae"),
    "conditional, paper": DGPoseConfig.paper(SIZE, system="conditional"),
    "conditional, paper, rendered mapper": DGPoseConfig.paper(
        SIZE, system="conditional", mapper="rendered"
    ),
    "semi, paper": DGPoseConfig.paper(SIZE, system="semi"),
    "semi, strong, learned mapper": DGPoseConfig.strong(SIZE, system="semi", mapper="learned"),
    "conditional, strong, no discriminator": replace(_CONDITIONAL, adversarial_weight=0.0),
    "conditional, strong, R1 and no spectral norm": replace(
        _CONDITIONAL, spectral_norm=False, gradient_penalty=1.0
    ),
    "conditional, strong, discriminator's features": replace(_CONDITIONAL, feature_weight=0.05),
    "conditional, strong, discriminator sees the pose": replace(
        _CONDITIONAL, discriminator_sees_pose=True
    ),
    "conditional, strong, modulated": replace(_CONDITIONAL, modulated=True),
}


def grid(seeds: int) -> Iterator[Trained]:
    """What matters most first."""
    for seed in range(seeds):
        for name, config in MODELS.items():
            yield Trained(name, config, seed=seed)


def people(data: Path, folder: Path) -> Parts:
    """The three parts; rendered once, and kept in `folder`.

    Raises:
        ValueError: `folder` holds other ones.
    """
    pools = []
    for split, frames in FRAMES.items():
        path = folder / f"{split}.safetensors"
        said = f"SyntheticPeople, CMU and kinematic poses, {split} part, {frames} frames"
        if not path.exists():
            rendered = synthetic_people(data, split=split, size=SIZE)
            rendered_people(rendered, frames, source=said).save(path)
        pools.append(PersonPool.load(path))
        if pools[-1].source != said:
            raise ValueError(f"{path} must hold {said!r}, got {pools[-1].source!r}: delete it")
    return Parts(*pools)


def unseen_pairs(data: Path, count: int) -> PersonPairs:
    """People of the test part in two poses each."""
    return pose_pairs(synthetic_people(data, split="test", size=SIZE), count)


def _floats(pool: PersonPool) -> tuple[Tensor, Tensor, Tensor]:
    return pool.images.float() / 255, *pool.body


def other_height(model: ConditionalDGPose | SemiDGPose, pool: PersonPool, factor: float) -> Tensor:
    """People of a pool, edited to be `factor` times as tall; Semi-DGPose edits its own estimate."""
    images, pose, known = _floats(pool)
    if isinstance(model, SemiDGPose):
        pose, known = estimate(model, images), torch.ones_like(known)
    edited = scale_height(pose, factor, known)
    return transfer(model, images, pose, known, images, edited, known)


def heights(
    model: DGPoseModel, judge: KeypointNetwork, data: Path, reference: Tensor
) -> dict[str, Any]:
    """Edits of the height against true images, and the source as it is beside them."""
    if not isinstance(model, (ConditionalDGPose, SemiDGPose)):
        return {}
    scores: dict[str, Any] = {}
    rendered = synthetic_people(data, split="test", size=SIZE)
    for factor in HEIGHTS:
        source, target = height_pairs(rendered, PAIRS, factor)
        images, pose, known = _floats(target)
        held: dict[str, Any] = {"true": images, "masks": target.masks, "pose": (pose, known)}
        made = {
            "edit": other_height(model, source, factor),
            "copy of the source": _floats(source)[0],
        }
        scores[f"{factor:g}"] = {
            name: asdict(score_images(shown, judge, reference, **held))
            for name, shown in made.items()
        }
    return {"heights": scores}


def _train(args: argparse.Namespace) -> None:
    parts = people(args.data, args.out / "people_pools")
    judge = KeypointNetwork.load()
    pairs = unseen_pairs(args.data, PAIRS)
    features = judge.features(parts.val.images)

    def measure(model: DGPoseModel) -> dict[str, Any]:
        # As many images as the test part has: sets of one size.
        reference = parts.train.subset(torch.arange(len(parts.test)))
        report = evaluate_person_model(model, parts.test, judge, reference, pairs=pairs)
        return facts_of(report) | heights(model, judge, args.data, features)

    train_grid(grid(args.seeds), parts, args, args.out / "people", measure)


def _transfer_columns(row: str) -> list[Column]:
    return [
        (f"{row}: PSNR, dB", score(row, "psnr"), 2),
        ("person, dB", score(row, "person_psnr"), 2),
        ("SSIM", score(row, "ssim"), 3),
        ("PCK@0.2, %", score(row, "pck@0.2", 100), 1),
        ("colours", score(row, "colors"), 3),
        ("Fréchet", score(row, "frechet"), 2),
    ]


def _report(args: argparse.Namespace) -> None:
    results = read_results(args.out / "people")
    save_results(
        "dgpose_people", {"size": SIZE, "frames": FRAMES, "pairs": PAIRS, "models": results}
    )
    rows = [(name, [r for r in results if r["name"] == name]) for name in MODELS]
    first = results[:1]
    for row in ("transfer", "indirect transfer"):
        print_table(f"{row} against the true image", rows, _transfer_columns(row))
    for row in ("copy of the source", "true targets"):
        print_table(row, [("without a model", first)], _transfer_columns(row))
    print_table(
        "reconstruction, and the poses that are estimated",
        rows,
        [
            ("PSNR, dB", score("reconstruction", "psnr"), 2),
            ("SSIM", score("reconstruction", "ssim"), 3),
            ("judge @0.2, %", score("reconstruction", "pck@0.2", 100), 1),
            *((f"PCK@{t}, %", found("model", t), 1) for t in ("0.1", "0.2", "0.5")),
        ],
    )
    print_table(
        "samples",
        [*rows],
        [
            ("diversity", score("samples", "diversity"), 2),
            ("of the true images", score("true images", "diversity"), 2),
            ("Fréchet", score("samples", "frechet"), 2),
            ("of the true images", score("true images", "frechet"), 2),
            ("sharpness, 1e-4", score("samples", "sharpness", 1e4), 1),
            ("of the true images", score("true images", "sharpness", 1e4), 1),
        ],
    )
    edited = [(name, [r for r in same if "heights" in r]) for name, same in rows]
    print_table("height against the true image", edited, _height_columns("edit"))
    nothing = [("copy of the source", next((same[:1] for _, same in edited if same), []))]
    print_table("height, without a model", nothing, _height_columns("copy of the source"))
    _draw(args)


def _height_columns(made: str) -> list[Column]:
    columns: list[Column] = []
    for factor in (f"{height:g}" for height in HEIGHTS):

        def get(figure: str, factor: str = factor) -> Callable[[Mapping[str, Any]], float | None]:
            return lambda result: float(result["heights"][factor][made][figure])

        columns += [
            (f"{factor}: PSNR, dB", get("psnr"), 2),
            (f"{factor}: person, dB", get("person_psnr"), 2),
            (f"{factor}: SSIM", get("ssim"), 3),
        ]
    return columns


def _draw(args: argparse.Namespace) -> None:
    """Contact sheets of the strong models, where they were trained."""
    pairs = unseen_pairs(args.data, SHOWN)
    source, target = _floats(pairs.source), _floats(pairs.target)
    made: dict[str, Tensor] = {"source": source[0], "true target": target[0]}
    shorter: dict[str, Tensor] = {}
    rendered = synthetic_people(args.data, split="test", size=SIZE)
    small = height_pairs(rendered, SHOWN, HEIGHTS[0])
    for name in ("conditional, strong", "semi, strong"):
        trained = Trained(name, MODELS[name])
        if not (args.out / "people" / f"{trained.key}.json").exists():
            continue
        model = trained_model(args.out / "people", trained)
        assert isinstance(model, (ConditionalDGPose, SemiDGPose))
        system = model.config.system
        made[f"{system}: again"] = reconstruct(model, *source)
        made[f"{system}: transfer"] = transfer(model, *source, *target)
        if isinstance(model, SemiDGPose):
            made[f"{system}: indirect transfer"] = transfer(model, *source, *target, indirect=True)
        made[f"{system}: samples"] = sample(model, *target[1:], seed=0)
        shorter[system] = other_height(model, small.source, HEIGHTS[0])
    if shorter:
        save_sheet("dgpose_people", "Rendered people of the test part, all unseen", made)
        truth = {"source": _floats(small.source)[0], "true": _floats(small.target)[0]}
        title = f"{HEIGHTS[0]:g} times as tall"
        save_sheet("dgpose_height", title, truth | shorter)


def main() -> None:
    """The command line."""
    args = command_line(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    (_train if args.what == "train" else _report)(args)


if __name__ == "__main__":
    main()
