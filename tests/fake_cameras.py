"""Stand-ins for pyrealsense2 and pyk4a, of the same shape as far as they are used.

Each gives so many frames, the last of them without depth, and is then pulled out.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from dgpose.data.cameras import CAMERAS

NYU = CAMERAS["nyu"]


class FakeRealSense(ModuleType):
    """pyrealsense2 as far as it is used: depth in halves of a millimetre."""

    def __init__(self, frames: int = 2, *, connected: bool = True, raw: Any = None) -> None:
        super().__init__("pyrealsense2")
        self.frames = frames
        self.raw = np.full((480, 640), 1401, np.uint16) if raw is None else raw
        self.connected = connected
        self.stopped = 0
        self.asked: tuple[Any, ...] = ()
        self.stream = SimpleNamespace(depth="depth")
        self.format = SimpleNamespace(z16="z16")
        self.config = lambda: self
        self.pipeline = lambda: self

    def enable_stream(self, *asked: Any) -> None:
        self.asked = asked

    def start(self, config: Any) -> Any:
        if not self.connected:
            raise RuntimeError("No device connected")
        lens = SimpleNamespace(fx=NYU.fx, fy=NYU.fy, ppx=NYU.cx, ppy=NYU.cy)
        stream = SimpleNamespace(get_intrinsics=lambda: lens)
        sensor = SimpleNamespace(get_depth_scale=lambda: 0.0005)
        return SimpleNamespace(
            get_stream=lambda kind: SimpleNamespace(as_video_stream_profile=lambda: stream),
            get_device=lambda: SimpleNamespace(first_depth_sensor=lambda: sensor),
        )

    def wait_for_frames(self, timeout_ms: int) -> Any:
        if self.frames == 0:
            self.connected = False
            raise RuntimeError(f"Frame didn't arrive within {timeout_ms}")
        self.frames -= 1
        empty = self.frames == 0
        image = SimpleNamespace(get_data=lambda: self.raw)
        return SimpleNamespace(get_depth_frame=lambda: None if empty else image)

    def stop(self) -> None:
        self.stopped += 1
        if not self.connected:
            raise RuntimeError("stop() cannot be called before start()")


class K4AError(Exception):
    """pyk4a's errors carry no text."""


class FakeK4a(ModuleType):
    """pyk4a as far as it is used."""

    K4AException = K4AError

    def __init__(self, frames: int = 2, *, connected: bool = True) -> None:
        super().__init__("pyk4a")
        self.frames = frames
        self.connected = connected
        self.stopped = 0
        self.settings: dict[str, Any] = {}
        self.ColorResolution = SimpleNamespace(OFF=0)
        self.DepthMode = SimpleNamespace(NFOV_UNBINNED=2)
        self.FPS = SimpleNamespace(FPS_30=2)
        self.CalibrationType = SimpleNamespace(DEPTH=0)
        matrix = np.array([[NYU.fx, 0, NYU.cx], [0, NYU.fy, NYU.cy], [0, 0, 1]])
        self.calibration = SimpleNamespace(get_camera_matrix=lambda kind: matrix)

    def Config(self, **settings: Any) -> dict[str, Any]:
        return settings

    def PyK4A(self, config: dict[str, Any], *, thread_safe: bool) -> FakeK4a:
        self.settings = config
        assert not thread_safe, "it would hold Python's lock while it waits"
        return self

    def start(self) -> None:
        if not self.connected:
            raise K4AError

    def get_capture(self, timeout: int) -> Any:
        assert 0 < timeout < 10_000
        if self.frames == 0:
            self.connected = False
            raise K4AError
        self.frames -= 1
        depth = None if self.frames == 0 else np.full((576, 640), 700, np.uint16)
        return SimpleNamespace(depth=depth)

    def stop(self) -> None:
        self.stopped += 1
        if not self.connected:
            raise K4AError
