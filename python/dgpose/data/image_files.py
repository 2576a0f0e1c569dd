"""Colour images: files, and those of a folder or a .zip by their names."""

from __future__ import annotations

import zipfile
import zlib
from os import PathLike
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt

from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFiles",
    "ImageFormatError",
    "encode_picture",
    "read_image",
    "save_picture",
]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class ImageFormatError(ValueError):
    """An image cannot be decoded. The message names the file."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """A whole image, `[H, W, 3]` RGB.

    Raises:
        ImageFormatError: it cannot be decoded.
        OSError: it cannot be read.
    """
    return _decoded(path.read_bytes(), path)


def save_picture(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Writes a picture `[H, W, 3]` RGB as PNG, or as JPEG where the name says so, atomically.

    Raises:
        OSError: it cannot be written.
    """
    write_bytes_atomically(path, encode_picture(picture, path.suffix))


def encode_picture(picture: npt.NDArray[np.uint8], suffix: str = ".png") -> bytes:
    """A picture `[H, W, 3]` RGB as JPEG where the suffix is .jpg or .jpeg, else as PNG."""
    kind = ".jpg" if suffix.lower() in (".jpg", ".jpeg") else ".png"
    encoded: bytes = cv2.imencode(kind, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
    return encoded


def _decoded(content: bytes, file: Path) -> npt.NDArray[np.uint8]:
    data = np.frombuffer(content, np.uint8)
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # our own error says what is wrong
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:  # more pixels than OpenCV reads
        picture = None
    finally:
        logging.setLogLevel(level)
    if picture is None:
        raise ImageFormatError(f"{file}: the image cannot be decoded")
    rgb: npt.NDArray[np.uint8] = np.ascontiguousarray(picture[..., ::-1])
    return rgb


class ImageFiles:
    """The images of a folder or of a .zip.

    A keypoint file and the images do not always agree on names: an image is also found without its
    folder, without its ending, and in either of the two spellings of DeepFashion's flattened names
    (`fashionWOMENBlouses_Shirtsid...`, `fasionWOMENBlousesShirtsid...`). Of several that would do,
    none is taken.

    Args:
        path: the folder or the .zip.

    Raises:
        ImageFormatError: the .zip is damaged.
        OSError: there is no such folder or file.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        if self.path.is_dir():
            names = [file.name for file in self.path.iterdir()]
        else:
            try:
                self._zip = zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise ImageFormatError(
                    f"{self.path}: images must be a folder or a .zip: {error}"
                ) from None
            names = self._zip.namelist()
        self._names = frozenset(name for name in names if name.lower().endswith(IMAGE_SUFFIXES))
        self._similar: dict[str, str | None] = {}
        for name in self._names:
            key = _simplified(name)
            self._similar[key] = None if key in self._similar else name

    def read(self, name: str) -> npt.NDArray[np.uint8] | None:
        """The image of this name, `[H, W, 3]` RGB; None if there is none.

        Raises:
            ImageFormatError: it cannot be decoded.
        """
        found = self._find(name)
        if found is None:
            return None
        file = self.path / found
        try:
            content = file.read_bytes() if self._zip is None else self._zip.read(found)
        except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise ImageFormatError(f"{file}: {error}") from None
        return _decoded(content, file)

    def __contains__(self, name: str) -> bool:
        """Whether there is an image of this name; `read` may still be unable to decode it."""
        return self._find(name) is not None

    def _find(self, name: str) -> str | None:
        if name in self._names:
            return name
        parts = PurePosixPath(name)
        inside = not parts.is_absolute() and ".." not in parts.parts
        image = parts.suffix.lower() in IMAGE_SUFFIXES
        if self._zip is None and inside and image and (self.path / name).is_file():
            return name
        return self._similar.get(_simplified(name))


def _simplified(name: str) -> str:
    """The name without folder and ending, in one of DeepFashion's spellings."""
    stem = PurePosixPath(name).name
    if stem.lower().endswith(IMAGE_SUFFIXES):
        stem = stem.rpartition(".")[0]
    if stem.startswith(("fashion", "fasion")):
        stem = stem.replace("fashion", "fasion", 1).replace("_", "")
    return stem
