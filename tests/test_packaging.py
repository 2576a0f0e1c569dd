"""What is shipped: the files of sdist and wheel, one version, the stub of the compiled module."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import dgpose_ext
from dgpose_ext import _loader

ROOT = Path(__file__).resolve().parents[1]
needs_core = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())

#: Suffixes of csrc/ that the build reads.
CPP = (".h", ".cpp", ".inl", ".cu", ".cuh", ".md")


def project_files() -> set[str]:
    """What git holds or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("needs a git checkout, to know what belongs to the project")
    return {path for path in listing.stdout.splitlines() if (ROOT / path).is_file()}


def build(kind: str, folder: Path, out: Path) -> Path:
    """The sdist or wheel of the project in `folder`, without the core: seconds, no compiler."""
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    result = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        cwd=folder,
        env=os.environ | {"DGPOSE_BUILD_CORE": "0"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (archive,) = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of a copy of the project."""
    folder = tmp_path_factory.mktemp("project")
    for path in project_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes((ROOT / path).read_bytes())
    return build("sdist", folder, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the wheel that the sdist builds."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, unpacked)  # tarfile's filter= is missing in early 3.10 and 3.11
    (top,) = unpacked.iterdir()
    with zipfile.ZipFile(build("wheel", top, tmp_path_factory.mktemp("wheel"))) as archive:
        return set(archive.namelist())


def python_files() -> set[str]:
    """The files of both packages; `benchmarks` is `dgpose.benchmarks` in a wheel."""
    return {
        path
        for path in project_files()
        if path.startswith(("dgpose_ext/", "python/dgpose/"))
        or (path.startswith("benchmarks/") and path.endswith(".py"))
    }


def packages() -> set[str]:
    """The files of both packages, named as in a wheel."""
    return {
        f"dgpose/{path}" if path.startswith("benchmarks/") else path.removeprefix("python/")
        for path in python_files()
    }


def test_wheel_holds_both_packages_and_nothing_else(wheel: set[str]) -> None:
    assert {path for path in wheel if ".dist-info/" not in path} == packages()
    names = {path.partition(".dist-info/")[2] for path in wheel} - {""}
    assert {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"} <= names


def test_wheel_holds_types_and_weights(wheel: set[str]) -> None:
    assert {"dgpose_ext/py.typed", "dgpose_ext/_C.pyi", "dgpose/py.typed"} <= wheel
    assert [path for path in wheel if re.fullmatch(r"dgpose/weights/.*\.safetensors", path)]


def test_wheel_holds_the_benchmarks_without_results(wheel: set[str]) -> None:
    """They stand elsewhere in the checkout: an absolute import of one by another would break."""
    assert {"dgpose/benchmarks/harness.py", "dgpose/benchmarks/bench_part_boxes.py"} <= wheel
    assert not [path for path in wheel if "benchmarks/results" in path]
    for path in (ROOT / "benchmarks").glob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(from|import) benchmarks\b", text, re.MULTILINE), path


def test_sdist_holds_what_builds_the_core_and_nothing_else(sdist: Path) -> None:
    with tarfile.open(sdist) as tar:
        files = {member.name.partition("/")[2] for member in tar if member.isfile()}
    files = {path for path in files if ".egg-info/" not in path}
    sources = {path for path in project_files() if path.startswith("csrc/") and path.endswith(CPP)}
    root = {
        *("CHANGELOG.md", "CMakeLists.txt", "LICENSE", "MANIFEST.in", "README.md"),
        *("THIRD_PARTY.md", "pyproject.toml", "setup.py"),
    }
    made = {"PKG-INFO", "setup.cfg"}
    assert files == sources | python_files() | root | made


def test_one_version() -> None:
    stated = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert stated is not None
    version = stated[1]
    assert dgpose_ext.__version__ == version
    assert metadata.version("dgpose-ext") == version


@needs_core
def test_core_is_of_this_version() -> None:
    assert _loader.core is not None
    assert _loader.core.build_info()["version"] == dgpose_ext.__version__


Members = dict[str, list[str] | None]


def stub_members(body: list[ast.stmt]) -> Members:
    """Name -> parameters of a function, None for anything else; members as "Class.member"."""
    found: Members = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            is_property = "property" in map(ast.unparse, node.decorator_list)
            names = [a.arg for a in node.args.args if a.arg != "self"]
            found[node.name] = None if is_property else names
        elif isinstance(node, ast.ClassDef):
            found[node.name] = None
            found |= {f"{node.name}.{k}": v for k, v in stub_members(node.body).items()}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = None
    return found


def parameters(function: object) -> list[str]:
    """Parameter names from the signature that pybind11 writes into the docstring."""
    signature = (function.__doc__ or "").split("\n")[0].partition("(")[2].rpartition(") ->")[0]
    while re.search(r"[\[<\"]", signature):  # types and defaults, from the inside
        signature = re.sub(r"\[[^\[\]]*\]|<[^<>]*>|\"[^\"]*\"", "", signature)
    names = [part.partition(":")[0].strip() for part in signature.split(",")]
    return [name for name in names if name not in ("", "self", "/")]


def module_members(namespace: object, names: list[str]) -> Members:
    found: Members = {}
    for name in names:
        value = getattr(namespace, name)
        if isinstance(value, type):
            found[name] = None
            own = [n for n in vars(value) if not n.startswith("_") or n == "__members__"]
            if (value.__init__.__doc__ or "").startswith("__init__("):  # else pybind11 refuses
                own.append("__init__")
            found |= {f"{name}.{k}": v for k, v in module_members(value, own).items()}
        else:
            found[name] = parameters(value) if callable(value) else None
    return found


@needs_core
def test_stub_lists_what_the_module_has() -> None:
    stub = stub_members(ast.parse((ROOT / "dgpose_ext/_C.pyi").read_text()).body)
    names = [name for name in dir(_loader.core) if not name.startswith("_")]
    assert stub == module_members(_loader.core, names)
