"""`dgpose eval hand`: what it prints, what it saves, and how it fails."""

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from dgpose.cli.eval import app


def run(*args):
    return CliRunner().invoke(app, ["hand", *map(str, args)])


@pytest.fixture
def files(tmp_path):
    """Labels of 10 MSRA frames, and results that are 3 mm and 6 mm too far away."""
    for name, shift in (("gt", 0), ("near", 3), ("far", 6)):
        moved = np.full((10, 21, 3), (160.0, 120.0, 400.0 + shift))
        np.savetxt(tmp_path / f"{name}.txt", moved.reshape(10, -1), fmt="%.3f")
    return tmp_path


def test_first_line_is_the_mean(files):
    result = run("--pred", files / "near.txt", "--gt", files / "gt.txt", "--dataset", "msra")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "mean joint error 3.000 mm"
    assert "little_tip" in result.stdout
    assert "10 frames, 21 joints" in result.stdout


def test_results_are_compared_and_saved(files):
    out = files / "new" / "folder"
    result = run(
        *("--pred", files / "far.txt", "--pred", files / "near.txt"),
        *("--gt", files / "gt.txt", "--dataset", "msra", "--out", out),
    )
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == [
        "mean joint error 6.000 mm  far",
        "mean joint error 3.000 mm  near",
    ]
    report = json.loads((out / "errors.json").read_text())
    assert report["results"]["far"]["mean_joint_error_mm"] == pytest.approx(6)
    rates = report["results"]["near"]["success_rate_max_error"]
    assert report["thresholds_mm"][2:5:2] == [2, 4]
    assert rates[2:5:2] == [0, 1]
    picture = cv2.imread(str(out / "success_rate.png"))
    assert picture is not None
    assert picture.std() > 10
    assert sorted(path.name for path in out.iterdir()) == ["errors.json", "success_rate.png"]


def test_results_of_the_same_name_are_kept_apart(files):
    (files / "other").mkdir()
    (files / "other" / "near.txt").write_bytes((files / "far.txt").read_bytes())
    result = run(
        *("--pred", files / "near.txt", "--pred", files / "other" / "near.txt"),
        *("--gt", files / "gt.txt", "--dataset", "msra", "--out", files / "out"),
    )
    assert result.exit_code == 0
    report = json.loads((files / "out" / "errors.json").read_text())
    assert list(report["results"]) == ["near", str(files / "other" / "near.txt")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "bad.txt: No such file or directory"),
        ("1 2 3\n1 2\n", "bad.txt, line 2: must hold J x (u v d), got 2 numbers"),
        (" ".join(["nan"] * 63), "bad.txt, line 1: not a finite number: 'nan'"),
        (" ".join(["1"] * 48), "predictions for msra must have shape [N, 21, 3], got [1, 16, 3]"),
        (" ".join(["1"] * 63), "bad.txt: predictions must have one frame per label (10), got 1"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(files, content, message):
    bad = files / "bad.txt"
    if content is not None:
        bad.write_text(content)
    result = run("--pred", bad, "--gt", files / "gt.txt", "--dataset", "msra", "--out", files / "o")
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (files / "o").exists()


def test_unknown_dataset_is_a_usage_error(files):
    result = run("--pred", files / "near.txt", "--gt", files / "gt.txt", "--dataset", "bighand")
    assert result.exit_code == 2
    assert "icvl" in result.stderr


def test_published_figure_as_printed(data_dir):
    icvl = data_dir / "hand" / "icvl"
    result = run(
        *("--pred", icvl / "predictions" / "CVPR18_ICVL_V2V_PoseNet.txt.gz"),
        *("--gt", icvl / "labels" / "icvl_test_groundtruth_label.txt.gz", "--dataset", "icvl"),
    )
    assert result.stdout.splitlines()[0] == "mean joint error 6.284 mm"
