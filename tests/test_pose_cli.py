"""`dgpose pose` and `dgpose reproduce max-margin` on tiny data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from human36m_files import write_mmpose
from typer.testing import CliRunner

import dgpose.cli.reproduce_max_margin as reproduction
from dgpose.cli.app import app
from dgpose.data.human36m import open_human36m
from dgpose.data.human36m_pool import human36m_pool
from dgpose.data.pose_pool import PosePool
from dgpose.inference.pose_retriever import PoseRetriever
from dgpose.models.max_margin import MaxMarginConfig, MaxMarginModel, load_model, save_model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_model(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = MaxMarginConfig(
        image_size=24, crop_size=16, channels=(4, 4, 4), hidden=(8, 8, 16), embedding=32,
        pose_hidden=16,
    )  # fmt: skip
    save_model(MaxMarginModel(config), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.safetensors")


@pytest.fixture
def index(tmp_path: Path, model: Path) -> Path:
    poses = np.random.default_rng(0).normal(0, 300, (40, 17, 3)).astype(np.float32)
    np.savez(tmp_path / "poses.npz", poses=np.concatenate([poses, poses[:5] + 1]))
    result = invoke(
        "pose", "index", model, "--poses", tmp_path / "poses.npz", "--out", tmp_path / "i.dgx"
    )
    assert result.exit_code == 0, result.output
    assert "45 poses, 40 after thinning, x 1 headings: 40 candidates" in result.output
    return tmp_path / "i.dgx"


def test_index_of_turned_poses(tmp_path: Path, model: Path, index: Path) -> None:
    out = tmp_path / "turned.dgx"
    result = invoke(
        "pose", "index", model, "--poses", tmp_path / "poses.npz", "--out", out, "--headings", "6",
        "--thin", "-1",
    )  # fmt: skip
    assert "45 poses, 45 after thinning, x 6 headings: 270 candidates" in result.output
    retriever = PoseRetriever.load(model, out)
    assert retriever.index.metadata["poses"] == "poses.npz, 6 headings"
    heights = retriever.index.poses([0, 1, 2, 3, 4, 5])[..., 1]
    torch.testing.assert_close(heights, heights[:1].expand(6, -1))


@pytest.mark.parametrize("name", ["poses.npz", "poses.npy"])
def test_damaged_poses_are_an_error_with_the_files_name(
    tmp_path: Path, model: Path, index: Path, name: str
) -> None:
    whole = (tmp_path / "poses.npz").read_bytes()
    bad = tmp_path / "bad" / name
    bad.parent.mkdir()
    for content in (whole[: len(whole) // 2], b"no array" * 9, b""):
        bad.write_bytes(content)
        result = invoke("pose", "index", model, "--poses", bad, "--out", tmp_path / "no.dgx")
        assert result.exit_code == 2, result.output
        assert name in result.output
        assert "allow_pickle" not in result.output
    assert not (tmp_path / "no.dgx").exists()


def write_images(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(1)
    for name in ("a.png", "b.jpg"):
        cv2.imwrite(str(folder / name), random.integers(0, 255, (60, 40, 3), np.uint8))
    return folder


def test_estimate(tmp_path: Path, model: Path, index: Path) -> None:
    folder = write_images(tmp_path / "images")
    out = tmp_path / "out"
    (folder / "b_2.jpg").write_bytes((folder / "b.jpg").read_bytes())
    again = (folder / "a.png", folder / "b.jpg")
    result = invoke("pose", "estimate", model, index, folder, *again, "--out", out)
    assert result.exit_code == 0, result.output
    pictures = sorted(p.stem for p in (out / "pictures").iterdir())
    assert pictures == ["a", "a_2", "b", "b_2", "b_3"]
    poses = json.loads((out / "poses.json").read_text())["poses"]
    named = [Path(pose["image"]).name for pose in poses]
    assert named == ["a.png", "b.jpg", "b_2.jpg", "a.png", "b.jpg"]
    assert poses[0] == poses[3]
    retriever = PoseRetriever.load(model, index)
    picture = np.ascontiguousarray(cv2.imread(str(folder / "a.png"))[..., ::-1])
    estimate = retriever.estimate(retriever.crop(picture))
    np.testing.assert_allclose(poses[0]["pose_mm"], estimate.pose_mm[0], atol=0.06)
    assert poses[0]["best_row"] == int(estimate.rows[0, 0])


def test_estimate_in_a_box_as_json(tmp_path: Path, model: Path, index: Path) -> None:
    folder = write_images(tmp_path / "images")
    result = invoke(
        "pose", "estimate", model, index, folder / "a.png", "--box", "5,5,30,50", "--json", "-k", 3
    )
    assert result.exit_code == 0, result.output
    fields = json.loads(result.stdout)
    assert np.array(fields["pose_mm"]).shape == (17, 3)
    assert fields["pose_mm"][0] == [0, 0, 0]


def test_an_unreadable_image_does_not_stop_the_others(
    tmp_path: Path, model: Path, index: Path
) -> None:
    folder = write_images(tmp_path / "images")
    (folder / "aa.png").write_bytes(b"no image")
    result = invoke("pose", "estimate", model, index, folder, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "aa.png: the image cannot be decoded" in result.output
    assert len(json.loads((tmp_path / "out" / "poses.json").read_text())["poses"]) == 2


def test_estimate_says_what_is_wrong(tmp_path: Path, model: Path, index: Path) -> None:
    folder = write_images(tmp_path / "images")
    other = write_model(tmp_path / "other.safetensors", seed=1)
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ((other, index, folder), "index must hold poses that this model embedded"),
        ((model, index, folder, "--box", "1,2,3"), "--box must be x1,y1,x2,y2 in pixels"),
        ((model, index, tmp_path / "none"), "none: no such file"),
        ((model, index, tmp_path / "empty"), "must hold images"),
        ((model, model, folder), "not a PoseIndex file"),
    ):
        result = invoke("pose", "estimate", *arguments)
        assert result.exit_code == 2
        assert message in result.output


def test_eval_and_embedding(tmp_path: Path, model: Path, index: Path) -> None:
    write_mmpose(tmp_path / "h36m")
    result = invoke(
        "pose", "eval", model, index, "--source", "h36m", "--data", tmp_path / "h36m", "--counts",
        "2,9", "--out", tmp_path / "e.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for text in (
        "Avg(9)", "oracle", "mean pose", "TakingPhoto", "135.63", "not reproduced here",
        "16 frames show that it runs",
    ):  # fmt: skip
        assert text in result.output
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["poses"] == 16  # of 4 recordings, 2 cameras: frames 1 and 6
    by_action = report["methods"]["Max"]["by_action"]
    assert set(by_action) == {"Eating", "TakingPhoto", "Walking", "WalkingDog"}
    mean = np.mean([action["mpjpe_mm"] for action in by_action.values()])
    assert report["methods"]["Max"]["mpjpe_mean_of_actions_mm"] == pytest.approx(mean)

    result = invoke(
        "pose", "pool", "--source", "h36m", "--data", tmp_path / "h36m", "--split", "test",
        "--every", 1, "--size", 24, "--out", tmp_path / "pool.safetensors",
    )  # fmt: skip
    assert "48 crops of 24 pixels" in result.output
    pool = PosePool.load(tmp_path / "pool.safetensors")
    same = human36m_pool(open_human36m(tmp_path / "h36m", "test", every=1), 24)
    assert torch.equal(pool.images, same.images)
    arguments = ("--source", "pool", "--data", tmp_path / "pool.safetensors")
    result = invoke("pose", "eval", model, index, *arguments, "--frames", 7)
    assert result.exit_code == 0, result.output
    assert "7 poses" in result.output
    assert "135.63" not in result.output  # published figures are of Human3.6M's test part
    calibrated = tmp_path / "calibrated.dgx"
    result = invoke(
        "pose", "index", model, "--poses", tmp_path / "pool.safetensors", "--out", calibrated,
        "--thin", "-1", "--calibration", tmp_path / "pool.safetensors",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert PoseRetriever.load(model, calibrated).estimate(pool.images).confidence is not None
    result = invoke("pose", "eval", model, calibrated, *arguments)
    assert "confidence" in result.output
    result = invoke("pose", "embedding", model, *arguments, "--out", tmp_path / "e.png")
    assert result.exit_code == 0, result.output
    assert "heading R" in result.output
    assert cv2.imread(str(tmp_path / "e.png")).std() > 10

    result = invoke("pose", "eval", model, index, "--source", "h36m", "--data", tmp_path / "no")
    assert result.exit_code == 2
    assert "must hold annotation_body3d/fps50/h36m_test.npz (MMPose)" in result.output


def test_people(tmp_path: Path, model: Path, data_dir: Path) -> None:
    """CMU's poses as candidates, rendered people as images."""
    out = tmp_path / "cmu.dgx"
    arguments = ("--data", data_dir, "--thin", 250, "--headings", 3)
    result = invoke("pose", "index", model, "--poses", "cmu", "--out", out, *arguments)
    assert result.exit_code == 0, result.output
    result = invoke("pose", "estimate", model, out, write_images(tmp_path / "images"))
    assert result.exit_code == 0, result.output
    assert "confidence 0." in result.output
    result = invoke("pose", "eval", model, out, "--data", data_dir, "--frames", 5)
    assert result.exit_code == 0, result.output
    assert "SyntheticPeople, CMU poses, test part by sequence" in result.output


