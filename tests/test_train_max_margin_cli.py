"""`dgpose pose train` on tiny data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.data.pose_pool import PosePool
from dgpose.models.max_margin import load_model


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["pose", "train", *(str(argument) for argument in arguments)])


@pytest.fixture
def pools(tmp_path: Path) -> list[object]:
    """Options that name a pool of 32-pixel crops and another one."""
    generator = torch.Generator().manual_seed(0)
    given: list[object] = ["--image-size", 32, "--batch", 4]
    for option in ("--pool", "--validation"):
        images = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8, generator=generator)
        pool = PosePool(images, torch.randn(9, 17, 3, generator=generator) * 200, source="noise")
        pool.save(tmp_path / f"{option[2:]}.safetensors")
        given += [option, tmp_path / f"{option[2:]}.safetensors"]
    return given


def test_trains_and_goes_on(pools: list[object], tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = invoke("--out", out, *pools, "--steps", 2, "--accelerator", "cpu", "--refresh", 1)
    assert first.exit_code == 0, first.output
    assert "noise: 9 crops; 9 for validation" in first.output
    assert f"the best by validation: {out / 'weights.safetensors'}" in first.output
    model = load_model(out / "weights.safetensors")
    assert (model.config.backbone, model.config.image_size) == ("residual", 32)
    assert (model.config.recipe.refresh, model.config.recipe.batch) == (1, 4)
    assert model.training_facts["data"] == "noise"
    again = invoke("--out", out, *pools, "--steps", 2, "--accelerator", "cpu", "--refresh", 1)
    assert again.exit_code == 2
    assert "holds a run: resume it" in again.output
    resumed = invoke(
        "--out", out, *pools, "--steps", 2, "--accelerator", "cpu", "--refresh", 1, "--resume"
    )
    assert resumed.exit_code == 0, resumed.output


def test_options_reach_the_configuration(pools: list[object], tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = invoke(
        "--out", out, *pools, "--config", "paper", "--steps", 2, "--accelerator", "cpu",
        "--pose-layers", "one", "--no-auxiliary", "--end-to-end", "--candidates", "full",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    config = load_model(out / "weights.safetensors").config
    assert (config.backbone, config.pose_layers, config.loss) == ("paper", "one", "hinge")
    assert not config.auxiliary
    assert not config.recipe.freeze_convolutions
    assert config.recipe.candidates == "full"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", 0], "steps must be at least 1, got 0"),
        (["--image-size", 64], "crops must have 64 pixels"),
        (["--regression", "--no-auxiliary"], "auxiliary must be true where loss is none"),
        (["--refresh", 0], "refresh must be at least 1, got 0"),
        (["--thin", "nan"], "distance must not be negative, got nan"),
    ],
)
def test_refuses(options: list[object], message: str, pools: list[object], tmp_path: Path) -> None:
    done = invoke("--out", tmp_path / "run", *pools, *options)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_needs_both_pools(pools: list[object], tmp_path: Path) -> None:
    alone = invoke("--out", tmp_path / "run", *pools[:6])
    assert alone.exit_code == 2
    assert "--pool and --validation must be given together" in alone.output


def test_learns_without_any_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DGPOSE_DATA", raising=False)
    done = invoke(
        "--out", tmp_path / "run", "--frames", 6, "--validation-frames", 3, "--image-size", 32,
        "--batch", 4, "--steps", 1, "--accelerator", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "kinematic poses, train part: 6 crops; 3 for validation" in done.output


def test_learns_from_rendered_people(data_dir: Path, tmp_path: Path) -> None:
    done = invoke(
        "--out", tmp_path / "run", "--data", data_dir, "--frames", 6, "--validation-frames", 3,
        "--image-size", 32, "--batch", 4, "--steps", 1, "--accelerator", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "train part by sequence: 6 crops; 3 for validation" in done.output
