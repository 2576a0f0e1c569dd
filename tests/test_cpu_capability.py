"""Every instruction set computes the same, is chosen as asked, and stays in its own region."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dgpose_ext import _loader
from dgpose_ext.testing import OpSpec, discover, tensors

if _loader.core is None:
    pytest.skip(_loader.why_no_core(), allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
LEVELS = ("scalar", "avx2", "avx512")
DETECTED = _loader.core.detected_cpu_capability()
SPECS = discover()

#: Runs in a process of its own: all samples of all ops, saved under (op, dtype, sample).
RUN_EVERY_OP = """
import sys, torch
from dgpose_ext import _loader
from dgpose_ext.testing import discover, tensors

torch.set_num_threads(2)
results = {
    f"{spec.name} {dtype} {index}": tensors(spec.function(**call, backend="cpu"))
    for spec in discover()
    for dtype in spec.dtypes
    for index, call in enumerate(spec.samples(dtype))
}
torch.save((_loader.core.cpu_capability(), results), sys.argv[1])
"""


def python(*arguments: str, capability: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "DGPOSE_CPU_CAPABILITY"}
    if capability is not None:
        env["DGPOSE_CPU_CAPABILITY"] = capability
    return subprocess.run(
        [sys.executable, *arguments], env=env, cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture(scope="module", params=LEVELS)
def level(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, list[Tensor]]]:
    """An instruction set, and the results of all ops computed with it."""
    name: str = request.param
    if LEVELS.index(name) > LEVELS.index(DETECTED):
        pytest.skip(f"this processor has {DETECTED} and cannot run {name}")
    file = tmp_path_factory.mktemp(name) / "results.pt"
    run = python("-c", RUN_EVERY_OP, str(file), capability=name)
    assert run.returncode == 0, run.stderr
    used, results = torch.load(file)
    assert used == name
    return name, results


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_same_results(level: tuple[str, dict[str, list[Tensor]]], spec: OpSpec) -> None:
    rtol, atol = spec.isa_tolerance or (0.0, 0.0)
    for dtype in spec.dtypes:
        for index, call in enumerate(spec.samples(dtype)):
            got = level[1][f"{spec.name} {dtype} {index}"]
            want = tensors(spec.function(**call, backend="cpu"))
            assert len(got) == len(want)
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True)


def test_best_level_is_the_default() -> None:
    code = "from dgpose_ext import _loader; print(_loader.core.cpu_capability())"
    for capability in (None, ""):
        assert python("-c", code, capability=capability).stdout.strip() == DETECTED


@pytest.mark.parametrize(
    ("capability", "message"),
    [
        ("sse9", "DGPOSE_CPU_CAPABILITY must be scalar, avx2 or avx512, got sse9"),
        ("AVX2", "DGPOSE_CPU_CAPABILITY must be scalar, avx2 or avx512, got AVX2"),
        pytest.param(
            "avx512",
            "DGPOSE_CPU_CAPABILITY=avx512 asks for more than this processor has",
            marks=pytest.mark.skipif(DETECTED == "avx512", reason="this processor has avx512"),
        ),
    ],
)
def test_wrong_level_is_an_error_at_import(capability: str, message: str) -> None:
    """Early and once: a kernel that met it inside its threads could only end the process."""
    result = python("-c", "import dgpose_ext", capability=capability)
    assert result.returncode == 1
    assert message in result.stderr.splitlines()[-1]


def symbols_with_vectors(archive: Path) -> Counter[str]:
    """Functions of an archive that use AVX registers (ymm, zmm), and in how many instructions."""
    listing = subprocess.run(
        ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(archive)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found: Counter[str] = Counter()
    name = ""
    for line in listing.splitlines():
        if heading := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            name = heading[1]
        elif re.search(r"%[yz]mm", line):
            found[name] += 1
    return found


def test_no_instruction_set_leaks() -> None:
    """Code outside the regions avx2 and avx512 must run on every processor."""
    build = Path(
        os.environ.get("DGPOSE_BUILD_DIR", ROOT / "build" / str(sys.implementation.cache_tag))
    )
    archive = build / "libdgpose_kernels.a"
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    if not archive.is_file():
        pytest.skip("no build folder: the core was installed as a wheel")
    found = symbols_with_vectors(archive)
    if DETECTED != "scalar":
        assert any("avx2::" in name for name in found), "the kernels hold no AVX2 code at all"
        assert any("avx512::" in name for name in found), "the kernels hold no AVX-512 code at all"
    leaked = [name for name in found if "avx2::" not in name and "avx512::" not in name]
    assert not leaked
