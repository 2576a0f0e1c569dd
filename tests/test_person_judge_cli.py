"""`dgpose train judge` and `dgpose person eval`, from rendered people to printed tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.cli.person_eval import evaluate
from dgpose.data.person_sources import read_people
from dgpose.models.dgpose import DGPoseConfig, make_model, save_model
from dgpose.nn.keypoint_network import KeypointNetwork, KeypointNetworkConfig, save_judge

person = typer.Typer()
person.command()(evaluate)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a judge and a pool of people, untrained and small."""
    folder = tmp_path_factory.mktemp("person_eval")
    torch.manual_seed(0)
    config = DGPoseConfig(system="semi", image_size=32, channels=(8, 8, 8, 8), latent_size=6)
    save_model(make_model(config), folder / "semi.safetensors")
    save_judge(
        KeypointNetwork(KeypointNetworkConfig(32, (8, 8, 8, 8), (8, 8, 8))),
        folder / "judge.safetensors",
    )
    read_people("rendered", split="val", size=32, count=6).save(folder / "pool.safetensors")
    return folder


def test_rendered_people(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    arguments = [str(files / "semi.safetensors"), "--judge", str(files / "judge.safetensors")]
    arguments += ["--images", "8", "--out", str(out)]
    result = CliRunner().invoke(person, arguments, env={"DGPOSE_DATA": None, "COLUMNS": "120"})
    assert result.exit_code == 0, result.stderr
    for row in ("true images", "reconstruction", "indirect transfer", "copy of the source"):
        assert row in result.stdout
    assert "poses of the true images" in result.stdout
    report = json.loads(out.read_text())
    assert report["images"] == 8
    assert report["scores"]["transfer"]["psnr"] > 0
    printed = CliRunner().invoke(person, [*arguments, "--json"], env={"DGPOSE_DATA": None})
    assert json.loads(printed.stdout) == report


def test_a_pool_in_a_file(files: Path) -> None:
    arguments = [str(files / "semi.safetensors"), "--judge", str(files / "judge.safetensors")]
    pool = str(files / "pool.safetensors")
    result = CliRunner().invoke(person, [*arguments, "--source", pool, "--json"])
    assert result.exit_code == 0, result.stderr
    scores = json.loads(result.stdout)["scores"]
    assert scores["true images"]["frechet"] < 1e-6  # the pool is its own reference
    assert "transfer" not in scores


def test_what_eval_refuses(files: Path) -> None:
    semi, judge = str(files / "semi.safetensors"), str(files / "judge.safetensors")
    runner = CliRunner()
    wrong = runner.invoke(person, [semi, "--judge", semi, "--images", "2"])
    assert wrong.exit_code == 2
    assert "error: " in wrong.stderr
    none = runner.invoke(person, [semi, "--judge", judge, "--source", "nothing"])
    assert none.exit_code == 2
    assert "nothing: no such file" in none.stderr


def test_train_judge(tmp_path: Path) -> None:
    for split in ("train", "val"):
        read_people("rendered", split=split, size=64, count=4).save(tmp_path / f"{split}.st")
    arguments = ["train", "judge", "--out", str(tmp_path / "run"), "--steps", "2", "--batch", "2"]
    arguments += ["--source", str(tmp_path / "train.st"), "--accelerator", "cpu"]
    alone = CliRunner().invoke(app, arguments)
    assert alone.exit_code == 2
    assert "--validation must be given with a file as --source" in alone.stderr
    arguments += ["--validation", str(tmp_path / "val.st")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert "weights, the best by validation" in result.stdout
    network = KeypointNetwork.load(tmp_path / "run" / "weights.safetensors")
    assert network.config.image_size == 64
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "holds a run: resume it" in again.stderr
