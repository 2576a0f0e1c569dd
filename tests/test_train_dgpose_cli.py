"""`dgpose train dgpose` on tiny data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.data.person_pool import PersonPool
from dgpose.models.dgpose import ConditionalDGPose, SemiDGPose, load_model


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["train", "dgpose", *(str(argument) for argument in arguments)])


@pytest.fixture
def pools(tmp_path: Path) -> list[object]:
    """Options that name a pool of 32-pixel images and another one."""
    generator = torch.Generator().manual_seed(0)
    given: list[object] = ["--image-size", 32, "--batch", 4, "--accelerator", "cpu"]
    for option in ("--people", "--validation"):
        images = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8, generator=generator)
        known = torch.ones(9, 18, dtype=torch.bool)
        keypoints = 32 * torch.rand(9, 18, 2, generator=generator)
        pool = PersonPool(images, keypoints, known, known, source="noise")
        pool.save(tmp_path / f"{option[2:]}.safetensors")
        given += [option, tmp_path / f"{option[2:]}.safetensors"]
    return given


def test_trains_and_goes_on(pools: list[object], tmp_path: Path) -> None:
    out = tmp_path / "run"
    given = ["--out", out, *pools, "--steps", 2, "--labelled", 0.5, "--precision", "32-true"]
    first = invoke(*given)
    assert first.exit_code == 0, first.output
    assert first.output.count("noise: 9 images; 9 for validation") == 1
    assert f"the best by validation: {out / 'weights.safetensors'}" in first.output
    model = load_model(out / "weights.safetensors")
    assert isinstance(model, SemiDGPose)
    assert (model.config.latent, model.config.image_size) == ("parts", 32)
    assert model.config.recipe.batch == 4
    assert model.training_facts["labelled_images"] == 4
    again = invoke(*given)
    assert again.exit_code == 2
    assert "holds a run: resume it" in again.output
    assert invoke(*given, "--resume").exit_code == 0


def test_options_reach_the_configuration(pools: list[object], tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = invoke(
        "--out", out, *pools, "--config", "paper", "--system", "conditional", "--steps", 2,
        "--mapper", "rendered", "--no-unlabelled",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    model = load_model(out / "weights.safetensors")
    assert isinstance(model, ConditionalDGPose)
    assert (model.config.latent, model.config.mapper) == ("vector", "rendered")
    assert model.config.unlabelled_weight == 0
    assert model.training_facts["precision"] == "32-true"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--labelled", 2], "labelled share must lie in (0, 1], got 2"),
        (["--people", "nowhere"], "people must be rendered"),
        (["--image-size", 40], "image_size must be a multiple of 16"),
    ],
)
def test_what_cannot_be(
    pools: list[object], tmp_path: Path, changes: list[object], message: str
) -> None:
    failed = invoke("--out", tmp_path / "run", *pools, "--steps", 1, *changes)
    assert failed.exit_code == 2
    assert message in failed.output


def test_a_file_needs_its_validation(pools: list[object], tmp_path: Path) -> None:
    failed = invoke("--out", tmp_path / "run", *pools[:8], "--steps", 1)
    assert failed.exit_code == 2
    assert "--validation must be given" in failed.output
