"""What pools of labelled images in memory have in common: rows, files, and checks of tensors."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from dgpose_ext.tensor_file import read_tensor_file, write_tensor_file

__all__ = ["TensorPool", "require_tensor"]

Pool = TypeVar("Pool", bound="TensorPool")


class TensorPool:
    """Base of frozen dataclasses whose tensors have one row for each sample.

    Fields that hold tensors (or None) are rows; the others describe the pool: texts, or tuples of
    texts.
    """

    _KIND: ClassVar[str]
    _VERSION: ClassVar[int]

    images: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def subset(self: Pool, rows: Tensor) -> Pool:
        """The samples of these rows [M], or of a mask [N]."""
        return replace(self, **self._taken(rows))  # type: ignore[type-var]

    def save(self, path: str | Path) -> None:
        """Writes one tensor file, atomically."""
        tensors = self._tensors()
        described = {
            field.name: value
            for field in fields(self)  # type: ignore[arg-type]
            for value in [getattr(self, field.name)]
            if field.name not in tensors and value is not None
        }
        write_tensor_file(path, tensors, kind=self._KIND, version=self._VERSION, metadata=described)

    @classmethod
    def load(cls: type[Pool], path: str | Path) -> Pool:
        """Reads a file of `save`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a foreign, truncated or changed file.
        """
        tensors, described = read_tensor_file(path, kind=cls._KIND, version=cls._VERSION)
        texts = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in described.items()
        }
        try:
            return cls(**tensors, **texts)
        except (TypeError, ValueError) as error:
            kind = cls._KIND.replace("_", " ")
            raise ValueError(f"{path}: does not hold a {kind} ({error})") from error

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _taken(self, rows: Tensor) -> dict[str, Any]:
        """The fields of these rows, where they differ from those of all."""
        return {name: value[rows] for name, value in self._tensors().items()}


def require_tensor(
    name: str, value: Tensor, shape: tuple[int | str, ...], dtype: torch.dtype, **sizes: int
) -> None:
    """ValueError or TypeError for a tensor of another shape or dtype, or one that is not finite.

    Args:
        name: of the tensor.
        value: the tensor.
        shape: as the documentation has it, `("N", 17, 3)`.
        dtype: what it must have.
        sizes: the values of the shape's letters.
    """
    wanted = tuple(sizes[edge] if isinstance(edge, str) else edge for edge in shape)
    if tuple(value.shape) != wanted:
        letters = ", ".join(f"{edge} = {sizes[edge]}" for edge in shape if isinstance(edge, str))
        raise ValueError(
            f"{name} must have shape [{', '.join(map(str, shape))}] with {letters}, "
            f"got {list(value.shape)}"
        )
    if value.dtype != dtype:
        raise TypeError(f"{name} must be {str(dtype).removeprefix('torch.')}, got {value.dtype}")
    if dtype.is_floating_point and not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be finite")
