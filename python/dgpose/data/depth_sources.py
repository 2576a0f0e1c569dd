"""Where streams of depth frames come from: files, rendered hands, connected cameras.

| source | frames |
|---|---|
| files, folders, patterns | as listed by `dgpose.data.depth_io` |
| `folder:DIR`, `video:FILE` | the same, and no other kind of path |
| `synthetic:SEED` | a rendered hand in motion, with its true joints |
| `realsense` | the first RealSense camera, through pyrealsense2 |
| `kinect` | the first Azure Kinect, through pyk4a |
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dgpose._errors import one_line
from dgpose.data.cameras import CAMERAS, Camera
from dgpose.data.depth_io import MAX_SIDE, open_source
from dgpose.data.synthetic_hands import SyntheticHands

__all__ = [
    "CameraLostError",
    "DepthSource",
    "SourceFrame",
    "depth_source",
    "synthetic_frames",
]

_SYNTHETIC_FRAMES = 100
_RECORDED_HZ = 30.0
_CAMERA_TIMEOUT_MS = 2000
_REALSENSE_SIZE = (640, 480, 30)


class CameraLostError(RuntimeError):
    """A camera is not connected, was pulled out, or stopped answering; it may come back."""


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One frame, or why there is none.

    Attributes:
        name: for output files and messages.
        depth: `[H, W]` mm; None for a bad frame.
        camera: of the depth image; None for a bad frame.
        truth_mm: `[36, 3]` or `[14, 3]` true joints, where they are known.
        problem: why the frame is bad; else empty.
    """

    name: str
    depth: npt.NDArray[Any] | None
    camera: Camera | None
    truth_mm: npt.NDArray[Any] | None = None
    problem: str = ""


Frames: TypeAlias = Generator[SourceFrame, None, None]


@dataclass(frozen=True)
class DepthSource:
    """A source that can be read from its beginning as often as one likes.

    Attributes:
        name: what the user called it.
        frames: starts to read. While reading it raises `CameraLostError` (a camera),
            or OSError (files that have gone). Closing the generator releases the camera.
        total: number of frames; None: without end.
        rate_hz: frames per second at which a recording is played; None: a camera gives the pace.
    """

    name: str
    frames: Callable[[], Frames]
    total: int | None
    rate_hz: float | None


def depth_source(
    source: Sequence[str],
    *,
    camera: Camera | None = None,
    unit: Literal["mm", "m"] = "mm",
    hand: Literal["right", "left"] = "right",
    limit: int | None = None,
) -> DepthSource:
    """Find a source of depth frames.

    Args:
        source: any number of files, folders and patterns; or one of the other kinds, alone.
        camera: of the frames; None: what the file or the camera says. A frame without either is a
            bad frame.
        unit: of floating-point `.npy` and `.npz` depth.
        hand: which hand "synthetic:SEED" shows.
        limit: stop after so many frames; synthetic: 100 if not given.

    Raises:
        ValueError: sources that cannot be mixed, a seed that is no number, a camera whose software
            is not installed.
        FileNotFoundError: nothing is there.
    """
    kinds = ("folder", "kinect", "realsense", "synthetic", "video")
    cameras = ("kinect", "realsense")
    special = [
        s
        for s in source
        if (s in cameras and not Path(s).exists()) or (s.partition(":")[0] in kinds and ":" in s)
    ]
    name = " ".join(source)
    if not special:
        return _files(name, source, camera, unit, limit)
    if len(source) > 1:
        raise ValueError(f"{special[0]} must be the only source, got {len(source)} sources")
    kind, colon, value = special[0].partition(":")
    if kind in ("folder", "video"):
        there = Path(value).is_dir() if kind == "folder" else Path(value).is_file()
        if not value or not there:
            what = "a folder" if kind == "folder" else "a file"
            raise FileNotFoundError(f"{kind}: must name {what} that exists, got {special[0]!r}")
        return _files(name, [value], camera, unit, limit)
    if kind == "synthetic":
        if not value.isdecimal():
            raise ValueError(
                f"source must be synthetic:SEED with a whole number, got {special[0]!r}"
            )
        total = _SYNTHETIC_FRAMES if limit is None else limit
        return DepthSource(
            name,
            lambda: synthetic_frames(int(value), total, camera=camera, hand=hand),
            total,
            _RECORDED_HZ,
        )
    if colon:
        raise ValueError(f"source {kind} takes nothing after its name, got {special[0]!r}")
    read = {"realsense": _realsense_frames, "kinect": _kinect_frames}[kind]
    module = _camera_software(kind)
    return DepthSource(name, lambda: read(module, camera, limit), limit, None)


