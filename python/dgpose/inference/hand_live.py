"""Hands from a stream, as it comes: the newest frame is estimated, older ones are dropped.

A thread reads the source into a slot of one frame (`FrameStream`); `run_live` takes the newest from
there, estimates it and shows it on a page. A frame that is bad, or a camera that is pulled out, is
a message, and the stream goes on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Protocol

import numpy as np

from dgpose._errors import one_line
from dgpose.data.depth_sources import CameraLostError, DepthSource, SourceFrame
from dgpose.inference.hand_run import HandResult, estimate
from dgpose.inference.hand_tracker import HandTracker
from dgpose.inference.one_euro import OneEuroConfig

__all__ = ["Arrival", "FrameStream", "LiveNumbers", "LivePage", "run_live"]

_RETRY_S = 1.0
_WINDOW_S = 2.0
_TAKE_S = 0.1


@dataclass(frozen=True, eq=False)
class Arrival:
    """A frame and its arrival.

    Attributes:
        frame: the frame.
        time_s: when it came, of `time.monotonic`.
        start: how many times the source had been started by then (a recording starts again at
            its end, a camera when it has come back).
    """

    frame: SourceFrame
    time_s: float
    start: int


class FrameStream:
    """Reads a source in a thread of its own and keeps its newest frame; use it as a context.

    A recording is played at its own pace, over and over. Where the source fails (a camera is pulled
    out, a folder is gone), `problem` says why, and it is tried again until it is back.

    Args:
        source: what is read.
        retry_s: pause before it is tried again.

    Attributes:
        source: as given.
        problem: why there are no frames now; empty while there are.
        dropped: frames that a newer one replaced before they were taken.
    """

    def __init__(self, source: DepthSource, *, retry_s: float = _RETRY_S) -> None:
        self.source = source
        self.problem = ""
        self.dropped = 0
        self._retry_s = retry_s
        self._newest: Arrival | None = None
        self._due_s = 0.0
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="frames", daemon=True)

    def __enter__(self) -> FrameStream:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop reading and release the camera."""
        self._ended.set()
        self._thread.join(timeout=5.0)  # a camera is waited for, but not for ever

    def take(self, timeout_s: float) -> Arrival | None:
        """The newest frame that was not taken yet; None: none came within the time.

        Raises:
            Exception: what ended the reading, other than a source that may come back.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._error, timeout_s)
            if self._error is not None:
                raise self._error
            arrival, self._newest = self._newest, None
            return arrival

    def _read(self) -> None:
        start = 0
        while not self._ended.is_set():
            start += 1
            try:
                empty = self._play(start)
            except (CameraLostError, OSError) as error:
                self.problem = one_line(error)
            except Exception as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            else:
                if not empty:
                    continue
                self.problem = f"{self.source.name} has no frames"
            self._ended.wait(self._retry_s)

    def _play(self, start: int) -> bool:
        """Read from the beginning to the end; returns whether there was no frame at all."""
        rate = self.source.rate_hz
        empty = True
        with closing(self.source.frames()) as frames:
            for frame in frames:
                if rate is not None:
                    self._ended.wait(self._due_s - time.monotonic())
                    self._due_s = max(self._due_s, time.monotonic()) + 1 / rate
                if self._ended.is_set():
                    return False
                empty = False
                with self._changed:
                    self.problem = ""
                    self.dropped += self._newest is not None
                    self._newest = Arrival(frame, time.monotonic(), start)
                    self._changed.notify_all()
        return empty


@dataclass
class LiveNumbers:
    """What happened so far, and how fast it goes.

    Attributes:
        found, not_found, bad_frame: frames estimated with and without a hand, and not at all.
        dropped: frames that came while another was estimated and shown.
    """

    found: int = 0
    not_found: int = 0
    bad_frame: int = 0
    dropped: int = 0
    _recent: deque[tuple[float, float, float]] = field(
        default_factory=lambda: deque(maxlen=1000), init=False, repr=False
    )

    def count(self, status: str) -> None:
        """Count one frame of this `HandResult.status`."""
        setattr(self, status, getattr(self, status) + 1)

    def time(self, done_s: float, latency_ms: float, estimate_ms: float) -> None:
        """Note one shown frame."""
        self._recent.append((done_s, latency_ms, estimate_ms))

    def _last_seconds(self) -> list[tuple[float, float, float]]:
        since = time.monotonic() - _WINDOW_S
        return [row for row in self._recent if row[0] >= since]

    @property
    def total(self) -> int:
        """Frames that were taken."""
        return self.found + self.not_found + self.bad_frame

    @property
    def frames_per_s(self) -> float:
        """Frames shown a second, over the last two seconds; 0 before there are two."""
        recent = self._last_seconds()
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(recent[-1][0] - recent[0][0], 1e-9)

    @property
    def latency_ms(self) -> float:
        """Median of the last two seconds: from a frame's arrival until it was sent to the page."""
        return self._median(1)

    @property
    def estimate_ms(self) -> float:
        """Median of the last two seconds: from a depth image to its joints."""
        return self._median(2)

    def _median(self, column: int) -> float:
        recent = self._last_seconds()
        return float(np.median([row[column] for row in recent])) if recent else 0.0


class LivePage(Protocol):
    """Where a stream is shown."""

    @property
    def smoothing(self) -> bool:
        """Whether the viewer wants smoothed joints."""

    def show(
        self, frame: SourceFrame, result: HandResult, numbers: LiveNumbers, tracking: bool
    ) -> None:
        """Show a frame and what became of it."""

    def wait(self, problem: str, numbers: LiveNumbers) -> None:
        """Say why there are no frames."""


def run_live(
    stream: FrameStream,
    tracker: HandTracker,
    page: LivePage,
    numbers: LiveNumbers,
    say: Callable[[str], None],
    *,
    smoothing: OneEuroConfig | None = None,
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Estimate and show the newest frames of a stream, until it is interrupted.

    Args:
        stream: an entered stream.
        tracker: estimates the frames.
        page: shows them.
        numbers: filled in.
        say: takes lines for the terminal: bad frames (one line for a row of equal ones, and for a
            frame of a recording that comes again), a source that is gone, or back.
        smoothing: parameters, where the page asks for smoothing.
        until: asked ten times a second or more; true ends it.

    Raises:
        Exception: what ended the reading of the source, other than a source that may come back.
    """
    smoothing = OneEuroConfig() if smoothing is None else smoothing
    lost, complaint, start = "", "", 0
    said: deque[str] = deque(maxlen=1000)
    while not until():
        arrival = stream.take(_TAKE_S)
        if arrival is None:
            if stream.problem and stream.problem != lost:
                lost = stream.problem
                say(f"no frames: {lost}; waiting for them to come back")
                page.wait(lost, numbers)
            continue
        if lost:
            lost = ""
            say("frames are back")
        if arrival.start != start:
            start = arrival.start
            tracker.reset()
        wanted = smoothing if page.smoothing else None
        if tracker.smoothing != wanted:
            tracker.smoothing = wanted
        result = estimate(partial(tracker, time_s=arrival.time_s), arrival.frame)
        numbers.count(result.status)
        numbers.dropped = stream.dropped
        line = f"bad frame {result.name}: {result.problem}"
        if result.pose is None and result.problem != complaint and line not in said:
            said.append(line)
            say(line)
        complaint = result.problem
        page.show(arrival.frame, result, numbers, tracker.tracking)
        if result.pose is not None:
            done = time.monotonic()
            spent = result.pose.timings["total"]
            numbers.time(done, 1000 * (done - arrival.time_s), spent)
