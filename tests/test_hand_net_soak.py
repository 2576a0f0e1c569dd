"""The soak of HandNet, short, and what it must notice."""

from __future__ import annotations

import importlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from dgpose.cli.bench import _harness
from dgpose_ext import _loader

pytestmark = [
    pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core() or "no core"),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc"),
]

_harness()  # puts the checkout on the path
tool = importlib.import_module("benchmarks.soak_hand_net")


@pytest.fixture(scope="module")
def prepared() -> tuple[Any, Any, list[Any]]:
    """The shipped model's network and engine, and a short cycle of frames."""
    network = next(n for n in tool.networks() if n.name == "model accurate")
    net = tool.hand_net(network, "float32")
    return net, network, tool.cycle(net, network, hands=5)


def test_eight_threads_agree_with_one(prepared: tuple[Any, Any, list[Any]]) -> None:
    net, network, samples = prepared
    assert [sample.reference_mm is None for sample in samples] == [True] * 2 + [False] * 5
    done: list[int] = []
    result = tool.soak(
        net, network, samples, frames=400, threads=8, check_every=9, progress=done.append
    )
    assert result["frames"] == 400
    assert result["checked_against_reference"] == 400 // 9
    assert result["worst_mm"] < 0.02
    assert result["different_from_one_thread"] == result["wrong"] == 0
    assert done == sorted(done)
    assert result["memory_mib"][-1][0] == 400


class Faulty:
    """An engine that is wrong in every 50th frame, by a millimetre."""

    precision = "float32"

    def __init__(self, net: Any) -> None:
        self.net, self.frames, self.lock = net, 0, threading.Lock()

    def run(self, *arguments: Any, **options: Any) -> Any:
        frame = self.net.run(*arguments, **options)
        with self.lock:
            self.frames += 1
            if self.frames % 50 == 0:
                frame.joints_mm[:] = frame.joints_mm + 1
        return frame


def test_wrong_frames_are_counted(prepared: tuple[Any, Any, list[Any]]) -> None:
    net, network, samples = prepared
    hands = samples[2:]
    result = tool.soak(Faulty(net), network, hands, frames=200, threads=2, check_every=1)
    assert result["different_from_one_thread"] == result["wrong"] == 4
    assert 1.5 < result["worst_mm"] < 2
    assert len([line for line in tool.failures(result) if "frames" in line]) == 2


def test_a_thread_that_fails_is_an_error(prepared: tuple[Any, Any, list[Any]]) -> None:
    net, network, samples = prepared

    class Broken(Faulty):
        def run(self, *arguments: Any, **options: Any) -> Any:
            raise RuntimeError("no frame")

    with pytest.raises(RuntimeError, match="no frame"):
        tool.soak(Broken(net), network, samples, frames=8, threads=2, check_every=1)


def test_growing_memory_is_noticed() -> None:
    flat = [(0, 100.0), (100, 140.0), (500, 140.5), (1000, 140.0)]
    assert tool.growth_mib(flat, 1000) == 0.5
    leak = [(i, 100 + i / 50) for i in range(0, 1001, 10)]
    assert tool.growth_mib(leak, 1000) == pytest.approx(18)
    result = {"different_from_one_thread": 0, "wrong": 0, "growth_mib": 18.0}
    assert tool.failures(result) == ["memory grew by 18.0 MiB"]


def test_command(
    prepared: tuple[Any, Any, list[Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tool, "hand_net", lambda network, precision: prepared[0])
    monkeypatch.setattr(tool, "cycle", lambda net, network: prepared[2])
    out = tmp_path / "soak.json"
    code = tool.main(["--frames", "60", "--threads", "2", "--check-every", "20", "--out", str(out)])
    text = capsys.readouterr()
    result = json.loads(out.read_text())["result"]
    assert code == bool(tool.failures(result))  # so short a run may grow
    assert "3 checked against the reference, 0 wrong" in text.out
    with pytest.raises(SystemExit):
        tool.main(["--frames", "0"])