def _files(
    name: str, paths: Sequence[str], camera: Camera | None, unit: str, limit: int | None
) -> DepthSource:
    # "mm" is not passed on: it is every format's default, and only "m" may be refused.
    declared = None if unit == "mm" else unit

    def frames() -> Frames:
        for item in open_source(paths, unit=declared)[:limit]:
            try:
                frame = item.load()
            except (ValueError, OSError, MemoryError) as error:
                yield SourceFrame(item.name, None, None, problem=one_line(error))
                continue
            known = camera if camera is not None else frame.camera
            if known is None:
                yield SourceFrame(
                    item.name, None, None, problem="the file does not say its camera: give one"
                )
            else:
                yield SourceFrame(item.name, frame.depth, known)

    total = len(open_source(paths, unit=declared)[:limit])
    return DepthSource(name, frames, total, _RECORDED_HZ)


def synthetic_frames(
    seed: int,
    frames: int,
    *,
    camera: Camera | None = None,
    hand: Literal["right", "left"] = "right",
) -> Frames:
    """A rendered sequence with known joints; the default camera is NYU's, 640x480.

    Another camera gets an image whose middle is its principal point.

    Raises:
        ValueError: a camera without a sensible image of that kind.
    """
    scene = SyntheticHands(seed, poses="kinematic", split="test", hand=hand)
    optics = CAMERAS["nyu"] if camera is None else camera
    size = (round(2 * optics.cy), round(2 * optics.cx))
    if not all(32 <= side <= MAX_SIDE for side in size):
        raise ValueError(
            f"camera must have its principal point within 16 and {MAX_SIDE // 2} px, got {optics}"
        )
    for index, frame in enumerate(scene.sequence(seed, frames, size, optics)):
        yield SourceFrame(f"synthetic_{index:05d}", frame.depth, frame.camera, frame.joints_mm)


# ---- cameras ----


def _numbers(limit: int | None) -> Iterable[int]:
    return count() if limit is None else range(limit)


_CAMERA_SOFTWARE = {
    "realsense": ("pyrealsense2", ""),
    "kinect": ("pyk4a", " (and Microsoft's Azure Kinect Sensor SDK, whose libk4a it wraps)"),
}


def _camera_software(kind: str) -> Any:
    package, also = _CAMERA_SOFTWARE[kind]
    try:
        return import_module(package)
    except ImportError as error:  # pyk4a is there and libk4a is not: that, too
        why = "" if isinstance(error, ModuleNotFoundError) else f" ({one_line(error)})"
        raise ValueError(
            f"source {kind} needs {package}, which is not installed{why}: "
            f"pip install 'dgpose-ext[{kind}]'{also}"
        ) from None


def _realsense_frames(rs: Any, camera: Camera | None, limit: int | None) -> Frames:
    pipeline = rs.pipeline()
    config = rs.config()
    width, height, rate = _REALSENSE_SIZE
    config.enable_stream(rs.stream.depth, width, height, rs.format.z16, rate)
    try:
        profile = pipeline.start(config)
    except RuntimeError as error:
        raise CameraLostError(f"realsense: {one_line(error)}") from None
    try:
        lens = profile.get_stream(rs.stream.depth).as_video_stream_profile().get_intrinsics()
        optics = Camera(lens.fx, lens.fy, lens.ppx, lens.ppy) if camera is None else camera
        to_mm = 1000 * profile.get_device().first_depth_sensor().get_depth_scale()
        for index in _numbers(limit):
            name = f"realsense_{index:06d}"
            frame = pipeline.wait_for_frames(_CAMERA_TIMEOUT_MS).get_depth_frame()
            if not frame:
                yield SourceFrame(name, None, None, problem="the camera gave no depth image")
                continue
            raw = np.asanyarray(frame.get_data())
            depth = np.rint(raw * to_mm).clip(0, 65535).astype(np.uint16)
            yield SourceFrame(name, depth, optics)
    except RuntimeError as error:
        raise CameraLostError(f"realsense: {one_line(error)}") from None
    finally:
        with suppress(RuntimeError):  # it cannot be stopped where it was pulled out
            pipeline.stop()


def _kinect_frames(k4a: Any, camera: Camera | None, limit: int | None) -> Frames:
    settings = k4a.Config(
        color_resolution=k4a.ColorResolution.OFF,
        depth_mode=k4a.DepthMode.NFOV_UNBINNED,
        camera_fps=k4a.FPS.FPS_30,
        synchronized_images_only=False,
    )
    # "Thread-safe" would hold Python's lock while it waits for a frame; one thread uses the device.
    device = k4a.PyK4A(settings, thread_safe=False)
    try:
        device.start()
    except k4a.K4AException:
        raise CameraLostError("kinect: no Azure Kinect that can be opened is connected") from None
    try:
        optics = camera
        if optics is None:
            matrix = device.calibration.get_camera_matrix(k4a.CalibrationType.DEPTH)
            optics = Camera(*map(float, (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])))
        for index in _numbers(limit):
            name = f"kinect_{index:06d}"
            depth = device.get_capture(_CAMERA_TIMEOUT_MS).depth
            if depth is None:
                yield SourceFrame(name, None, None, problem="the camera gave no depth image")
            else:
                yield SourceFrame(name, np.array(depth, np.uint16), optics)
    except k4a.K4AException:
        raise CameraLostError("kinect: the camera has stopped answering") from None
    finally:
        with suppress(k4a.K4AException):
            device.stop()
