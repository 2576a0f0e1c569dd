"""tools/compile_cuda.py: what it reads of ptxas, when it complains, and that kernels compile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import compile_cuda  # noqa: E402
from compile_cuda import Usage  # noqa: E402

REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6dgpose7forwardIfEEvPT_' for 'sm_90'
ptxas info    : Function properties for _ZN6dgpose7forwardIfEEvPT_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 39 registers, used 1 barriers, 2368 bytes smem
ptxas info    : Compiling entry function '_ZN6dgpose8backwardIdEEvPT_' for 'sm_90'
ptxas info    : Function properties for _ZN6dgpose8backwardIdEEvPT_
    40 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 96 registers, used 0 barriers
"""


def test_reads_ptxas() -> None:
    usage = compile_cuda.parse(REPORT)
    assert list(usage.values()) == [Usage(39, 0, 0, 2368), Usage(96, 40, 40, 0)]
    if shutil.which("c++filt"):
        assert compile_cuda.readable(list(usage)) == ["forward<float>", "backward<double>"]


def test_complains_of_growth_and_of_new_kernels() -> None:
    table = {"a_cuda.cu": {"k": {"90": Usage(40, 0, 0, 1024)}, "new": {"90": Usage(1, 0, 0, 0)}}}
    budget = {"a_cuda.cu": {"k": {"90": Usage(40, 0, 0, 1024)}}}
    assert compile_cuda.compare(table, budget) == ["a_cuda.cu: new has no budget"]
    budget["a_cuda.cu"] |= {"k": {"90": Usage(39, 0, 0, 2048)}, "new": table["a_cuda.cu"]["new"]}
    assert compile_cuda.compare(table, budget) == ["a_cuda.cu: k on sm_90: registers 40, budget 39"]
    assert json.loads(compile_cuda.as_json(budget)) == json.loads(json.dumps(budget))


def test_every_kernel_has_a_budget() -> None:
    budget = json.loads(compile_cuda.BUDGET.read_text())
    assert set(budget) == {path.name for path in ROOT.glob("csrc/*/*_cuda.cu")}
    for kernels in budget.values():
        for usages in kernels.values():
            assert set(usages) == set(compile_cuda.ARCHITECTURES)


def test_compiles_a_file(tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    source = tmp_path / "two_cuda.cu"
    source.write_text("__global__ void twice(float* x) { x[threadIdx.x] *= 2; }\n")
    usage = compile_cuda.compile_file(nvcc, source, "90", tmp_path)
    assert list(usage) == ["twice"]
    assert usage["twice"].spill_bytes == 0
    assert (tmp_path / "two_cuda.sm_90.cubin").stat().st_size > 0
    source.write_text("__global__ void twice(float* x) { x[ }\n")
    with pytest.raises(RuntimeError, match=r"two_cuda\.cu for sm_90"):
        compile_cuda.compile_file(nvcc, source, "90", tmp_path)


def test_without_nvcc_it_says_so(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "tools/compile_cuda.py"],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.startswith("error: nvcc is not on PATH")
