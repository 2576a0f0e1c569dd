"""`dgpose person` on rendered examples and tiny untrained models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.data.image_files import read_image
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.inference.person_generator import PersonGenerator
from dgpose.inference.person_keypoints import KeypointEstimator
from dgpose.metrics.keypoints import pck
from dgpose.models.dgpose import DGPoseConfig, make_model, save_model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["person", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people/ (three, from the command), semi and conditional weights."""
    folder = tmp_path_factory.mktemp("person")
    result = invoke("examples", "--out", folder / "people", "--count", 3, "--size", 48)
    assert result.exit_code == 0, result.output
    for system in ("semi", "conditional", "vae"):
        torch.manual_seed(0)
        config = DGPoseConfig.strong(
            32, system=system, channels=(4, 8, 8, 8), latent_size=4, part_size=2, blocks=0
        )
        save_model(make_model(config), folder / system)
    return folder


def size_of(path: Path) -> tuple[int, ...]:
    return read_image(path).shape


def test_examples(inputs: Path) -> None:
    people = inputs / "people"
    names = sorted(path.name for path in people.iterdir())
    assert names == [*(f"person_{n}.{kind}" for n in range(3) for kind in ("json", "png")),
                     "poses.json"]  # fmt: skip
    assert size_of(people / "person_0.png") == (48, 48, 3)
    poses = json.loads((people / "poses.json").read_text())["poses"]
    (first,) = json.loads((people / "person_0.json").read_text())["poses"]
    assert poses[0] == first
    assert (first["image"], first["size"]) == ("person_0.png", [48, 48])
    assert np.array(first["keypoints_px"]).shape == (18, 2)


