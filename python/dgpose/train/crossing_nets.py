"""Training of Crossing Nets: pose VAE, depth GAN, then both on one latent space.

The data are a fixed pool of depth maps, of which all or some are labelled. An epoch passes over the
labelled frames; unlabelled ones are drawn beside them, as many a step. Stages may be given in steps
instead, so that runs with few and with many labels get as many updates.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from dgpose.data.hand_pool import UNIT_MM, HandPool, roll_crops, roll_joints
from dgpose.models.crossing_nets.config import CrossingNetsConfig, StageConfig
from dgpose.models.crossing_nets.latent_distribution import LatentDistribution
from dgpose.models.crossing_nets.networks import CrossingNets
from dgpose.models.crossing_nets.stages import (
    LatentMixture,
    StageLosses,
    discriminator_side,
    gan_losses,
    generator_side,
    joint_losses,
    vae_losses,
)
from dgpose.models.crossing_nets.weight_file import save_crossing_nets
from dgpose.train.checkpoint import load_checkpoint, read_state, save_checkpoint
from dgpose.train.interrupts import stop_requests
from dgpose.train.run import (
    CHECKPOINT_NAME,
    agree_to_stop,
    average_gradients,
    launch_fabric,
    progress_bar,
    require_resume,
    require_same,
)

__all__ = [
    "CHECKPOINT_NAME",
    "STAGES",
    "WEIGHTS_NAME",
    "CrossingNetsTrainConfig",
    "CrossingNetsTrainResult",
    "stage_steps",
    "train_crossing_nets",
]

STAGES = ("vae", "gan", "joint")
WEIGHTS_NAME = "weights.safetensors"
_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
_STATISTICS_FRAMES, _STATISTICS_BATCH = 4000, 200


@dataclass(frozen=True)
class CrossingNetsTrainConfig:
    """Settings of `train_crossing_nets`.

    Args:
        out: folder of the run: checkpoint.safetensors, at the end weights.safetensors, TensorBoard
            events.
        networks: sizes, losses and the published stages.
        steps: of the stages (vae, gan, joint) instead of their epochs; 0 leaves a stage out.
        rotation_deg: largest rotation of frames and joints in the image plane, drawn anew for each
            frame of each batch; the published training has none.
        seed: of weights, batches and noise.
        resume: continue the run in `out`, or start it where there is none yet.
        save_every: steps between checkpoints.
        log_every: steps between TensorBoard scalars.
        precision, accelerator, devices, nodes, strategy: Fabric's.

    Raises:
        ValueError: a setting out of range.
    """

    out: Path
    networks: CrossingNetsConfig = field(default_factory=CrossingNetsConfig)
    steps: tuple[int, int, int] | None = None
    rotation_deg: float = 0.0
    seed: int = 0
    resume: bool = False
    save_every: int = 500
    log_every: int = 20
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        for name in ("save_every", "log_every", "devices", "nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.steps is not None and min(self.steps) < 0:
            raise ValueError(f"steps must not be negative, got {self.steps}")
        if not 0 <= self.rotation_deg <= 180:
            raise ValueError(f"rotation_deg must lie in 0..180, got {self.rotation_deg}")


@dataclass(frozen=True, eq=False)
class CrossingNetsTrainResult:
    """What `train_crossing_nets` ends with.

    Attributes:
        nets: the networks, in eval mode: trained to the end, or as far as the run was let.
        finished: whether all steps were made, and `out` holds weights.safetensors.
    """

    nets: CrossingNets
    finished: bool


def stage_steps(
    config: CrossingNetsTrainConfig, labelled: int, ranks: int = 1
) -> tuple[int, int, int]:
    """Optimiser steps of the stages (vae, gan, joint) with so many labelled frames."""
    if config.steps is not None:
        return config.steps
    vae, gan, joint = (
        settings.epochs * _steps_an_epoch(settings, labelled, ranks)
        for settings in (config.networks.vae, config.networks.gan, config.networks.joint)
    )
    return vae, gan, joint


def _steps_an_epoch(settings: StageConfig, labelled: int, ranks: int) -> int:
    return max(1, labelled // (settings.batch * ranks))


class _Run:
    """State of a run on one rank."""

    def __init__(self, config: CrossingNetsTrainConfig, pool: HandPool, data: str | None) -> None:
        self.config = config
        self.pool = pool
        self.data = data
        self.fabric = launch_fabric(config)
        self.nets = CrossingNets(config.networks).to(self.fabric.device)
        self.nets.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rows = torch.nonzero(pool.labelled)[:, 0]
        self.others = torch.nonzero(~pool.labelled)[:, 0]
        self.lengths = stage_steps(config, len(self.rows), self.fabric.world_size)
        # One optimiser for all: parameters that a stage does not teach have no gradient.
        self.optimizer = torch.optim.Adam(self.nets.parameters())
        self._enter_stage(0)
        self.earlier_seconds, self.started = 0.0, time.monotonic()
        if config.steps is None or config.steps[0]:
            pose, _ = self.nets.split(pool.joints[self.rows].to(self.fabric.device))
            if len(pose) >= min(self.nets.vae.first.weight.shape):
                self.nets.vae.start_from_components(pose)
        self._start_or_resume()

    # ---- stages ----

    @property
    def settings(self) -> StageConfig:
        return cast(StageConfig, getattr(self.config.networks, STAGES[self.stage]))

    def _warm_up(self) -> bool:
        """Whether only alignment, posterior and metric learn: the first epochs of the last stage,
        or their share of its steps."""
        networks = self.config.networks
        share = networks.warm_up_epochs / max(1, networks.joint.epochs)
        return STAGES[self.stage] == "joint" and self.step < share * self.lengths[self.stage]

    def _enter_stage(self, stage: int) -> None:
        """A stage starts with an optimiser that remembers nothing."""
        self.stage, self.step = stage, 0
        self.optimizer.state.clear()
        if stage < len(STAGES):
            for group in self.optimizer.param_groups:
                group.update(lr=self.settings.learning_rate, betas=(self.settings.beta1, 0.999))

    # ---- batches: functions of (seed, stage, step, rank) alone, so that a resumed run goes on ----

    def _generator(self, purpose: int) -> torch.Generator:
        rank, world = self.fabric.global_rank, self.fabric.world_size
        number = ((self.config.seed * 3 + self.stage) * 1_000_003 + self.step) * world + rank
        return torch.Generator().manual_seed(number * 8 + purpose)

    def _labelled_rows(self) -> Tensor:
        """This rank's rows of the step: an epoch is one order of all labelled frames."""
        world, batch = self.fabric.world_size, self.settings.batch
        steps = _steps_an_epoch(self.settings, len(self.rows), world)
        epoch, step = divmod(self.step, steps)
        number = (self.config.seed * 3 + self.stage) * 1_000_003 + epoch
        order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(number))
        first = (step * world + self.fabric.global_rank) * batch
        places = torch.arange(first, first + batch) % len(order)  # few labels: some twice
        return self.rows[order[places]]

    def _depth(self, rows: Tensor, purpose: int) -> Tensor:
        """Depth maps of rows; `purpose` numbers the angles by which they are turned."""
        depth = self.pool.depth[rows].to(self.fabric.device, torch.float32)
        return roll_crops(depth, self._angles(rows, purpose)) if self.config.rotation_deg else depth

    def _joints(self, rows: Tensor, purpose: int) -> Tensor:
        joints = self.pool.joints[rows].to(self.fabric.device)
        return (
            roll_joints(joints, self._angles(rows, purpose)) if self.config.rotation_deg else joints
        )

    def _angles(self, rows: Tensor, purpose: int) -> Tensor:
        drawn = torch.rand(len(rows), generator=self._generator(purpose)) * 2 - 1
        return (drawn * math.radians(self.config.rotation_deg)).to(self.fabric.device)

    # ---- one step of each stage ----

    def _learn(self) -> dict[str, Tensor]:
        rows = self._labelled_rows()
        joints = self._joints(rows, 4)
        self.optimizer.zero_grad(set_to_none=True)
        warm = self._warm_up()
        rate = self.config.networks.warm_up_rate if warm else self.settings.learning_rate
        if self.settings.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * self.step / self.lengths[self.stage]))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if STAGES[self.stage] == "vae":
            torch.manual_seed(int(self._generator(0).initial_seed()))  # the VAE's noise
            loss = vae_losses(self.nets, joints)
            loss.backward()  # type: ignore[no-untyped-call]
            terms = {"vae": loss}
        else:
            with self.fabric.autocast():
                losses = self._losses(self._depth(rows, 4), joints)
            losses.backward(
                list(generator_side(self.nets, warm)), list(discriminator_side(self.nets, warm))
            )
            terms = losses.terms
        average_gradients(self.fabric, self.nets.parameters())
        self.optimizer.step()
        return {name: value.detach() for name, value in terms.items()}

    def _losses(self, depth: Tensor, joints: Tensor) -> StageLosses:
        unlabelled = None
        if len(self.others) and self._needs_unlabelled(STAGES[self.stage]):
            drawn = torch.randint(len(self.others), (len(depth),), generator=self._generator(1))
            unlabelled = self._depth(self.others[drawn], 5)
        if STAGES[self.stage] == "gan":
            real = depth if unlabelled is None else torch.cat((depth, unlabelled))
            shape = (len(real), self.config.networks.latent)
            latent = torch.randn(shape, generator=self._generator(2)).to(real)
            return gan_losses(self.nets, real, latent)
        mixture = LatentMixture.draw(len(depth), self._generator(3))
        return joint_losses(self.nets, depth, joints, mixture, unlabelled)

    def _needs_unlabelled(self, stage: str) -> bool:
        weights = self.config.networks.weights
        return stage == "gan" or weights.uses_gan or weights.cycle > 0

    # ---- files ----

    def _must_match(self) -> dict[str, Any]:
        return {
            "networks": json.loads(json.dumps(asdict(self.config.networks))),
            "steps": list(self.config.steps) if self.config.steps else None,
            "rotation_deg": self.config.rotation_deg,
            "precision": self.config.precision,
            "seed": self.config.seed,
            "ranks": self.fabric.world_size,
            "data": self._describe_data(),
        }

    def _describe_data(self) -> dict[str, Any]:
        named = {} if self.data is None else {"source": self.data}
        return self.pool.describe() | named

    def facts(self) -> dict[str, Any]:
        """What the weight file says about its training."""
        labelled = self.pool.joints[self.rows].to(self.fabric.device)
        return {
            "data": self.data,
            **self.pool.describe(),
            "steps": list(self.lengths),
            "seed": self.config.seed,
            "minutes": round(self._elapsed() / 60, 1),
            "ranks": self.fabric.world_size,
            "rotation_deg": self.config.rotation_deg,
            "precision": self.config.precision,
            **LatentDistribution.of(self.nets, labelled).facts(),
        }

    def _state(self) -> dict[str, Any]:
        return {
            "run": self._must_match(),
            "stage": self.stage,
            "step": self.step,
            "seconds": self._elapsed(),
        }

    @property
    def checkpoint(self) -> Path:
        return self.config.out / CHECKPOINT_NAME

    def _start_or_resume(self) -> None:
        require_resume(self.config)
        if not self.checkpoint.exists():
            return
        require_same("", read_state(self.checkpoint)["run"], self._must_match())
        state = load_checkpoint(
            self.checkpoint, modules={"nets": self.nets}, optimizer=self.optimizer
        )
        self.stage, self.step = state["stage"], state["step"]
        self.earlier_seconds = state["seconds"]
        if self.stage < len(STAGES):
            self.fabric.print(f"resumed at step {self.step} of stage {STAGES[self.stage]}")
        else:
            self.fabric.print("the run has ended already")

    def _elapsed(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.started

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            save_checkpoint(
                self.checkpoint,
                modules={"nets": self.nets},
                optimizer=self.optimizer,
                state=self._state(),
            )
        self.fabric.barrier()

    # ---- the run ----

    @torch.no_grad()
    def _estimate_statistics(self) -> None:
        """Batch statistics of the discriminator over many real maps, as the last weights see them,
        in place of the running means of the last steps."""
        rows = torch.arange(len(self.pool)) if self._needs_unlabelled("joint") else self.rows
        if len(rows) < 2:
            return
        norms = [m for m in self.nets.discriminator.modules() if isinstance(m, _NORMS)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.config.seed))
        for part in torch.split(rows[order[:_STATISTICS_FRAMES]], _STATISTICS_BATCH):
            if len(part) > 1:
                bottom = self.nets.discriminator.shared(self._depth(part, 6))
                for head in ("gan", "posterior", "metric"):
                    self.nets.discriminator.get_submodule(head)(bottom)
        for norm in norms:
            norm.momentum = 0.1

    def run(self) -> bool:
        """All stages from the current step on; False where it was stopped."""
        lengths = self.lengths
        bar = progress_bar(self.fabric)
        self.nets.train()
        with stop_requests() as stop, bar:
            done = sum(lengths[: self.stage]) + self.step
            task = bar.add_task("training", total=sum(lengths), completed=done, state="")
            while self.stage < len(STAGES):
                if self.step == lengths[self.stage]:
                    self._enter_stage(self.stage + 1)
                    continue
                terms = self._learn()
                self.step += 1
                done = sum(lengths[: self.stage]) + self.step
                if done % self.config.log_every == 0:
                    name = STAGES[self.stage]
                    values = {term: float(value) for term, value in terms.items()}
                    self.fabric.log_dict({f"{name}/{t}": v for t, v in values.items()}, done)
                    text = "  ".join(f"{term} {value:.3f}" for term, value in values.items())
                    if not all(map(math.isfinite, values.values())):
                        raise RuntimeError(
                            f"losses must be finite, got {text} at step {self.step} of stage {name}"
                        )
                    bar.update(task, completed=done, state=f"{name}: {text}")
                if agree_to_stop(self.fabric, stop.is_set()):
                    self._save()
                    return False
                if done % self.config.save_every == 0:
                    self._save()
            bar.update(task, completed=sum(lengths))
        if lengths[-1]:
            self._estimate_statistics()
        if self.fabric.world_size > 1:
            # Batch statistics of the other networks are each rank's own: keep those of rank 0.
            for buffer in self.nets.buffers():
                torch.distributed.broadcast(buffer, src=0)
        self._save()
        return True


