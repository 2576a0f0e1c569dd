"""Fake kernels (shapes and dtypes without data) for torch.compile, torch.export and opcheck."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from dgpose_ext import _loader

F = TypeVar("F", bound=Callable[..., object])


def register(name: str) -> Callable[[F], F]:
    """Registers the fake kernel of torch.ops.dgpose.<name>.

    Without the core there is no such op, and the reference, plain torch, needs none.
    """

    def decorate(function: F) -> F:
        if _loader.core is not None:
            if not hasattr(torch.ops.dgpose, name):
                raise RuntimeError(
                    f"dgpose_ext._C is older than the Python files: it lacks {name}; "
                    "run `make build`, or install the package again"
                )
            torch.library.register_fake(f"dgpose::{name}", function)
        return function

    return decorate
