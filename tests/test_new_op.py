"""tools/new_op.py writes a whole op: files, style, and every test of test_every_op.py."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dgpose_ext import _loader

ROOT = Path(__file__).resolve().parents[1]
PLAIN, GRADIENT = "render/plain_scale", "newfamily/a_name_with_gradients_of_32_char"
OPS = (PLAIN, GRADIENT)

FILES = (
    "csrc/{family}/{op}.h",
    "csrc/{family}/{op}_cpu.cpp",
    "csrc/{family}/{op}_simd.inl",
    "csrc/{family}/{op}_cuda.cu",
    "csrc/{family}/{op}_op.h",
    "csrc/{family}/{op}_op.cpp",
    "csrc/{family}/{op}_op_cuda.cpp",
    "dgpose_ext/ops/{family}/__init__.py",
    "dgpose_ext/ops/{family}/{op}.py",
    "dgpose_ext/reference/{family}/__init__.py",
    "dgpose_ext/reference/{family}/{op}.py",
    "dgpose_ext/triton/{family}/__init__.py",
    "dgpose_ext/triton/{family}/{op}.py",
    "dgpose_ext/testing/{op}.py",
    "tests/test_{op}.py",
    "tests/cpp/{op}_test.cpp",
    "benchmarks/bench_{op}.py",
    "docs/ops/{op}.md",
)


def run(
    folder: Path, *command: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True
    )


def new_op(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "tools/new_op.py", *arguments)


def write_ops(folder: Path) -> None:
    for arguments in ((PLAIN,), (GRADIENT, "--gradient")):
        result = new_op(folder, *arguments)
        assert result.returncode == 0, result.stderr


def project_files() -> list[str]:
    """What git holds or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("needs a git checkout, to copy what belongs to the project")
    return listing.stdout.splitlines()


def copy(paths: Sequence[str], folder: Path) -> Path:
    for path in paths:
        if (ROOT / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
    return folder


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with two new ops."""
    folder = copy(project_files(), tmp_path_factory.mktemp("house"))
    write_ops(folder)
    return folder


@pytest.mark.parametrize("name", OPS)
def test_writes_all_files(house: Path, name: str) -> None:
    family, op = name.split("/")
    for template in FILES:
        path = house / template.format(family=family, op=op)
        assert path.is_file(), path
        text = path.read_text()
        assert "{{" not in text, path
        assert "{%" not in text, path
        assert path.name == "__init__.py" or op in text, path
    public = (house / "dgpose_ext/__init__.py").read_text()
    assert f"from dgpose_ext.ops.{family}.{op} import" in public
    assert f'"{op}"' in public
    assert f"`{op}`" in (house / "CHANGELOG.md").read_text()


def test_gradient_is_written_where_asked_for(house: Path) -> None:
    for name, wanted in ((PLAIN, False), (GRADIENT, True)):
        family, op = name.split("/")
        for path in (f"csrc/{family}/{op}_op.h", f"dgpose_ext/ops/{family}/{op}.py"):
            assert (f"{op}_backward" in (house / path).read_text()) is wanted


def test_style(house: Path) -> None:
    new = [t.format(family=f, op=o) for f, _, o in (n.partition("/") for n in OPS) for t in FILES]
    python = [path for path in new if path.endswith(".py")] + ["dgpose_ext/__init__.py"]
    cpp = [path for path in new if path.endswith((".h", ".cpp", ".inl", ".cu"))]
    beside = str(Path(sys.executable).parent)
    for command in (
        ["ruff", "check", "--no-cache", *python],
        ["ruff", "format", "--no-cache", "--check", *python],
        ["clang-format", "--dry-run", "--Werror", *cpp],
    ):
        program = shutil.which(command[0], path=beside) or shutil.which(command[0])
        if program is None:
            pytest.skip(f"{command[0]} is not installed")
        result = subprocess.run([program, *command[1:]], cwd=house, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scale", "the op must be given as FAMILY/NAME, got 'scale'"),
        ("render/Scale", "NAME must be lower_case_words"),
        ("render/class", "NAME must be lower_case_words"),
        ("render/a/b", "NAME must be lower_case_words"),
        ("../scale", "FAMILY must be lower_case_words"),
        ("render/" + "x" * 33, "of at most 32 characters"),
        ("core/scale", "FAMILY must not be one of core, torch"),
        ("render/scale_cpu", "NAME must not end in one of _cpu"),
        ("crop/capsule_depth", "capsule_depth would meet what is there already: benchmarks/bench"),
        ("render/hand_net", "hand_net would meet what is there already"),
        ("render/train_hand", "already: tests/models/test_train_hand.py"),
        ("render/crop_to_uvd", "already: dgpose_ext.crop_to_uvd"),
        (PLAIN, "plain_scale would meet what is there already"),
    ],
)
def test_refuses_with_one_line(house: Path, name: str, message: str) -> None:
    before = sorted(house.rglob("*"))
    result = new_op(house, name)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert sorted(house.rglob("*")) == before


@pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())
def test_builds_and_passes_the_tests_of_every_op(tmp_path: Path) -> None:
    """In a house with no op but the new ones: quick to build, and nothing central lists an op."""
    shared = ("csrc/core/", "csrc/torch/", "tools/", "tests/conftest.py", "tests/triton_worker.py")
    single = (
        "dgpose_ext/triton/__init__.py",
        "dgpose_ext/triton/_launch.py",
        "dgpose_ext/ops/__init__.py",
        "dgpose_ext/reference/__init__.py",
        "dgpose_ext/testing/__init__.py",
        "tests/test_every_op.py",
        "tests/test_cuda.py",
        "tests/test_triton.py",
    )
    paths = [
        path
        for path in project_files()
        if path.startswith(shared)
        or path in single
        or path.count("/") == 0
        or (path.startswith("dgpose_ext/") and path.count("/") == 1)
    ]
    house = copy(paths, tmp_path)
    (house / "dgpose_ext/__init__.py").write_text(
        '"""Only the new ops."""\n\n__version__ = "0"\n\n__all__ = []\n'
    )
    write_ops(house)
    own = [f"tests/test_{name.partition('/')[2]}.py" for name in OPS]
    core = tmp_path / "build/core"
    env = os.environ | {
        "DGPOSE_BUILD_DIR": str(core),
        "DGPOSE_CUDA": "0",  # the kernels are built for the emulation instead
        # Debug: half the time of an optimised build.
        "CMAKE_ARGS": "-DCMAKE_BUILD_TYPE=Debug -DDGPOSE_BUILD_CUDA_EMULATION=ON",
    }
    build = run(house, "setup.py", "-q", "build_ext", "--inplace", env=env)
    assert build.returncode == 0, build.stdout[-4000:] + build.stderr[-4000:]
    emulation = ("cmake", "--build", str(core), "--target", "dgpose_cuda_emulation")
    subprocess.run(emulation, check=True, stdout=subprocess.PIPE)
    env["DGPOSE_CUDA_EMULATION"] = str(next(house.rglob("libdgpose_cuda_emulation.so")))
    pytest_here = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    kernels = ["tests/test_cuda.py", "-k", "emulated or interpreter or test_compiles[90]"]
    if importlib.util.find_spec("triton"):
        kernels.insert(1, "tests/test_triton.py")
    for chosen in (["tests/test_every_op.py", *own], kernels):
        tests = run(house, *pytest_here, *chosen, env=env)
        assert tests.returncode == 0, tests.stdout[-4000:]
        assert " skipped" not in tests.stdout
    for name in OPS:
        assert name.partition("/")[2] in run(house, "-m", "dgpose_ext.info").stdout