def test_kinematic_people_need_no_data(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DGPOSE_DATA", raising=False)
    out = tmp_path / "kinematic.dgx"
    result = invoke(
        "pose", "index", model, "--poses", "kinematic", "--out", out, "--thin", 200, "--headings", 2
    )
    assert result.exit_code == 0, result.output
    assert "5,000 poses" in result.output
    result = invoke("pose", "eval", model, out, "--frames", 5)
    assert result.exit_code == 0, result.output
    assert "SyntheticPeople, kinematic poses, test part" in result.output
    assert "confidence" in result.output  # calibrated on people of the validation part
    result = invoke("pose", "index", model, "--poses", "cmu", "--out", out)
    assert result.exit_code == 2
    assert "--data must name the folder of cmu's poses" in result.output


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        (np.random.default_rng(0).normal(0, 0.3, (9, 17, 3)), "must be in millimetres"),
        (np.full((9, 17, 3), np.nan), "must be finite"),
    ],
)
def test_bad_candidates_are_named(
    poses: np.ndarray[Any, Any], message: str, tmp_path: Path, model: Path
) -> None:
    np.savez(tmp_path / "odd.npz", poses=poses)
    out = tmp_path / "i.dgx"
    result = invoke("pose", "index", model, "--poses", tmp_path / "odd.npz", "--out", out)
    assert result.exit_code == 2
    assert f"odd.npz {message}" in result.output


