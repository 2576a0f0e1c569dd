"""`dgpose train dpig-stage1`, `dpig-pose` and `dpig-stage2` on tiny data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.cli.train_dpig import steps_of
from dgpose.data.person_pool import PersonPool
from dgpose.models.dpig import DPIG, DPIGConfig, load_dpig, save_dpig


def invoke(stage: str, *arguments: object) -> Any:
    given = ["train", f"dpig-{stage}", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(app, given)


@pytest.fixture
def pools(tmp_path: Path) -> list[object]:
    """Options that name a pool of images and another one."""
    generator = torch.Generator().manual_seed(0)
    given: list[object] = ["--accelerator", "cpu", "--batch", 4]
    for option in ("--people", "--validation"):
        images = torch.randint(0, 256, (6, 3, 128, 64), dtype=torch.uint8, generator=generator)
        known = torch.ones(6, 18, dtype=torch.bool)
        pool = PersonPool(images, 64 * torch.rand(6, 18, 2, generator=generator), known, known)
        pool.save(tmp_path / f"{option[2:]}.safetensors")
        given += [option, tmp_path / f"{option[2:]}.safetensors"]
    return given


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Weights to start from, with stage 1 trained."""
    config = DPIGConfig.small(
        channels=(4, 4, 4, 4), discriminator_channels=(4, 4), crop=8, pose_width=8, mapper_width=8,
        background_mapper_width=8, critic_width=8,
    )  # fmt: skip
    model = DPIG(config)
    model.trained = frozenset({"stage1"})
    save_dpig(model, tmp_path / "stage1.safetensors")
    return tmp_path / "stage1.safetensors"


def test_the_stages_follow_each_other(pools: list[object], tiny: Path, tmp_path: Path) -> None:
    tuned = ["--out", tmp_path / "a", "--init", tiny, *pools, "--steps", 1]
    first = invoke("stage1", *tuned, "--precision", "32-true")
    assert first.exit_code == 0, first.output
    assert "6 images; 6 for validation" in first.output
    assert f"the best by validation: {tmp_path / 'a' / 'weights.safetensors'}" in first.output
    assert load_dpig(tmp_path / "a" / "weights.safetensors").config.stage1.batch == 4
    again = invoke("stage1", *tuned, "--precision", "32-true")
    assert again.exit_code == 2
    assert "holds a run: resume it" in again.output
    assert invoke("stage1", *tuned, "--precision", "32-true", "--resume").exit_code == 0

    early = invoke("stage2", "--out", tmp_path / "c", "--init", tiny, *pools, "--steps", 1)
    assert early.exit_code == 2
    assert "pose autoencoder must have been trained" in early.output
    weights = tmp_path / "a" / "weights.safetensors"
    second = invoke("pose", "--out", tmp_path / "b", "--init", weights, *pools, "--steps", 1)
    assert second.exit_code == 0, second.output
    weights = tmp_path / "b" / "weights.safetensors"
    third = invoke(
        "stage2", "--out", tmp_path / "c", "--init", weights, *pools, "--steps", 1,
        "--factor", "pose", "--factor", "background", "--gradient-penalty", 5,
    )  # fmt: skip
    assert third.exit_code == 0, third.output
    model = load_dpig(tmp_path / "c" / "weights.safetensors")
    assert model.config.gradient_penalty == 5
    assert model.trained == {"stage1", "pose_autoencoder", "pose_mapper", "background_mapper"}


def test_a_recipe_for_what_is_not_trained_yet(
    pools: list[object], tiny: Path, tmp_path: Path
) -> None:
    before, paper = load_dpig(tiny).config, DPIGConfig.paper()
    done = invoke(
        "pose", "--out", tmp_path / "run", "--init", tiny, *pools, "--steps", 1, "--config", "paper"
    )
    assert done.exit_code == 0, done.output
    config = load_dpig(tmp_path / "run" / "weights.safetensors").config
    assert config.channels == before.channels
    assert config.pose_width == paper.pose_width
    assert config.pose == replace(paper.pose, batch=4)


def test_steps_are_those_of_the_recipe_that_a_model_has() -> None:
    """A published model that goes on without --config is trained as long as published."""
    paper, large, small = DPIGConfig.paper(), DPIGConfig.paper((256, 256)), DPIGConfig.small()
    stages = ("stage1", "pose", "stage2")
    assert [steps_of(stage, paper) for stage in stages] == [120_000, 60_000, 120_000]
    assert [steps_of(stage, large) for stage in stages] == [120_000] * 3
    assert [steps_of(stage, small) for stage in stages] == [5_000, 10_000, 2_000]
    assert steps_of("pose", replace(small, pose=paper.pose)) == 60_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--people", "nowhere"], "people must be rendered"),
        (["--size", "256x256"], "images must have 256x256 pixels"),
        (["--batch", 1], "batch must be at least 2, got 1"),
        (["--init", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be(
    pools: list[object], tmp_path: Path, changes: list[object], message: str
) -> None:
    failed = invoke("stage1", "--out", tmp_path / "run", *pools, "--steps", 1, *changes)
    assert failed.exit_code == 2
    assert message in failed.output


def test_a_file_needs_its_validation(pools: list[object], tmp_path: Path) -> None:
    failed = invoke("pose", "--out", tmp_path / "run", *pools[:6], "--steps", 1)
    assert failed.exit_code == 2
    assert "--validation must be given" in failed.output
