"""Errors as one clear sentence: a missing extra, and any exception for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

INSTALL_SYSTEMS = "pip install 'dgpose-ext[systems]'"

# Import names of what the extra installs.
_SYSTEMS = (
    "PIL", "cv2", "lightning_fabric", "matplotlib", "rich", "safetensors", "scipy", "tensorboard",
    "typer",
)  # fmt: skip


class MissingExtraError(ModuleNotFoundError):
    """A package is missing that the extra `systems` installs; the message says how."""


@contextmanager
def systems_required() -> Iterator[None]:
    """Turn the failed import of such a package into a `MissingExtraError`."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _SYSTEMS:
            raise
        raise MissingExtraError(
            f"dgpose needs {package}, which is not installed: {INSTALL_SYSTEMS}", name=error.name
        ) from None


def one_line(error: BaseException) -> str:
    """The message of an exception, for a terminal."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
