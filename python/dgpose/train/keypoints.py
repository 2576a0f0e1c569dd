"""Training of the judge: `KeypointNetwork` on person crops, rendered or real, never generated.

The loss of a joint is the cross-entropy between the softmax of its map and a Gaussian around the
true place. Batches and their variations are functions of (seed, step, rank) alone: a run of `steps`
that is resumed goes on number for number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dgpose.data.person_augmentation import PersonAugmentation, augment_people
from dgpose.data.person_pool import PersonPool
from dgpose.metrics.keypoints import THRESHOLDS, KeypointErrors, keypoint_errors, torso_px
from dgpose.nn.keypoint_network import (
    KeypointNetwork,
    KeypointNetworkConfig,
    load_judge,
    save_judge,
)
from dgpose.train.run import average_gradients, launch_fabric, learning_rate_factor, share_buffers
from dgpose.train.training_run import WEIGHTS_NAME, TrainConfig, TrainingRun
from dgpose_ext import gaussian_heatmap

__all__ = [
    "WEIGHTS_NAME",
    "KeypointTrainConfig",
    "KeypointTrainResult",
    "Validation",
    "judge_errors",
    "train_keypoints",
]

_WARM_UP_STEPS = 200


@dataclass(frozen=True)
class KeypointTrainConfig(TrainConfig):
    """Settings of `train_keypoints`: those of `TrainConfig`, and

    Args:
        network: the architecture.
        augmentation: how crops vary.
        init: weight file of the same architecture to start from (fine-tuning).
        batch: crops a step and rank.
        learning_rate: AdamW's at its peak: linear warm-up, then half a cosine to 1 % of it.
        weight_decay: AdamW's, on convolutions alone.
        clip_norm: the gradient's norm is cut at this.
        sigma: standard deviation of the Gaussian around a true place, in cells of two pixels.

    Raises:
        ValueError: a setting out of range.
    """

    network: KeypointNetworkConfig = field(default_factory=KeypointNetworkConfig)
    augmentation: PersonAugmentation = field(default_factory=PersonAugmentation)
    init: Path | None = None
    batch: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        for name in ("learning_rate", "clip_norm", "sigma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


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


class _Learner:
    """The network and its optimiser."""

    def __init__(self, fabric: Fabric, config: KeypointTrainConfig, pool: PersonPool) -> None:
        self.fabric, self.config, self.pool = fabric, config, pool
        self.keypoints, self.known = pool.body
        self.model = KeypointNetwork(config.network)
        if config.init is not None:
            self._start_from(config.init)
        self.model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = list(self.model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        self.step = 0
        self.learn_mode()

    def _start_from(self, path: Path) -> None:
        trained, _ = load_judge(path)
        if trained.config != self.config.network:
            raise ValueError(
                f"init must hold a network of {self.config.network}, got {trained.config}"
            )
        self.model.load_state_dict(trained.state_dict())

    def learn_mode(self) -> None:
        self.model.train()

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model}

    def learn(self, progress: float) -> dict[str, Tensor]:
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
        share_buffers(self.fabric, self.modules.values())
        self.step += 1
        return {"loss": loss.detach()}


class _Run(TrainingRun[KeypointTrainConfig, _Learner, dict[str, float]]):
    def __init__(
        self, config: KeypointTrainConfig, pool: PersonPool, validation: PersonPool, data: str
    ) -> None:
        self.validation = validation
        fabric = launch_fabric(config)
        learner = _Learner(fabric, config, pool)
        facts = {"data": data, "images": len(pool), "validation_images": len(validation)}
        super().__init__(config, fabric, learner, facts)

    def validate(self) -> dict[str, float]:
        return _summary(judge_errors(self.learner.model.eval(), self.validation))

    def judged(self, errors: dict[str, float]) -> float:
        return -errors["area"]

    def named(self, errors: dict[str, float]) -> dict[str, float]:
        return {f"pck_{name}": pck for name, pck in errors.items() if math.isfinite(pck)}

    def save_weights(self, path: Path, facts: dict[str, Any]) -> None:
        save_judge(self.learner.model, path, facts)

    def read_errors(self, values: Any) -> dict[str, float]:
        return dict(values)

    def run(self) -> KeypointTrainResult:
        """All steps from the current one on."""
        finished = self.run_steps()
        best = self.config.out / WEIGHTS_NAME
        return KeypointTrainResult(
            model=load_judge(best)[0] if self.validations else self.learner.model.eval(),
            validations=tuple(Validation(v.step, v.seconds, v.errors) for v in self.validations),
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
