"""What the experiments with DGPose share: settings, models of a grid, and their result files.

Every model gets the same minutes of one core and the same images; its weights are the best by
validation. One result file a model: a run can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dgpose.data.image_files import save_picture
from dgpose.data.person_pool import PersonPool
from dgpose.metrics.person_evaluation import PersonReport
from dgpose.models.dgpose import DGPoseConfig, DGPoseModel, load_model
from dgpose.train.dgpose import (
    WEIGHTS_NAME,
    DGPoseTrainConfig,
    DGPoseTrainResult,
    train_dgpose,
)
from dgpose.viz.drawing import Picture, page_of_tiles
from dgpose.viz.person import person_tile
from dgpose_ext.tensor_file import write_bytes_atomically
from experiments.report import mean_std, print_header, table_row

SIZE = 64
_STEPS = 250  # between validations
IMAGES = Path(__file__).parents[2] / "docs/systems/img"


class Parts(NamedTuple):
    """Images to learn from, to choose the best weights by, and to measure on."""

    train: PersonPool
    val: PersonPool
    test: PersonPool


@dataclass(frozen=True)
class Trained:
    """One model of a grid.

    Attributes:
        name: as the tables have it.
        config: networks, losses and recipe.
        labelled: share of the training images whose labels it uses.
        seed: of everything that is drawn.
    """

    name: str
    config: DGPoseConfig
    labelled: float = 1.0
    seed: int = 0

    @property
    def key(self) -> str:
        """Its name among files."""
        words = re.sub(r"[^a-zA-Z0-9]+", "_", self.name)
        return f"{words}-{100 * self.labelled:g}-{self.seed}"


def command_line(description: str | None) -> argparse.ArgumentParser:
    """The options that all these experiments have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/dgpose"), help="runs and pools")
    parser.add_argument("--minutes", type=float, default=12.0, help="of one core, a model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="names of models; else all")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def train_grid(
    grid: Iterable[Trained],
    parts: Parts,
    args: argparse.Namespace,
    folder: Path,
    measure: Callable[[DGPoseModel], dict[str, Any]],
) -> None:
    """Trains and measures what has no result file yet; ends where a run is stopped.

    Args:
        grid: the models, what matters most first.
        parts: images.
        args: of `command_line`.
        folder: of runs and result files.
        measure: facts about a trained model.
    """
    for model in grid:
        done = folder / f"{model.key}.json"
        if done.exists() or (args.only and model.name not in args.only):
            continue
        result = _train(model, parts, args.minutes, folder / model.key)
        if not result.finished:
            return
        facts = {
            "name": model.name,
            "labelled": model.labelled,
            "seed": model.seed,
            "minutes": result.seconds / 60,
            "steps": result.steps,
            "best_step": int(result.model.training_facts["step"]),
            "parameters": sum(weights.numel() for weights in result.model.parameters()),
            **measure(result.model),
        }
        write_bytes_atomically(done, (json.dumps(facts, indent=1) + "\n").encode())
        print(f"{model.key}: {result.steps} steps", flush=True)


def _train(model: Trained, parts: Parts, minutes: float, out: Path) -> DGPoseTrainResult:
    """A run of its own process's processor time: what a quiet core would need."""
    return train_dgpose(
        DGPoseTrainConfig(
            out,
            model=model.config,
            labelled=model.labelled,
            minutes=minutes,
            processor_time=True,
            seed=model.seed,
            resume=True,
            validate_every=_STEPS,
            save_every=_STEPS,
            precision="bf16-mixed",
            accelerator="cpu",
        ),
        parts.train,
        parts.val,
    )


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The result files of a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*-[0-9].json"))]


def trained_model(folder: Path, model: Trained) -> DGPoseModel:
    """The best weights of a model that was trained."""
    return load_model(folder / model.key / WEIGHTS_NAME)


def facts_of(report: PersonReport) -> dict[str, Any]:
    """A report as it stands in result files."""
    return {"report": report.as_json()}


Column = tuple[str, Callable[[Mapping[str, Any]], float | None], int]
"""Heading, the figure of a result, digits."""


def score(
    row: str, figure: str, factor: float = 1.0
) -> Callable[[Mapping[str, Any]], float | None]:
    """A figure of a row of images, as `PersonReport` names them; "pck@0.2" is one of them."""

    def get(result: Mapping[str, Any]) -> float | None:
        found = result["report"]["scores"].get(row, {})
        name, _, threshold = figure.partition("@")
        value = found.get(name)
        if value is not None and threshold:
            value = value[threshold]
        return None if value is None else factor * float(value)

    return get


def found(who: str, threshold: str) -> Callable[[Mapping[str, Any]], float | None]:
    """PCK in % of the poses that somebody finds in the true images."""

    def get(result: Mapping[str, Any]) -> float | None:
        poses = result["report"]["poses"].get(who)
        return None if poses is None else 100 * float(poses["pck"][threshold])

    return get


def print_table(
    title: str, rows: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], columns: Sequence[Column]
) -> None:
    """A Markdown table: a row for each group of results, mean and deviation over its seeds."""
    print(f"\n{title}\n")
    print_header(["", *(name for name, _, _ in columns)])
    for name, results in rows:
        if results:
            cells = [mean_std([get(r) for r in results], digits) for _, get, digits in columns]
            print(table_row([name, *cells]))


def save_sheet(name: str, title: str, rows: Mapping[str, torch.Tensor]) -> None:
    """docs/systems/img/NAME.jpg: rows of images [B, 3, S, S] in [0, 1], a column each person."""
    tiles: list[tuple[Picture, str]] = []
    for caption, images in rows.items():
        for column, image in enumerate((255 * images).round().to(torch.uint8)):
            tile = person_tile(image.permute(1, 2, 0).numpy(), None, 2 * SIZE)
            tiles.append((tile, caption if column == 0 else ""))
    columns = len(next(iter(rows.values())))
    save_picture(IMAGES / f"{name}.jpg", page_of_tiles(tiles, title, columns=columns))
