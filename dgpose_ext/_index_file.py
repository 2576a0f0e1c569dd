"""The file of a PoseIndex (.dgx): a header and aligned arrays, to be mapped into memory.

    offset 0   8 bytes   b"DGPOSEIX"
           8   uint32    version, 1 (all numbers are little-endian)
          12   uint32    n, the length of the description
          16   uint32    CRC-32 of the description
          20   n bytes   description: JSON {"storage", "dim", "joints", "sections": {name:
                         {"dtype", "shape", "offset", "crc32"}}} and, where there is something in
                         it, "metadata", an object
    Every section is one C-contiguous array at a multiple of 4096 bytes; the last one ends the file.

Sections: rows float32 [N, D], ids int64 [N], poses float32 [N, J, 3] (where J > 0) and, for codes,
mean float32 [D], panels uint8 (csrc/scoring/screen.h), bounds float32 [4, 16 ceil(N / 16)]: scale,
offset, error, norm.
"""

from __future__ import annotations

import json
import mmap as memory_map
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dgpose_ext.tensor_file import atomic_file

Array = npt.NDArray[Any]

_MAGIC = b"DGPOSEIX"
FILE_VERSION = 1
_PREFIX = struct.Struct("<8sIII")
_PAGE = 4096
_CHUNK = 1 << 24
_DTYPES = {
    "rows": "<f4",
    "ids": "<i8",
    "poses": "<f4",
    "mean": "<f4",
    "panels": "|u1",
    "bounds": "<f4",
}


def _aligned(offset: int) -> int:
    return -(-offset // _PAGE) * _PAGE


def _as_sections(arrays: dict[str, Array]) -> dict[str, list[Array]]:
    """The arrays of PoseIndexCore by section; a section of several arrays is their stack."""
    sections = {name: [arrays[name]] for name in _DTYPES if name in arrays}
    if "scale" in arrays:
        sections["bounds"] = [arrays[name] for name in ("scale", "offset", "error", "norm")]
    return sections


def write_index_file(path: str | Path, header: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Writes the file atomically: whoever opens it sees the old one or the new one, whole."""
    sections = _as_sections(arrays)
    table: dict[str, dict[str, Any]] = {}
    for name, parts in sections.items():
        shape = parts[0].shape if len(parts) == 1 else (len(parts), *parts[0].shape)
        table[name] = {"dtype": _DTYPES[name], "shape": list(shape), "offset": 0, "crc32": 0}
    # Numbers of a fixed width, so that the length of the description is known before them.
    longest = len(_description(header, table)) + 32 * len(table)
    offset = _aligned(_PREFIX.size + longest)
    end = offset
    with atomic_file(Path(path)) as file:
        for name, parts in sections.items():
            file.seek(offset)
            checksum = 0
            for part in parts:
                data = np.ascontiguousarray(part, _DTYPES[name]).reshape(-1).view(np.uint8).data
                for begin in range(0, len(data), _CHUNK):
                    checksum = zlib.crc32(data[begin : begin + _CHUNK], checksum)
                    file.write(data[begin : begin + _CHUNK])
            table[name] |= {"offset": offset, "crc32": checksum}
            end = file.tell()
            offset = _aligned(end)
        file.truncate(end)  # as long as it should be where the last section is empty, too
        description = _description(header, table)
        file.seek(0)
        file.write(_PREFIX.pack(_MAGIC, FILE_VERSION, len(description), zlib.crc32(description)))
        file.write(description)


def _description(header: dict[str, Any], table: dict[str, dict[str, Any]]) -> bytes:
    return json.dumps({**header, "sections": table}).encode()


def read_index_file(
    path: str | Path, mmap: bool, verify: bool
) -> tuple[dict[str, Any], dict[str, Array]]:
    """(header, arrays by section), mapped or read; ValueError for what is no whole index file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = _read_header(path, file.read(_PREFIX.size), file.read, size)
        if size == 0 or not mmap:
            file.seek(0)
            data: Any = file.read()
        else:
            data = memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ)
    arrays = {}
    for name, section in header["sections"].items():
        count = int(np.prod(section["shape"], dtype=np.int64))
        array = np.frombuffer(data, section["dtype"], count, section["offset"])
        if verify and zlib.crc32(array.view(np.uint8).data) != section["crc32"]:
            raise ValueError(f"{path}: checksum of {name} differs, the file is damaged")
        arrays[name] = array.reshape(section["shape"])
    return header, arrays


def _read_header(path: Path, prefix: bytes, read: Any, size: int) -> dict[str, Any]:
    """The description, after every check that does not read the arrays."""
    if len(prefix) < _PREFIX.size or prefix[:8] != _MAGIC:
        raise ValueError(f"{path}: not a PoseIndex file")
    _, version, length, checksum = _PREFIX.unpack(prefix)
    if version != FILE_VERSION:
        raise ValueError(
            f"{path}: must be a PoseIndex file of version {FILE_VERSION}, got {version}"
        )
    description = read(length)
    if len(description) < length or zlib.crc32(description) != checksum:
        raise ValueError(f"{path}: its header is damaged or cut short")
    try:
        header: dict[str, Any] = json.loads(description)
        sections = header["sections"]
        dim, joints, count = header["dim"], header["joints"], sections["rows"]["shape"][0]
        numbers = [dim, joints, count, *(n for s in sections.values() for n in s["shape"])]
        numbers += [s[key] for s in sections.values() for key in ("offset", "crc32")]
        if not isinstance(header.setdefault("metadata", {}), dict):
            raise ValueError("metadata")
        if dim == 0 or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("numbers")
        padded = -(-count // 16) * 16
        shapes = {
            "rows": [count, dim], "ids": [count], "poses": [count, joints, 3], "mean": [dim],
            "panels": [-1], "bounds": [4, padded],
        }  # fmt: skip
        ends = []
        for name, section in sections.items():
            shape = section["shape"]
            fits = all(w in (-1, n) for w, n in zip(shapes[name], shape, strict=True))
            if section["dtype"] != _DTYPES[name] or not fits or section["offset"] % _PAGE:
                raise ValueError(name)
            items = int(np.prod(shape, dtype=object))
            ends.append(section["offset"] + items * np.dtype(section["dtype"]).itemsize)
        group = {"int8": 4, "bfloat16": 2, "float32": 1}[header["storage"]]
        coded = header["storage"] != "float32" and count > 0
        if coded and sections["panels"]["shape"] != [padded * -(-dim // group) * 4]:
            raise ValueError("panels")
        needed = {"rows", "ids"} | ({"poses"} if joints else set())
        needed |= {"mean", "bounds"} if coded else set()
        if not needed <= set(sections):
            raise ValueError("sections")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"{path}: its header does not describe an index ({error})") from error
    if max(ends) > size:
        raise ValueError(f"{path}: cut short, {size} bytes of {max(ends)}")
    return header