def test_reproduce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mmpose(tmp_path / "h36m", frames=12)
    command = (
        "reproduce", "max-margin", "--data", tmp_path / "h36m", "--out", tmp_path / "runs",
        "--steps", 2, "--image-size", 28, "--batch", 4, "--candidates", 6, "--every", 3,
        "--accelerator", "cpu",
    )  # fmt: skip
    actions = ("--actions", "Walking,WalkingDog")
    result = invoke(*command)
    assert result.exit_code == 2
    assert "must hold images of Directions, Discussion" in result.output
    result = invoke(*command, *actions)
    assert result.exit_code == 0, result.output
    for text in ("not the published recipe", "69.75", "132.53", "122.03", "WalkingDog", "LinKDE"):
        assert text in result.output
    facts = load_model(tmp_path / "runs" / "Walking" / "weights.safetensors").training_facts
    assert "subjects S1" in facts["data"]

    def no_training(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(reproduction, "train_max_margin", no_training)
    again = invoke(*command, *actions)
    assert "oracle" in again.output
    assert result.output.endswith(again.output)
    result = invoke(*command, *actions, "--seed", 1)
    assert result.exit_code == 2
    assert "holds results of other settings: give another --out" in result.output
    result = invoke(*command, "--actions", "Flying")
    assert "action must be one of Directions" in result.output
