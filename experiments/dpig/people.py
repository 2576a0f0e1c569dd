"""DPIG on rendered people: `python -m experiments.dpig.people train|report`.

Identities, outfits, textures, places and motions of the test part are all unseen, and there is a
true image of the same person in another pose. Compared, after the same minutes of one core on the
same 20,000 images: DPIG `small` with codes of seven part crops, and with one of the whole body (the
paper's ablation); a generator like PG2, which learns from pairs of images of one person in one
place; a whole-image VAE. Of DPIG the pose autoencoder and the mappers follow, in a tenth of the
minutes each.

Writes experiments/results/dpig_people.json and a contact sheet to docs/systems/img. The poses were
obtained from mocap.cs.cmu.edu; that database was created with funding from NSF EIA-0196217.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgpose.data.person_pairs import PersonPairs, pose_pairs
from dgpose.data.person_pool import PersonPool
from dgpose.data.person_sources import synthetic_people
from dgpose.metrics.dpig_evaluation import (
    FactorDiversity,
    Generator,
    People,
    evaluate_generator,
    generator_of,
)
from dgpose.models.dpig import DPIG, FACTORS, DPIGConfig, load_dpig
from dgpose.nn.keypoint_network import KeypointNetwork
from dgpose.train.dpig import (
    WEIGHTS_NAME,
    DPIGTrainConfig,
    train_dpig_pose,
    train_dpig_stage1,
    train_dpig_stage2,
)
from dgpose.train.training_run import TrainConfig
from dgpose_ext.tensor_file import write_bytes_atomically
from experiments.dgpose.grid import (
    Column,
    command_line,
    print_table,
    read_results,
    save_sheet,
    score,
)
from experiments.report import save_results

from .baselines import NAMES as BASELINES
from .baselines import generator_of_baseline, load_baseline, train_baseline

SIZE = (128, 64)
PAIRS = {"train": 10_000, "val": 250, "test": 500}
SHOWN = 8
DPIG_MODELS = {
    "DPIG, part crops": DPIGConfig.small(),
    "DPIG, whole body": DPIGConfig.small(foreground="whole"),
}
MODELS = (*DPIG_MODELS, *BASELINES)
_STEPS = 250  # between validations
_LATER = 0.1  # of the minutes, for the pose autoencoder and for the mappers


def people(data: Path, folder: Path) -> dict[str, PersonPairs]:
    """Pairs of each part; rendered once, and kept in `folder`.

    Raises:
        ValueError: `folder` holds other ones.
    """
    found = {}
    for split, count in PAIRS.items():
        paths = [folder / f"{split}_{side}.safetensors" for side in PersonPairs._fields]
        said = f"SyntheticPeople, CMU and kinematic poses, {split} part, {count} pairs"
        if not all(path.exists() for path in paths):
            rendered = pose_pairs(
                synthetic_people(data, split=split, size=SIZE), count, source=said
            )
            for path, pool in zip(paths, rendered, strict=True):
                pool.save(path)
        pairs = found[split] = PersonPairs(*(PersonPool.load(path) for path in paths))
        if pairs.source.source != said:
            raise ValueError(f"{paths[0]} must hold {said!r}, got {pairs.source.source!r}")
    return found


def joined(*pools: PersonPool) -> PersonPool:
    """The images of several pools as one, without names."""
    parts: dict[str, Any] = {"names": ()}
    for field in fields(pools[0]):
        values = [getattr(pool, field.name) for pool in pools]
        if isinstance(values[0], Tensor):
            parts[field.name] = torch.cat(values)
    return replace(pools[0], **parts)


def trained_dpig(
    config: DPIGConfig, out: Path, minutes: float, parts: Mapping[str, PersonPairs], seed: int
) -> tuple[DPIG, int, float] | None:
    """A model after all stages, steps and seconds of stage 1; None where it was stopped."""
    pools = joined(*parts["train"]), joined(*parts["val"])

    def settings(stage: str, share: float) -> DPIGTrainConfig:
        return DPIGTrainConfig(
            out / stage,
            model=config,
            minutes=share * minutes,
            processor_time=True,
            seed=seed,
            resume=True,
            validate_every=_STEPS,
            save_every=_STEPS,
            precision="bf16-mixed" if stage == "stage1" else "32-true",
            accelerator="cpu",
        )

    stage1 = train_dpig_stage1(settings("stage1", 1.0), *pools)
    if not stage1.finished:
        return None
    pose = train_dpig_pose(settings("pose", _LATER), stage1.model, *pools)
    if not pose.finished:
        return None
    mappers = train_dpig_stage2(settings("stage2", _LATER), pose.model, *pools)
    return (mappers.model, stage1.steps, stage1.seconds) if mappers.finished else None


def _trained(
    name: str, out: Path, args: argparse.Namespace, parts: Mapping[str, PersonPairs], seed: int
) -> tuple[Generator, int, int, float] | None:
    """What a model makes of people, its parameters, steps and seconds."""
    if name in DPIG_MODELS:
        done = trained_dpig(DPIG_MODELS[name], out, args.minutes, parts, seed)
        if done is None:
            return None
        dpig, steps, seconds = done
        networks = (dpig.encoder, dpig.decoder)
        parameters = sum(p.numel() for network in networks for p in network.parameters())
        return generator_of(dpig), parameters, steps, seconds
    config = TrainConfig(
        out,
        minutes=args.minutes,
        processor_time=True,
        seed=seed,
        resume=True,
        validate_every=_STEPS,
        save_every=_STEPS,
        precision="bf16-mixed",
        accelerator="cpu",
    )
    source, target = parts["train"]
    pool, targets = joined(source, target), joined(target, source)
    validation = parts["val"]
    if name == "whole-image VAE":
        same = joined(*validation)
        targets, validation = pool, PersonPairs(same, same)
    model, steps, seconds = train_baseline(name, config, pool, targets, validation)
    if model is None:
        return None
    parameters = sum(weight.numel() for weight in model.parameters())
    return generator_of_baseline(model), parameters, steps, seconds


def key(name: str, seed: int) -> str:
    """The name of a model among files."""
    words = "".join(letter if letter.isalnum() else "_" for letter in name)
    return f"{words}-{seed}"


def _train(args: argparse.Namespace) -> None:
    folder = args.out / "people"
    parts = people(args.data, args.out / "people_pools")
    judge = KeypointNetwork.load()
    test = parts["test"]
    reference = joined(*parts["train"]).subset(torch.arange(len(test.source)))
    for seed in range(args.seeds):
        for name in MODELS:
            done = folder / f"{key(name, seed)}.json"
            if done.exists() or (args.only and name not in args.only):
                continue
            found = _trained(name, folder / key(name, seed), args, parts, seed)
            if found is None:
                return
            generator, parameters, steps, seconds = found
            report = evaluate_generator(generator, test.source, judge, reference, pairs=test)
            facts = {
                "name": name,
                "seed": seed,
                "minutes": seconds / 60,
                "steps": steps,
                "parameters": parameters,
                "report": report.as_json(),
            }
            write_bytes_atomically(done, (json.dumps(facts, indent=1) + "\n").encode())
            print(f"{name}, seed {seed}: {steps} steps", flush=True)


def columns(row: str) -> list[Column]:
    """Against the true image."""
    return [
        (f"{row}: PSNR, dB", score(row, "psnr"), 2),
        ("person, dB", score(row, "person_psnr"), 2),
        ("SSIM", score(row, "ssim"), 3),
        ("mask-SSIM", score(row, "mask_ssim"), 3),
        ("PCK@0.2, %", score(row, "pck@0.2", 100), 1),
        ("colours", score(row, "colors"), 3),
        ("background, dB", score(row, "background_psnr"), 2),
        ("sharpness, 1e-4", score(row, "sharpness", 1e4), 1),
        ("Fréchet", score(row, "frechet"), 2),
    ]


def diversity_of(factor: str, figure: str) -> Callable[[Mapping[str, Any]], float | None]:
    """A figure of `FactorDiversity`."""

    def get(result: Mapping[str, Any]) -> float | None:
        found = result["report"]["diversity"].get(factor)
        return None if found is None else float(found[figure])

    return get


def _report(args: argparse.Namespace) -> None:
    results = read_results(args.out / "people")
    save_results("dpig_people", {"size": SIZE, "pairs": PAIRS, "models": results})
    rows = [(name, [r for r in results if r["name"] == name]) for name in MODELS]
    sizes: list[Column] = [
        ("parameters", lambda r: float(r["parameters"]), 0),
        ("steps", lambda r: float(r["steps"]), 0),
    ]
    for row in ("reconstruction", "pose-guided"):
        print_table(row, rows, [*columns(row), *sizes])
    nothing = [("without a model", results[:1])]
    for row in ("true targets", "copy of the source", "true images", "mean image"):
        print_table(row, nothing, columns(row))
    own = [(name, same) for name, same in rows if name in DPIG_MODELS]
    for factor in FACTORS:
        varied: list[Column] = [
            (figure, diversity_of(factor, figure), 3) for figure in FactorDiversity._fields
        ]
        print_table(f"{factor} varied, the others kept", own, varied)
    print_table(
        "all drawn",
        rows,
        [
            ("diversity", score("all drawn", "diversity"), 3),
            ("of true images", score("true images", "diversity"), 3),
            ("Fréchet", score("all drawn", "frechet"), 2),
            ("of true images", score("true images", "frechet"), 2),
        ],
    )
    _draw(args)


def _draw(args: argparse.Namespace) -> None:
    """A contact sheet of the models that were trained."""
    pairs = pose_pairs(synthetic_people(args.data, split="test", size=SIZE), SHOWN)
    source, target = (People.of(pool) for pool in pairs)
    shown = {"source": source.images, "true target": target.images}
    for name in MODELS:
        folder = args.out / "people" / key(name, 0)
        weights = folder / ("stage2" if name in DPIG_MODELS else "") / WEIGHTS_NAME
        if not weights.exists():
            continue
        if name in DPIG_MODELS:
            generator = generator_of(load_dpig(weights))
        else:
            generator = generator_of_baseline(load_baseline(weights))
        shown[f"{name}: again"] = generator.reconstruct(source)
        if generator.pose_guided is not None:
            shown[f"{name}: pose-guided"] = generator.pose_guided(source, target)
        if name == MODELS[0]:
            for factor, draw in generator.draw.items():
                shown[factor] = draw(source, 0).images
    save_sheet("dpig_people", "Rendered people of the test part, all unseen", shown)


def main() -> None:
    """The command line."""
    parser = command_line(__doc__)
    parser.set_defaults(out=Path("runs/dpig"), seeds=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    (_train if args.what == "train" else _report)(args)


if __name__ == "__main__":
    main()
