"""What the configurations of the models check about their values."""

from __future__ import annotations

import math
from typing import Any, get_args

__all__ = ["require_counts", "require_not_negative", "require_one_of", "require_positive"]


def require_one_of(name: str, value: str, options: Any) -> None:
    """ValueError for what is none of a Literal's values, which would be taken for another one."""
    if value not in get_args(options):
        raise ValueError(f"{name} must be one of {', '.join(get_args(options))}, got {value!r}")


def require_counts(config: object, *names: str) -> None:
    """ValueError for a size, or one of several, below 1."""
    for name in names:
        value = getattr(config, name)
        if any(size < 1 for size in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{name} must be at least 1, got {value}")


def require_positive(config: object, *names: str) -> None:
    """ValueError for a value that is not finite and above 0."""
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")


def require_not_negative(config: object, *names: str) -> None:
    """ValueError for a value that is not finite and from 0 on."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(f"{name} must not be negative, got {getattr(config, name)}")