def test_one_image_and_one_pose_in_one_image_out(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "out.png"
    result = invoke(
        "transfer", people / "person_0.png", "--source-pose", people / "person_0.json",
        "--pose", people / "person_1.json", "--model", inputs / "conditional", "--out", out,
        "--only",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"1 image: {out}"
    picture, poses = (
        read_image(people / "person_0.png"),
        [np.array(pose["keypoints_px"]) for pose in
         json.loads((people / "poses.json").read_text())["poses"]],
    )  # fmt: skip
    made = PersonGenerator.load(inputs / "conditional").transfer(picture, poses[0], poses[1])
    np.testing.assert_array_equal(read_image(out), made.pictures()[0])
    sheet = invoke(
        "transfer", people / "person_0.png", "--source-pose", people / "person_0.json",
        "--pose", people / "person_1.json", "--model", inputs / "conditional",
        "--out", tmp_path / "sheet.png",
    )  # fmt: skip
    assert sheet.exit_code == 0, sheet.output
    assert size_of(tmp_path / "sheet.png")[1] > 3 * 256


def test_folders_of_images_and_poses(inputs: Path, tmp_path: Path) -> None:
    """Each image in each pose; poses of images are found by name."""
    people = inputs / "people"
    shared = ("--source-pose", people / "poses.json", "--pose", people / "poses.json")
    result = invoke(
        "transfer", people, *shared, "--model", inputs / "conditional", "--only",
        "--out", tmp_path / "all", "--limit", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "6 images" in result.stdout
    made = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert made == [f"person_{a}_person_{b}.png" for a in range(3) for b in range(2)]
    alone = invoke(
        "transfer", people / "person_2.png", "--source-pose", people / "person_2.json",
        "--pose", people / "person_1.json", "--model", inputs / "conditional", "--only",
        "--out", tmp_path / "alone.png",
    )  # fmt: skip
    assert alone.exit_code == 0
    assert (tmp_path / "alone.png").read_bytes() == (
        tmp_path / "all" / "person_2_person_1.png"
    ).read_bytes()
    grid = invoke("transfer", people, *shared, "--model", inputs / "conditional",
                  "--out", tmp_path / "grid.png")  # fmt: skip
    assert "9 images" in grid.stdout


def test_reconstruct_without_poses(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "sheet.png"
    result = invoke("reconstruct", people, "--model", inputs / "semi", "--out", out)
    assert result.exit_code == 0, result.output
    assert "3 images" in result.stdout
    assert out.is_file()
    lost = invoke("reconstruct", people, "--model", inputs / "conditional", "--out", out)
    assert lost.exit_code == 2
    said = "--source-pose or --estimator (such as person_judge) must be given with a model"
    assert said in lost.stderr
    helped = invoke("reconstruct", people, "--model", inputs / "conditional", "--out", out,
                    "--estimator", inputs / "semi")  # fmt: skip
    assert helped.exit_code == 0, helped.output


def test_indirect_transfer(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "sheet.png"
    result = invoke("indirect-transfer", people / "person_0.png", people / "person_1.png",
                    "--pose-image", people / "person_2.png", "--model", inputs / "semi",
                    "--pose-box", "5,5,40,40", "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "2 images" in result.stdout


def test_estimate_writes_poses_that_other_commands_read(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "found"
    result = invoke("estimate", people, "--model", inputs / "semi", "--out", out)
    assert result.exit_code == 0, result.output
    assert "person_1.png: confidence 0." in result.stdout
    assert len(list((out / "pictures").iterdir())) == 3
    given = invoke("reconstruct", people, "--source-pose", out / "poses.json",
                   "--box", "4,4,43,43", "--model", inputs / "semi", "--only",
                   "--out", tmp_path / "given")  # fmt: skip
    assert given.exit_code == 0, given.output
    line = json.loads(invoke("estimate", people / "person_1.png", "--model", inputs / "semi",
                             "--json").stdout)  # fmt: skip
    assert line == json.loads((out / "poses.json").read_text())["poses"][1]
    assert np.array(line["keypoints_px"]).shape == (14, 2)


def test_ctrl_c_keeps_the_poses_found_so_far(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate, done = KeypointEstimator.estimate, []

    def interrupted(self: KeypointEstimator, *args: Any, **options: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(0)
        return estimate(self, *args, **options)

    monkeypatch.setattr(KeypointEstimator, "estimate", interrupted)
    out = tmp_path / "found"
    result = invoke("estimate", inputs / "people", "--model", inputs / "semi", "--out", out)
    assert result.exit_code != 0
    assert [path.name for path in (out / "pictures").iterdir()] == ["person_0.png"]
    (pose,) = json.loads((out / "poses.json").read_text())["poses"]
    assert pose["image"].endswith("person_0.png")


def test_a_pose_that_stays_in_place_must_lie_in_the_image(inputs: Path, tmp_path: Path) -> None:
    """The error names the pose to show, and not the image's own."""
    people, out = inputs / "people", tmp_path / "out.png"
    poses = json.loads((people / "person_1.json").read_text())
    del poses["poses"][0]["size"]
    poses["poses"][0]["keypoints_px"] = [[x + 9000, y] for x, y in
                                         poses["poses"][0]["keypoints_px"]]  # fmt: skip
    (tmp_path / "far.json").write_text(json.dumps(poses))
    rest = (
        *("transfer", people / "person_0.png", "--source-pose", people / "person_0.json"),
        *("--pose", tmp_path / "far.json", "--model", inputs / "conditional", "--out", out),
    )
    result = invoke(*rest, "--in-place")
    assert result.exit_code == 2
    assert "the pose to show must lie in the image of 48x48 pixels, unless a" in result.stderr
    assert invoke(*rest).exit_code == 0


def test_edit(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "edit.png"
    result = invoke(
        "edit", people / "person_0.png", "--source-pose", people / "person_0.json",
        "--height", 1.2, "--limb", "legs:1.1", "--limb", "head:0.9", "--drag", "left_wrist:20,10",
        "--frames", 5, "--model", inputs / "conditional", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    with Image.open(out.with_suffix(".gif")) as film:
        assert getattr(film, "n_frames", 1) in range(2, 9)  # forth and back; equal ones are merged
    assert out.is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give one of --height, --limb and --drag"),
        (("--height", "0"), "--height must have a positive factor, got 0"),
        (("--limb", "tail:2"), "--limb must name one of head, trunk, "),
        (("--limb", "legs"), "--limb must be LIMB:FACTOR, got 'legs'"),
        (("--drag", "left_wrist:4"), "--drag must be JOINT:X,Y, got 'left_wrist:4'"),
        (("--drag", "wrist:4,5"), "--drag must name one of nose, neck"),
        (("--height", "1.1", "--frames", "1"), "frames"),
        (("--height", "1.1", "--person", "1"), "--person must be below 1 for person_0.png, got 1"),
    ],
)
def test_edits_that_are_none(
    inputs: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    people, out = inputs / "people", tmp_path / "edit.png"
    result = invoke("edit", people / "person_0.png", "--source-pose", people / "person_0.json",
                    "--model", inputs / "semi", "--out", out, *options)  # fmt: skip
    assert result.exit_code == 2
    assert message in result.stderr
    assert not out.exists()


def test_generate(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "people.png"
    result = invoke("generate", "--model", inputs / "semi", "--out", out, "--count", 5)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"5 people: {out}"
    posed = invoke("generate", "--model", inputs / "conditional", "--count", 2, "--pose",
                   inputs / "people" / "poses.json", "--only", "--out", tmp_path / "a")  # fmt: skip
    assert posed.exit_code == 0, posed.output
    assert len(list((tmp_path / "a").iterdir())) == 6
    grid = invoke("generate", "--model", inputs / "conditional", "--count", 2, "--pose",
                  inputs / "people" / "poses.json", "--out", out)  # fmt: skip
    assert grid.exit_code == 0, grid.output
    lost = invoke("generate", "--model", inputs / "conditional", "--out", out)
    assert lost.exit_code == 2
    assert "--pose must be given with a conditional model" in lost.stderr


def test_images_of_all_kinds(inputs: Path, tmp_path: Path) -> None:
    """Grey, with alpha, 16 bits, one pixel, wide: all are read; what is none is told."""
    folder, random = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    for name, shape, kind in (
        ("grey", (40, 30), np.uint8),
        ("alpha", (40, 30, 4), np.uint8),
        ("deep", (40, 30, 3), np.uint16),
        ("deep_grey", (40, 30), np.uint16),
        ("pixel", (1, 1, 3), np.uint8),
        ("wide", (7, 300, 3), np.uint8),
    ):
        image = random.integers(0, np.iinfo(kind).max, shape).astype(kind)
        cv2.imwrite(str(folder / f"{name}.png"), image)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "._wide.png").write_bytes(b"what macOS leaves beside a file")
    result = invoke("reconstruct", folder, "--model", inputs / "semi", "--only",
                    "--out", tmp_path / "made")  # fmt: skip
    assert result.exit_code == 1
    assert "6 images" in result.stdout
    assert result.stderr.strip() == f"error: {folder}/broken.png: the image cannot be decoded"
    assert len(list((tmp_path / "made").iterdir())) == 6


def test_poses_that_are_not_whole(inputs: Path, tmp_path: Path) -> None:
    image = inputs / "people" / "person_0.png"
    joints: list[Any] = [[10 + 2 * n, 20 + n] for n in range(18)]

    def tried(name: str, points: list[Any]) -> Any:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"poses": [{"keypoints_px": points}]}))
        return invoke("reconstruct", image, "--source-pose", path, "--model",
                      inputs / "conditional", "--out", tmp_path / f"{name}.png")  # fmt: skip

    assert tried("whole", joints).exit_code == 0
    assert tried("some", [None, *joints[1:]]).exit_code == 0
    assert tried("one", [joints[0], *[None] * 17]).exit_code == 0
    for name, points, message in (
        ("none", [None] * 18, "must"),
        ("face", [None] * 14 + joints[14:], "pose must have a known joint, got none"),
        ("outside", [[x + 900, y] for x, y in joints], "pose must lie in the image of 48x48"),
    ):
        result = tried(name, points)
        assert result.exit_code == 2, (name, result.output)
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / f"{name}.png").exists()


def test_a_pose_of_an_image_of_another_size(inputs: Path, tmp_path: Path) -> None:
    """It would be put elsewhere in the image; as a pose to show it may be of any size."""
    people, out = inputs / "people", tmp_path / "x.png"
    poses = json.loads((people / "person_0.json").read_text())
    poses["poses"][0]["size"] = [96, 64]
    (tmp_path / "large.json").write_text(json.dumps(poses))
    rest = (people / "person_0.png", "--model", inputs / "conditional", "--out", out)
    result = invoke("reconstruct", *rest, "--source-pose", tmp_path / "large.json")
    assert result.exit_code == 2
    assert "in pixels of person_0.png, 48x48, got one of an image of 64x96" in result.stderr
    shown = invoke("transfer", *rest, "--source-pose", people / "person_0.json", "--pose",
                   tmp_path / "large.json")  # fmt: skip
    assert shown.exit_code == 0, shown.output


def test_poses_to_show(inputs: Path, tmp_path: Path) -> None:
    """One that cannot be shown is told by its file; those beyond the limit are told, too."""
    image, out = inputs / "people" / "person_0.png", tmp_path / "x.png"
    (tmp_path / "one.json").write_text(
        json.dumps({"poses": [{"keypoints_px": [[9, 9], *[None] * 13]}]})
    )
    lost = invoke("transfer", image, "--pose", tmp_path / "one.json", "--model", inputs / "semi",
                  "--out", out)  # fmt: skip
    assert lost.exit_code == 2
    said = "pose must have two known joints a pixel or more apart"
    assert lost.stderr == f"error: {tmp_path}/one.json: pose 0: {said}\n"
    made = invoke("transfer", image, "--pose", inputs / "people" / "poses.json", "--limit", 2,
                  "--model", inputs / "semi", "--out", out)  # fmt: skip
    assert made.stderr.strip() == "the first 2 of 3 poses are shown: --limit"
    assert made.stdout.strip() == f"2 images: {out}"


def test_what_is_wrong_is_said(inputs: Path, tmp_path: Path) -> None:
    people, out = inputs / "people", tmp_path / "x.png"
    (tmp_path / "empty").mkdir()
    two = json.loads((people / "poses.json").read_text())
    for pose in two["poses"]:
        pose["image"] = "person_0.png"
    (tmp_path / "several.json").write_text(json.dumps(two))
    semi, image = ("--model", inputs / "semi", "--out", out), people / "person_0.png"
    for arguments, message in (
        (("reconstruct", tmp_path / "none.png", *semi), "none.png: no such file"),
        (("reconstruct", tmp_path / "empty", *semi), "must hold images"),
        (("reconstruct", image, "--box", "1,2,3", *semi), "--box must be x1,y1,x2,y2"),
        (("reconstruct", image, "--box", "90,90,99,99", *semi), "box must touch the image"),
        (("reconstruct", image, "--person", 1, *semi), "--person must come with --source-pose"),
        (("reconstruct", people, "--only", *semi), "--out must be a folder for several images"),
        (("reconstruct", image, "--only", "--model", inputs / "semi", "--out", tmp_path / "x"),
         "--out must be a picture such as out.png"),
        (("reconstruct", image, "--source-pose", tmp_path / "several.json", *semi),
         "must hold one pose for person_0.png, got 3 (--person takes one of them)"),
        (("reconstruct", people / "person_1.png", "--source-pose", people / "poses.json",
          "--person", 1, *semi), "--person must be below 1 for person_1.png"),
        (("transfer", image, "--pose", image, *semi),
         "person_0.png: must be a file of poses: .json, .npy, .npz, or .csv"),
        (("indirect-transfer", image, "--pose-image", image, "--source-pose",
          people / "person_0.json", "--model", inputs / "conditional", "--out", out),
         "--estimator must be given with a conditional model"),
        (("reconstruct", image, "--model", inputs / "semi", "--out", tmp_path / "folder"),
         "--out must be a picture, .png or .jpg (a folder with --only)"),
        (("generate", "--model", inputs / "semi", "--out", tmp_path / "a.gif"),
         "--out must be a picture, .png or .jpg (a folder with --only)"),
        (("edit", image, "--limb", "legs:-1", *semi), "--limb must have a positive factor"),
        (("generate", "--model", inputs / "vae", "--out", out), "got a ImageVAE"),
        (("estimate", image, "--model", inputs / "conditional"), "estimates no poses"),
        (("generate", "--model", "person_exact", "--out", out), "a shipped model"),
        (("generate", "--device", "abacus", *semi), "device must be one that torch has here"),
        (("estimate", image, "--device", "xpu", "--model", inputs / "semi"), "device must be one"),
    ):  # fmt: skip
        result = invoke(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert message in result.stderr, result.stderr
        assert not out.exists()
    chosen = invoke("reconstruct", image, "--source-pose", tmp_path / "several.json",
                    "--person", 2, *semi)  # fmt: skip
    assert chosen.exit_code == 0, chosen.output


@pytest.mark.parametrize("name", ["person_semi", "person_conditional"])
def test_the_shipped_models_show_the_pose_that_is_asked_for(name: str) -> None:
    """On people that they have not seen: rebuilt better than by one colour; and in another pose the
    judge finds that pose rather than the image's own."""
    people = SyntheticPeople(0, poses="kinematic", split="test", size=64).batch(range(24))
    poses, known = people.keypoints_px[:, :14], torch.ones(24, 14, dtype=torch.bool)
    generator = PersonGenerator.load(name)
    rebuilt = generator.reconstruct(people.image, poses)
    assert rebuilt.sources is not None
    flat = rebuilt.sources.mean((2, 3), keepdim=True)
    error, worst = ((x - rebuilt.sources).square().mean() for x in (rebuilt.images, flat))
    assert error < 0.5 * worst
    moved = generator.transfer(people.image, poses, poses.roll(1, 0))
    assert moved.source_poses_px is not None
    found = KeypointEstimator.load("person_judge").of_crops(moved.images).poses_px
    asked, own = (
        pck(found, truth, known, (0.2,))[0] for truth in (moved.poses_px, moved.source_poses_px)
    )
    assert asked > 2 * own


def test_nothing_is_needed_to_generate(tmp_path: Path) -> None:
    result = invoke("generate", "--out", tmp_path / "sheet.png")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "sheet.png").is_file()
