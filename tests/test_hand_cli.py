"""`dgpose hand run` and the command line around it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_cameras import FakeRealSense
from hand_oracle import crop_coordinates, palm_center, save_constant_model
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.data.cameras import CAMERAS, project
from dgpose.data.synthetic_hands import HandFrame, SyntheticHands
from dgpose.models.crossing_nets import CrossingNets, CrossingNetsConfig, save_crossing_nets
from dgpose.skeletons import (
    ICVL16,
    MEDIAPIPE21,
    MSRA21,
    NYU36,
    NYU_SCORED14,
    Skeleton,
    nyu36_to_21,
)

NYU = CAMERAS["nyu"]
COUNT = 3


@pytest.fixture(scope="module")
def frame() -> HandFrame:
    return SyntheticHands(5, poses="kinematic").frame(0)


@pytest.fixture(scope="module")
def center(frame: HandFrame) -> str:
    return ",".join(f"{value:.9f}" for value in palm_center(frame))


@pytest.fixture(scope="module")
def model(frame: HandFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows the one pose of these tests, for the crop around its palm."""
    path = tmp_path_factory.mktemp("model") / "constant.safetensors"
    save_constant_model(path, crop_coordinates(frame.joints_mm, palm_center(frame), NYU))
    return path


@pytest.fixture
def folder(frame: HandFrame, tmp_path: Path) -> Path:
    """Three good frames (16-bit, NYU-packed, float32 array) and a truncated PNG between them."""
    inputs = tmp_path / "in"
    inputs.mkdir()
    cv2.imwrite(str(inputs / "f1.png"), frame.depth)
    whole = (inputs / "f1.png").read_bytes()
    (inputs / "f2.png").write_bytes(whole[: len(whole) // 2])
    packed = np.zeros((480, 640, 3), np.uint8)
    packed[..., 0], packed[..., 1] = frame.depth & 255, frame.depth >> 8  # OpenCV writes B, G, R
    cv2.imwrite(str(inputs / "f10.png"), packed)
    np.save(inputs / "f11.npy", frame.depth.astype(np.float32))
    return inputs


def run(*arguments: object, code: int = 0, engine: str = "torch") -> Any:
    # Compiling the native engine takes a second; it pays for many frames only.
    result = CliRunner().invoke(app, ["hand", "run", "--engine", engine, *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def error_line(*arguments: object) -> str:
    result = run(*arguments, code=2)
    lines: list[str] = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_folder_with_a_truncated_picture(
    folder: Path, model: Path, center: str, frame: HandFrame, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run(folder, "--camera", "nyu", "--center", center, "--model", model, "--out", out)
    assert "bad frame f2" in result.stderr
    assert "truncated" in result.stderr
    assert "frames: 4 (3 with a hand, 0 without, 1 bad)" in result.stdout
    assert re.search(
        r"[\d,]+ frames/s \(median [\d.]+ ms, 99th percentile [\d.]+ ms", result.stdout
    )
    found = sorted(path.name for path in out.rglob("*") if path.is_file())
    names = ["f1.png", "f10.png", "f11.png", "joints.csv", "joints.json", "summary.json"]
    assert found == names  # and no temporary file

    document = json.loads((out / "joints.json").read_text())
    assert document["schema"] == "dgpose.hand.joints/1"
    assert document["joints"] == list(NYU36.joints)
    assert [f["name"] for f in document["frames"]] == ["f1", "f2", "f10", "f11"]
    assert [f["status"] for f in document["frames"]] == ["found", "bad_frame", "found", "found"]
    good, bad = document["frames"][0], document["frames"][1]
    np.testing.assert_allclose(good["joints_mm"], frame.joints_mm, atol=0.05)
    np.testing.assert_allclose(good["joints_px"], project(frame.joints_mm, NYU)[:, :2], atol=0.05)
    assert bad["joints_mm"] is None
    assert "truncated" in bad["reason"]

    with (out / "joints.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["found", "bad_frame", "found", "found"]
    joint = NYU36.joints[7]
    for k, axis in enumerate("xyz"):
        assert float(rows[0][f"{joint}_{axis}_mm"]) == pytest.approx(
            good["joints_mm"][7][k], abs=2e-3
        )
    assert float(rows[0][f"{joint}_u_px"]) == pytest.approx(good["joints_px"][7][0], abs=2e-3)
    assert rows[1][f"{joint}_x_mm"] == ""

    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == {"total": 4, "found": 3, "not_found": 0, "bad_frame": 1}
    assert list(summary["bad_frames"]) == ["f2"]
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]

    picture = cv2.imread(str(out / "pictures" / "f1.png"))
    assert picture.shape == (512, 640 + 480, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_no_pictures(folder: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(folder, "--camera", "nyu", "--model", model, "--out", out, "--no-pictures")
    assert sorted(path.name for path in out.iterdir()) == [
        "joints.csv",
        "joints.json",
        "summary.json",
    ]


@pytest.mark.parametrize("form", ["npz", "npz14", "text"])
def test_labels_give_the_error(
    form: str, model: Path, center: str, frame: HandFrame, tmp_path: Path
) -> None:
    np.save(tmp_path / "video.npy", np.stack([frame.depth] * COUNT))
    truth = np.stack([frame.joints_mm.astype(np.float64)] * COUNT)
    truth[:, :, 0] += np.array([0.0, 3.0, 6.0])[:, None]  # 3 mm on average
    if form == "npz":
        labels = tmp_path / "labels.npz"
        np.savez(labels, xyz_mm=truth)
    elif form == "npz14":
        labels = tmp_path / "labels.npz"
        np.savez(labels, joints_mm=truth[:, list(NYU_SCORED14)])
    else:
        labels = tmp_path / "labels.txt"
        np.savetxt(labels, project(truth, NYU).reshape(COUNT, -1))
    arguments = (tmp_path / "video.npy", "--camera", "nyu", "--center", center, "--model", model)
    result = run(*arguments, "--labels", labels, "--out", tmp_path / "out")
    assert "mean error 3.0 mm (14 scored joints, 3 labelled frames" in result.stdout
    document = json.loads((tmp_path / "out" / "joints.json").read_text())
    assert [f["error_mm"] for f in document["frames"]] == pytest.approx([0, 3, 6], abs=0.02)


def test_labels_that_do_not_fit(model: Path, frame: HandFrame, tmp_path: Path) -> None:
    np.save(tmp_path / "video.npy", np.stack([frame.depth] * COUNT))
    arguments = (tmp_path / "video.npy", "--model", model, "--out", tmp_path / "out", "--labels")
    labels = tmp_path / "labels.npz"
    np.savez(labels, joints_mm=np.zeros((2, 36, 3)))
    assert "one row per frame (3), got 2" in error_line(*arguments, labels, "--camera", "nyu")
    np.savez(labels, joints_mm=np.zeros((3, 21, 3)))
    assert "got [3, 21, 3]" in error_line(*arguments, labels, "--camera", "nyu")
    np.savez(labels, other=np.zeros((3, 36, 3)))
    assert "needs the key joints_mm or xyz_mm" in error_line(*arguments, labels)
    np.savez(labels, joints_mm=np.array([{}], dtype=object))
    assert "not a readable .npz file" in error_line(*arguments, labels)
    labels.write_bytes(labels.read_bytes()[:40])
    assert "not a readable .npz file" in error_line(*arguments, labels)
    text = tmp_path / "labels.txt"
    np.savetxt(text, np.ones((3, 108)))
    assert "need a camera" in error_line(*arguments, text)
    assert "none.npz" in error_line(*arguments, tmp_path / "none.npz")


def test_synthetic_source_brings_camera_and_labels(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("synthetic:3", "--frames", COUNT, "--model", model, "--out", out)
    assert f"frames: {COUNT} (" in result.stdout
    document = json.loads((out / "joints.json").read_text())
    assert [f["name"] for f in document["frames"]] == [f"synthetic_{k:05d}" for k in range(COUNT)]
    assert len(list((out / "pictures").iterdir())) == COUNT


@pytest.mark.parametrize("skeleton", [MSRA21, MEDIAPIPE21], ids=lambda s: s.name)
def test_joints_of_another_order(
    skeleton: Skeleton, folder: Path, model: Path, center: str, frame: HandFrame, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    labels = tmp_path / "truth.npz"
    np.savez(labels, joints_mm=np.repeat(frame.joints_mm[None], 4, axis=0))
    arguments = (folder, "--camera", "nyu", "--center", center, "--model", model, "--out")
    result = run(*arguments, out, "--joints", skeleton.name, "--labels", labels)
    assert "mean error 0.0 mm (14 scored joints, 3 labelled frames" in result.stdout
    document = json.loads((out / "joints.json").read_text())
    assert (document["skeleton"], document["joints"]) == (skeleton.name, list(skeleton.joints))
    assert document["bones"] == [list(edge) for edge in skeleton.edges]
    truth = nyu36_to_21(frame.joints_mm, skeleton)
    pixels = project(truth, NYU)[:, :2]
    good, bad = document["frames"][0], document["frames"][1]
    np.testing.assert_allclose(good["joints_mm"], truth, atol=0.05)
    np.testing.assert_allclose(good["joints_px"], pixels, atol=0.05)
    assert bad["joints_mm"] is None
    with (out / "joints.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert len(row) == 7 + 5 * 21
    assert float(row[f"{skeleton.joints[9]}_v_px"]) == pytest.approx(pixels[9, 1], abs=0.05)
    run(*arguments, tmp_path / "own", "--labels", labels)
    pictures = [cv2.imread(str(place / "pictures" / "f1.png")) for place in (out, tmp_path / "own")]
    below = [picture[40:] for picture in pictures if picture is not None]  # not the title
    assert below[0].shape == below[1].shape
    assert (below[0] != below[1]).any()


def test_a_model_of_other_joints(folder: Path, tmp_path: Path) -> None:
    """Crossing Nets of ICVL's 16 joints."""
    config = CrossingNetsConfig(joints=16, origin_joint=0, image_size=32, channels=4)
    weights, out = tmp_path / "icvl.safetensors", tmp_path / "out"
    save_crossing_nets(CrossingNets(config), weights)
    arguments = (folder / "f1.png", "--camera", "nyu", "--model", weights, "--out", out)
    assert "frames: 1 (" in run(*arguments, "--center", "242,238,570").stdout
    assert json.loads((out / "joints.json").read_text())["joints"] == list(ICVL16.joints)
    engine = json.loads((out / "summary.json").read_text())["engine"]
    assert (engine["cube_mm"], engine["joints"]) == (250.0, "icvl16")
    line = error_line(*arguments, "--joints", "msra21")
    assert line == "error: joints must be one of icvl16 for this model, got msra21"
    assert "mediapipe33" in run(*arguments, "--joints", "mediapipe33", code=2).stderr


def test_npz_with_its_camera_and_metres(
    model: Path, center: str, frame: HandFrame, tmp_path: Path
) -> None:
    source = tmp_path / "one.npz"
    np.savez(source, depth=frame.depth.astype(np.float32) / 1000, camera=np.array(NYU))
    arguments = (source, "--center", center, "--model", model, "--out", tmp_path / "out")
    assert "1 with a hand" in run(*arguments, "--unit", "m").stdout
    result = run(*arguments, code=2)  # taken for millimetres
    assert "pass unit='m'" in result.stderr


def test_frames_limits_a_run(folder: Path, model: Path, tmp_path: Path) -> None:
    arguments = (folder, "--camera", "nyu", "--model", model, "--out", tmp_path / "out")
    assert "frames: 1 (" in run(*arguments, "--frames", 1, "--no-pictures").stdout


def test_no_frame_can_be_read(folder: Path, model: Path, tmp_path: Path) -> None:
    arguments = ("--model", model, "--out", tmp_path / "out")
    result = run(folder / "f2.png", *arguments, "--camera", "nyu", code=2)
    assert "0 with a hand, 0 without, 1 bad" in result.stdout
    result = run(folder / "f1.png", *arguments, code=2)
    assert "does not say its camera" in result.stderr


def test_an_image_without_a_hand_is_no_failure(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.zeros((480, 640), np.uint16))
    out = tmp_path / "out"
    result = run(tmp_path / "empty.npy", "--camera", "nyu", "--model", model, "--out", out)
    assert "0 with a hand, 1 without, 0 bad" in result.stdout
    assert "1 x the image holds no depth" in result.stdout
    (row,) = json.loads((out / "joints.json").read_text())["frames"]
    assert row["status"] == "not_found"
    assert row["joints_mm"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--camera", "0,0,0,0"], "camera must have fx > 0"),
        (["--camera", "webcam"], "camera must be one of"),
        (["--center", "1,2"], "center must be u,v,mm"),
        (["--center", "1,2,-5"], "center must be u,v,mm"),
        (["--model", "none.safetensors"], "no such file"),
        (["--cube", "0"], "cube_mm must be positive"),
        (["--unit", "m"], "f1.png: .png files are in millimetres"),
    ],
)
def test_wrong_options(
    change: list[str], words: str, folder: Path, model: Path, tmp_path: Path
) -> None:
    arguments = [folder / "f1.png", "--camera", "nyu", "--model", model, "--out", tmp_path / "out"]
    result = run(*arguments, *change, code=2)
    assert words in result.stderr


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (["no_such_folder"], "no_such_folder"),
        (["synthetic:x"], "synthetic:SEED with a whole number"),
        (["synthetic:1", "f1.png"], "must be the only source"),
        (["synthetic:"], "synthetic:SEED with a whole number"),
    ],
)
def test_wrong_sources(source: list[str], words: str, model: Path, tmp_path: Path) -> None:
    assert words in error_line(*source, "--model", model, "--out", tmp_path / "out")


def test_unknown_unit_and_missing_arguments(folder: Path, tmp_path: Path) -> None:
    assert "cm" in run(folder, "--unit", "cm", "--out", tmp_path, code=2).stderr
    assert "--out" in run(folder, code=2).stderr
    assert "source" in run("--out", tmp_path, code=2).stderr.lower()


def test_out_that_is_a_file(folder: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    assert "out" in error_line(folder, "--model", model, "--out", tmp_path / "out")


def test_realsense_without_its_software(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    line = error_line("realsense", "--model", model, "--out", tmp_path / "out")
    assert "pip install 'dgpose-ext[realsense]'" in line


def test_realsense_camera(
    monkeypatch: pytest.MonkeyPatch, model: Path, frame: HandFrame, tmp_path: Path
) -> None:
    camera = FakeRealSense(frames=3, raw=frame.depth * np.uint16(2))
    monkeypatch.setitem(sys.modules, "pyrealsense2", camera)
    center = ",".join(f"{value:.9f}" for value in palm_center(frame))
    arguments = ("realsense", "--model", model, "--out", tmp_path / "out", "--center", center)
    assert "frames: 2 (2 with a hand" in run(*arguments, "--frames", 2).stdout
    assert camera.stopped == 1


def test_version_and_help_of_every_command() -> None:
    runner = CliRunner()
    assert re.match(r"dgpose \d+\.\d+", runner.invoke(app, ["--version"]).stdout)
    commands = "", "demo", "models", "hand", "hand run", "hand live", "eval", "eval hand", "train"
    for command in map(str.split, commands):
        result = runner.invoke(app, [*command, "--help"])
        assert result.exit_code == 0, result.output
        assert "Usage" in result.stdout


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys; sys.argv = ['dgpose', '--help']\n"
        "from dgpose.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'cv2' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False False"


def test_missing_extra_is_one_sentence(tmp_path: Path) -> None:
    """With typer (or what a command needs) not installed, the command line says what to do."""
    code = "import sys; sys.modules['typer'] = None; from dgpose.cli import main; main()"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: dgpose needs typer, which is not installed: pip install 'dgpose-ext[systems]'"
    )
    code = "import sys; sys.modules['cv2'] = None; import dgpose; dgpose.HandEstimator"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert "dgpose needs cv2, which is not installed: pip install" in done.stderr


def test_real_frames_run(data_dir: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kinect = data_dir / "hand" / "kinect2_real"
    arguments = (kinect, "--camera", "kinect2", "--model", model, "--out", out, "--no-pictures")
    result = run(*arguments, engine="auto")
    assert "frames: 60 (" in result.stdout
    assert "0 bad" in result.stdout
    msra = data_dir / "hand" / "msra" / "depth_real"
    result = run(msra, "--model", model, "--out", out)
    assert "frames: 1 (" in result.stdout
    assert "0 bad" in result.stdout
