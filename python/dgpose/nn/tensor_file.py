"""One safetensors file = tensors + a JSON description + a checksum over both.

Weights and training checkpoints share this format, so that a file that was cut short, edited or
written by something else is recognised before a single number of it is used. The description lies
under one key of the safetensors metadata ("dgpose"); a file is byte for byte reproducible.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

_KEY = "dgpose"


def _checksum(tensors: Mapping[str, Tensor], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Writes `data` beside `path` and moves it into place: readers see the old or the new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    description = json.dumps(
        {"kind": kind, "version": version, "metadata": dict(metadata)}, sort_keys=True
    )
    envelope = json.dumps({"description": description, "sha256": _checksum(stored, description)})
    write_bytes_atomically(Path(path), save(stored, metadata={_KEY: envelope}))


def read_tensor_file(
    path: str | Path, *, kind: str, version: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads and verifies a file of `write_tensor_file`.

    Returns:
        (tensors on the CPU, metadata).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a safetensors file, cut short, of another kind or version, or changed after
            it was written (checksum).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            envelope = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
    if envelope is None:
        raise ValueError(f"{path}: a safetensors file, but not one that dgpose wrote")
    try:
        fields = json.loads(envelope)
        description, expected = fields["description"], fields["sha256"]
        content = json.loads(description)
        found = (content["kind"], content["version"])
        metadata: dict[str, Any] = content["metadata"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: its description is damaged ({error})") from error
    if _checksum(tensors, description) != expected:
        raise ValueError(f"{path}: checksum differs, the file was changed after it was written")
    if found != (kind, version):
        raise ValueError(
            f"{path}: must be a {kind} file of version {version}, "
            f"got {found[0]} of version {found[1]}"
        )
    return tensors, metadata
