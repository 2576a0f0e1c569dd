"""The harness of the benchmarks, and `dgpose bench` around it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.cli.bench import _harness
from dgpose_ext._backend import missing

harness = _harness()

TINY = """
from benchmarks.harness import Case

def ours():
    return lambda: sum(range(100))

def absent():
    import no_such_package

def broken():
    raise RuntimeError("it does not run")

CASES = [
    Case(
        "tiny", "sums", 10, 1,
        {"ours": ours, "floor": lambda: int, "absent peer": absent, "broken peer": broken},
        "ours", "floor", repeats=1,
    ),
    Case("ours fails", "sums", 1, 1, {"ours": broken}, "ours"),
]
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A benchmark module of its own name, on the import path."""
    (tmp_path / "bench_tiny.py").write_text(TINY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bench_tiny", raising=False)
    importlib.invalidate_caches()
    return "bench_tiny"


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes: ours takes 2 ms, everything else 1 ms; kornia is not installed."""

    def run_contender(module: str, case: Any, contender: str) -> list[float]:
        if "kornia" in contender:
            raise harness.CannotRunError(f"not installed: kornia ({harness.INSTALL_PEERS})")
        return [0.002 if contender == case.ours else 0.001] * 3

    monkeypatch.setattr(harness, "run_contender", run_contender)


def bench(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_every_contender_runs_in_its_own_process(tiny: str) -> None:
    """A peer that is missing or fails is listed with the reason; ours must run."""
    case, failing = harness.cases_of(tiny)
    result = harness.run_case(tiny, case)
    assert set(result["contenders"]) == {"ours", "floor"}
    assert 0 < result["contenders"]["floor"]["median_s"] < result["contenders"]["ours"]["median_s"]
    assert result["absent"] == {
        "absent peer": "not installed: no_such_package (pip install 'dgpose-ext[bench]')",
        "broken peer": "failed: RuntimeError: it does not run",
    }
    assert "absent peer  not installed" in harness.table(result)
    with pytest.raises(harness.CannotRunError, match=r"^ours fails: ours failed: .*does not run$"):
        harness.run_case(tiny, failing)


def test_a_contender_that_hangs_is_stopped(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "TIMEOUT_S", 0.01)
    with pytest.raises(harness.CannotRunError, match=r"^stopped after 0\.01 s$"):
        harness.run_contender(tiny, harness.cases_of(tiny)[0], "ours")


def test_every_backend_is_timed_or_said_to_be_missing(
    instant: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = harness.cases_of(harness.modules()["body_mask"])[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert harness.why_absent("copy", "body_mask") == ""
    for backend in harness.GPU_BACKENDS:
        assert harness.why_absent(backend, "body_mask") == missing(backend, "body_mask")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = harness.run_case("", case)
    assert result["absent"] == {"dgpose_ext, cuda": "no GPU", "dgpose_ext, triton": "no GPU"}

    monkeypatch.setattr(
        harness, "why_absent", lambda backend, _: "not built" if backend == "cuda" else ""
    )
    result = harness.run_case("", case)
    assert result["absent"] == {"dgpose_ext, cuda": "not built"}
    assert result["contenders"]["dgpose_ext, triton"]["limit"] == harness.GPU_LIMIT
    assert harness.GPU_LIMIT in result["contenders"]
    assert "limit" not in result["contenders"]["dgpose_ext"]


def test_a_gpu_contender_moves_the_tensors_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    x = torch.ones(3)
    case = harness.Case(
        "x", "calls", 1, 1, {}, "ours", call=lambda: (seen.update, {"x": x, "size": (2, 2)})
    )
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor + 1)
    found = harness.on_other_backends(case)
    assert set(found) == {"ours, cuda", "ours, triton", "ours, reference"}  # no traffic, no limit
    backend, make = found["ours, triton"]
    make()()
    assert backend == "triton"
    assert seen["x"].tolist() == [2, 2, 2]
    assert (seen["size"], seen["backend"]) == ((2, 2), "triton")
    found["ours, reference"][1]()()
    assert seen["x"] is x
    assert seen["backend"] == "reference"


def test_calls_that_are_queued_are_waited_for() -> None:
    """One wait a round: what N calls have queued is part of their time."""
    log: list[str] = []
    times = harness.seconds_per_call(lambda: log.append("call"), lambda: log.append("wait"))
    assert len(times) >= 3
    assert log[-1] == "wait"
    assert log.count("wait") == 2 + len(times)


def test_saves_json_and_prints_a_table(instant: None, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    result = bench("gaussian_heatmap", "--repeats", "1", "--out", out)
    assert [path.name for path in out.iterdir()] == ["gaussian_heatmap.json"]
    document = json.loads((out / "gaussian_heatmap.json").read_text())
    assert document["schema"] == harness.SCHEMA
    assert document["environment"]["versions"]["torch"] == torch.__version__
    full = document["results"][0]
    assert full["contenders"]["dgpose_ext"]["median_s"] == 0.002
    assert full["contenders"]["dgpose_ext"]["rounds"] == 3
    assert full["absent"]["kornia (normalised)"].startswith("not installed: kornia")
    words = " ".join(result.stdout.split())
    assert "gaussian_heatmap: full maps, 2 thread(s)" in words
    assert "not installed: kornia (pip install 'dgpose-ext[bench]')" in words
    assert "(limit)" in words
    assert f"saved {out / 'gaussian_heatmap.json'}" in result.stdout.replace("\n", "")


def test_several_ops_and_a_file_of_a_given_name(instant: None, tmp_path: Path) -> None:
    bench("part_boxes", "body_mask", "--out", tmp_path / "both")
    assert sorted(p.name for p in (tmp_path / "both").iterdir()) == [
        "body_mask.json",
        "part_boxes.json",
    ]
    bench("part_boxes", "--out", tmp_path / "mine.json")
    assert json.loads((tmp_path / "mine.json").read_text())["results"]


def test_list_names_every_op() -> None:
    listed = bench("--list").stdout.splitlines()
    assert [line for line in listed if not line.startswith(" ")] == list(harness.modules())
    assert bench("--list", "part_boxes").stdout.splitlines()[0] == "part_boxes"


def test_errors_are_one_line(
    instant: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*arguments: object) -> str:
        lines: list[str] = bench(*arguments, code=2).stderr.strip().splitlines()
        assert len(lines) == 1
        return lines[0]

    assert error("boxes").startswith("error: OP must be one of body_mask, ")
    assert error("boxes").endswith("got 'boxes'")
    file = tmp_path / "a.json"
    assert "out must be a folder" in error("part_boxes", "body_mask", "--out", file)
    (tmp_path / "a file").write_text("")
    assert "a file" in error("part_boxes", "--out", tmp_path / "a file")

    def run_contender(*_: Any) -> list[float]:
        raise harness.CannotRunError("failed: RuntimeError: no compiled core")

    monkeypatch.setattr(harness, "run_contender", run_contender)
    assert error("part_boxes").endswith("dgpose_ext failed: RuntimeError: no compiled core")
