"""`dgpose hand live`: the newest frame is shown, what goes wrong is a message, the page works."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.data.cameras import CAMERAS, project
from dgpose.data.depth_sources import CameraLostError, DepthSource, SourceFrame, synthetic_frames
from dgpose.inference import HandEstimator, HandTracker
from dgpose.inference.hand_live import FrameStream, LiveNumbers, run_live
from dgpose.inference.hand_run import HandResult
from dgpose.skeletons import FINGER_COLORS
from dgpose.viz.hand_page import HandPage, points_around

NYU = CAMERAS["nyu"]
EMPTY = np.zeros((480, 640), np.uint16)


def frame(name: str, depth: Any = EMPTY, problem: str = "") -> SourceFrame:
    return SourceFrame(name, None if problem else depth, None if problem else NYU, None, problem)


def source(
    play: Callable[[], Generator[SourceFrame, None, None]], rate_hz: float | None = None
) -> DepthSource:
    return DepthSource("test", play, None, rate_hz)


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


# ---- the stream ----


def test_frames_are_dropped_and_not_queued() -> None:
    given = threading.Event()

    def play() -> Generator[SourceFrame, None, None]:
        for k in range(50):
            yield frame(str(k))
        given.set()
        threading.Event().wait(60)

    stream = FrameStream(source(play))
    stream._thread.start()  # not as a context: this source never ends
    assert given.wait(10)
    arrival = stream.take(10)
    assert arrival is not None
    assert arrival.frame.name == "49"
    assert stream.dropped == 49
    assert stream.take(0.01) is None


def test_a_recording_starts_again_at_its_pace() -> None:
    def play() -> Generator[SourceFrame, None, None]:
        yield frame("only")

    with FrameStream(source(play, rate_hz=50)) as stream:
        first = stream.take(10)
        began = time.monotonic()
        later = [stream.take(10) for _ in range(5)]
        assert time.monotonic() - began > 0.08
    assert first is not None
    starts = [first.start] + [arrival.start for arrival in later if arrival is not None]
    assert starts == sorted(set(starts))
    assert len(starts) == 6


@pytest.mark.parametrize("error", [CameraLostError("pulled out"), FileNotFoundError("gone")])
def test_a_source_that_fails_is_waited_for(error: Exception) -> None:
    closed = []
    back = threading.Event()

    def play() -> Generator[SourceFrame, None, None]:
        try:
            if len(closed) in (1, 2):
                raise error
            yield frame(f"run {len(closed)}")
            if not closed:
                raise error
            back.wait(60)
        finally:
            closed.append(True)

    with FrameStream(source(play), retry_s=0.01) as stream:
        first = stream.take(10)
        assert first is not None
        assert first.start == 1
        again = stream.take(10)
        assert again is not None
        assert again.frame.name == "run 3"
        assert again.start == 4
        assert stream.problem == ""
        back.set()
    assert len(closed) >= 4  # each start has released its camera


def test_why_there_are_no_frames_is_said() -> None:
    def play() -> Generator[SourceFrame, None, None]:
        raise CameraLostError("realsense: No device connected")
        yield

    with FrameStream(source(play), retry_s=0.01) as stream:
        assert stream.take(0.1) is None
        assert stream.problem == "realsense: No device connected"


def test_a_source_without_frames_is_no_busy_loop() -> None:
    starts = []

    def play() -> Generator[SourceFrame, None, None]:
        starts.append(time.monotonic())
        return
        yield

    with FrameStream(source(play), retry_s=0.05) as stream:
        assert stream.take(0.2) is None
        assert stream.problem == "test has no frames"
    assert 2 <= len(starts) <= 6


def test_what_cannot_come_back_ends_the_stream() -> None:
    def play() -> Generator[SourceFrame, None, None]:
        raise ValueError("camera must have its principal point")
        yield

    with (
        FrameStream(source(play)) as stream,
        pytest.raises(ValueError, match="principal point"),
    ):
        stream.take(10)


def test_leaving_stops_the_thread_and_releases_the_camera() -> None:
    released = threading.Event()

    def play() -> Generator[SourceFrame, None, None]:
        try:
            while True:
                yield frame("f")
                time.sleep(0.001)
        finally:
            released.set()

    with FrameStream(source(play)) as stream:
        stream.take(10)
    assert released.is_set()
    assert not stream._thread.is_alive()


# ---- estimation and messages ----


class FakePage:
    """Notes what it is shown."""

    def __init__(self) -> None:
        self.smoothing = False
        self.shown: list[tuple[str, str, bool]] = []
        self.results: list[HandResult] = []
        self.waits: list[str] = []

    def show(
        self, frame: SourceFrame, result: HandResult, numbers: LiveNumbers, tracking: bool
    ) -> None:
        self.shown.append((frame.name, result.status, tracking))
        self.results.append(result)

    def wait(self, problem: str, numbers: LiveNumbers) -> None:
        self.waits.append(problem)


def one_by_one(
    frames: Sequence[SourceFrame | Exception], page: FakePage
) -> Callable[[], Generator[SourceFrame, None, None]]:
    """A source that waits until each frame was shown; an exception ends a start of it."""
    rest = iter(frames)

    def play() -> Generator[SourceFrame, None, None]:
        for item in rest:
            if isinstance(item, Exception):
                raise item
            count = len(page.shown)
            yield item
            eventually(lambda count=count: len(page.shown) > count)  # type: ignore[misc]

    return play


@pytest.fixture(scope="module")
def estimator() -> HandEstimator:
    return HandEstimator.load()


@pytest.fixture(scope="module")
def hands() -> list[SourceFrame]:
    return list(synthetic_frames(3, 12))


def test_bad_frames_are_reported_and_the_stream_goes_on(
    estimator: HandEstimator, hands: list[SourceFrame]
) -> None:
    depth = hands[0].depth
    assert depth is not None
    frames = [
        frame("good", depth),
        frame("empty", np.zeros((0, 640), np.uint16)),
        frame("good again", depth),
        frame("nan", np.full((480, 640), np.nan, np.float32)),
        frame("and again", depth),
        frame("small", depth[::2, ::2]),
        frame("bytes", depth.astype(np.uint8)),
        frame("file", problem="f.png: the PNG is truncated"),
        frame("file 2", problem="f.png: the PNG is truncated"),
        frame("good once more", depth),
        frame("file", problem="f.png: the PNG is truncated"),
        frame("last", depth),
    ]
    page, numbers, said = FakePage(), LiveNumbers(), list[str]()
    with FrameStream(source(one_by_one(frames, page))) as stream:
        run_live(
            stream,
            HandTracker(estimator),
            page,
            numbers,
            said.append,
            until=lambda: len(page.shown) == len(frames),
        )
    assert page.shown == [
        ("good", "found", True),
        ("empty", "bad_frame", True),
        ("good again", "found", True),
        ("nan", "not_found", False),
        ("and again", "found", True),
        ("small", "bad_frame", True),
        ("bytes", "bad_frame", True),
        ("file", "bad_frame", True),
        ("file 2", "bad_frame", True),
        ("good once more", "found", True),
        ("file", "bad_frame", True),
        ("last", "found", True),
    ]
    assert said == [
        "bad frame empty: depth must have shape [480, 640] as the frames before, got [0, 640]",
        "bad frame small: depth must have shape [480, 640] as the frames before, got [240, 320]",
        "bad frame bytes: depth must be of dtype uint16 (mm) or float32, got uint8 "
        "(an 8-bit picture is no depth in mm)",
        # Once for a row of equal ones, and for a frame that comes again.
        "bad frame file: f.png: the PNG is truncated",
    ]
    assert (numbers.found, numbers.not_found, numbers.bad_frame) == (5, 1, 6)
    assert numbers.total == 12
    assert 0 < numbers.estimate_ms < numbers.latency_ms


def test_a_camera_that_is_pulled_out_and_comes_back(
    estimator: HandEstimator, hands: list[SourceFrame]
) -> None:
    lost = CameraLostError("realsense: Frame didn't arrive within 2000")
    depth = hands[0].depth
    frames = [frame("before", depth), lost, lost, frame("after", depth[::2, ::2])]  # type: ignore[index]
    page, said = FakePage(), list[str]()
    with FrameStream(source(one_by_one(frames, page)), retry_s=0.2) as stream:
        run_live(
            stream,
            HandTracker(estimator),
            page,
            LiveNumbers(),
            said.append,
            until=lambda: len(page.shown) == 2,
        )
    assert page.waits == [str(lost)]
    assert said == [f"no frames: {lost}; waiting for them to come back", "frames are back"]
    # The tracker began anew: another size is no bad frame.
    assert page.shown[1][:2] in [("after", "found"), ("after", "not_found")]


def test_smoothing_follows_the_page(estimator: HandEstimator, hands: list[SourceFrame]) -> None:
    page, tracker = FakePage(), HandTracker(estimator)
    seen: dict[int, bool] = {}

    def until() -> bool:
        seen[len(page.shown)] = tracker.smoothing is not None
        page.smoothing = 4 <= len(page.shown) < 8
        return len(page.shown) == len(hands)

    with FrameStream(source(one_by_one(hands, page))) as stream:
        run_live(stream, tracker, page, LiveNumbers(), print, until=until)
    # Asked for with four frames shown, it is on from the fifth on, and off after the eighth.
    assert [k for k, on in seen.items() if on] == [5, 6, 7, 8]
    assert all(result.pose is not None for result in page.results)


def test_what_ends_the_source_ends_the_run(estimator: HandEstimator) -> None:
    def play() -> Generator[SourceFrame, None, None]:
        raise ValueError("no such thing")
        yield

    with (
        FrameStream(source(play)) as stream,
        pytest.raises(ValueError, match="no such thing"),
    ):
        run_live(stream, HandTracker(estimator), FakePage(), LiveNumbers(), print)


def test_numbers_look_back_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 3.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    numbers = LiveNumbers()
    assert (numbers.frames_per_s, numbers.latency_ms, numbers.estimate_ms) == (0, 0, 0)
    for k in range(300):
        numbers.time(k / 100, 1000.0 if k < 99 else 5.0, 2.0)
    assert numbers.frames_per_s == pytest.approx(100)
    assert (numbers.latency_ms, numbers.estimate_ms) == (5.0, 2.0)
    now = 10.0  # the camera is gone
    assert (numbers.frames_per_s, numbers.latency_ms, numbers.estimate_ms) == (0, 0, 0)


# ---- the page ----


def test_points_of_the_3d_view() -> None:
    depth = np.full((480, 640), 700, np.float32)
    depth[:, :320] = 2000  # a wall, outside the cube
    depth[100, 330:340] = np.nan
    middle = np.array([40.0, 20.0, 720.0])
    points, colours = points_around(depth, NYU, middle, 300.0)
    assert 1000 < len(points) <= 4000
    assert colours.shape == points.shape
    assert np.abs(points - middle).max() < 160
    assert (points[:, 2] == 700).all()
    pixels = project(points, NYU)[:, :2]
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-3)


@pytest.mark.parametrize("x", [-900.0, 900.0, 0.0])
def test_points_of_a_hand_outside_the_image_or_unseen(x: float) -> None:
    depth = np.zeros((480, 640), np.uint16)
    points, colours = points_around(depth, NYU, np.array([x, 0.0, 700.0]), 300.0)
    assert points.shape == colours.shape == (0, 3)


@contextmanager
def live_page(play: DepthSource, estimator: HandEstimator) -> Iterator[tuple[Any, list[str]]]:
    """The page of a source, served while the context lasts, and what is said meanwhile."""
    pytest.importorskip("viser", reason="the extra live is not installed")
    page = HandPage("dgpose hand live: test", [("model", "<default>")], port=0)
    ended, said = threading.Event(), list[str]()
    with FrameStream(play, retry_s=0.2) as stream:
        loop = threading.Thread(
            target=run_live,
            args=(stream, HandTracker(estimator), page, LiveNumbers(), said.append),
            kwargs={"until": ended.is_set},
        )
        loop.start()
        try:
            yield page, said
        finally:
            ended.set()
            loop.join(10)
            page.close()
            assert not loop.is_alive()


def test_the_page_in_a_browser(
    estimator: HandEstimator, hands: list[SourceFrame], tmp_path: Path
) -> None:
    browser_module = pytest.importorskip("headless_browser", reason="needs websockets (viser)")
    if browser_module.find_chromium() is None:
        pytest.skip("no Chromium (Debian: apt-get install chromium)")
    out, back = threading.Event(), threading.Event()

    def play() -> Generator[SourceFrame, None, None]:
        if out.is_set() and not back.is_set():
            raise CameraLostError("realsense: <No device connected>")
        for item in hands:
            if out.is_set() and not back.is_set():
                raise CameraLostError("realsense: <Frame didn't arrive>")
            yield item

    with (
        live_page(source(play, rate_hz=10.0), estimator) as (page, said),
        browser_module.HeadlessBrowser(page.url) as browser,
    ):
        state = "(document.querySelector('#state') || {}).innerText || ''"
        browser.wait_for(f"({state}).startsWith('following the hand')")
        depth = "([...document.images].find(i => i.naturalWidth === 640) || {src: ''}).src"
        browser.wait_for(depth)
        browser.wait_for("/[1-9]\\d*\\s+with a hand/.test(document.body.innerText)")
        text = browser.text()
        assert re.search(r"\d+\s+frames/s", text)
        assert re.search(r"[\d.]+ ms\s+depth to joints", text)
        assert re.search(r"[\d.]+ ms\s+arrival to page", text)
        assert "<default>" in text  # escaped

        # The depth picture changes, and shows the skeleton.
        address = browser.evaluate(depth)
        browser.wait_for(f"{depth} !== '{address}' && {depth}")
        browser.evaluate(browser_module.CLOSE_NOTES)
        end = time.monotonic() + 60
        while True:  # the 3D view fades in, and some fingers may be hidden at a moment
            png = browser.picture()
            picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            seen = [
                sum(has_colour(part, color) for color in FINGER_COLORS.values())
                for part in (picture[:, :660], picture[:, 670:])
            ]
            if min(seen) >= 4:
                break
            assert time.monotonic() < end, f"colours of fingers in the panel and in 3D: {seen}"
        (tmp_path / "live.png").write_bytes(png)

        # The camera is pulled out, and plugged in again.
        out.set()
        browser.wait_for(f"({state}).startsWith('no frames')")
        assert "realsense: <" in browser.evaluate(state)
        assert "waiting" in browser.evaluate(state)
        browser.wait_for(depth)  # the last picture stays
        back.set()
        browser.wait_for(f"({state}).startsWith('following the hand')")
        assert said[-1] == "frames are back"

        # The boxes work.
        assert not page.smoothing
        boxes = "[...document.querySelectorAll('input[type=checkbox]')]"
        browser.evaluate(f"{boxes}.at(-2).click()")  # the ones before are viser's own
        eventually(lambda: page.smoothing)

        # Nothing came from another machine.
        web = [url for url in browser.loaded() if re.match(r"(http|ws)s?:", url)]
        assert f"{page.url}/" in web
        assert all(re.match(rf"(http|ws)://{page.url[7:]}\b", url) for url in web), web
        assert browser.errors() == []


def has_colour(picture: Any, color: tuple[int, int, int]) -> bool:
    """Whether some pixels have about this hue and are as strong in it as a line would be."""
    hsv = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2HSV).astype(int)
    hue, saturation, _ = cv2.cvtColor(np.array([[color]], np.uint8), cv2.COLOR_RGB2HSV)[0, 0]
    away = np.abs(hsv[..., 0] - int(hue))
    near = np.minimum(away, 180 - away) <= 6
    return int((near & (hsv[..., 1] > 0.6 * saturation) & (hsv[..., 2] > 90)).sum()) >= 15


# ---- the command ----


def refused(port: int) -> bool:
    """Whether nothing listens at another address of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.2", port)) != 0


