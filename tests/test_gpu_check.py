"""tools/gpu_check.sh where there is no GPU: what it says and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "tools/gpu_check.sh"


def check(*arguments: str, path: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), *arguments],
        env=os.environ | {"PYTHON": sys.executable, "PATH": path or os.environ["PATH"]} | env,
        capture_output=True,
        text=True,
    )


def test_says_what_is_missing_and_stops(tmp_path: Path) -> None:
    """On a PATH with nothing but dirname."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dirname").symlink_to("/usr/bin/dirname")
    result = check(path=str(tmp_path / "bin"), OUT=str(tmp_path / "out"), CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 2
    missing = [line.removeprefix("error: missing: ") for line in result.stderr.splitlines()]
    assert {"a GPU that torch sees", "nvcc", "cmake", "ninja", "compute-sanitizer"} <= set(missing)
    assert not (tmp_path / "out").exists()


def test_an_unknown_stage_is_refused() -> None:
    result = check("tests")
    assert result.returncode == 2
    assert result.stderr == (
        "error: a stage must be one of build, test, sanitize, bench, got 'tests'\n"
    )


def test_sanitize_needs_a_gpu(tmp_path: Path) -> None:
    result = check("--cpu", "sanitize", OUT=str(tmp_path / "out"))
    assert result.returncode == 2
    assert "a GPU: sanitize does not go with --cpu" in result.stderr


def test_a_failing_stage_fails_and_leaves_its_log(tmp_path: Path) -> None:
    """Not even setup.py is in a copy of the script."""
    copy = tmp_path / "tools/gpu_check.sh"
    copy.parent.mkdir()
    copy.write_text(SCRIPT.read_text())
    if subprocess.run(["bash", "-c", "command -v cmake ninja c++"], capture_output=True).returncode:
        pytest.skip("cmake, ninja or a compiler is not installed")
    result = subprocess.run(
        ["bash", str(copy), "--cpu", "build"],
        env=os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path / "out")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "setup.py" in (tmp_path / "out/build.log").read_text()
    assert torch.__version__ in (tmp_path / "out/machine.txt").read_text()
