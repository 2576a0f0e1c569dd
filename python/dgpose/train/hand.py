"""Training of `HandRegressor` on rendered hands.

One loop on Lightning Fabric: the same code on one core, several GPUs or several machines::

    torchrun --nproc-per-node 8 -m dgpose train hand --devices 8 --strategy ddp ...

Rank r of R draws, at step s, the frames (s R + r) batch + 0 .. batch - 1 of the data set. What is
seen therefore depends on the number of ranks alone, not on the launcher, and a resumed run sees
what the uninterrupted one would have seen. On a CPU in float32 the two end in the same bits. That
holds for a schedule of steps (`steps`); with one of wall-clock time (`minutes`) the learning rate
follows the clock.

Checkpoints are chosen by the error on rendered validation frames, with the exponential moving
average (EMA) of the weights. No real frame is used anywhere here.
"""

from __future__ import annotations

import copy
import json
import math
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import Tensor, nn

from dgpose.nn.hand_regressor import (
    HandRegressor,
    HandRegressorConfig,
    load_weights,
    save_weights,
)
from dgpose.skeletons import NYU36, NYU_SCORED14
from dgpose.train.checkpoint import load_checkpoint, save_checkpoint
from dgpose.train.interrupts import stop_requests
from dgpose.train.panel import skeleton_panel
from dgpose.train.run import (
    launch_fabric,
    learning_rate_factor,
    progress_bar,
)
from dgpose_ext import crop_to_uvd
from dgpose_ext.tensor_file import write_bytes_atomically

if TYPE_CHECKING:
    from dgpose.data.synthetic_hands import HandBatch

CHECKPOINT_NAME = "last.ckpt.safetensors"
"""The file a run continues from: everything, at the last validation."""
PRECISIONS = ("32-true", "bf16-mixed")
BEST_NAME = "best.safetensors"
"""EMA weights (float32, `load_weights`) of the lowest error on rendered validation frames."""

_PANEL_FRAMES = 8


class HandFrames(Protocol):
    """A data set: the same index gives the same frame, always and everywhere."""

    def batch(self, indices: Sequence[int]) -> HandBatch: ...


