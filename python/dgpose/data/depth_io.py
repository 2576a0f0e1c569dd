"""Reading depth images: one file, a folder, a pattern, or a video of many frames.

| file | content | depth |
|---|---|---|
| `.png`, 16-bit, one channel | millimetres (Kinect v2, RealSense, ICVL) | uint16 mm |
| `.png`, 8-bit RGB, NYU-packed | mm = G * 256 + B, R = 0 | uint16 mm |
| `.bin` | MSRA15: six uint32 (width, height, box), then the box as float32 mm | float32 mm |
| `.npy` | `[H, W]` or `[N, H, W]`, uint16 or floating point | uint16 or float32 mm |
| `.npz` | key `depth` as in `.npy`; optional `camera` (fx, fy, cx, cy) | as in `.npy` |

What is read is checked: a damaged or unsuitable file is a `DepthFormatError` that names the file
and says what is wrong with it, never a picture that is half right. In every frame 0 means "no
depth"; NaN and Inf in floating-point depth are kept, and mean the same.
"""

from __future__ import annotations

import glob
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.data.cameras import CAMERAS, Camera, parse_camera

__all__ = [
    "DEPTH_SUFFIXES",
    "UNITS",
    "DepthFormatError",
    "DepthFrame",
    "DepthItem",
    "open_source",
    "read_depth",
]

DEPTH_SUFFIXES = (".bin", ".npy", ".npz", ".png")
"""Endings of the files that can hold depth; a folder is searched for these."""

UNITS = ("mm", "m")
"""Units of depth that a file may hold; what is read is always in millimetres."""

NYU_BACKGROUND_MM = 2001
"""NYU-packed pictures write this where there is no depth; it is read as 0, like everywhere else."""

