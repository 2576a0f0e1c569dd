"""Sources of depth frames: files, rendered hands, and cameras through stand-ins for their software.

No camera was connected here: see fake_cameras.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cameras import FakeK4a, FakeRealSense

from dgpose.data.cameras import CAMERAS, Camera
from dgpose.data.depth_sources import CameraLostError, SourceFrame, depth_source

NYU = CAMERAS["nyu"]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Three frames of 4x6 pixels with their camera."""
    path = tmp_path / "video.npz"
    depth = np.arange(3 * 24, dtype=np.uint16).reshape(3, 4, 6)
    np.savez(path, depth=depth, camera=np.array(NYU))
    return path


def names(frames: Iterator[SourceFrame]) -> list[str]:
    return [frame.name for frame in frames]


# ---- recordings ----


def test_a_recording_can_be_read_again_and_again(video: Path) -> None:
    source = depth_source([f"video:{video}"])
    assert (source.total, source.rate_hz) == (3, 30.0)
    for _ in range(2):
        frames = list(source.frames())
        assert names(iter(frames)) == ["video_0", "video_1", "video_2"]
        assert frames[2].camera == NYU
        np.testing.assert_array_equal(
            frames[2].depth, np.arange(48, 72, dtype=np.uint16).reshape(4, 6)
        )


def test_a_folder_is_listed_anew_each_time(video: Path) -> None:
    source = depth_source([f"folder:{video.parent}"], limit=4)
    assert len(list(source.frames())) == 3
    np.save(video.parent / "later.npy", np.zeros((2, 4, 6), np.uint16))
    frames = list(source.frames())
    assert names(iter(frames)) == ["later_0", "later_1", "video_0", "video_1"]
    assert frames[0].problem == "the file does not say its camera: give one"
    video.unlink()
    (video.parent / "later.npy").unlink()
    with pytest.raises(FileNotFoundError):
        list(source.frames())


def test_a_damaged_file_is_a_bad_frame(video: Path) -> None:
    video.write_bytes(video.read_bytes()[:100])
    (frame,) = depth_source([str(video)]).frames()
    assert frame.depth is None
    assert "video.npz" in frame.problem


def test_a_given_camera_goes_before_the_file_s(video: Path) -> None:
    camera = Camera(1, 2, 3, 4)
    assert next(depth_source([str(video)], camera=camera).frames()).camera == camera


def test_a_rendered_hand_begins_anew() -> None:
    source = depth_source(["synthetic:5"])
    assert (source.total, source.rate_hz) == (100, 30.0)
    first, again = (next(source.frames()) for _ in range(2))
    assert first.depth is not None
    assert first.truth_mm is not None
    np.testing.assert_array_equal(first.depth, again.depth)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (["folder:nowhere"], FileNotFoundError, "folder: must name a folder that exists"),
        (["folder:"], FileNotFoundError, "folder: must name a folder that exists"),
        (["video:nowhere.npz"], FileNotFoundError, "video: must name a file that exists"),
        (["nowhere"], FileNotFoundError, "nowhere"),
        (["synthetic:1.5"], ValueError, "synthetic:SEED with a whole number"),
        (["synthetic:1", "x.png"], ValueError, "must be the only source, got 2 sources"),
        (["realsense:2"], ValueError, "source realsense takes nothing after its name"),
        ([], FileNotFoundError, "at least one"),
    ],
)
def test_wrong_sources(source: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        depth_source(source)


def test_a_video_is_no_folder(video: Path) -> None:
    with pytest.raises(FileNotFoundError, match="video: must name a file"):
        depth_source([f"video:{video.parent}"])
    with pytest.raises(FileNotFoundError, match="folder: must name a folder"):
        depth_source([f"folder:{video}"])


# ---- cameras ----


CAMERA_KINDS = [
    ("realsense", "pyrealsense2", FakeRealSense, "Frame didn't arrive within 2000"),
    ("kinect", "pyk4a", FakeK4a, "the camera has stopped answering"),
]


@pytest.mark.parametrize(("kind", "package", "fake", "words"), CAMERA_KINDS)
def test_a_camera_until_it_is_pulled_out(
    kind: str, package: str, fake: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fake(3)
    monkeypatch.setitem(sys.modules, package, module)
    source = depth_source([kind])
    assert (source.total, source.rate_hz) == (None, None)
    frames = source.frames()
    first, second, third = islice(frames, 3)
    assert first.name == f"{kind}_000000"
    assert first.camera == NYU
    assert first.depth is not None
    assert first.depth.dtype == np.uint16
    assert set(np.unique(first.depth)) == {700}  # 1401 halves of a millimetre, rounded to even
    assert second.problem == ""
    assert third.depth is None
    assert third.problem == "the camera gave no depth image"
    with pytest.raises(CameraLostError, match=f"{kind}: {words}"):
        next(frames)
    assert module.stopped == 1
    with pytest.raises(CameraLostError, match=kind):
        next(source.frames())  # still out
    module.connected, module.frames = True, 2
    assert next(source.frames()).depth is not None  # plugged in again


@pytest.mark.parametrize(("kind", "package", "fake", "words"), CAMERA_KINDS)
def test_a_camera_is_released_when_nobody_reads_on(
    kind: str, package: str, fake: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fake(5)
    monkeypatch.setitem(sys.modules, package, module)
    given = Camera(1, 2, 3, 4)
    frames: Any = depth_source([kind], camera=given, limit=2).frames()
    assert [frame.camera for frame in frames] == [given, given]
    assert module.stopped == 1
    opened: Any = depth_source([kind]).frames()
    next(opened)
    opened.close()
    assert module.stopped == 2


def test_what_the_cameras_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    realsense, kinect = FakeRealSense(), FakeK4a()
    monkeypatch.setitem(sys.modules, "pyrealsense2", realsense)
    monkeypatch.setitem(sys.modules, "pyk4a", kinect)
    next(depth_source(["realsense"]).frames())
    assert realsense.asked == ("depth", 640, 480, "z16", 30)
    next(depth_source(["kinect"]).frames())
    assert kinect.settings["color_resolution"] == 0
    assert kinect.settings["depth_mode"] == 2


@pytest.mark.parametrize(("kind", "package", "fake", "words"), CAMERA_KINDS)
def test_software_that_is_missing(
    kind: str, package: str, fake: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"source {kind} needs {package}") as raised:
        depth_source([kind])
    assert f"pip install 'dgpose-ext[{kind}]'" in str(raised.value)
    assert ("Azure Kinect Sensor SDK" in str(raised.value)) == (kind == "kinect")


def test_pyk4a_without_the_library_it_wraps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pyk4a.py").write_text("raise ImportError('Cannot import k4a_module.')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pyk4a", raising=False)
    with pytest.raises(ValueError, match=r"\(Cannot import k4a_module\.\): pip install"):
        depth_source(["kinect"])
