"""`dgpose reproduce dgpose`, end to end on tiny data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from photo_set_files import write_chictopia, write_deepfashion
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.metrics.published import PERSON_RESULTS, PERSON_SET_SIZES

SHORT = ("--size", "32", "--steps", "2", "--batch", "4", "--mapper-steps", "2")


def run(*arguments: str) -> Any:
    command = ["reproduce", "dgpose", "--accelerator", "cpu", *arguments]
    return CliRunner().invoke(app, command, env={"COLUMNS": "160"})


def test_conditional_on_deepfashion(tmp_path: Path) -> None:
    write_deepfashion(tmp_path / "df", form="raw")
    arguments = ("--data", str(tmp_path / "df"), "--dataset", "deepfashion")
    out = ("--out", str(tmp_path / "out"))
    result = run(*arguments, *SHORT, *out)
    assert result.exit_code == 0, result.output
    for text in (
        "test: 4 images", "val: 2 images", "train: 10 images", "44,950 images to train on",
        "Conditional-DGPose, published", "PG2, published", "18.96", "0.83",
        "Conditional-DGPose, this run (not the published recipe)", "100%",
    ):  # fmt: skip
        assert text in result.output, text
    assert "ClothNet" not in result.output
    file = tmp_path / "out" / "conditional_100" / "scores.json"
    scores = json.loads(file.read_text())["scores"]
    assert scores["images"] == 4
    assert f"{scores['psnr_db']:.2f}" in result.output
    before = file.stat().st_mtime_ns
    again = run(*arguments, *SHORT, *out)  # what is there is not trained again
    assert again.exit_code == 0, again.output
    assert file.stat().st_mtime_ns == before
    assert "train: 10 images" not in again.output
    assert f"{scores['psnr_db']:.2f}" in again.output
    other = run(*arguments, *SHORT, "--seed", "1", *out)
    assert other.exit_code == 2
    assert "holds results of other settings" in other.stderr


def test_semi_with_some_labels(tmp_path: Path) -> None:
    write_chictopia(tmp_path / "ch", {"train": 8, "val": 2, "test": 2})
    arguments = ("--data", str(tmp_path / "ch"), "--dataset", "chictopia", "--system", "semi")
    result = run(*arguments, "--labelled", "1,0.5", *SHORT, "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    for text in ("ClothNet-body, published", "16.89", "Semi-DGPose, this run", "100%", "50%"):
        assert text in result.output, text
    assert (tmp_path / "out" / "semi_50" / "scores.json").is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--labelled", "0"), "--labelled must be shares in (0, 1] with commas, got '0'"),
        (("--labelled", "half"), "--labelled must be shares in (0, 1] with commas, got 'half'"),
        ((), "must hold its images (Img/img/..., or flattened into one folder)"),
    ],
)
def test_errors(tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    result = run("--data", str(tmp_path), "--dataset", "deepfashion", *more, *SHORT)
    assert result.exit_code == 2
    assert said in result.stderr


def test_published_figures() -> None:
    assert {row.data for row in PERSON_RESULTS} == set(PERSON_SET_SIZES)
    semi = [row for row in PERSON_RESULTS if row.data == "h36m"]
    assert [row.labelled for row in semi] == [1.0, 0.75, 0.5, 0.25]
    assert [row.psnr_db for row in semi] == [22.27, 21.49, 21.36, 20.06]
