"""`dgpose demo`: numbers, and one contact sheet."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hand_oracle import save_constant_model
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.data.cameras import CAMERAS
from dgpose.skeletons import FINGER_COLORS, NYU36
from dgpose.viz.drawing import draw_skeleton
from dgpose.viz.hand import SheetTile, colour_depth, contact_sheet, overlay


def test_demo_saves_a_sheet_and_says_where(tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    save_constant_model(model, np.zeros((36, 3)))
    out = tmp_path / "out"
    arguments = ["demo", "--out", str(out), "--frames", "6", "--seed", "3", "--model", str(model)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "frames: 6 (0 with a hand, 6 without, 0 bad)" in result.stdout  # it knows no hand
    assert re.search(r"[\d,]+ frames/s \(median", result.stdout)
    assert str(out / "hand.png") in result.stdout
    sheet = cv2.imread(str(out / "hand.png"))
    assert sheet.shape[1] > 1200
    assert [path.name for path in out.iterdir()] == ["hand.png"]


def test_demo_with_a_bad_model_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--model", "nothing", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: model must be a weight file or a shipped model")


def test_depth_colours_run_from_pale_near_to_dark_far() -> None:
    depth = np.array([[0, 500, 700, 900, np.nan, np.inf]], np.float32)
    picture = colour_depth(depth, 500, 900).astype(int).sum(axis=2)[0]
    assert picture[1] > picture[2] > picture[3] > picture[0] == picture[4] == picture[5]


def test_skeletons_are_drawn_in_finger_colours() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    joints = np.full((36, 2), np.nan)
    joints[18:24] = np.linspace([20, 80], [60, 20], 6)  # the index finger alone
    draw_skeleton(picture, joints, NYU36)
    drawn = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    assert FINGER_COLORS["index"] in drawn
    assert FINGER_COLORS["thumb"] not in drawn


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_pictures_of_frames_that_are_empty_or_off_the_image(dtype: type) -> None:
    empty = np.zeros((48, 64), dtype)
    camera = CAMERAS["msra"]
    assert overlay(empty, camera, None, None, "nothing").shape == (512, 640, 3)
    far_off = np.full((36, 2), 1e9)
    picture = overlay(empty, camera, far_off, (-5000.0, 20.0, 300.0), "ü", truth_px=far_off[:14])
    assert picture.shape == (512, 640 + 480, 3)
    tile = SheetTile(empty, camera, None, None, None, "empty")
    assert contact_sheet([tile] * 5, "five").shape[1] > 1200
    with pytest.raises(ValueError, match="at least one tile"):
        contact_sheet([], "none")
