"""Triton kernels: equal to the reference (in the interpreter; on a GPU where there is one), and
compiled for GPUs that need not be there. Ops and kernels are found, not listed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from triton_worker import calls, covered, evaluate, python

import dgpose_ext
from dgpose_ext import _backend, _loader, info
from dgpose_ext.testing import OpSpec, discover

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
COVERED = covered()
every_triton_op = pytest.mark.parametrize("spec", COVERED, ids=lambda spec: spec.name)

Results = dict[str, "list[Tensor] | str"]


@pytest.fixture(scope="module", params=["interpreter", "cuda"])
def ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Results]:
    """Where the kernels ran, and the results of `calls`."""
    where: str = request.param
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device is available to torch")
    if where == "interpreter" and torch.cuda.is_available():
        pytest.skip("a CUDA device runs the same kernels")
    folder = tmp_path_factory.mktemp(where)
    device = "cpu" if where == "interpreter" else where
    worker = str(ROOT / "tests/triton_worker.py")
    python(worker, "run", device, str(folder / "results.pt"), interpret=where == "interpreter")
    return where, torch.load(folder / "results.pt")


@every_triton_op
def test_equals_reference(ran: tuple[str, Results], spec: OpSpec) -> None:
    where, results = ran
    named = calls(spec, thorough=where == "cuda")
    checked = set()
    for key, got in results.items():
        op, _, label = key.partition(" ")
        if op != spec.name:
            continue
        name = label.removeprefix("small tiles, ")
        call, dtype, gradient = named[name]
        assert isinstance(got, list), f"{key}: {got}"
        want = evaluate(spec, call, gradient, "reference")
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert a.dtype == b.dtype
            rtol, atol = tolerance(spec, dtype, a.dtype, gradient, where)

            def explain(message: str, key: str = key) -> str:
                return f"{key}: {message}"

            torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True, msg=explain)
        checked.add(name)
    assert checked == set(named)


def tolerance(
    spec: OpSpec, dtype: torch.dtype, result: torch.dtype, gradient: bool, where: str
) -> tuple[float, float]:
    if not result.is_floating_point or not spec.tolerance:
        return 0.0, 0.0
    if gradient:
        return (1e-4, 1e-4) if dtype == torch.float32 else (1e-9, 1e-9)
    if result == torch.bfloat16 and where == "interpreter":
        return 8e-3, 1e-7  # it does not round to bfloat16 but cuts
    return spec.tolerance.get(dtype, (0.0, 0.0))


def test_compiles_for_every_architecture(tmp_path: Path) -> None:
    worker, file = str(ROOT / "tests/triton_worker.py"), tmp_path / "cubins.json"
    architectures = (80, 90, 120)
    names = map(str, architectures)
    python(worker, "compile", str(file), *names, interpret=False, cache=tmp_path / "cache")
    report = json.loads(file.read_text())
    assert report["launching"] == [spec.name for spec in COVERED]
    compiled = {(cubin["kernel"], cubin["target"]) for cubin in report["cubins"]}
    assert compiled == {(kernel, sm) for kernel in report["kernels"] for sm in architectures}
    for cubin in report["cubins"]:
        assert cubin["is_elf"], cubin
        # Bit-identical results on every backend, and no change with Triton 3.10's other default.
        assert cubin["fused"] is False, cubin


def test_traces_without_graph_break(tmp_path: Path) -> None:
    worker = str(ROOT / "tests/triton_worker.py")
    python(worker, "trace", interpret=False, cache=tmp_path / "cache")


KEYPOINTS = torch.zeros((1, 2, 2))


def test_a_missing_gpu_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"not available\. No CUDA device .* TRITON_INTERPRET=1"):
        dgpose_ext.gaussian_heatmap(KEYPOINTS, (4, 4), 1.0, backend="triton")


def test_missing_triton_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "_HAS_TRITON", False)
    with pytest.raises(RuntimeError, match=r"not available\. triton is not installed"):
        dgpose_ext.gaussian_heatmap(KEYPOINTS, (4, 4), 1.0, backend="triton")


def test_tensors_on_the_cpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="'triton' needs tensors on a CUDA device, got cpu"):
        dgpose_ext.gaussian_heatmap(KEYPOINTS, (4, 4), 1.0, backend="triton")


def test_an_op_without_kernel_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    spec = next(s for s in discover() if s.name == "capsule_depth")
    with pytest.raises(RuntimeError, match=r"not available\. capsule_depth has no Triton kernel"):
        spec.function(**spec.samples(torch.float32)[0], backend="triton")


def test_triton_is_never_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DGPOSE_BACKEND", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    default = "cpu" if _loader.core is not None else "reference"
    assert _backend.choose(None, torch.device("cpu"), "gaussian_heatmap") == default


def test_a_wrong_environment_is_named_and_info_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGPOSE_BACKEND", "gpu")
    with pytest.raises(ValueError, match=r"DGPOSE_BACKEND must be one of cpu, .*, got 'gpu'"):
        dgpose_ext.gaussian_heatmap(KEYPOINTS, (4, 4), 1.0)
    info.main()
    assert info.collect()["DGPOSE_BACKEND"] == "gpu"


def test_info_lists_it_only_where_it_is() -> None:
    text = python("-m", "dgpose_ext.info", interpret=True)
    assert "Triton:           available" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert all("triton" in rows[spec.name] for spec in COVERED)
    assert "triton" not in rows["capsule_depth"]
