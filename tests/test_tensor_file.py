"""Files of tensors: atomic, checked before use, with the mode of any other file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from dgpose_ext.tensor_file import (
    read_tensor_file,
    read_tensor_header,
    write_bytes_atomically,
    write_tensor_file,
)


def test_round_trip(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    tensors = {
        "a": shared,
        "b": shared.view(2, 3).t(),
        "c": torch.tensor(3, dtype=torch.int16),
        "d": torch.ones(2, dtype=torch.bfloat16),
        "e": torch.zeros(0, 4),
    }
    path = tmp_path / "folder" / "file"
    write_tensor_file(path, tensors, kind="test", version=2, metadata={"x": [1, None]})
    found, metadata = read_tensor_file(path, kind="test", version=2)
    assert metadata == {"x": [1, None]}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_mode_follows_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_bytes_atomically(tmp_path / "file", b"1")
        write_bytes_atomically(tmp_path / "file", b"22")
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_bytes() == b"22"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
    assert os.listdir(tmp_path) == ["file"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_description_comes_before_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_tensor_file(path, {"a": torch.ones(9)}, kind="other", version=1, metadata={})
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="must be a test file of version 1, got other of version"):
        read_tensor_file(path, kind="test", version=1)
    with pytest.raises(ValueError, match="checksum differs"):
        read_tensor_file(path, kind="other", version=1)


def test_header_says_what_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tensors = {"a": torch.ones(2, 3), "b": torch.tensor(3)}
    write_tensor_file(path, tensors, kind="test", version=4, metadata={"x": 1})
    assert read_tensor_header(path) == ("test", 4, {"x": 1}, {"a": (2, 3), "b": ()})
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        read_tensor_header(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_tensor_header(tmp_path / "none")


def test_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ModuleNotFoundError, match="need safetensors: `pip install safetensors`"):
        write_tensor_file(tmp_path / "file", {}, kind="test", version=1, metadata={})
    with pytest.raises(ModuleNotFoundError, match="need safetensors: `pip install safetensors`"):
        read_tensor_file(tmp_path / "file", kind="test", version=1)
    assert os.listdir(tmp_path) == []


def test_errors_name_the_file(tmp_path: Path) -> None:
    """Not the one beside it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError) as told:
        write_bytes_atomically(folder, b"")
    assert told.value.filename == str(folder)
    assert list(tmp_path.iterdir()) == [folder]
