"""One safetensors file = tensors + a JSON description + a checksum over both.

Compiled networks, weights and training checkpoints share this format, so that a file that was cut
short, edited or written by something else is recognised before a single number of it is used. The
description lies under one key of the safetensors metadata ("dgpose"); a file is byte for byte
reproducible. Needs the package safetensors once a file is written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

_KEY = "dgpose"


def _safetensors() -> ModuleType:
    """The package, which importing dgpose_ext must not need."""
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "tensor files need safetensors: `pip install safetensors`, "
            "or the extra `pip install 'dgpose-ext[systems]'`",
            name=error.name,
        ) from None
    module: ModuleType = safetensors
    return module


def _checksum(tensors: Mapping[str, Tensor], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to be written beside `path`, moved into place at the end: readers see old or new.

    A missing folder is made. The file's mode is that of any new file (0o666 less the umask).
    Errors name `path`, not the file beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and str(error.filename) == str(temporary):
            error.filename = str(path)
        raise


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Writes `data` through `atomic_file`."""
    with atomic_file(path) as file:
        file.write(data)


def write_tensor_file(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    version: int,
    metadata: Mapping[str, Any],
) -> None:
    """Writes tensors and metadata to one safetensors file, atomically.

    Args:
        path: the file; its folder is created where it is missing.
        tensors: any dtype, shape, device and memory format; stored contiguous.
        kind: what the file holds, such as "hand_regressor"; checked by `read_tensor_file`.
        version: format version of that kind.
        metadata: JSON-serialisable description.

    Raises:
        TypeError: metadata that JSON cannot hold.
        ModuleNotFoundError: safetensors is not installed.
    """
    torch_format = _safetensors().torch
    stored: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()  # safetensors refuses tensors that share memory
        storages.add(tensor.untyped_storage().data_ptr())
        stored[name] = tensor
    description = json.dumps(
        {"kind": kind, "version": version, "metadata": dict(metadata)}, sort_keys=True
    )
    envelope = json.dumps({"description": description, "sha256": _checksum(stored, description)})
    write_bytes_atomically(Path(path), torch_format.save(stored, metadata={_KEY: envelope}))


def read_tensor_file(
    path: str | Path, *, kind: str, version: int | tuple[int, ...]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads and verifies a file of `write_tensor_file`, of this version or one of these.

    Returns:
        (tensors on the CPU, metadata).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a safetensors file, cut short, of another kind or version, or changed after
            it was written (checksum). Kind and version are looked at before any tensor is read.
        ModuleNotFoundError: safetensors is not installed.
    """
    path = Path(path)
    versions = version if isinstance(version, tuple) else (version,)
    with _opened(path) as file:
        description, expected = _envelope(path, (file.metadata() or {}).get(_KEY))
        content = _content(path, description)
        if content["kind"] != kind or content["version"] not in versions:
            raise ValueError(
                f"{path}: must be a {kind} file of version {' or '.join(map(str, versions))}, "
                f"got {content['kind']} of version {content['version']}"
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if _checksum(tensors, description) != expected:
        raise ValueError(f"{path}: checksum differs, the file was changed after it was written")
    metadata: dict[str, Any] = content["metadata"]
    return tensors, metadata


class TensorFileHeader(NamedTuple):
    """What a tensor file says of itself."""

    kind: str
    """What it holds, such as "hand_regressor"."""
    version: int
    """Format version of that kind."""
    metadata: dict[str, Any]
    """Its description."""
    shapes: dict[str, tuple[int, ...]]
    """Of its tensors, by name."""


def read_tensor_header(path: str | Path) -> TensorFileHeader:
    """What a file of `write_tensor_file` holds; no tensor is read, and the checksum not checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a safetensors file, cut short, or not written by dgpose.
        ModuleNotFoundError: safetensors is not installed.
    """
    path = Path(path)
    with _opened(path) as file:
        description, _ = _envelope(path, (file.metadata() or {}).get(_KEY))
        names = file.keys()
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    content = _content(path, description)
    return TensorFileHeader(content["kind"], content["version"], content["metadata"], shapes)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The safetensors file, and what its reader finds wrong with it as ValueError."""
    safetensors = _safetensors()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error


def _envelope(path: Path, envelope: str | None) -> tuple[str, str]:
    """(description, checksum)."""
    if envelope is None:
        raise ValueError(f"{path}: a safetensors file, but not one that dgpose wrote")
    try:
        fields = json.loads(envelope)
        return str(fields["description"]), str(fields["sha256"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: its description is damaged ({error})") from error


def _content(path: Path, description: str) -> dict[str, Any]:
    """The description's kind, version and metadata."""
    try:
        content = json.loads(description)
        return {key: content[key] for key in ("kind", "version", "metadata")}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: its description is damaged ({error})") from error
