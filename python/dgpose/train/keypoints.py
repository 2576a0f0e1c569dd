"""Training of the judge: `KeypointNetwork` on person crops, rendered or real, never generated.

The loss of a joint is the cross-entropy between the softmax of its map and a Gaussian around the
true place. Batches and their variations are functions of (seed, step, rank) alone: a run of `steps`
that is resumed goes on number for number.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dgpose.data.person_augmentation import PersonAugmentation, augment_people
from dgpose.data.person_pool import PersonPool
from dgpose.metrics.keypoints import THRESHOLDS, KeypointErrors, keypoint_errors, torso_px
from dgpose.nn.keypoint_network import (
    KeypointNetwork,
    KeypointNetworkConfig,
    load_judge,
    save_judge,
)
from dgpose.train.checkpoint import load_checkpoint, read_state, save_checkpoint
from dgpose.train.interrupts import stop_requests
from dgpose.train.run import (
    CHECKPOINT_NAME,
    Clock,
    agree_to_stop,
    average_gradients,
    launch_fabric,
    learning_rate_factor,
    progress_bar,
    require_resume,
    require_same,
    training_progress,
)
from dgpose_ext import gaussian_heatmap

__all__ = [
    "WEIGHTS_NAME",
    "KeypointTrainConfig",
    "KeypointTrainResult",
    "Validation",
    "judge_errors",
    "train_keypoints",
]

WEIGHTS_NAME = "weights.safetensors"

_WARM_UP_STEPS = 200


@dataclass(frozen=True)
class KeypointTrainConfig:
    """Settings of `train_keypoints`.

    Args:
        out: folder of the run: checkpoint.safetensors, weights.safetensors (the best so far by
            validation), TensorBoard events.
        network: the architecture.
        augmentation: how crops vary.
        init: weight file of the same architecture to start from (fine-tuning).
        steps: optimiser steps.
        minutes: budget of all but validation, which the learning rate then follows: such a run
            cannot be repeated number for number.
        processor_time: minutes of this process's processors instead of the wall clock's.
        batch: crops a step and rank.
        learning_rate: AdamW's at its peak: linear warm-up, then half a cosine to 1 % of it.
        weight_decay: AdamW's, on convolutions alone.
        clip_norm: the gradient's norm is cut at this.
        sigma: standard deviation of the Gaussian around a true place, in cells of two pixels.
        seed: of weights, batches and all variations.
        resume: continue the run in `out`, or start it where there is none yet.
        validate_every, save_every, log_every: steps between validations, checkpoints and
            TensorBoard scalars.
        precision, accelerator, devices, nodes, strategy: Fabric's.

    Raises:
        ValueError: a setting out of range.
    """

    out: Path
    network: KeypointNetworkConfig = field(default_factory=KeypointNetworkConfig)
    augmentation: PersonAugmentation = field(default_factory=PersonAugmentation)
    init: Path | None = None
    steps: int | None = None
    minutes: float | None = None
    processor_time: bool = False
    batch: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    sigma: float = 1.0
    seed: int = 0
    resume: bool = False
    validate_every: int = 500
    save_every: int = 500
    log_every: int = 20
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        counts = ("batch", "validate_every", "save_every", "log_every", "devices", "nodes")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.steps is None and self.minutes is None:
            raise ValueError("steps or minutes must be given")
        for name in ("steps", "minutes", "learning_rate", "clip_norm", "sigma"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")


class Validation(NamedTuple):
    """What a validation found."""

    step: int
    seconds: float  #: of training until then, validation not counted
    pck: dict[str, float]  #: at 0.1, 0.2 and 0.5, and "area" under the curve up to 0.5


@dataclass(frozen=True, eq=False)
class KeypointTrainResult:
    """What `train_keypoints` ends with.

    Attributes:
        model: the best by validation, in evaluation mode; as it stands, where there was none.
        validations: all of them.
        seconds: of training, without validation.
        finished: whether the run came to its end.
    """

    model: KeypointNetwork
    validations: tuple[Validation, ...]
    seconds: float
    finished: bool


def judge_errors(model: KeypointNetwork, pool: PersonPool) -> KeypointErrors:
    """Errors of a network in evaluation mode on the joints that a pool knows.

    Args:
        model: on any device.
        pool: crops of any size.
    """
    device = next(model.parameters()).device
    parts = [model.estimate(part.to(device))[0].cpu() for part in pool.images.split(256)]  # type: ignore[no-untyped-call]
    keypoints, known = pool.body
    return keypoint_errors(torch.cat(parts), keypoints, known)


def _summary(errors: KeypointErrors) -> dict[str, float]:
    return {f"{t:g}": errors.pck(t) for t in THRESHOLDS} | {"area": errors.area}


class _Run:
    """State of a run on one rank."""

    def __init__(
        self, config: KeypointTrainConfig, pool: PersonPool, validation: PersonPool, data: str
    ) -> None:
        self.config, self.pool, self.validation, self.data = config, pool, validation, data
        self.keypoints, self.known = pool.body
        self.fabric = launch_fabric(config)
        self.fabric.seed_everything(config.seed, verbose=False)
        self.model = KeypointNetwork(config.network)
        if config.init is not None:
            self._start_from(config.init)
        self.model.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = list(self.model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        self.step = 0
        self.clock = Clock(config.processor_time)
        self.validations: list[Validation] = []
        self._start_or_resume()
        self.model.train()

    def _start_from(self, path: Path) -> None:
        trained, _ = load_judge(path)
        if trained.config != self.config.network:
            raise ValueError(
                f"init must hold a network of {self.config.network}, got {trained.config}"
            )
        self.model.load_state_dict(trained.state_dict())

    def _progress(self) -> float:
        config = self.config
        return training_progress(self.fabric, self.step, config.steps, self.clock, config.minutes)

    # ---- one step ----

    def _learn(self, progress: float) -> float:
        config, device = self.config, self.fabric.device
        rank, world = self.fabric.global_rank, self.fabric.world_size
        number = (config.seed * 1_000_003 + self.step) * world + rank
        generator = torch.Generator().manual_seed(number)
        rows = torch.randint(len(self.pool), (config.batch,), generator=generator)
        images, keypoints, known = augment_people(
            self.pool.images[rows].to(device),
            self.keypoints[rows].to(device),
            self.known[rows].to(device),
            generator,
            config.augmentation,
        )
        rate = config.learning_rate * learning_rate_factor(self.step, progress, _WARM_UP_STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with self.fabric.autocast():
            logits = self.model(images.contiguous(memory_format=torch.channels_last)).float()
        loss = _map_loss(logits, self.model.to_cells(keypoints), known, config.sigma)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.fabric, self.model.parameters())
        # Raises where the gradient is not finite: better a dead run than a poisoned one.
        torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), config.clip_norm, error_if_nonfinite=True
        )
        self.optimizer.step()
        if world > 1:
            for buffer in self.model.buffers():  # batch statistics: all go on with rank 0's
                torch.distributed.broadcast(buffer, src=0)
        self.step += 1
        return float(loss.detach())

    # ---- validation ----

    def _validate(self) -> str:
        """PCK on the validation pool; writes the weights where they are the best so far."""
        self.model.eval()
        pck = _summary(judge_errors(self.model, self.validation))
        self.model.train()
        best = max((v.pck["area"] for v in self.validations), default=-math.inf)
        self.validations.append(Validation(self.step, self.clock.seconds, pck))
        self.fabric.log_dict({f"validation/{k}": v for k, v in pck.items()}, self.step)
        if pck["area"] > best and self.fabric.is_global_zero:
            save_judge(self.model, self.config.out / WEIGHTS_NAME, self._facts())
        self.fabric.barrier()
        text = ", ".join(f"@{k} {100 * v:.1f}" for k, v in pck.items() if k != "area")
        return f"step {self.step}, {self.clock.seconds:.0f} s: PCK {text} %"

    # ---- files ----

    def _must_match(self) -> dict[str, Any]:
        config = self.config
        names = (
            *("steps", "minutes", "processor_time", "batch", "learning_rate", "weight_decay"),
            *("clip_norm", "sigma", "seed", "precision"),
        )
        return {
            "network": json.loads(json.dumps(asdict(config.network))),
            "augmentation": json.loads(json.dumps(asdict(config.augmentation))),
            "init": None if config.init is None else config.init.name,
            **{name: getattr(config, name) for name in names},
            **self._data_facts(),
        }

    def _data_facts(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "images": len(self.pool),
            "validation_images": len(self.validation),
            "ranks": self.fabric.world_size,
        }

    def _facts(self) -> dict[str, Any]:
        """What the weight file says about its training."""
        return {
            **self._data_facts(),
            "step": self.step,
            "minutes": round(self.clock.now() / 60, 2),
            "seed": self.config.seed,
            "precision": self.config.precision,
            "validation_pck": {k: round(v, 4) for k, v in self.validations[-1].pck.items()},
        }

    @property
    def _checkpoint(self) -> Path:
        return self.config.out / CHECKPOINT_NAME

    def _start_or_resume(self) -> None:
        require_resume(self.config)
        if not self._checkpoint.exists():
            return
        require_same("", read_state(self._checkpoint)["run"], self._must_match())
        modules = {"model": self.model}
        state = load_checkpoint(self._checkpoint, modules=modules, optimizer=self.optimizer)
        self.step, self.clock.seconds = state["step"], state["seconds"]
        self.validations = [Validation(*values) for values in state["validations"]]
        self.fabric.print(f"resumed at step {self.step}")

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            save_checkpoint(
                self._checkpoint,
                modules={"model": self.model},
                optimizer=self.optimizer,
                state={
                    "run": self._must_match(),
                    "step": self.step,
                    "seconds": self.clock.seconds,
                    "validations": [list(v) for v in self.validations],
                },
            )
        self.fabric.barrier()

    # ---- the run ----

    def run(self) -> KeypointTrainResult:
        """All steps from the current one on."""
        bar, config = progress_bar(self.fabric), self.config
        with stop_requests() as stop, bar:
            task = bar.add_task("training", total=1000, state="")
            while (progress := self._progress()) < 1:
                with self.clock:
                    loss = self._learn(progress)
                if self.step % config.log_every == 0:
                    self.fabric.log("loss", loss, self.step)
                    state = f"step {self.step}: loss {loss:.3f}"
                    bar.update(task, completed=int(1000 * progress), state=state)
                if self.step % config.validate_every == 0:
                    bar.console.print(self._validate())
                if agree_to_stop(self.fabric, stop.is_set()):
                    break
                if self.step % config.save_every == 0:
                    self._save()
            finished = self._progress() >= 1
            if finished and (not self.validations or self.validations[-1].step != self.step):
                bar.console.print(self._validate())
            bar.update(task, completed=int(1000 * self._progress()))
        self._save()
        best = config.out / WEIGHTS_NAME
        return KeypointTrainResult(
            model=load_judge(best)[0] if self.validations else self.model.eval(),
            validations=tuple(self.validations),
            seconds=self.clock.seconds,
            finished=finished,
        )


def _map_loss(logits: Tensor, cells: Tensor, known: Tensor, sigma: float) -> Tensor:
    """Mean cross-entropy of the known joints: logits [B, J, h, w], cells [B, J, 2]."""
    height, width = logits.shape[2:]
    target = gaussian_heatmap(cells, (height, width), sigma, visible=known, normalize="sum")
    entropy = -(target.flatten(2) * logits.flatten(2).log_softmax(2)).sum(2)
    return entropy.sum() / known.sum().clamp_min(1)


def train_keypoints(
    config: KeypointTrainConfig, pool: PersonPool, validation: PersonPool, *, data: str = ""
) -> KeypointTrainResult:
    """Trains a `KeypointNetwork`; Ctrl-C or SIGTERM ends a run at a step, with a checkpoint.

    Args:
        config: the settings.
        pool: rendered or real crops with joints; the same on every rank.
        validation: what the best weights are chosen by; nobody of `pool` may be in it.
        data: one sentence on what the pool is, kept with the weights; a resumed run must share it.

    Raises:
        ValueError: `out` holds a run and resume is not set, a resumed run of other settings, an
            init of another architecture, pools of another image size or none, or a validation pool
            in which no torso is known.
        RuntimeError: the gradient is not finite.
    """
    size = config.network.image_size
    for name, people in (("pool", pool), ("validation", validation)):
        if not len(people):
            raise ValueError(f"{name} must have at least one image, got none")
        if tuple(people.images.shape[2:]) != (size, size):
            raise ValueError(
                f"{name} must have images of {size}x{size} pixels, "
                f"got {list(people.images.shape[2:])}"
            )
    if bool(torso_px(*validation.body).isnan().all()):
        raise ValueError(
            "validation must know a shoulder and the other side's hip of somebody, got none"
        )
    config.out.mkdir(parents=True, exist_ok=True)
    return _Run(config, pool, validation, data).run()
