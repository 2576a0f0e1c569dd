"""`dgpose export hand`: files that other programs run, checked before they are put in place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import dgpose_ext
from dgpose.cli.app import app
from dgpose.cli.export import Format, Precision
from dgpose.data.synthetic_hands import SyntheticHands
from dgpose.inference import HandEstimator, hand_export
from dgpose.inference.hand_export import PROGRAM_DESCRIPTION, export_hand
from dgpose.nn.hand_regressor import HandRegressor, HandRegressorConfig, save_weights
from dgpose.skeletons import NYU36
from dgpose_ext import _loader
from dgpose_ext.hand_net import HandNet
from dgpose_ext.hand_net.engine import PRECISIONS

needs_core = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core() or "no core")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of 4 joints with random weights: exported in a second."""
    torch.manual_seed(0)
    config = HandRegressorConfig(4, (16, 16, 16, 16), (0, 0, 0), (16, 16, 16))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(HandRegressor(config).eval(), path, {"data": "none"}, dtype=torch.float32)
    return path


@pytest.fixture(scope="module")
def crops() -> Tensor:
    """Other crops than those that the export is checked on."""
    return SyntheticHands(5, poses="kinematic").batch(range(3)).crop


def joints(weights: Path, crops: Tensor) -> Tensor:
    """By the torch module."""
    module, _ = hand_export.load_weights(weights)
    with torch.no_grad():
        result: Tensor = module(crops)
    return result