MAX_SIDE = 8192
"""No depth camera is larger; a header that says so is damaged."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MSRA_HEADER = struct.Struct("<6I")


class DepthFormatError(ValueError):
    """A file does not hold a readable depth image. The message names the file and the defect."""


@dataclass(frozen=True)
class DepthFrame:
    """One depth image.

    Attributes:
        depth: `[H, W]`, uint16 or float32, mm; 0 (and NaN, Inf) = no depth.
        name: a name for output files, unique within its source.
        camera: the camera, where the file says or implies it (NYU-packed 640x480, MSRA `.bin`,
            `.npz` with `camera`), else `None`.
    """

    depth: npt.NDArray[Any]
    name: str
    camera: Camera | None = None


DepthLoader = Callable[[], tuple[npt.NDArray[Any], Camera | None]]
"""Reads one frame: the depth in mm, and the camera where it is known."""


@dataclass(frozen=True)
class DepthItem:
    """A frame that is read when asked for, so that one bad file does not end a run.

    Attributes:
        name: a name for output files, unique within its source.
        loader: reads the frame.
    """

    name: str
    loader: DepthLoader

    def load(self) -> DepthFrame:
        """Read the frame.

        Raises:
            DepthFormatError: the file is damaged or holds no depth image.
            OSError: the file cannot be opened.
        """
        depth, camera = self.loader()
        return DepthFrame(depth, self.name, camera)


def read_depth(path: str | PathLike[str], *, unit: str | None = None) -> DepthFrame:
    """Read one depth image.

    Args:
        path: a file in one of the formats listed at the top of this module.
        unit: `"mm"` or `"m"`: what floating-point `.npy` and `.npz` values mean; mm when not given.
            All other formats are in millimetres by definition.

    Returns:
        The frame, its depth in millimetres, named after the file.

    Raises:
        DepthFormatError: damaged, truncated, of another kind, or more than one frame in the file.
        ValueError: an unknown unit, or `"m"` for a format that is in millimetres.
        OSError: the file cannot be opened.
    """
    items = _items_of_file(Path(path), unit)
    if len(items) != 1:
        raise DepthFormatError(
            f"{path}: holds {len(items)} frames, one is expected here (open_source reads them all)"
        )
    return items[0].load()


def open_source(
    source: str | PathLike[str] | Sequence[str | PathLike[str]], *, unit: str | None = None
) -> list[DepthItem]:
    """List the frames of a file, a folder, a pattern (`"in/depth_1_*.png"`), or several of them.

    Folders and patterns are sorted with numbers in numeric order (`f2.png` before `f10.png`). A
    folder gives its files with a known ending, without its subfolders. An array file of shape
    `[N, H, W]` gives N frames.

    Args:
        source: where the frames are.
        unit: as for `read_depth`.

    Returns:
        One item per frame; `item.load()` reads it, and may raise for that frame alone.

    Raises:
        FileNotFoundError: nothing is there, or nothing that could hold depth.
        ValueError: unknown unit.
    """
    _check_unit(unit)
    sources = [source] if isinstance(source, str | PathLike) else list(source)
    paths = [path for one in sources for path in _expand(one)]
    if not paths:
        raise FileNotFoundError("source must name at least one file, folder or pattern, got none")
    items = [item for path in paths for item in _items_of_file(path, unit, source=True)]
    return _with_unique_names(items)


def _expand(source: str | PathLike[str]) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in DEPTH_SUFFIXES and p.is_file()]
        wanted = f"a file ending in {', '.join(DEPTH_SUFFIXES)}"
    elif path.exists():
        return [path]
    else:
        found = [p for p in map(Path, glob.glob(str(source), recursive=True)) if p.is_file()]
        wanted = "an existing file, folder or pattern"
    if not found:
        raise FileNotFoundError(f"source must be or contain {wanted}, got {str(source)!r}")
    return sorted(found, key=_numeric_order)


def _numeric_order(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _with_unique_names(items: Sequence[DepthItem]) -> list[DepthItem]:
    # Two folders may hold files of the same name; results written under one name would be lost.
    taken: set[str] = set()
    unique = []
    for item in items:
        name, number = item.name, 1
        while name in taken:
            number += 1
            name = f"{item.name}_{number}"
        taken.add(name)
        unique.append(DepthItem(name, item.loader))
    return unique


def _items_of_file(path: Path, unit: str | None, *, source: bool = False) -> list[DepthItem]:
    _check_unit(unit)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        array = _ArrayFile(path, unit)
        try:
            count = array.frame_count()
        except (DepthFormatError, OSError):
            if not source:
                raise
            count = None  # the one item of a bad file raises the same error when it is loaded
        if count is None:
            return [DepthItem(path.stem, partial(array.frame, 0))]
        digits = len(str(count - 1))
        return [
            DepthItem(f"{path.stem}_{i:0{digits}d}", partial(array.frame, i)) for i in range(count)
        ]
    return [DepthItem(path.stem, partial(_read_picture, path, unit))]


def _check_unit(unit: str | None) -> None:
    if unit is not None and unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")


def _read_picture(path: Path, unit: str | None) -> tuple[npt.NDArray[Any], Camera | None]:
    readers = {".png": _decode_png, ".bin": _decode_msra}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DepthFormatError(
            f"{path}: depth files end in {', '.join(DEPTH_SUFFIXES)}, got {path.suffix!r}"
        )
    if unit == "m":
        raise DepthFormatError(f"{path}: {path.suffix} files are in millimetres, got unit 'm'")
    data = path.read_bytes()
    if not data:
        raise DepthFormatError(f"{path}: the file is empty")
    return reader(path, data)


def _decode_png(path: Path, data: bytes) -> tuple[npt.NDArray[Any], Camera | None]:
    bits, color_type = _check_png(path, data)
    if (bits, color_type) not in ((16, 0), (8, 2)):
        kind = {0: "grey", 2: "RGB", 3: "palette", 4: "grey + alpha", 6: "RGBA"}.get(
            color_type, f"colour type {color_type}"
        )
        raise DepthFormatError(
            f"{path}: a depth PNG is 16-bit grey (mm) or NYU-packed 8-bit RGB, "
            f"got {bits}-bit {kind}"
        )
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DepthFormatError(f"{path}: the PNG cannot be decoded ({error.err})") from None
    if picture is None:
        raise DepthFormatError(f"{path}: the PNG's picture data are damaged or incomplete")
    if bits == 16:
        return picture, None
    blue, green, red = cv2.split(picture)
    if red.any():
        raise DepthFormatError(
            f"{path}: a colour picture, not depth (NYU-packed: mm = G * 256 + B, and R = 0)"
        )
    depth = green.astype(np.uint16) << np.uint16(8) | blue
    depth[depth == NYU_BACKGROUND_MM] = 0
    return depth, CAMERAS["nyu"] if depth.shape == (480, 640) else None


def _check_png(path: Path, data: bytes) -> tuple[int, int]:
    """Bits per channel and colour type, after every chunk up to the end mark proved undamaged.

    Decoders differ in what they do with a truncated picture: some return its upper half.
    """
    if not data.startswith(_PNG_SIGNATURE):
        raise DepthFormatError(f"{path}: not a PNG (its first bytes are {data[:8]!r})")
    header: bytes | None = None
    position = len(_PNG_SIGNATURE)
    while True:
        if position + 12 > len(data):
            raise DepthFormatError(f"{path}: the PNG is truncated after {len(data)} bytes")
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            raise DepthFormatError(
                f"{path}: the PNG is truncated, {end} bytes are announced, got {len(data)}"
            )
        (crc,) = struct.unpack_from(">I", data, end - 4)
        if crc != zlib.crc32(data[position + 4 : end - 4]):
            raise DepthFormatError(f"{path}: the PNG is damaged (checksum of its {kind!r} chunk)")
        if header is None:
            if kind != b"IHDR" or length != 13:
                raise DepthFormatError(f"{path}: the PNG does not begin with a header")
            header = data[position + 8 : position + 21]
        if kind == b"IEND":
            break
        position = end
    width, height, bits, color_type = struct.unpack_from(">IIBB", header)
    _check_size(path, height, width)
    return bits, color_type


def _decode_msra(path: Path, data: bytes) -> tuple[npt.NDArray[Any], Camera | None]:
    if len(data) < _MSRA_HEADER.size:
        raise DepthFormatError(
            f"{path}: an MSRA .bin begins with {_MSRA_HEADER.size} bytes of header, got {len(data)}"
        )
    width, height, left, top, right, bottom = _MSRA_HEADER.unpack_from(data)
    _check_size(path, height, width)
    if not (left < right <= width and top < bottom <= height):
        raise DepthFormatError(
            f"{path}: the box (left {left}, top {top}, right {right}, bottom {bottom}) is not "
            f"inside the {width}x{height} image"
        )
    rows, columns = bottom - top, right - left
    expected = _MSRA_HEADER.size + 4 * rows * columns
    if len(data) != expected:
        raise DepthFormatError(
            f"{path}: a box of {columns}x{rows} needs {expected} bytes, got {len(data)}"
        )
    values = np.frombuffer(data, "<f4", offset=_MSRA_HEADER.size)
    depth = np.zeros((height, width), np.float32)
    depth[top:bottom, left:right] = values.reshape(rows, columns)
    return depth, CAMERAS["msra"] if (width, height) == (320, 240) else None


class _ArrayFile:
    """A `.npy` or `.npz` file; its frames share one read of the array, until the last is taken."""

    def __init__(self, path: Path, unit: str | None) -> None:
        self._path = path
        self._unit = unit
        self._array: npt.NDArray[Any] | None = None
        self._camera: Camera | None = None

    def frame_count(self) -> int | None:
        """N of `[N, H, W]`, `None` of `[H, W]`, from the header: a list costs no memory."""
        with _damage_reported(self._path):
            if self._path.suffix.lower() == ".npy":
                with self._path.open("rb") as file:
                    shape, dtype = _array_header(file)
            else:
                with zipfile.ZipFile(self._path) as archive:
                    if "depth.npy" not in archive.namelist():
                        keys = [name.removesuffix(".npy") for name in archive.namelist()]
                        raise DepthFormatError(f"{self._path}: needs the key 'depth', got {keys}")
                    with archive.open("depth.npy") as file:
                        shape, dtype = _array_header(file)
        if dtype != np.uint16 and dtype.kind != "f":
            raise DepthFormatError(
                f"{self._path}: depth must be uint16 (mm) or floating point, got {dtype}"
            )
        if self._unit == "m" and dtype == np.uint16:
            raise DepthFormatError(f"{self._path}: uint16 depth is in millimetres, got unit 'm'")
        if len(shape) not in (2, 3) or 0 in shape:
            raise DepthFormatError(
                f"{self._path}: depth must have shape [H, W] or [N, H, W] without empty "
                f"dimensions, got {list(shape)}"
            )
        _check_size(self._path, *shape[-2:])
        return shape[0] if len(shape) == 3 else None

    def frame(self, index: int) -> tuple[npt.NDArray[Any], Camera | None]:
        array = self._read() if self._array is None else self._array
        values = array[index]
        # A folder may hold thousands of files: none may keep memory, or an open map, when done.
        self._array = array if index + 1 < len(array) else None
        if values.dtype == np.uint16:
            return np.array(values, np.uint16), self._camera
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes Inf: no depth
            depth = np.array(values, np.float32)
            if self._unit == "m":
                depth *= 1000
        return depth, self._camera

    def _read(self) -> npt.NDArray[Any]:
        self.frame_count()
        with _damage_reported(self._path):
            if self._path.suffix.lower() == ".npy":
                array = np.load(self._path, mmap_mode="r", allow_pickle=False)
            else:
                with np.load(self._path, allow_pickle=False) as archive:
                    array = archive["depth"]
                    if "camera" in archive:
                        self._camera = _stored_camera(self._path, archive["camera"])
        frames: npt.NDArray[Any] = array if array.ndim == 3 else array[None]
        return frames


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Turn whatever NumPy's and zip's readers raise on damaged bytes into a `DepthFormatError`."""
    try:
        yield
    except (DepthFormatError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:
        if path.stat().st_size == 0:
            raise DepthFormatError(f"{path}: the file is empty") from None
        raise DepthFormatError(f"{path}: not a readable array file ({error})") from error


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def _stored_camera(path: Path, values: npt.NDArray[Any]) -> Camera:
    try:
        return parse_camera(values.ravel().tolist())
    except ValueError as error:
        raise DepthFormatError(f"{path}: {error}") from None


def _check_size(path: Path, height: int, width: int) -> None:
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise DepthFormatError(
            f"{path}: depth must be 1 to {MAX_SIDE} pixels wide and high, got {width}x{height}"
        )
