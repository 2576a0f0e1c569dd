"""Without the compiled core: importing works, says one sentence, and the reference serves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dgpose_ext import _loader
from dgpose_ext.testing import discover

ROOT = Path(__file__).resolve().parents[1]
OPS = [spec.name for spec in discover()]

#: Calls all ops on their samples, takes the gradients of those that have some, asks for the core.
CALL_EVERY_OP = """
import json
import torch
import dgpose_ext
from dgpose_ext import _loader
from dgpose_ext.testing import discover, tensors

torch.set_num_threads(1)
same, without_gradient, errors = [], [], {}
for spec in discover():
    for dtype in spec.dtypes:
        call = spec.samples(dtype)[0]
        got = tensors(spec.function(**call))
        want = tensors(spec.function(**call, backend="reference"))
        same += [spec.name for a, b in zip(got, want, strict=True) if torch.equal(a, b)]
    for call in spec.gradient_samples():
        leaves = {name: call[name].clone().requires_grad_() for name in spec.differentiable}
        tensors(spec.function(**call | leaves))[0].sum().backward()
        without_gradient += [spec.name for leaf in leaves.values() if leaf.grad is None]
    try:
        spec.function(**call, backend="cpu")
    except RuntimeError as error:
        errors[spec.name] = str(error)
why = _loader.why_no_core()
print(json.dumps({"why": why, "same": same, "no gradient": without_gradient, "errors": errors}))
"""


def python(folder: Path, *arguments: str, skip_core: bool = False) -> str:
    """The output of Python in `folder`, whose packages come from there: -S leaves out an
    editable install, which would lend its core."""
    env = os.environ | {
        "DGPOSE_SKIP_CORE": "1" if skip_core else "0",
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)]),
    }
    env.pop("DGPOSE_BACKEND", None)
    result = subprocess.run(
        [sys.executable, "-S", *arguments], cwd=folder, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    return result.stdout


class Coreless(NamedTuple):
    """One way to have no core."""

    folder: Path
    skip_core: bool
    sentence: str  #: how the reason begins
    report: dict[str, Any]  #: of CALL_EVERY_OP


@pytest.fixture(scope="module", params=["switched off", "not built", "broken"])
def coreless(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Coreless:
    folder, skip_core = ROOT, request.param == "switched off"
    sentence = "it is switched off by DGPOSE_SKIP_CORE; unset it"
    if not skip_core:
        folder = tmp_path_factory.mktemp("coreless")
        ignore = shutil.ignore_patterns(*(f"*{s}" for s in EXTENSION_SUFFIXES), "__pycache__")
        shutil.copytree(ROOT / "dgpose_ext", folder / "dgpose_ext", ignore=ignore)
        sentence = "dgpose_ext._C was not built for this Python; `pip install"
    if request.param == "broken":
        (folder / f"dgpose_ext/_C{EXTENSION_SUFFIXES[0]}").write_bytes(b"not a shared object")
        sentence = "dgpose_ext._C does not load with torch "
    report = json.loads(python(folder, "-c", CALL_EVERY_OP, skip_core=skip_core))
    return Coreless(folder, skip_core, f"The compiled core is missing: {sentence}", report)


def test_every_op_runs_on_the_reference(coreless: Coreless) -> None:
    assert set(coreless.report["same"]) == set(OPS)
    assert coreless.report["no gradient"] == []


def test_why_is_one_sentence(coreless: Coreless) -> None:
    why = coreless.report["why"]
    assert why.startswith(coreless.sentence)
    assert why.endswith(".")
    assert "\n" not in why


def test_backend_cpu_says_why(coreless: Coreless) -> None:
    assert list(coreless.report["errors"]) == OPS
    for name, error in coreless.report["errors"].items():
        assert error.startswith(f"{name}: backend 'cpu' is not available. {coreless.sentence}")


def backends(info: str, op: str) -> list[str]:
    line = next(line for line in info.splitlines() if line.startswith(f"{op} "))
    return [word.strip() for word in line.removeprefix(op).split(",")]


def test_info_without_the_core(coreless: Coreless) -> None:
    text = python(coreless.folder, "-m", "dgpose_ext.info", skip_core=coreless.skip_core)
    assert coreless.sentence in text
    assert backends(text, "capsule_depth") == ["reference"]


@pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())
def test_info_with_the_core() -> None:
    text = python(ROOT, "-m", "dgpose_ext.info")
    assert "compiled core:    loaded" in text
    assert "CPU capability:" in text
    assert backends(text, "capsule_depth") == ["cpu", "reference"]


def loaded_by(statement: str) -> set[str]:
    """The packages that an import loads beyond those of torch, numpy and Python itself."""
    code = f"""
import sys, torch, numpy
before = set(sys.modules)
{statement}
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*names - sys.stdlib_module_names - {{"torch", "numpy"}})
"""
    return set(python(ROOT / "python", "-c", code).split())


def test_importing_dgpose_ext_needs_torch_and_numpy_only() -> None:
    modules = ("", ".hand_net", ".info", ".onnx", ".testing")
    statement = "import " + ", ".join(f"dgpose_ext{module}" for module in modules)
    assert loaded_by(statement) == {"dgpose_ext"}


def test_importing_dgpose_needs_no_extra() -> None:
    assert loaded_by("import dgpose") <= {"dgpose", "dgpose_ext"}
