"""Options that several commands have, and their values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "TRY",
    "CameraOption",
    "CenterOption",
    "Centers",
    "HandSetName",
    "HardwareOptions",
    "Precision",
    "Split",
    "SplitBy",
    "SplitByOption",
    "SplitOption",
    "TestCenters",
    "Threads",
    "TrainPrecision",
    "integers",
    "three_steps",
    "use_threads",
]

CameraOption = Annotated[
    str | None,
    typer.Option(
        help="nyu, kinect2, icvl, msra, or fx,fy,cx,cy in pixels; can be left out where the "
        "file says it."
    ),
]
CenterOption = Annotated[
    str | None,
    typer.Option(help="u,v,mm of the hand's middle in all frames; else it is found in each."),
]
TRY = "For a short try: the table says that it is not the published recipe"
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads a process; by default torch's choice.")
]
Centers = Annotated[
    Path | None,
    typer.Option(
        help="Centre file, u v mm a line: of the training images (MSRA: of all frames of P0 to "
        "P8). Without it the hand is found in each image."
    ),
]
TestCenters = Annotated[
    Path | None, typer.Option(help="Centre file of the test images (MSRA: see --centers).")
]


class HandSetName(str, Enum):
    """Public data sets of hands in depth images."""

    ICVL = "icvl"
    NYU = "nyu"
    MSRA = "msra"


class Split(str, Enum):
    """Parts of a data set."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class SplitBy(str, Enum):
    """How motion capture poses are split."""

    SEQUENCE = "sequence"
    ACTION = "action"


SplitOption = Annotated[Split, typer.Option(help="Part; of h36m train or test.")]
SplitByOption = Annotated[
    SplitBy, typer.Option(help="What no two parts share: takes, or actions (of CMU's poses).")
]


class TrainPrecision(str, Enum):
    """What networks compute in while they train."""

    FLOAT32 = "32-true"
    BFLOAT16 = "bf16-mixed"


Precision = Annotated[TrainPrecision, typer.Option(help="While training.")]


def use_threads(threads: int | None) -> None:
    """The option --threads."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


@dataclass(frozen=True)
class HardwareOptions:
    """What a training runs on."""

    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto"
    devices: Annotated[int, typer.Option(min=1, help="Devices a machine.")] = 1
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1
    strategy: Annotated[str, typer.Option(help="auto, or ddp for several devices.")] = "auto"
    threads: Threads = None

    def settings(self) -> dict[str, Any]:
        """Those of a run, by their names there."""
        return {
            "accelerator": self.accelerator,
            "devices": self.devices,
            "nodes": self.nodes,
            "strategy": self.strategy,
        }


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
