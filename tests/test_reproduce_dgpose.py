"""`dgpose reproduce dgpose`, end to end on tiny data sets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from human36m_files import write_mmpose
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


def test_semi_on_human36m(tmp_path: Path) -> None:
    """Subject 8, by which the best weights are chosen, is a copy of subject 1 here."""
    folder = tmp_path / "h36m"
    write_mmpose(folder, frames=2)
    labels = folder / "annotation_body3d" / "fps50" / "h36m_train.npz"
    with np.load(labels) as file:
        arrays = {name: np.concatenate([file[name]] * 2) for name in file.files}
    half = len(arrays["imgname"]) // 2
    for row in range(half, 2 * half):
        copied = str(arrays["imgname"][row]).replace("S1", "S8")
        (folder / "images" / copied).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "images" / str(arrays["imgname"][row]), folder / "images" / copied)
        arrays["imgname"][row] = copied
    np.savez(labels, **arrays)
    arguments = ("--data", str(folder), "--dataset", "h36m", "--every", "1", "--labelled", "0.5")
    result = run(*arguments, *SHORT, "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    for text in (
        f"train: {half} images", f"val: {half} images", "subjects S9, S11", "317,989 images",
        "22.27", "20.06", "75%", "25%", "Semi-DGPose, this run",
    ):  # fmt: skip
        assert text in result.output, text


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
