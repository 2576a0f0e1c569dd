"""What `make wheel-check` runs where the wheel, torch and numpy are all that is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import torch

import dgpose
import dgpose_ext
from dgpose_ext import _loader
from dgpose_ext.testing import discover
from dgpose_ext.testing.capsule_depth import hand_scene

EXTRAS = ("cv2", "lightning_fabric", "matplotlib", "rich", "safetensors", "tensorboard", "typer")


def installed(package: str) -> bool:
    """Whether pip installed a distribution that brings this package."""
    return package in metadata.packages_distributions()


def main() -> None:
    """Raises AssertionError where the wheel does not hold up."""
    here = Path(dgpose_ext.__file__)
    assert "site-packages" in here.parts, f"{here} is not the installed wheel"
    assert not [p for p in EXTRAS if installed(p)], "the environment is not clean"
    assert _loader.core is not None, _loader.why_no_core()
    assert _loader.core.build_info()["version"] == metadata.version("dgpose-ext")

    depth, part = dgpose_ext.capsule_depth(**hand_scene(2), backend="cpu")
    hit = part >= 0
    assert hit.any()
    assert (depth[hit] > 500).all()
    crops = dgpose_ext.depth_crop(
        depth, torch.tensor([[63.5, 63.5, 700.0]] * 2), (358.0, 358.0, 63.5, 63.5), 250.0, size=32
    )
    assert crops.shape == (2, 1, 32, 32)
    assert (crops < 1).any()
    for spec in discover():
        spec.function(**spec.samples(spec.dtypes[0])[0])

    info = subprocess.run(
        [sys.executable, "-m", "dgpose_ext.info"], check=True, capture_output=True, text=True
    ).stdout
    print(info)
    assert "compiled core:    loaded" in info

    # The benchmarks came along, and say which peer is missing.
    harness = import_module("dgpose.benchmarks.harness")
    module = harness.modules()["gaussian_heatmap"]
    case = harness.cases_of(module)[0]
    assert min(harness.run_contender(module, case, case.ours)) > 0
    missing = ""
    try:
        harness.run_contender(module, case, "kornia (normalised)")
    except harness.CannotRunError as error:
        missing = str(error)
    assert missing == "not installed: kornia (pip install 'dgpose-ext[bench]')", missing

    # The systems need an extra, and say which in one line.
    assert dgpose.__all__
    command = subprocess.run(
        [Path(sys.executable).parent / "dgpose", "--help"], capture_output=True, text=True
    )
    print(command.stderr, end="")
    assert command.returncode == 2
    assert command.stderr.startswith("error: dgpose needs ")
    assert "pip install 'dgpose-ext[systems]'" in command.stderr
    assert command.stderr.count("\n") == 1
    print("the wheel works with torch and numpy only")


if __name__ == "__main__":
    main()