def train_crossing_nets(
    config: CrossingNetsTrainConfig, pool: HandPool, *, data: str | None = None
) -> CrossingNetsTrainResult:
    """Trains all three stages; Ctrl-C or SIGTERM ends a run at a step, with a checkpoint.

    Args:
        config: the settings.
        pool: what to learn from; the same on every rank.
        data: one sentence on what the pool is, kept with the weights; a resumed run must share it.

    Raises:
        ValueError: `out` holds a run and resume is not set, a resumed run of other settings,
            networks of another unit than a pool's, or a pool of other joints or image size.
        RuntimeError: a loss is not finite.
    """
    networks = config.networks
    if networks.unit_mm != UNIT_MM:
        raise ValueError(f"unit_mm must be {UNIT_MM:g}, a pool's unit, got {networks.unit_mm:g}")
    if pool.joints.shape[1] != networks.joints:
        raise ValueError(f"pool must have {networks.joints} joints, got {pool.joints.shape[1]}")
    if pool.depth.shape[2:] != (networks.image_size, networks.image_size):
        raise ValueError(
            f"pool must have depth maps of {networks.image_size} pixels a side, "
            f"got {list(pool.depth.shape)}"
        )
    config.out.mkdir(parents=True, exist_ok=True)
    run = _Run(config, pool, data)
    finished = run.run()
    nets = run.nets.eval()
    if finished and run.fabric.is_global_zero:
        save_crossing_nets(nets, config.out / WEIGHTS_NAME, run.facts())
    return CrossingNetsTrainResult(nets, finished)