@dataclass(frozen=True)
class HandTrainConfig:
    """Settings of `train_hand`.

    Args:
        out: folder of the run: checkpoint, best weights, summary.json, TensorBoard events.
        steps: optimiser steps; None when `minutes` alone decides.
        minutes: wall-clock budget (validation included; counted over all sittings of a resumed
            run); the run ends when either is reached, and the schedule follows whichever is
            nearer its end.
        batch: frames a rank and step.
        seed: of the first weights and of torch's generators.
        learning_rate: peak of the schedule: linear warm-up, then half a cosine to 1 % of it.
        warmup_steps: length of the warm-up.
        weight_decay: AdamW's, on convolution weights only.
        clip_norm: the gradient's norm is cut at this.
        ema_decay: of the averaged weights; shorter in the first steps.
        scored_weight: weight in the loss of the 14 joints that are scored; the others have 1.
        attention_weight: weight of the loss on the attention maps (see `HandLoss`).
        precision: Fabric's "32-true" or "bf16-mixed" (float16 would need loss scaling).
        accelerator, devices, nodes, strategy: Fabric's; "ddp" for several devices.
        validate_every: steps between validations; each also writes the checkpoint.
        validation_frames: rendered frames a validation, all ranks together.
        log_every: steps between TensorBoard scalars.
        resume: continue the run in `out`, or start it where there is none yet.
        init: weight file (`save_weights`) to start from instead of random weights.
        network: the architecture.

    Raises:
        ValueError: a setting out of range, or neither steps nor minutes.
    """

    out: Path
    steps: int | None = 20_000
    minutes: float | None = None
    batch: int = 64
    seed: int = 0
    learning_rate: float = 3e-3
    warmup_steps: int = 500
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    scored_weight: float = 2.0
    attention_weight: float = 0.1
    precision: str = "bf16-mixed"
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    validate_every: int = 500
    validation_frames: int = 1024
    log_every: int = 20
    resume: bool = False
    init: Path | None = None
    network: HandRegressorConfig = field(default_factory=HandRegressorConfig)

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("steps or minutes must be given, got neither")
        positive = ("batch", "validate_every", "validation_frames", "log_every", "devices", "nodes")
        for name in (*positive, "learning_rate", "clip_norm", "scored_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        for name in ("steps", "minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")


@dataclass(frozen=True)
class HandTrainResult:
    """What a run did: errors are mean distances in mm over the scored joints of rendered frames."""

    steps: int
    frames: int
    minutes: float
    error_mm: float
    best_error_mm: float
    best: Path
    finished: bool


def crop_to_mm(joints: Tensor, batch: HandBatch) -> Tensor:
    """[B, J, 3] crop coordinates of the crops in `batch` -> mm, x right, y UP, z forward.

    The crop window spans cube / 2 mm to each side at the depth of its centre; a joint in front of
    or behind the centre lies on the ray through its pixel.
    """
    camera = torch.as_tensor(batch.camera).to(joints)
    uvd = crop_to_uvd(joints, batch.centers.to(joints), camera, torch.as_tensor(batch.cube_mm))
    fx, fy, cx, cy = camera.reshape(-1, 4, 1).unbind(1)
    u, v, z = uvd.unbind(2)
    return torch.stack(((u - cx) / fx * z, (cy - v) / fy * z, z), dim=2)


class HandLoss(nn.Module):
    """The network and its loss in one module, so that one forward call is all that is distributed.

    Two terms, both in units of 10 mm at the depth of the crop's centre:

    - the distance between predicted and true joint, smoothed below 1 mm, sqrt(d^2 + 1): the figure
      that is reported, and less swayed by the hidden joints nobody could place than its square;
    - for the attention maps, the same distance of sum_cells w * anchor in the image plane (the
      "informative anchor surrounding" term of A2J, Xiong et al., ICCV 2019): a joint is then read
      from the cells around it.
    """

    joint_weights: Tensor

    def __init__(
        self, model: HandRegressor, scored: Sequence[int], scored_weight: float, attention: float
    ) -> None:
        super().__init__()
        self.model = model
        self.attention = attention
        joints = model.config.joints
        weights = torch.ones(joints)
        weights[list(scored)] = scored_weight
        self.register_buffer("joint_weights", weights / weights.sum(), persistent=False)

    def forward(self, crop: Tensor, joints: Tensor, half_cube: Tensor) -> tuple[Tensor, Tensor]:
        """crop [B, 1, 128, 128], joints [B, J, 3] in crop coordinates, half_cube [B] in mm.

        Returns:
            (loss, mean distance in mm over all joints, without gradient).
        """
        maps = self.model.maps(crop).float()
        predicted = self.model.anchors(maps)
        scale = half_cube[:, None, None] / 10
        distance = _smooth_norm((predicted - joints) * scale)
        loss = (distance * self.joint_weights).sum(1).mean()
        if self.attention > 0:
            attended = _attended_anchors(maps, self.model.config.joints)
            surround = _smooth_norm((attended - joints[..., :2]) * scale)
            loss = loss + self.attention * (surround * self.joint_weights).sum(1).mean()
        return loss, 10 * distance.detach().mean()


def _smooth_norm(difference: Tensor) -> Tensor:
    """|difference| in units of 10 mm along the last axis, smooth below 1 mm."""
    return (difference.square().sum(-1) + 0.01).sqrt()


def _attended_anchors(maps: Tensor, joints: int) -> Tensor:
    """[B, 4J, h, w] -> [B, J, 2]: mean of the cell centres under each joint's attention."""
    h, w = maps.shape[2], maps.shape[3]
    weights = maps[:, :joints].flatten(2).softmax(2).reshape(-1, joints, h, w)
    x = (torch.arange(w, device=maps.device) + 0.5) * (2.0 / w) - 1.0
    y = (torch.arange(h, device=maps.device) + 0.5) * (2.0 / h) - 1.0
    return torch.stack(((weights.sum(2) * x).sum(2), (weights.sum(3) * y).sum(2)), dim=2)


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average += (1 - decay) (model - average), for parameters and batch-norm statistics."""
    targets = average.state_dict()
    sources = model.state_dict()
    floating = [name for name, tensor in targets.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([targets[n] for n in floating], [sources[n] for n in floating], 1 - decay)
    for name in targets.keys() - set(floating):
        targets[name].copy_(sources[name])


class _Prefetcher:
    """Renders the next batch in one background thread while the current one is learned from."""

    def __init__(self, frames: HandFrames) -> None:
        self._frames = frames
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="render")

    def __enter__(self) -> _Prefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def batches(self, ranges: Iterator[range]) -> Iterator[HandBatch]:
        pending = self._pool.submit(self._frames.batch, next(ranges))
        for indices in ranges:
            following = self._pool.submit(self._frames.batch, indices)
            yield pending.result()
            pending = following


class _Run:
    """State of one training run on one rank."""

    def __init__(
        self, config: HandTrainConfig, train: HandFrames, validation: HandFrames, data: str
    ) -> None:
        self.config = config
        self.data = data
        self.train = train
        self.step = 0
        self.earlier_seconds = 0.0
        self.error_mm = math.inf
        self.best_error_mm = math.inf

        self.fabric = launch_fabric(config)
        if config.init is None:
            model = HandRegressor(config.network)
        else:
            model, _ = load_weights(config.init)
            if model.config != config.network:
                raise ValueError(
                    f"init must be of the architecture {config.network}, got {model.config}"
                )
        # channels_last is what the CPU's and tensor cores' convolutions compute in.
        model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.model = model
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.average = self.average.to(self.fabric.device)
        loss = HandLoss(model, NYU_SCORED14, config.scored_weight, config.attention_weight)
        matrices = [p for p in model.parameters() if p.dim() > 1]
        vectors = [p for p in model.parameters() if p.dim() <= 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            foreach=True,
        )
        self.optimizer = optimizer
        self.loss, self.fabric_optimizer = self.fabric.setup(loss, optimizer)
        self.validation_batches = self._render_validation(validation)
        self._start_or_resume()
        self.started = time.monotonic()

    @property
    def checkpoint(self) -> Path:
        return self.config.out / CHECKPOINT_NAME

    @property
    def frames(self) -> int:
        """Frames learned from so far, by all ranks."""
        return self.step * self.config.batch * self.fabric.world_size

    def _must_match(self) -> dict[str, Any]:
        """What a resumed run must share with the first: the network and the frames it sees."""
        return {
            "network": json.loads(json.dumps(asdict(self.config.network))),
            "batch": self.config.batch,
            "seed": self.config.seed,
            "ranks": self.fabric.world_size,
            "data": self.data,
        }

    def _start_or_resume(self) -> None:
        if not self.checkpoint.exists():
            return
        if not self.config.resume:
            raise ValueError(f"{self.config.out} holds a run: resume it, or give another folder")
        modules = {"model": self.model, "ema": self.average}
        state = load_checkpoint(self.checkpoint, modules=modules, optimizer=self.optimizer)
        for name, value in self._must_match().items():
            if state["run"][name] != value:
                raise ValueError(
                    f"{name} must be that of the resumed run, {state['run'][name]}, got {value}"
                )
        self.step = state["step"]
        self.earlier_seconds = state["seconds"]
        self.error_mm, self.best_error_mm = state["error_mm"], state["best_error_mm"]
        self.fabric.print(f"resumed at step {self.step}, best error {self.best_error_mm:.2f} mm")

    def _render_validation(self, frames: HandFrames) -> list[HandBatch]:
        """This rank's share of the validation frames, rendered once and kept."""
        count, world = self.config.validation_frames, self.fabric.world_size
        share = range(self.fabric.global_rank, count, world)
        size = self.config.batch
        return [frames.batch(share[i : i + size]) for i in range(0, len(share), size)]

    def seconds(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.started

    def progress(self, seconds: float) -> float:
        fractions = [0.0]
        if self.config.steps is not None:
            fractions.append(self.step / self.config.steps)
        if self.config.minutes is not None:
            fractions.append(seconds / (60 * self.config.minutes))
        return max(fractions)

    def ranges(self) -> Iterator[range]:
        """The frames of this rank, step by step, from the current step on."""
        batch, world, rank = self.config.batch, self.fabric.world_size, self.fabric.global_rank
        step = self.step
        while True:
            first = (step * world + rank) * batch
            yield range(first, first + batch)
            step += 1

    def agree(self, seconds: float, stop: bool) -> tuple[float, bool]:
        """The same clock and the same decision to stop on every rank."""
        if self.fabric.world_size == 1:
            return seconds, stop
        mine = torch.tensor([seconds, float(stop)], dtype=torch.float64, device=self.fabric.device)
        latest = cast(Tensor, self.fabric.all_reduce(mine, reduce_op="max"))
        return float(latest[0]), bool(latest[1])

    def learn(self, batch: HandBatch, progress: float) -> tuple[Tensor, Tensor]:
        """One optimiser step: (loss, mean distance in mm)."""
        config = self.config
        factor = learning_rate_factor(self.step, progress, config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        device = self.fabric.device
        crop = batch.crop.to(device, non_blocking=True)
        joints = batch.joints.to(device, non_blocking=True)
        half = torch.as_tensor(batch.cube_mm, dtype=torch.float32, device=device) / 2
        loss, distance = self.loss(crop, joints, half.expand(crop.shape[0]))
        self.fabric.backward(loss)
        # Raises where the gradient is not finite: better a dead run than a poisoned one.
        self.fabric.clip_gradients(self.loss, self.fabric_optimizer, max_norm=config.clip_norm)
        self.fabric_optimizer.step()
        self.fabric_optimizer.zero_grad()
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        update_ema(self.average, self.model, decay)
        self.step += 1
        return loss.detach(), distance

    @torch.no_grad()
    def validate(self) -> None:
        """Error of the averaged weights; writes the best weights, the picture, the checkpoint."""
        device = self.fabric.device
        if self.fabric.world_size > 1:
            # Batch-norm statistics are each rank's own: judge, and keep, those of rank 0.
            for tensor in self.average.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        scored = list(NYU_SCORED14)
        shown: Tensor | None = None
        for batch in self.validation_batches:
            predicted = self.average(batch.crop.to(device)).cpu()
            shown = predicted if shown is None else shown
            error = (crop_to_mm(predicted, batch) - batch.joints_mm).norm(dim=2)[:, scored]
            totals += torch.tensor([float(error.sum()), error.numel()], device=device)
        if self.fabric.world_size > 1:
            totals = cast(Tensor, self.fabric.all_reduce(totals, reduce_op="sum"))
        self.error_mm = float(totals[0] / totals[1])
        improved = self.error_mm < self.best_error_mm
        self.best_error_mm = min(self.error_mm, self.best_error_mm)
        if self.fabric.is_global_zero:
            if improved:
                path = self.config.out / BEST_NAME
                save_weights(self.average, path, self.facts(), dtype=torch.float32)
            self.save()
            self.fabric.log("rendered_error_mm", self.error_mm, self.step)
            if shown is not None:
                first = self.validation_batches[0]
                panel = skeleton_panel(
                    first.crop[:_PANEL_FRAMES],
                    shown[:_PANEL_FRAMES],
                    first.joints[:_PANEL_FRAMES],
                    NYU36,
                )
                writer = cast(TensorBoardLogger, self.fabric.logger).experiment
                writer.add_image("rendered validation", panel, self.step, dataformats="HWC")
        self.fabric.barrier()

    def facts(self) -> dict[str, Any]:
        """What a model card needs to know of the training."""
        return {
            "data": self.data,
            "steps": self.step,
            "frames": self.frames,
            "minutes": round(self.seconds() / 60, 2),
            "rendered_error_mm": self.error_mm,
            "rendered_validation_frames": self.config.validation_frames,
            "seed": self.config.seed,
            "batch": self.config.batch,
            "learning_rate": self.config.learning_rate,
            "precision": self.config.precision,
            "init": self.config.init.name if self.config.init else None,
            "ranks": self.fabric.world_size,
            "device": _device_name(self.fabric.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def save(self) -> None:
        save_checkpoint(
            self.checkpoint,
            modules={"model": self.model, "ema": self.average},
            optimizer=self.optimizer,
            state={
                "run": self._must_match(),
                "step": self.step,
                "seconds": self.seconds(),
                "error_mm": self.error_mm,
                "best_error_mm": self.best_error_mm,
            },
        )

    def run(self) -> HandTrainResult:
        config = self.config
        bar = progress_bar(self.fabric)
        finished = False
        with (
            stop_requests() as stop,
            bar,
            _Prefetcher(self.train) as prefetcher,
        ):
            task = bar.add_task("training", total=1000, state="")
            batches = prefetcher.batches(self.ranges())
            mark, mark_frames = time.monotonic(), self.frames
            while True:
                seconds, stopping = self.agree(self.seconds(), stop.is_set())
                progress = self.progress(seconds)
                finished = progress >= 1
                if finished or stopping:
                    break
                loss, distance = self.learn(next(batches), progress)
                if self.step % config.log_every == 0:
                    now = time.monotonic()
                    rate = (self.frames - mark_frames) / max(1e-9, now - mark)
                    mark, mark_frames = now, self.frames
                    scalars = {
                        "loss": float(loss),
                        "batch_error_mm": float(distance),
                        "learning_rate": self.optimizer.param_groups[0]["lr"],
                        "frames_per_second": rate,
                    }
                    self.fabric.log_dict(scalars, self.step)
                    state = (
                        f"step {self.step}  batch {float(distance):.1f} mm  "
                        f"rendered {self.error_mm:.2f} mm  {rate:.0f} frames/s"
                    )
                    bar.update(task, completed=int(1000 * progress), state=state)
                if self.step % config.validate_every == 0:
                    self.validate()
                    if self.fabric.is_global_zero:
                        bar.console.print(
                            f"step {self.step}: {self.frames} frames, "
                            f"{self.seconds() / 60:.1f} min, rendered error "
                            f"{self.error_mm:.2f} mm, best {self.best_error_mm:.2f} mm"
                        )
            if finished and self.step % config.validate_every != 0:
                self.validate()
            elif self.fabric.is_global_zero:
                self.save()
            bar.update(task, completed=int(1000 * min(1.0, progress)))
        return self._result(finished)

    def _result(self, finished: bool) -> HandTrainResult:
        result = HandTrainResult(
            steps=self.step,
            frames=self.frames,
            minutes=self.seconds() / 60,
            error_mm=self.error_mm,
            best_error_mm=self.best_error_mm,
            best=self.config.out / BEST_NAME,
            finished=finished,
        )
        if self.fabric.is_global_zero:
            summary = {**self.facts(), "best_error_mm": self.best_error_mm, "finished": finished}
            text = json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n"
            write_bytes_atomically(self.config.out / "summary.json", text.encode())
        return result


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def train_hand(
    config: HandTrainConfig, train: HandFrames, validation: HandFrames, *, data: str
) -> HandTrainResult:
    """Trains a `HandRegressor`; Ctrl-C or SIGTERM ends it at a step, with a checkpoint.

    Args:
        config: the settings.
        train: rendered frames to learn from, indices 0, 1, ...
        validation: rendered frames to choose weights by, indices 0 .. validation_frames - 1; no
            frame and no pose of `train` may be among them.
        data: one sentence on what the frames are, kept with the weights.

    Raises:
        ValueError: `out` holds a run and resume is not set, or a resumed run of other settings.
        RuntimeError: the gradient is not finite.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    return _Run(config, train, validation, data).run()


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: an error that was never measured is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
