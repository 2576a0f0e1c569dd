"""benchmarks/gpu.py, tried on the CPU: every case of every op in a small batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.harness import CannotRunError, modules
from dgpose_ext import _loader
from dgpose_ext.testing import discover

if _loader.core is None:
    pytest.skip(_loader.why_no_core(), allow_module_level=True)

CASES = [
    pytest.param(op, case, id=f"{op}: {case.name}")
    for op, module in modules().items()
    for case in gpu.gpu_cases(module)
]


def test_every_op_with_a_cuda_kernel_has_a_case() -> None:
    with_cases = {op for op, module in modules().items() if gpu.gpu_cases(module)}
    kernels = {spec.name for spec in discover() if "cuda" in spec.devices}
    assert with_cases == kernels | {"hand_net"}  # which is a class


@pytest.mark.parametrize(("op", "case"), CASES)
def test_every_case_runs(op: str, case: gpu.GpuCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "WARM_UP", 0)
    result = gpu.run_case(case, "cpu", batch=1, rounds=2, compiled=False)
    assert all(why.startswith("not installed: ") for why in result["absent"].values())
    peers = {name for name in case.peers if not name.endswith("torch.compile")}
    assert {*result["contenders"], *result["absent"]} == {
        "dgpose_ext, cpu", "dgpose_ext reference (torch)", gpu.LIMIT, *peers
    }  # fmt: skip
    function, arguments = case.call(1)
    assert function.__name__ == op
    results = function(**arguments)
    results = (results,) if isinstance(results, torch.Tensor) else results
    written = sum(t.numel() * t.element_size() for t in results)
    assert written <= result["traffic_bytes"]
    assert result["share_of_copy"]["dgpose_ext, cpu"] > 0


def case(**changes: Any) -> gpu.GpuCase:
    def double(x: torch.Tensor, *, backend: str) -> torch.Tensor:
        if backend not in ("cpu", "reference"):
            raise RuntimeError(f"no {backend}")
        return 2 * x

    def call(batch: int) -> tuple[Any, dict[str, Any]]:
        return double, {"x": torch.ones(batch, 4).expand(batch, 4)}

    return gpu.GpuCase(
        **{"name": "tiny", "unit": "rows", "batch": 3, "call": call, "traffic": 32} | changes
    )


def test_peers_share_the_arguments_and_may_be_missing() -> None:
    seen = []

    def works(arguments: dict[str, Any]) -> gpu.Call:
        return lambda: seen.append(arguments["x"].shape)

    def absent(arguments: dict[str, Any]) -> gpu.Call:
        import no_such_package

        return no_such_package.run

    def fails(arguments: dict[str, Any]) -> gpu.Call:
        raise ValueError("not this\nway")

    peers = {"works": works, "absent": absent, "fails": fails}
    result = gpu.run_case(case(peers=peers), "cpu", rounds=3, compiled=False)
    assert set(result["contenders"]) == {
        "dgpose_ext, cpu", "dgpose_ext reference (torch)", "works", gpu.LIMIT
    }  # fmt: skip
    assert result["absent"] == {
        "absent": "not installed: no_such_package",
        "fails": "failed: ValueError: not this",
    }
    assert set(seen) == {(3, 4)}
    assert result["contenders"]["works"]["rounds"] == 3
    assert (result["work"], result["traffic_bytes"]) == (3, 96)


def test_gradients_are_timed_with_the_forward() -> None:
    function, arguments = case().call(2)
    backward = gpu.ours(case(differentiable=("x",)), function, arguments, "cpu")
    (gradient,) = backward()
    assert gradient.shape == (2, 4)
    assert not arguments["x"].requires_grad


def test_ours_must_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: torch.Tensor, *, backend: str) -> torch.Tensor:
        raise RuntimeError("it does not")

    failing = case(call=lambda batch: (broken, {"x": torch.ones(batch)}))
    with pytest.raises(CannotRunError, match="tiny: dgpose_ext, cpu failed: RuntimeError: it does"):
        gpu.run_case(failing, "cpu", rounds=2)


def test_writes_one_file_an_op(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", "cpu", "--batch", "1", "--rounds", "2", "--no-compile"]
    assert gpu.main(["disk_heatmap", *options, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name == "gpu_disk_heatmap.json"
    document = json.loads(path.read_text())
    assert document["environment"]["device"] == "cpu"
    assert document["environment"]["versions"]["torch"] == torch.__version__
    (result,) = document["results"]
    assert result["share_of_copy"]["dgpose_ext, cpu"] > 0
    assert "share of the copy (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["boxes"], "OP must be one of body_mask, "), ([], "torch finds no GPU")],
)
def test_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as error:
        gpu.main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
