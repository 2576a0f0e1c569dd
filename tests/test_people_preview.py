"""dgpose data preview people: contact sheets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dgpose.cli.app import app
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.viz.people import PART_COLORS, people_sheet


def preview(*options: object) -> Result:
    words = ["data", "preview", "people", "--poses", "kinematic", *map(str, options)]
    return CliRunner().invoke(app, words)


def test_draws_a_sheet(tmp_path: Path) -> None:
    plain, rows = tmp_path / "plain.png", tmp_path / "rows.jpg"
    result = preview("--out", plain, "--count", 3, "--size", "32x16", "--split", "test")
    assert result.exit_code == 0, result.output
    assert str(plain) in result.output
    options = ("--skeleton", "--parts", "--mask", "--person", 5)
    result = preview("--out", rows, "--count", 3, "--size", "32x16", *options)
    assert result.exit_code == 0, result.output
    small, large = (cv2.imread(str(path)) for path in (plain, rows))
    assert large.shape[0] >= small.shape[0] + 3 * 192


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "9x9x9"), "--size must be S or HxW, got '9x9x9'"),
        (("--size", "8"), "size must be S or (H, W), 16 to 1024 each"),
        (("--person", "123456"), "identities must lie in [0, 2000)"),
    ],
)
def test_bad_options_are_named(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = preview("--out", tmp_path / "people.png", "--count", 1, *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "people.png").exists()


def test_a_sheet_shows_parts_in_their_colours() -> None:
    batch = SyntheticPeople(0, poses="kinematic", size=32).batch([0, 1])
    page = people_sheet(batch, "two people", parts=True, mask=True)
    found = {tuple(color) for color in page.reshape(-1, 3).tolist()}
    shown = {name for name, color in PART_COLORS.items() if color in found}
    assert {"torso", "right_thigh", "left_thigh"} <= shown
    assert len(set(PART_COLORS.values())) == len(PART_COLORS)
    assert (255, 255, 255) in found
    assert np.ndim(page) == 3
