"""Values of options that several commands have."""

from __future__ import annotations

from enum import Enum

__all__ = ["HandSetName", "TrainPrecision", "integers", "three_steps"]


class HandSetName(str, Enum):
    """Public data sets of hands in depth images."""

    ICVL = "icvl"
    NYU = "nyu"
    MSRA = "msra"


class TrainPrecision(str, Enum):
    """What networks compute in while they train."""

    FLOAT32 = "32-true"
    BFLOAT16 = "bf16-mixed"


def integers(option: str, text: str) -> list[int]:
    """Integers separated by commas.

    Raises:
        ValueError: something else.
    """
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} must be integers separated by commas, got {text!r}") from None


def three_steps(text: str | None) -> tuple[int, int, int] | None:
    """The value of --steps; None where it is not given.

    Raises:
        ValueError: not three integers.
    """
    if text is None:
        return None
    values = integers("--steps", text)
    if len(values) != 3:
        raise ValueError(f"--steps must be three numbers VAE,GAN,JOINT, got {text!r}")
    return values[0], values[1], values[2]
