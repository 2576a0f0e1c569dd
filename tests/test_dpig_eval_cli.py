"""`dgpose train reid`, `dgpose dpig reid`, `dgpose dpig eval` and `dgpose reproduce dpig`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photo_set_files import draw, standing
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.data.person_pool import rendered_people
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.metrics.published import FACTOR_RESULTS
from dgpose.models.dpig import DPIG, TRAINABLE, DPIGConfig, save_dpig


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on networks so small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], env={"COLUMNS": "160", "DGPOSE_DATA": ""}
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = {"crop": 8, "part_code": 4, "background_code": 6, "pose_width": 8, "mapper_width": 8}
    model = DPIG(DPIGConfig.small(channels=(4, 4, 4, 4), background_mapper_width=8, **sizes))
    model.trained = frozenset(TRAINABLE)
    path = tmp_path_factory.mktemp("dpig") / "weights.safetensors"
    save_dpig(model, path)
    return path


def write_market(root: Path) -> None:
    """Five persons to train on (7 to validate by), two to test on, in two images each; pairs."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for folder, part, camera, persons in (
        ("bounding_box_train", "train", 1, (2, 3, 4, 7, 27)),
        ("bounding_box_train", "train", 2, (2, 3, 4, 7, 27)),
        ("query", "test", 1, (1, 5)),
        ("bounding_box_test", "test", 2, (1, 5, 0)),
    ):
        for person in persons:
            name = f"{person:04d}_c{camera}s1_000451_03.jpg"
            points = np.rint(standing(9 * person + camera, 1.0, (-18, 4))).astype(int)
            draw(root / folder / name, (128, 64), points, person)
            lines[part].append(f"{name}: {points[:, 1].tolist()}: {points[:, 0].tolist()}")
    for part, people in lines.items():
        text = "\n".join(["name:keypoints_y:keypoints_x", *people])
        (root / f"market-annotation-{part}.csv").write_text(f"{text}\n", encoding="utf-8")
    names = [f"{person:04d}_c{camera}s1_000451_03.jpg" for person in (1, 5) for camera in (1, 2)]
    listed = "\n".join(["from,to", f"{names[0]},{names[1]}", f"{names[3]},{names[2]}"])
    (root / "market-pairs-test.csv").write_text(listed + "\n", encoding="utf-8")


def test_a_network_is_trained_and_finds_people(tmp_path: Path, weights: Path) -> None:
    pool = rendered_people(SyntheticPeople(poses="kinematic", size=(128, 64)), 4)
    pool.save(tmp_path / "pool")
    short = ("--steps", "1", "--accelerator", "cpu")
    refused = run("train", "reid", "--people", tmp_path / "pool", "--out", tmp_path / "a", *short)
    assert refused.exit_code == 2
    assert "--validation must be given where --people is a file" in refused.stderr
    out = tmp_path / "run"
    made = run(
        "train", "reid", "--count", "40", "--persons", "4", "--validation-count", "40",
        "--out", out, *short
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "4 persons: 40 images; 40 for validation" in made.output
    network = out / "weights.safetensors"
    asked = ("dpig", "reid", "--persons", "2", "--model", weights, "--seed", "1")
    found = run(*asked, "--by", "foreground", "--by", "chance", "--by", network, "--json")
    assert found.exit_code == 0, found.output
    scores = json.loads(found.stdout)["by"]
    assert set(scores) == {"foreground", "chance", str(network)}
    assert all(row["queries"] == 12 and len(row["curve"]) == 50 for row in scores.values())
    table = run(*asked, "--by", "histogram", "--out", tmp_path / "reid.json")
    assert table.exit_code == 0, table.output
    row = json.loads((tmp_path / "reid.json").read_text())["by"]["histogram"]
    assert f"{100 * row['rank_1']:.1f}" in table.output
    assert "12 queries, 24 images in the gallery" in table.output
    nothing = run(*asked, "--by", "nothere")
    assert nothing.exit_code == 2
    assert "--by must be foreground, histogram, chance or a file, got 'nothere'" in nothing.stderr


def test_people_without_keypoints_have_no_foreground(tmp_path: Path, weights: Path) -> None:
    """Codes of 0 would all be alike, and rank by the order of the files."""
    write_market(tmp_path)
    asked = ("dpig", "reid", "--people", "market", "--data", tmp_path, "--model", weights)
    file = tmp_path / "market-annotation-test.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n")  # the distractor is the last one
    found = run(*asked, "--by", "foreground")
    assert found.exit_code == 0, found.output
    assert "1 of 5 images show no joint: their foreground code is 0" in found.stderr
    file.unlink()
    refused = run(*asked, "--by", "foreground")
    assert refused.exit_code == 2
    assert "--by foreground must have keypoints" in refused.stderr


def test_evaluation(tmp_path: Path, weights: Path) -> None:
    asked = ("dpig", "eval", weights, "--images", "3")
    result = run(*asked, "--out", tmp_path / "eval.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "eval.json").read_text())
    row = report["scores"]["pose-guided"]
    assert f"{row['mask_ssim']:.3f}" in result.output
    assert f"{report['diversity']['pose']['drawn']:.3f}" in result.output
    for text in ("copy of the source", "foreground drawn", "the judge on the true images: PCK"):
        assert text in result.output
    write_market(tmp_path / "market")
    market = run(
        "dpig", "eval", weights, "--source", "market", "--data", tmp_path / "market", "--json"
    )
    assert market.exit_code == 0, market.output
    report = json.loads(market.stdout)
    assert report["images"] == 4
    assert report["scores"]["pose-guided"]["person_psnr"] is None  # nobody knows true masks
    (tmp_path / "market" / "market-pairs-test.csv").unlink()
    market = run(
        "dpig", "eval", weights, "--source", "market", "--data", tmp_path / "market", "--json"
    )
    assert "pose-guided" not in json.loads(market.stdout)["scores"]
    for verb in (("eval", weights), ("reid", "--model", weights)):
        nowhere = run("dpig", *verb, "--device", "nowhere")
        assert nowhere.exit_code == 2
        assert "device must be one that torch has here, got nowhere" in nowhere.stderr
    broken = run("dpig", "eval", tmp_path / "nothere")
    assert broken.exit_code == 2


def test_reproduction(tmp_path: Path) -> None:
    write_market(tmp_path / "market")
    asked = (
        "reproduce", "dpig", "--data", tmp_path / "market", "--dataset", "market",
        "--config", "small", "--accelerator", "cpu", "--out", tmp_path / "out",
    )  # fmt: skip
    result = run(*asked, "--steps", "1")
    assert result.exit_code == 0, result.output
    for text in (
        "train: 6 images", "val: 4 images", "test: 4 images", "PG2, published", "0.253", "0.792",
        "35.5", "pose-guided, this run (not the published recipe)",
    ):  # fmt: skip
        assert text in result.output, text
    file = tmp_path / "out" / "scores.json"
    scores = json.loads(file.read_text())["scores"]
    assert scores["pairs"] == 2
    assert f"{scores['scores']['pose-guided']['ssim']:.3f}" in result.output
    before = file.stat().st_mtime_ns
    again = run(*asked, "--steps", "1")  # what is there is not trained again
    assert again.exit_code == 0, again.output
    assert file.stat().st_mtime_ns == before
    other = run(*asked, "--steps", "2")
    assert other.exit_code == 2
    assert "holds results of other settings" in other.stderr


def test_published_figures() -> None:
    by_set = {row.data: row for row in FACTOR_RESULTS if row.method == "DPIG"}
    assert by_set["market"].mask_ssim == 0.614
    assert by_set["deepfashion"].mask_ssim is None
