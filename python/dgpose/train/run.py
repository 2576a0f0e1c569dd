"""What training runs have in common: devices, folders, learning rate, several ranks, progress."""

from __future__ import annotations

import atexit
import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

__all__ = [
    "CHECKPOINT_NAME",
    "Clock",
    "RunSettings",
    "agree_to_stop",
    "average_gradients",
    "check_devices",
    "follow_average",
    "launch_fabric",
    "learning_rate_factor",
    "progress_bar",
    "require_resume",
    "require_same",
    "share_buffers",
    "step_seed",
    "training_progress",
]

CHECKPOINT_NAME = "checkpoint.safetensors"


class RunSettings(Protocol):
    """Settings that every run has."""

    @property
    def out(self) -> Path: ...
    @property
    def seed(self) -> int: ...
    @property
    def resume(self) -> bool: ...
    @property
    def precision(self) -> str: ...
    @property
    def accelerator(self) -> str: ...
    @property
    def devices(self) -> int: ...
    @property
    def nodes(self) -> int: ...
    @property
    def strategy(self) -> str: ...


def require_resume(settings: RunSettings) -> None:
    """Refuses a folder that is none, or holds a run which is not to be resumed.

    Raises:
        ValueError: it does.
    """
    out = settings.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} must be a folder, got a file")
    if not settings.resume and (out / CHECKPOINT_NAME).exists():
        raise ValueError(f"{out} holds a run: resume it, or give another folder")


def require_same(name: str, before: Any, now: Any) -> None:
    """ValueError that names the first setting, of nested ones, that a resumed run has not."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            require_same(f"{name}.{key}" if name else key, before.get(key), now.get(key))
    elif before != now:
        raise ValueError(f"{name} must be that of the resumed run, {before!r}, got {now!r}")


def _make_fabric(settings: RunSettings) -> Fabric:
    """Fabric of these devices, not launched; TensorBoard's events go to `out`."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it repeats what was asked for
    return Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=settings.strategy,
        precision=cast(Any, settings.precision),
        loggers=TensorBoardLogger(settings.out, name="", version="tensorboard"),
    )


def launch_fabric(settings: RunSettings) -> Fabric:
    """Fabric of these devices, launched, and torch's own generators seeded."""
    fabric = _make_fabric(settings)
    fabric.launch()
    fabric.seed_everything(settings.seed, verbose=False)
    if fabric.world_size > 1:
        # Fabric leaves a group of gloo to the end of the interpreter, whose order may abort it.
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_devices(settings: RunSettings) -> None:
    """Refuses devices that are not there, so that nobody reads a data set first to hear it.

    Raises:
        ValueError, RuntimeError: Fabric's, of accelerator, devices or strategy.
    """
    _make_fabric(settings)


def learning_rate_factor(step: int, progress: float, warmup_steps: int) -> float:
    """Share of the peak learning rate: linear warm-up by step, half a cosine to 1 % by progress."""
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    return warmup * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def step_seed(fabric: Fabric, seed: int, step: int, purpose: int) -> int:
    """Seed of what a rank draws in a step for one of eight purposes: a function of these alone, so
    that a resumed run goes on."""
    world = fabric.world_size
    return ((seed * 1_000_003 + step) * world + fabric.global_rank) * 8 + purpose


def average_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Gives all ranks the mean of their gradients."""
    if fabric.world_size == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = cast(torch.Tensor, fabric.all_reduce(parameter.grad, reduce_op="mean"))


def share_buffers(fabric: Fabric, modules: Iterable[nn.Module]) -> None:
    """Gives all ranks the buffers of rank 0, as DDP does: batch statistics are each rank's own."""
    if fabric.world_size == 1:
        return
    for module in modules:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)


@torch.no_grad()
def follow_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """The moving average of the weights goes after them, fast in the first steps; buffers are
    copied."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), share)
    for mean, buffer in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(buffer)


def agree_to_stop(fabric: Fabric, stop: bool) -> bool:
    """The same decision to stop on every rank."""
    if fabric.world_size == 1:
        return stop
    votes = fabric.all_reduce(torch.tensor(float(stop), device=fabric.device), reduce_op="max")
    return bool(votes)


def training_progress(
    fabric: Fabric, step: int, steps: int | None, clock: Clock, minutes: float | None
) -> float:
    """How much of a run of so many steps or minutes (None: no limit) is done, 0 .. 1, the same on
    all ranks."""
    by_steps = 0.0 if steps is None else step / steps
    by_time = 0.0 if minutes is None else clock.now() / (60 * minutes)
    progress = torch.tensor(max(by_steps, by_time), device=fabric.device)
    return min(1.0, float(cast(torch.Tensor, fabric.all_reduce(progress, reduce_op="max"))))


def progress_bar(fabric: Fabric) -> Progress:
    """Of the first rank; its tasks have a field `state`, a text."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
        disable=not fabric.is_global_zero,
    )


class Clock:
    """Seconds of a part of the training; earlier runs count.

    Args:
        processor: seconds of this process's processors instead of the wall clock's.
    """

    def __init__(self, processor: bool = False) -> None:
        self.seconds = 0.0
        self._started: float | None = None
        self._time = time.process_time if processor else time.monotonic

    def __enter__(self) -> None:
        self._started = self._time()

    def __exit__(self, *_: object) -> None:
        self.seconds, self._started = self.now(), None

    def now(self) -> float:
        running = 0.0 if self._started is None else self._time() - self._started
        return self.seconds + running