def test_the_command_until_ctrl_c() -> None:
    pytest.importorskip("viser", reason="the extra live is not installed")
    command = [sys.executable, "-m", "dgpose", "hand", "live", "--source", "synthetic:3"]
    process = subprocess.Popen(
        [*command, "--no-open", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+) shows synthetic:3; Ctrl-C ends\n", line)
        assert found, line
        port = int(found[1])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(15).startswith(b"HTTP/1.1 200")
        if sys.platform == "linux":
            assert refused(port)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert re.search(r"frames: \d+ \(\d+ with a hand, \d+ without, 0 bad\), \d+ dropped", output)
    assert errors == ""


def live(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["hand", "live", "--no-open", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr


def test_wrong_options(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "synthetic:SEED" in live("--source", "synthetic:x")
    assert "folder: must name a folder" in live("--source", "folder:nowhere")
    assert "camera must be one of" in live("--source", "synthetic:1", "--camera", "webcam")
    assert "no such file" in live("--source", "synthetic:1", "--model", "none.safetensors")
    assert "--source" in live()
    assert "65535" in live("--source", "synthetic:1", "--port", 70000)
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    assert "pip install 'dgpose-ext[realsense]'" in live("--source", "realsense")


def test_a_host_that_is_not_ours() -> None:
    pytest.importorskip("viser", reason="the extra live is not installed")
    arguments = ("--source", "synthetic:1", "--engine", "torch", "--host")
    assert "host must be an address of this machine" in live(*arguments, "192.0.2.7")
    assert "host must be an address of this machine" in live(*arguments, "no.such.host.invalid")


def test_viser_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    message = live("--source", "synthetic:1", "--engine", "torch")
    assert "needs viser, which is not installed: pip install 'dgpose-ext[live]'" in message
