"""HandRegressor: shapes, size, export, and weight files that are checked before they are used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dgpose.nn.hand_regressor import (
    HandRegressor,
    HandRegressorConfig,
    load_weights,
    save_weights,
)
from dgpose_ext.tensor_file import read_tensor_file, write_tensor_file

SMALL = HandRegressorConfig(channels=(16, 16, 16, 16), inner=(16, 16, 16))


@pytest.fixture
def model() -> HandRegressor:
    torch.manual_seed(0)
    model = HandRegressor(SMALL)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 1.5)
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
    return model.eval()


def test_default_size_is_as_documented() -> None:
    model = HandRegressor()
    assert model.macs() == 69_206_016
    assert model.parameter_count() == 833_488


def test_macs_counts_convolutions() -> None:
    config = HandRegressorConfig(joints=1, channels=(1, 1, 1, 1), blocks=(0, 0, 0), inner=(1, 1, 1))
    down = 9 * (16**2 + 8**2 + 4**2)
    expected = 9 * 16 * 32**2 + down + 4**2 + 8**2 + 9 * 16**2 + 4 * 16**2
    assert HandRegressor(config).macs() == expected


def test_output_shape_and_start_near_the_mean_anchor() -> None:
    torch.manual_seed(0)
    model = HandRegressor().eval()
    with torch.no_grad():
        joints = model(torch.rand(3, 1, 128, 128) * 2 - 1)
    assert joints.shape == (3, 36, 3)
    assert joints.abs().max() < 0.5


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = HandRegressor(SMALL)
    for block in model.modules():
        if isinstance(block, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(block.weight)
    model(torch.rand(2, 1, 128, 128)).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_joint_far_away_in_the_crop_is_reachable(model: HandRegressor) -> None:
    """Attention on one cell puts the joint at its centre plus the offset, in cells."""
    maps = torch.zeros(1, 4 * 36, 16, 16)
    maps[:, 5, 2, 13] = 100.0
    maps[:, 36 + 5] = 0.5
    maps[:, 3 * 36 + 5, 2, 13] = -0.25
    expected = torch.tensor([(2 * (13 + 0.5 + 0.5) / 16 - 1), (2 * 2.5 / 16 - 1), -0.25])
    torch.testing.assert_close(model.anchors(maps)[0, 5], expected)


@pytest.mark.parametrize("shape", [(1, 128, 128), (1, 3, 128, 128), (2, 1, 64, 64)])
def test_wrong_input_says_what_is_required(model: HandRegressor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"crop must have shape \[B, 1, 128, 128\], got"):
        model(torch.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"joints": 0}, "joints must be at least 1, got 0"),
        ({"channels": (32, 64, 128)}, "channels must be 4 integers >= 1"),
        ({"blocks": (1, -1, 1)}, "blocks must be 3 integers >= 0"),
        ({"inner": (1.5, 1, 1)}, "inner must be 3 integers >= 1"),
    ],
)
def test_wrong_config_says_what_is_required(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HandRegressorConfig(**fields)  # type: ignore[arg-type]


def test_exports(model: HandRegressor) -> None:
    crop = torch.rand(2, 1, 128, 128)
    exported = torch.export.export(model, (crop,))
    torch.testing.assert_close(exported.module()(crop), model(crop))


def test_float32_weights_round_trip_exactly(model: HandRegressor, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(model, path, {"steps": 3}, dtype=torch.float32)
    loaded, training = load_weights(path)
    assert training == {"steps": 3}
    assert loaded.config == model.config
    assert not loaded.training
    crop = torch.rand(2, 1, 128, 128)
    assert torch.equal(loaded(crop), model(crop))


def test_float16_weights_are_close_and_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = HandRegressor().eval()
    path = tmp_path / "weights.safetensors"
    save_weights(model, path)
    assert path.stat().st_size < 2_000_000
    loaded, _ = load_weights(path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    crop = torch.rand(2, 1, 128, 128)
    torch.testing.assert_close(loaded(crop), model(crop), atol=1e-3, rtol=0)


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_behind(
    model: HandRegressor, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        save_weights(model, tmp_path / name, {"x": 1, "y": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_failed_save_keeps_the_old_file(
    model: HandRegressor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(model, path)
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_weights(model, path, {"steps": 4})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_weights_that_overflow_are_not_written(model: HandRegressor, tmp_path: Path) -> None:
    with torch.no_grad():
        model.head.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"weights must be finite in torch\.float16, head\.weight"):
        save_weights(model, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"dtype must be torch\.float16 or torch\.float32"):
        save_weights(model, tmp_path / "weights", dtype=torch.bfloat16)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_weights(tmp_path / "none")


@pytest.mark.parametrize("length", [0, 4, 100, 5000])
def test_truncated_file(model: HandRegressor, tmp_path: Path, length: int) -> None:
    path = tmp_path / "weights"
    save_weights(model, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_weights(path)


def test_changed_byte_is_found(model: HandRegressor, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_weights(model, path)
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum differs"):
        load_weights(path)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(b"PK\x03\x04 a pickle in a zip" * 100)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_weights(path)
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not one that dgpose wrote"):
        load_weights(path)
    save_file({"weight": torch.zeros(3)}, path, metadata={"dgpose": "[]"})
    with pytest.raises(ValueError, match="description is damaged"):
        load_weights(path)
    write_tensor_file(path, {}, kind="pose_bank", version=1, metadata={})
    with pytest.raises(ValueError, match="must be a hand_regressor file of version 1, got pose_b"):
        load_weights(path)


def test_tensors_must_fit_the_config(model: HandRegressor, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_weights(model, path)
    tensors, description = read_tensor_file(path, kind="hand_regressor", version=1)
    arguments = {"kind": "hand_regressor", "version": 1}
    tensors["head.bias"] = torch.zeros(7)
    write_tensor_file(path, tensors, metadata=description, **arguments)
    with pytest.raises(ValueError, match=r"head\.bias must have shape \[144\], got \[7\]"):
        load_weights(path)
    description["config"]["depth"] = 3
    write_tensor_file(path, tensors, metadata=description, **arguments)
    with pytest.raises(ValueError, match="architecture is not one this version knows"):
        load_weights(path)
