"""Pickles of arrays: read as NumPy reads them, and nothing else of them is followed."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgpose.data.pickled_arrays import PickleFormatError, read_array_npz, read_array_pickle

CONTENT: dict[Any, Any] = {
    ("S1", "54138969"): {
        "R": np.random.default_rng(0).normal(size=(3, 3)),
        "F": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "w": 1000,
        "big": np.arange(300, dtype=np.int64),
        "f": 0.5,
        "names": ["a", "b"],
        "flags": (True, False, None, 70_000, -5, 2**40),
        "text": np.array(["hip", "knee"]),
    }
}


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL))
def test_reads_what_pickle_reads(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "cameras.pkl"
    path.write_bytes(pickle.dumps(CONTENT, protocol))
    assert_same(read_array_pickle(path), CONTENT)


def test_reads_an_object_array_of_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "data_3d_h36m.npz"
    poses = {"S1": {"Walking 1": np.random.default_rng(1).normal(size=(4, 32, 3)).astype("f4")}}
    np.savez_compressed(path, positions_3d=np.array(poses, object), plain=np.arange(3))
    assert_same(read_array_npz(path, "positions_3d"), poses)
    np.testing.assert_array_equal(read_array_npz(path, "plain"), np.arange(3))
    with pytest.raises(PickleFormatError, match="must hold 'other', which is not there"):
        read_array_npz(path, "other")


def test_shared_arrays_stay_shared(tmp_path: Path) -> None:
    array = np.arange(3.0)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([array, array], 4))
    first, second = read_array_pickle(path)
    assert first is second


class Malicious:
    """What an attacker sends: loading it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_is_refused(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "made_by_the_pickle"
    path = tmp_path / "cameras.pkl"
    path.write_bytes(pickle.dumps({"R": np.eye(3), "x": Malicious(trap)}, protocol))
    with pytest.raises(PickleFormatError, match=r"cameras\.pkl: must hold arrays alone"):
        read_array_pickle(path)
    np.savez(tmp_path / "a.npz", positions_3d=np.array(Malicious(trap), object))
    with pytest.raises(PickleFormatError, match="must hold arrays alone, asks for 'posix mkdir'"):
        read_array_npz(tmp_path / "a.npz", "positions_3d")
    assert not trap.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.dtype("f4"),  # a name that is admitted, where no array is made of it
        np.zeros(2, [("a", "f4"), ("b", "i4")]),
        np.array(["2020-01-01"], "datetime64[D]"),
        {1, 2},
        range(3),
        slice(1),
        Path("x"),
        np.ma.masked_array([1.0], [True]),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, 4))
    with pytest.raises(PickleFormatError):
        read_array_pickle(path)


@pytest.mark.parametrize(
    "use", [b"}h\x32K\x01s", b"cnumpy\ndtype\nh\x32R", b"cnumpy\nndarray\nh\x32R"]
)
def test_a_small_file_cannot_keep_it_busy(tmp_path: Path, use: bytes) -> None:
    """A tuple of twice the one before, fifty times: its hash or text would take for ever."""
    doubled = b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(50))
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04)\x94" + doubled + use + b".")
    with pytest.raises(PickleFormatError):
        read_array_pickle(path)


def test_damage_is_an_error_with_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    whole = pickle.dumps(CONTENT, 4)
    for end in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:end])
        with pytest.raises(PickleFormatError, match=r"a\.pkl: "):
            read_array_pickle(path)
    random = np.random.default_rng(2)
    for _ in range(150):  # a value or this error, and never another one
        broken = bytearray(whole)
        broken[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(bytes(broken))
        with suppress(PickleFormatError):
            read_array_pickle(path)
    (tmp_path / "a.npz").write_bytes(b"no zip")
    with pytest.raises(PickleFormatError, match="not a whole NPZ file"):
        read_array_npz(tmp_path / "a.npz", "positions_3d")
