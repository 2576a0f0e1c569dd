"""`dgpose dpig` on rendered examples and a tiny untrained model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dpig_models import tiny_dpig
from PIL import Image
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.data.image_files import read_image
from dgpose.data.market1501 import open_market1501
from dgpose.inference.person_factors import PersonFactors
from dgpose.models.dpig import save_dpig


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people/ (three, from `dgpose person examples`) and weights."""
    folder = tmp_path_factory.mktemp("dpig")
    made = invoke("person", "examples", "--out", folder / "people", "--count", 3, "--size", 48)
    assert made.exit_code == 0, made.output
    save_dpig(tiny_dpig(), folder / "model")
    save_dpig(tiny_dpig(trained=("stage1",)), folder / "stage1")
    save_dpig(tiny_dpig(size=(256, 256), background_code=0), folder / "large")
    return folder


def pose_of(inputs: Path, number: int) -> np.ndarray[Any, Any]:
    (pose,) = json.loads((inputs / "people" / f"person_{number}.json").read_text())["poses"]
    return np.where(np.array(pose["visible"])[:, None], pose["keypoints_px"], np.nan)


def test_sample_keeps_the_rest_of_an_image(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "out"
    result = invoke(
        *("dpig", "sample", people / "person_0.png", people / "person_1.png"),
        *("--source-pose", people / "poses.json", "--vary", "foreground"),
        *("--vary", "pose,background", "--count", 2, "--seed", 3),
        *("--model", inputs / "model", "--out", out, "--only"),
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"8 images: {out}"
    ends = ["foreground_0", "foreground_1", "pose_background_0", "pose_background_1"]
    names = [f"person_{number}_{end}.png" for number in (0, 1) for end in ends]
    assert sorted(path.name for path in out.iterdir()) == names
    factors = PersonFactors.load(inputs / "model")
    made = factors.sample(
        *(read_image(people / "person_1.png"), pose_of(inputs, 1)),
        vary=("background", "pose"), count=2, seed=3,
    )  # fmt: skip
    np.testing.assert_array_equal(read_image(out / names[-1]), made.pictures()[1])
    sheet = invoke(
        *("dpig", "sample", people, "--source-pose", people / "poses.json"),
        *("--model", inputs / "model", "--count", 2, "--out", tmp_path / "a.png"),
    )
    assert sheet.exit_code == 0, sheet.output
    assert sheet.stdout.strip() == f"24 images: {tmp_path / 'a.png'}"  # 3 images x 4 choices x 2
    assert read_image(tmp_path / "a.png").shape[0] > 12 * 144


def test_sample_people_who_never_were(inputs: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "a.png", ("--model", inputs / "model")
    drawn = invoke("dpig", "sample", *model, "--count", 3, "--out", out)
    assert drawn.exit_code == 0, drawn.output
    assert drawn.stdout.strip() == f"3 people: {out}"
    posed = invoke("dpig", "sample", *model, "--count", 2, "--pose",
                   inputs / "people" / "poses.json", "--only", "--out", tmp_path / "a")  # fmt: skip
    assert posed.exit_code == 0, posed.output
    assert len(list((tmp_path / "a").iterdir())) == 6


def test_pose_guided(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "out.png"
    shared = (
        *("dpig", "pose-guided", people / "person_0.png"),
        *("--source-pose", people / "person_0.json", "--pose", people / "person_1.json"),
        *("--model", inputs / "model", "--only"),
    )
    result = invoke(*shared, "--out", out)
    assert result.exit_code == 0, result.output
    factors = PersonFactors.load(inputs / "model")
    pictures = [read_image(people / f"person_{number}.png") for number in range(3)]
    poses = [pose_of(inputs, number) for number in range(3)]
    made = factors.pose_guided(pictures[0], poses[0], poses[1])
    np.testing.assert_array_equal(read_image(out), made.pictures()[0])
    other = tmp_path / "other.png"
    moved = invoke(*shared, "--out", other, "--background", people / "person_2.png",
                   "--background-pose", people / "person_2.json")  # fmt: skip
    assert moved.exit_code == 0, moved.output
    before = factors.swap(
        pictures[0], poses[0], targets=poses[1], backgrounds=pictures[2], background_poses=poses[2]
    )
    np.testing.assert_array_equal(read_image(other), before.pictures()[0])
    grid = invoke("dpig", "pose-guided", people, "--source-pose", people / "poses.json", "--pose",
                  people / "poses.json", "--model", inputs / "model", "--out", out)  # fmt: skip
    assert grid.exit_code == 0, grid.output
    assert grid.stdout.strip() == f"9 images: {out}"


def test_interpolate(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "way.png"
    result = invoke("dpig", "interpolate", "--model", inputs / "model", "--frames", 3,
                    "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"4 ways of 3 frames: {out}, {tmp_path / 'way.gif'}"
    with Image.open(tmp_path / "way.gif") as film:
        # Two of the four change the pose, too; what changes stands above.
        assert film.size == (6 * 128, 32 + 256)
    kept = invoke("dpig", "interpolate", people / "person_0.png", "--source-pose",
                  people / "person_0.json", "--vary", "background", "--to-seed", 9, "--frames", 3,
                  "--model", inputs / "model", "--out", out)  # fmt: skip
    assert kept.exit_code == 0, kept.output
    assert kept.stdout.startswith("1 way of 3 frames: ")


def test_invert(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "pair.png"
    shared = (
        *("dpig", "invert", people / "person_0.png", people / "person_1.png"),
        *("--source-pose", people / "poses.json", "--restarts", 2, "--steps", 10),
        *("--frames", 3, "--model", inputs / "model", "--out", out),
    )
    result = invoke(*shared)
    assert result.exit_code == 0, result.output
    for text in ("foreground: codes ", "joints ", "PSNR from noise ", f"3 frames: {out}"):
        assert text in result.stdout
    assert out.is_file()
    motion = invoke(*shared, "--vary", "pose", "--json")
    assert motion.exit_code == 0, motion.output
    fields = json.loads(motion.stdout)
    assert list(fields["factors"]) == ["pose"]
    assert len(fields["pose_error_px"]) == len(fields["psnr_db"]) == 2
    with Image.open(tmp_path / "pair.gif") as film:
        assert film.size == (2 * 128, 256)  # the person, and with the skeleton


def test_a_pose_of_another_image_is_told(inputs: Path, tmp_path: Path) -> None:
    people = inputs / "people"
    result = invoke("dpig", "sample", people / "person_0.png", "--source-pose",
                    people / "person_1.json", "--count", 1, "--model", inputs / "model",
                    "--out", tmp_path / "x.png")  # fmt: skip
    assert result.exit_code == 0, result.output
    said = f"warning: {people / 'person_1.json'}: made for person_1.png, taken for person_0.png"
    assert result.stderr.strip() == said


def test_virtual_market(inputs: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "market", tmp_path / "sheet.png"
    shared = ("dpig", "virtual-market", "--model", inputs / "model", "--poses", 4, "--out", out)
    result = invoke(*shared, "--identities", 2, "--backgrounds", 3, "--picture", sheet)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"2 people, 6 images: {out}", f"picture: {sheet}"]
    photos = open_market1501(out, "train")
    assert photos.names[0] == "bounding_box_train/0001_c1s1_000000_00.jpg"
    assert len(photos) == 6
    again = invoke(*shared)
    assert again.exit_code == 2
    assert again.stderr.strip() == f"error: {out}: must be a new or an empty folder"
    checked = invoke("data", "check", out, "--dataset", "market")
    assert checked.exit_code == 1  # it has no test part
    assert "missing in" not in checked.stdout


def test_what_is_wrong_is_said(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "x.png"
    image, own = people / "person_0.png", ("--source-pose", people / "poses.json")
    model, large = (("--model", inputs / name, "--out", out) for name in ("model", "large"))
    stage1 = ("--model", inputs / "stage1", "--out", out)
    for arguments, message in (
        (("sample", image, *model), "--source-pose or --estimator (such as person_judge) must be"),
        (("sample", "--vary", "pose", *model), "--vary, --source-pose and --box must come with IM"),
        (("sample", image, *own, "--pose", people / "person_1.json", *model), "dpig pose-guided"),
        (("sample", image, *own, "--vary", "face", *model), "--vary must be all, or of foreground"),
        (("sample", image, *own, "--vary", "background", *large), "this model has no background"),
        (("sample", *stage1), "foreground mapper must have been trained (`dgpose train dpig-st"),
        (("sample", image, *own, "--only", *model), "--out must be a folder for several images"),
        (("pose-guided", image, *own, "--pose", people / "person_1.json", "--background", image,
          "--background-pose", people / "person_0.json", *large),
         "what is swapped must be among foreground, pose, which this model has"),
        (("pose-guided", image, *own, "--pose", people / "person_1.json", "--background-pose",
          people / "person_1.json", *model), "--background-pose must come with --background"),
        (("pose-guided", image, *own, "--pose", people / "person_1.json", "--background", image,
          *model), "--background-pose or --estimator must come with --background"),
        (("interpolate", "--box", "1,2,3,4", *model), "--source-pose and --box must come with IM"),
        (("invert", image, tmp_path / "none.png", *own, *model), "none.png"),
        (("invert", image, people / "person_1.png", "--source-pose", people / "person_0.json",
          *model), "must hold a pose for person_1.png, got none"),
        (("invert", image, image, *own, *stage1), "must have been trained"),
        (("sample", "--model", "person_judge", "--out", out), "keypoint_network"),
        (("sample", "--model", inputs / "model", "--out", tmp_path / "a.gif"), "--out must be a"),
        (("sample", "--only", "--model", inputs / "model", "--out", people / "poses.json"),
         "--out must be a folder for several images with --only, got file"),
        (("virtual-market", "--picture", tmp_path / "a.txt", *model), "--picture must be a pict"),
    ):  # fmt: skip
        result = invoke("dpig", *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert message in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1
        assert not out.exists()