def run(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["export", "hand", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def assert_describes(description: dict[str, Any], joints: int) -> None:
    assert description["input"]["shape"] == ["batch", 1, 128, 128]
    assert description["output"]["shape"] == ["batch", joints, 3]
    assert "clamped to -1 (front) .. 1 (back" in description["input"]["meaning"]
    assert "x right, y UP, z forward" in description["output"]["meaning"]
    assert description["cube_mm"] == 300.0


def test_onnx(weights: Path, crops: Tensor, tmp_path: Path) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "hand.onnx"
    export = export_hand(path, "onnx", model=weights, opset=21)
    assert export.difference < 1e-5
    assert export.bytes == path.stat().st_size
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 21}
    entries = {entry.key.removeprefix("dgpose."): entry.value for entry in model.metadata_props}
    description = {k: json.loads(v) if v[0] in "{[0123456789n" else v for k, v in entries.items()}
    assert_describes(description, 4)
    assert description["joints"] is None
    assert description["training"] == {"data": "none"}
    assert "x right, y UP, z forward" in model.graph.output[0].doc_string
    assert_names_no_file_of_this_machine(path)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        (found,) = session.run(["joints"], {"crops": crops[:batch].numpy()})
        np.testing.assert_allclose(found, joints(weights, crops[:batch]), rtol=0, atol=1e-5)


def assert_names_no_file_of_this_machine(path: Path) -> None:
    for folder in (Path(__file__).parents[1], Path(torch.__file__).parents[1]):
        assert str(folder).encode() not in path.read_bytes()


#: Runs a program where nothing of this project can be imported.
_ALONE = """
import sys
sys.modules["dgpose"] = sys.modules["dgpose_ext"] = None
import torch
crops, program = torch.load(sys.argv[1]), torch.export.load(sys.argv[2]).module()
torch.save([program(crops[:batch]) for batch in (1, 3)], sys.argv[3])
"""


def test_program_needs_torch_alone(weights: Path, crops: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "hand.pt2"
    assert export_hand(path, "program", model=weights).difference < 1e-5
    files = [tmp_path / "crops.pt", path, tmp_path / "joints.pt"]
    torch.save(crops, files[0])
    result = subprocess.run(
        [sys.executable, "-c", _ALONE, *map(str, files)],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for batch, found in zip((1, 3), torch.load(files[2]), strict=True):
        torch.testing.assert_close(found, joints(weights, crops[:batch]), rtol=0, atol=1e-5)
    extra = {PROGRAM_DESCRIPTION: ""}
    torch.export.load(path, extra_files=extra)
    assert_describes(json.loads(extra[PROGRAM_DESCRIPTION]), 4)
    assert_names_no_file_of_this_machine(path)


@needs_core
def test_safetensors_is_handnets_file(weights: Path, crops: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "hand.net.safetensors"
    export = export_hand(path, "safetensors", model=weights)
    assert export.difference == 0
    module, _ = hand_export.load_weights(weights)
    assert torch.equal(HandNet.load(path)(crops), HandNet.from_module(module)(crops))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@needs_core
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_lower_precisions(
    weights: Path, crops: Tensor, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hand.net.safetensors"
    export = export_hand(path, "safetensors", model=weights, precision=precision)
    assert HandNet.load(path).precision == precision
    assert 0 < export.difference < 0.1
    difference = HandNet.load(path)(crops) - joints(weights, crops)
    assert 0 < float(difference.abs().max()) < 0.1


@needs_core
def test_command_writes_the_shipped_model(tmp_path: Path) -> None:
    path = tmp_path / "hand.net.safetensors"
    result = run("--format", "safetensors", "--out", path)
    assert result.output.startswith(f"saved {path}: ")
    assert "largest difference from HandNet in float32, on rendered crops: 0 in crop" in (
        result.output
    )
    frame = SyntheticHands(0, poses="kinematic").frame(0)
    estimate = HandEstimator.load()(frame.depth, frame.camera)
    found = HandNet.load(path).run(frame.depth, frame.camera, estimate.center)
    assert np.abs(found.joints_mm - estimate.joints_mm).max() < 0.01


def test_description_of_the_shipped_model() -> None:
    source = hand_export.model_path("accurate")
    module, training = hand_export.load_weights(source)
    description = hand_export._describe(module, "accurate", source, training)
    assert description["joints"] == list(NYU36.joints)
    assert "CC BY 4.0" in description["model_card"]


def test_a_file_that_differs_is_not_put_in_place(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hand.pt2"
    path.write_bytes(b"before")
    monkeypatch.setattr(
        hand_export, "_reference", lambda module, crops: ("HandNet", module(crops).detach() + 2e-4)
    )
    with pytest.raises(RuntimeError, match=r"program file differs from HandNet by 0\.0002 in crop"):
        export_hand(path, "program", model=weights)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_without_the_core_torch_is_the_reference(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dgpose_ext, "why_no_core", lambda: "It was taken away.")
    assert export_hand(tmp_path / "hand.pt2", "program", model=weights).reference == "torch"
    with pytest.raises(RuntimeError, match=r"needs the compiled core\. It was taken away"):
        export_hand(tmp_path / "hand", "safetensors", model=weights)


def test_without_onnxruntime(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run("--format", "onnx", "--out", tmp_path / "a", "--model", weights, code=2)
    assert "needs onnxruntime" in result.stderr
    assert "pip install dgpose-ext[onnx]" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "onnx", "--opset", 17), "opset must be at least 18, got 17"),
        (("--format", "onnx", "--opset", 99), "opset must be one that torch can write, got 99"),
        (
            ("--format", "program", "--precision", "int8"),
            "precision must be float32 for format program, got 'int8'",
        ),
        (("--format", "program"), "path must end in .pt2 for format program"),
        (
            ("--format", "safetensors", "--model", "huge"),
            "model must be a weight file or a shipped",
        ),
        (("--format", "safetensors", "--model", "no/such.file"), "no/such.file: no such file"),
    ],
)
def test_errors_are_one_line(
    weights: Path, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    model = () if "--model" in arguments else ("--model", weights)
    result = run("--out", tmp_path / "file", *arguments, *model, code=2)
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = run("--format", "program", "--out", tmp_path / "file" / "a.pt2", code=2)
    assert result.stderr.startswith(f"error: {tmp_path / 'file'}")


def test_the_command_knows_all_formats_and_precisions() -> None:
    assert {format.value for format in Format} == set(get_args(hand_export.Format))
    assert {precision.value for precision in Precision} == set(PRECISIONS)


def test_unknown_format(weights: Path) -> None:
    with pytest.raises(ValueError, match="format must be one of onnx, program, safetensors"):
        export_hand("file", "torchscript", model=weights)  # type: ignore[arg-type]
