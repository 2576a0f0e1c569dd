"""`dgpose data check`: complete, partial, damaged and foreign folders."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hand_set_files import write_icvl, write_msra, write_nyu
from typer.testing import CliRunner

from dgpose.cli.data import app
from dgpose.data.cameras import project
from dgpose.data.hand_check import check_hand_set
from dgpose.data.hand_datasets import NyuHands
from dgpose.data.nyu import load_real_frames

scipy_io = pytest.importorskip("scipy.io")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def run(folder: Path, dataset: str, *more: object, code: int) -> Any:
    result = CliRunner().invoke(app, ["check", str(folder), "--dataset", dataset, *map(str, more)])
    assert result.exit_code == code, result.output
    return result


def test_complete_set_and_its_picture(tmp_path: Path, rng: np.random.Generator) -> None:
    write_msra(tmp_path, rng)
    result = run(tmp_path, "msra", "--out", tmp_path / "new" / "three.png", code=0)
    assert result.stdout.rstrip().endswith("complete")
    assert "P8" in result.stdout
    assert result.stdout.count("320x240, 21 joints, hand found at") == 3
    assert re.search(r"\nP4/9/000000_depth.bin: ", result.stdout)  # the middle one of 153
    picture = cv2.imread(str(tmp_path / "new" / "three.png"))
    assert picture is not None
    assert picture.std() > 20


def test_partial_msra(tmp_path: Path, rng: np.random.Generator) -> None:
    write_msra(tmp_path, rng)
    for gesture in "123456":
        (tmp_path / f"P3/{gesture}/joint.txt").unlink()
    shutil.rmtree(tmp_path / "P7")
    (tmp_path / "P5/IP/000000_depth.bin").unlink()
    (tmp_path / "P0/1/000000_depth.bin").write_bytes(b"short")
    report = check_hand_set(tmp_path, "msra")
    assert not report.complete
    assert [part.labels for part in report.parts] == [17, 17, 17, 11, 17, 17, 17, 0, 17]
    assert report.parts[5].missing == ("P5/IP/000000_depth.bin",)
    said = run(tmp_path, "msra", code=1).stdout
    assert "missing in P5: P5/IP/000000_depth.bin\n" in said
    assert f"P3: {tmp_path / 'P3/5/joint.txt'}: No such file or directory" in said
    assert "P3: and 1 more such files" in said
    assert f"P7: {tmp_path / 'P7/1/joint.txt'}: No such file or directory\nP7: and 16 more" in said
    assert "P0/1/000000_depth.bin: cannot be read: " in said


def test_partial_nyu(tmp_path: Path, rng: np.random.Generator) -> None:
    write_nyu(tmp_path / "nyu_hand_dataset_v2" / "dataset", rng, test=9)
    root = tmp_path / "nyu_hand_dataset_v2" / "dataset"
    for number in range(1, 9):
        (root / f"test/depth_1_{number:07d}.png").unlink()
    (root / "train/joint_data.mat").write_bytes(b"half a file")
    train, test = check_hand_set(tmp_path, "nyu").parts
    assert (train.labels, train.label_files) == (0, ())
    assert "not NYU's joint_data.mat" in train.problems[0]
    assert (test.labels, len(test.missing), test.published) == (9, 8, 8252)
    said = run(tmp_path, "nyu", "--out", tmp_path / "one.png", code=1).stdout
    assert "9 of 8252" in said
    named = ", ".join(f"test/depth_1_{number:07d}.png" for number in range(1, 6))
    assert f"missing in test: {named} ...\n" in said
    assert said.count("640x480, 36 joints, hand found") == 1
    assert (tmp_path / "one.png").is_file()


def test_real_nyu_frame(tmp_path: Path, data_dir: Path) -> None:
    frame, *_ = load_real_frames(data_dir)
    (tmp_path / "test").mkdir()
    xyz = np.stack([frame.joints_mm[None]] * 3)
    uvd = project(xyz, NyuHands.camera).astype(np.float32)
    scipy_io.savemat(tmp_path / "test/joint_data.mat", {"joint_xyz": xyz, "joint_uvd": uvd})
    png = data_dir / "hand/nyu/depth_real/test_depth_1_0000001.png"
    (tmp_path / "test/depth_1_0000001.png").write_bytes(png.read_bytes())
    (image,) = check_hand_set(tmp_path, "nyu").looked_at
    assert image.off_mm is not None
    assert 0 < image.off_mm < 60


def test_found_centre_is_compared_with_the_joints(tmp_path: Path, rng: np.random.Generator) -> None:
    """A little off for the square hands, far off for another thing at the image's edge."""
    write_icvl(tmp_path, rng)
    path = tmp_path / "Training/Depth/201403121135/image_0000.png"
    near, *_ = check_hand_set(tmp_path, "icvl").looked_at
    assert near.off_mm is not None
    assert near.off_mm < 20
    depth = np.full((240, 320), 32001, np.uint16)
    cv2.imwrite(str(path), depth)
    assert check_hand_set(tmp_path, "icvl").looked_at[0].center is None
    depth[100:140, :40] = 450
    cv2.imwrite(str(path), depth)
    far, *_ = check_hand_set(tmp_path, "icvl").looked_at
    assert far.off_mm is not None
    assert far.off_mm > 200


def test_set_without_any_image(tmp_path: Path, rng: np.random.Generator) -> None:
    write_icvl(tmp_path, rng)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    said = run(tmp_path, "icvl", "--out", tmp_path / "none.png", code=1).stdout
    assert "missing in Training: Training/Depth/201403121135/image_0000.png, " in said
    assert "no image is there to look at" in said
    assert not (tmp_path / "none.png").exists()


def test_another_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    write_icvl(tmp_path, rng)
    result = run(tmp_path, "msra", code=2)
    assert result.stdout.strip() == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"error: {tmp_path} is not msra, which holds P0/1/joint.txt, ")
    assert "no such folder" in run(tmp_path / "nowhere", "nyu", code=2).stderr
    with pytest.raises(ValueError, match="name must be one of nyu, icvl, msra, got 'bighand'"):
        check_hand_set(tmp_path, "bighand")
