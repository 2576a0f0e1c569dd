"""Experiments with DGPose: grids, result files, and the figures of their tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dgpose.data.person_pool import PersonPool, rendered_people
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.models.dgpose import DGPoseConfig, SemiDGPose, make_model
from experiments.dgpose import grid as shared
from experiments.dgpose import people, photographs
from experiments.dgpose.grid import Parts, Trained, found, print_table, score, train_grid

RESULT = {
    "report": {
        "scores": {
            "swap": {"psnr": None, "pck": {"0.2": 0.5}, "colors": 0.25},
            "mean image": {"psnr": 12.5, "pck": None, "colors": None},
        },
        "poses": {"judge": {"pck": {"0.1": 0.75}}},
    }
}


def test_figures_of_a_result() -> None:
    assert score("mean image", "psnr")(RESULT) == 12.5
    assert score("swap", "pck@0.2", 100)(RESULT) == 50
    assert score("swap", "psnr")(RESULT) is None
    assert score("mean image", "pck@0.2")(RESULT) is None
    assert score("transfer", "psnr")(RESULT) is None  # of a model that has no such row
    assert found("judge", "0.1")(RESULT) == 75
    assert found("model", "0.1")(RESULT) is None


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    columns: list[shared.Column] = [("PSNR", score("mean image", "psnr"), 1)]
    print_table("title", [("one", [RESULT]), ("none", [])], columns)
    assert capsys.readouterr().out.splitlines() == [
        "", "title", "", "|  | PSNR |", "| --- | --- |", "| one | 12.5 |",
    ]  # fmt: skip


@pytest.mark.parametrize("models", [list(photographs.grid(3)), list(people.grid(3))])
def test_each_model_has_a_file_of_its_own(models: Iterable[Trained]) -> None:
    keys = [model.key for model in models]
    assert len(keys) == len(set(keys))


def test_seeds_and_shares_of_the_photographs() -> None:
    """Three seeds at 25 and 100 % of the labels, one at the others."""
    seeds: dict[float, set[int]] = {}
    for model in photographs.grid(3):
        if model.name == "semi, strong":
            seeds.setdefault(model.labelled, set()).add(model.seed)
    assert seeds == {1.0: {0, 1, 2}, 0.25: {0, 1, 2}, 0.5: {0}, 0.75: {0}}


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def train(model: Trained, *_: Any) -> Any:
        trained.append(model.key)
        network = make_model(DGPoseConfig(image_size=32, channels=(4, 4, 4, 4), latent_size=4))
        network.training_facts = {"step": 7}
        finished = model.seed < 2
        return SimpleNamespace(finished=finished, seconds=60.0, steps=9, model=network)

    monkeypatch.setattr(shared, "_train", train)
    models = [Trained("semi, a", DGPoseConfig(), 0.5, seed) for seed in range(4)]
    nobody = torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
    none = PersonPool(nobody, torch.zeros(0, 18, 2), *2 * [torch.zeros(0, 18, dtype=torch.bool)])
    args = argparse.Namespace(minutes=1.0, only=None)
    for _ in range(2):
        train_grid(models, Parts(none, none, none), args, tmp_path, lambda _: {"figure": 1})
    # The third was stopped: it is gone on with, and the fourth is not begun.
    assert trained == ["semi_a-50-0", "semi_a-50-1", "semi_a-50-2", "semi_a-50-2"]
    facts = json.loads((tmp_path / "semi_a-50-1.json").read_text())
    assert (facts["seed"], facts["best_step"], facts["figure"]) == (1, 7, 1)


def test_other_heights() -> None:
    """Semi-DGPose edits the pose that it estimates, and generates in the edited one."""
    pool = rendered_people(SyntheticPeople(poses="kinematic", size=32), 3)
    torch.manual_seed(0)
    config = DGPoseConfig(system="semi", image_size=32, channels=(8, 8, 8, 8), latent_size=4)
    semi = make_model(config).eval()
    assert isinstance(semi, SemiDGPose)
    same = people.other_height(semi, pool, 1.0)
    shorter = people.other_height(semi, pool, 0.5)
    images = pool.images.float() / 255
    pose = semi.pose_px(semi.estimate_pose(images).mean)
    assert torch.allclose(same, semi.decode(semi.appearance(images).mean, pose), atol=1e-5)
    assert not torch.allclose(same, shorter)
