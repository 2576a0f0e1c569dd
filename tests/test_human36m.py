"""Human3.6M in both forms: tiny files that are written here, and the four shared real frames."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from human36m_files import CAMERA_NUMBERS, write_cameras, write_mmpose, write_videopose3d
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.data.human36m import (
    ACTIONS,
    Human36MError,
    action_name,
    open_human36m,
    read_cameras,
)
from dgpose.data.image_files import ImageFormatError
from dgpose.data.person_crops import person_box, person_crop
from dgpose.data.pickled_arrays import PickleFormatError
from dgpose.skeletons import H36M17


def test_videopose3d_form(tmp_path: Path) -> None:
    world = write_videopose3d(tmp_path, frames=6)
    frames = open_human36m(tmp_path, "test", every=2)
    assert len(frames) == 4 * 2 * 3  # recordings, cameras, frames 0, 2, 4
    assert set(frames.actions) == {"Walking", "TakingPhoto", "WalkingDog", "Eating"}
    assert set(frames.subjects) == {"S9", "S11"}
    take = f"S9_Walking.{CAMERA_NUMBERS[0]}"
    assert frames.names[:3] == tuple(f"S9/{take}/{take}_{n:06d}.jpg" for n in (1, 3, 5))
    # The camera stands at y = -5 m and looks along y; world z is up, the camera's y down.
    wanted = world["S9"]["Walking"][::2] * 1000
    x, y, z = np.moveaxis(wanted, -1, 0)
    np.testing.assert_allclose(frames.poses_mm[:3], np.stack([x, 1000 - z, y + 5000], -1), atol=0.5)
    assert (frames.poses_mm[:, 10, 1] < frames.poses_mm[:, 3, 1]).all()  # head above ankle
    assert (frames.relative_mm[:, 0] == 0).all()
    train = open_human36m(tmp_path, "train", every=1)
    assert set(train.subjects) == {"S1"}
    assert "WalkingDog" in train.actions


def test_both_forms_agree(tmp_path: Path) -> None:
    write_mmpose(tmp_path / "m", images=True)
    write_videopose3d(tmp_path / "v")
    ours, other = (open_human36m(tmp_path / form, "test", every=1) for form in "mv")
    assert ours.names == other.names
    assert ours.actions == other.actions
    assert len(other.with_images()) == 0
    (tmp_path / "m" / "images").rename(tmp_path / "v" / "images")
    pictured = open_human36m(tmp_path / "v", "test", every=1).with_images()
    assert len(pictured) == len(other)
    assert pictured.crop(0, 16).std() > 0
    row = ours.names.index(
        f"S9/S9_Walking.{CAMERA_NUMBERS[1]}/S9_Walking.{CAMERA_NUMBERS[1]}_000001.jpg"
    )
    # The same cameras and the same rule of boxes.
    cameras = read_cameras(tmp_path / "v" / "cameras.pkl")
    pixels = cameras["S9", CAMERA_NUMBERS[1]].project(other.poses_mm[row])
    np.testing.assert_allclose(person_box(pixels), other.boxes[row], atol=1e-3)
    pixels = cameras["S9", CAMERA_NUMBERS[1]].project(ours.poses_mm[row])
    np.testing.assert_allclose(person_box(pixels), ours.boxes[row], atol=1e-3)


def test_images_and_crops(tmp_path: Path) -> None:
    write_mmpose(tmp_path, frames=2)
    frames = open_human36m(tmp_path, "test", every=1)
    crop = frames.crop(0, 32)
    assert crop.shape == (3, 32, 32)
    assert crop.dtype == np.uint8
    assert crop[0].max() > 150 > crop[2].max()  # drawn in yellow: BGR became RGB
    # The drawn joints lie where the labels say.
    for x, y in np.rint(frames.joints_in_crop(0, 32)).astype(int):
        assert crop[0, y, x] > 120
    # One of the two names of an action, whichever the copy has.
    row = frames.actions.index("TakingPhoto")
    for folder in sorted((tmp_path / "images" / "S9").iterdir()):
        for file in folder.iterdir():
            file.rename(folder / file.name.replace("Photo", "TakingPhoto"))
        folder.rename(folder.parent / folder.name.replace("Photo", "TakingPhoto"))
    assert "TakingPhoto" in str(frames.image_path(row))
    assert len(frames.with_images()) == len(frames)
    frames.image_path(0).write_bytes(b"no image")
    frames.image_path(1).unlink()
    with pytest.raises(ImageFormatError, match="cannot be decoded"):
        frames.image(0)
    with pytest.raises(FileNotFoundError):
        frames.image(1)
    assert len(frames.with_images()) == len(frames) - 1
    walking = frames.of_action("Walking 1")
    assert set(walking.actions) == {"Walking"}


def test_actions() -> None:
    assert len(ACTIONS) == 15
    assert action_name("WalkTogether 1") == "WalkingTogether"
    assert action_name("SittingDown") == "SittingDown"
    with pytest.raises(ValueError, match=r"action must be one of Directions, .*, got 'Flying 1'"):
        action_name("Flying 1")


class _Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def test_no_pickle_is_run(tmp_path: Path) -> None:
    write_videopose3d(tmp_path)
    (tmp_path / "cameras.pkl").write_bytes(pickle.dumps({("S1", "1"): _Malicious()}))
    with pytest.raises(PickleFormatError, match="asks for 'posix system'"):
        open_human36m(tmp_path, "test")
    np.savez(tmp_path / "data_3d_h36m.npz", positions_3d=np.array(_Malicious(), object))
    write_cameras(tmp_path / "cameras.pkl")
    with pytest.raises(PickleFormatError, match="asks for 'posix system'"):
        open_human36m(tmp_path, "test")


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold annotation_body3d/fps50/h36m_test.npz"):
        open_human36m(tmp_path, "test")
    write_videopose3d(tmp_path)
    with pytest.raises(ValueError, match="split must be train or test, got 'val'"):
        open_human36m(tmp_path, "val")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        open_human36m(tmp_path, "test", every=0)
    (tmp_path / "cameras.pkl").unlink()
    with pytest.raises(FileNotFoundError, match=r"cameras\.pkl: must be there"):
        open_human36m(tmp_path, "test")
    (tmp_path / "cameras.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(Human36MError, match=r"cameras\.pkl: must be"):
        open_human36m(tmp_path, "test")
    np.savez(tmp_path / "data_3d_h36m.npz", positions_3d=np.array({"S9": [1]}, object))
    write_cameras(tmp_path / "cameras.pkl")
    with pytest.raises(Human36MError, match="positions_3d must be"):
        open_human36m(tmp_path, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imgname": np.array(["a.jpg"])}, "imgname must be"),
        ({"S": np.zeros((1, 16, 4))}, r"must hold imgname \[N\], S \[N, 17, 4\]"),
        ({"S": np.full((1, 17, 4), np.nan)}, "labels must be finite"),
        ({"imgname": np.array(["S1_Flying.54138969_000001.jpg"])}, "action must be one of"),
    ],
)
def test_damaged_mmpose_labels(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content: dict[str, Any] = {
        "imgname": np.array(["S1_Walking.54138969_000001.jpg"]),
        "S": np.ones((1, 17, 4)),
        "part": np.ones((1, 17, 3)),
        "center": np.ones((1, 2)),
        "scale": np.ones(1),
    }
    path = tmp_path / "labels.npz"
    np.savez(path, **content)
    assert len(open_human36m(path, "test")) == 1
    np.savez(path, **content | change)
    with pytest.raises(Human36MError, match=message):
        open_human36m(path, "test")


def test_person_crop() -> None:
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[20:40, 30:50] = (255, 128, 0)
    crop = person_crop(picture, (29.5, 19.5, 49.5, 39.5), 20)
    assert (crop == np.array([255, 128, 0])[:, None, None]).all()
    wide = person_crop(picture, (19.5, 19.5, 59.5, 39.5), 40)  # a square of the longer side
    assert (wide[0, 10:30, 10:30] == 255).all()
    assert wide[0, :9].max() == 0
    beyond = person_crop(picture, (-50, -50, 40, 40), 90)
    assert beyond[0, :49].max() == 0
    assert beyond[0].max() == 255
    for box, message in (
        ((5, 5, 5, 9), "box must have x1 < x2 and y1 < y2, got 5,5,5,9"),
        ((100, 5, 120, 9), "box must touch the image of 80x60 pixels"),
        ((0, 0, 1e6, 1e6), "box must be at most 8 times as large as the image of 80x60 pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            person_crop(picture, box, 8)


def test_the_shared_real_frames(data_dir: Path) -> None:
    """Cameras, projection and boxes against the labels that came with them."""
    folder = data_dir / "body" / "h36m_sample"
    frames = open_human36m(folder / "test_h36m_body3d.npz", "test").with_images()
    assert frames.actions == ("Directions", "SittingDown", "Greeting", "WalkingDog")
    cameras = read_cameras(folder / "cameras.pkl")
    content = np.load(folder / "test_h36m_body3d.npz")
    for row, subject in enumerate(frames.subjects):
        camera = cameras[subject, frames.names[row].split(".")[1][:8]]
        pixels = camera.project(frames.poses_mm[row].astype(np.float64))
        np.testing.assert_allclose(pixels, content["part"][row, :, :2], atol=1e-3)
        np.testing.assert_allclose(pixels, frames.joints_px[row], atol=1e-3)
        np.testing.assert_allclose(person_box(pixels), frames.boxes[row], atol=1e-2)
        crop = frames.crop(row, 64)
        assert crop.std() > 10
    # Right-hip-first, whatever h36m_coco.json calls them: the nose (labelled "neck") lies ahead,
    # and to the right is what the cross product of ahead and up says.
    joint = dict(zip(H36M17.joints, frames.poses_mm.transpose(1, 0, 2), strict=True))
    up = joint["thorax"] - joint["hip"]
    ahead = joint["neck"] - (joint["thorax"] + joint["head"]) / 2
    right = joint["right_hip"] - joint["left_hip"]
    assert (np.sum(np.cross(ahead, up) * right, axis=-1) > 0).all()


def test_data_check(tmp_path: Path) -> None:
    def check(*more: str) -> Any:
        command = ["data", "check", str(tmp_path / "h36m"), "--dataset", "h36m", *more]
        return CliRunner().invoke(app, command)

    assert check().exit_code == 2
    write_mmpose(tmp_path / "h36m", frames=2)
    result = check("--out", str(tmp_path / "sheet.png"))
    assert result.exit_code == 1  # S5, S6, S7, S8 are not there
    for text in ("train", "test", "S9, S11", "something is missing", "picture: "):
        assert text in result.output
    assert "missing in" not in result.output
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    frames = open_human36m(tmp_path / "h36m", "test", every=1)
    frames.image_path(3).unlink()
    (tmp_path / "h36m" / "annotation_body3d" / "fps50" / "h36m_train.npz").unlink()
    result = check()
    assert result.exit_code == 1
    assert f"missing in test: {frames.names[3]}" in result.output
    assert "train: " in result.output
