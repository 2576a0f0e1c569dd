"""Training of a `ReidNetwork` on images of people with identities, photographed, rendered or made.

The loss is the cross-entropy of persons under cosine softmax with smoothed labels, and the triplet
loss of the hardest pairs of a batch (Hermans et al.: "In Defense of the Triplet Loss", 2017).
Batches and their variations are functions of (seed, step, rank) alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from dgpose.data.person_pool import PersonPool
from dgpose.metrics.reidentification import Reidentification, reidentify
from dgpose.nn.reid_network import (
    ReidNetwork,
    ReidNetworkConfig,
    load_reid_network,
    save_reid_network,
)
from dgpose.train.run import average_gradients, launch_fabric, learning_rate_factor, share_buffers
from dgpose.train.training_run import WEIGHTS_NAME, TrainConfig, TrainingRun, Validation

__all__ = [
    "WEIGHTS_NAME",
    "ReidErrors",
    "ReidTrainConfig",
    "ReidTrainResult",
    "found_again",
    "train_reid",
]

_WARM_UP_STEPS = 100


@dataclass(frozen=True)
class ReidTrainConfig(TrainConfig):
    """Settings of `train_reid`: those of `TrainConfig`, and

    Args:
        network: the architecture.
        persons: of a batch.
        images: of each of them; drawn again where somebody has fewer.
        learning_rate: AdamW's at its peak: linear warm-up, then half a cosine to 1 % of it.
        weight_decay: AdamW's, on matrices and convolutions alone.
        clip_norm: the gradient's norm is cut at this.
        scale: of the cosines under the softmax.
        label_smoothing: share of the truth that all persons have alike.
        margin: by which the farthest image of a person is to be nearer than another person's.
        shift: largest random shift in pixels.
        tint: largest change of each colour channel, as a share.
        erase: chance that a rectangle of the image is grey (Zhong et al.: "Random Erasing", 2020).

    Raises:
        ValueError: a setting out of range.
    """

    network: ReidNetworkConfig = field(default_factory=ReidNetworkConfig)
    persons: int = 16
    images: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 2e-2
    clip_norm: float = 5.0
    scale: float = 16.0
    label_smoothing: float = 0.1
    margin: float = 0.3
    shift: int = 6
    tint: float = 0.2
    erase: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("persons", "images"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("label_smoothing", "tint", "erase"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.shift < 0:
            raise ValueError(f"shift must be at least 0, got {self.shift}")


class ReidErrors(NamedTuple):
    """How well the validation people are found again, 0 to 1."""

    rank1: float
    mean_average_precision: float


@dataclass(frozen=True, eq=False)
class ReidTrainResult:
    """What `train_reid` ends with.

    Attributes:
        model: the best by mAP on the validation people, in evaluation mode; as it stands, where
            there was no validation.
        validations: all of them.
        steps: done.
        seconds: of training, without validation.
        finished: whether the run came to its end.
    """

    model: ReidNetwork
    validations: tuple[Validation[ReidErrors], ...]
    steps: int
    seconds: float
    finished: bool


def found_again(network: ReidNetwork, pool: PersonPool) -> Reidentification:
    """The first image of each person looked for among all others; cameras do not count.

    Raises:
        ValueError: a pool without identities, or in which nobody is shown twice.
    """
    ids = _identities(pool, "pool")
    first = torch.zeros(len(ids), dtype=torch.bool)
    first[[rows[0] for rows in _rows_of(ids)]] = True
    embeddings = network.embed(pool.images)
    who = ids - ids.min() + 1
    here, there = (torch.full((int(part.sum()),), n) for n, part in enumerate((first, ~first)))
    return reidentify(embeddings[first], embeddings[~first], who[first], who[~first], here, there)


def _identities(pool: PersonPool, name: str) -> Tensor:
    if pool.identity is None:
        raise ValueError(f"{name} must have identities, got none")
    return pool.identity


def _rows_of(identity: Tensor) -> list[list[int]]:
    """The images of each person, by ascending identity."""
    order = identity.argsort(stable=True)
    _, counts = torch.unique(identity, return_counts=True)
    return [rows.tolist() for rows in order.split(counts.tolist())]  # type: ignore[no-untyped-call]


class _Learner:
    """The network, what tells the training persons apart, and their optimiser."""

    def __init__(self, fabric: Fabric, config: ReidTrainConfig, pool: PersonPool) -> None:
        self.fabric, self.config, self.pool = fabric, config, pool
        self.rows = _rows_of(_identities(pool, "pool"))
        fabric.seed_everything(config.seed, verbose=False)
        self.model = ReidNetwork(config.network)
        self.persons = nn.Linear(config.network.embedding, len(self.rows), bias=False)
        self.model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.persons.to(fabric.device)
        parameters = [*self.model.parameters(), *self.persons.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        self.step = 0
        self.learn_mode()

    def learn_mode(self) -> None:
        self.model.train()

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "persons": self.persons}

    def learn(self, progress: float) -> dict[str, Tensor]:
        config, fabric = self.config, self.fabric
        number = (config.seed * 1_000_003 + self.step) * fabric.world_size + fabric.global_rank
        generator = torch.Generator().manual_seed(number)
        rows, labels = self._batch(generator)
        images = _varied(self.pool.images[rows].float() / 255, generator, config)
        images = images.to(fabric.device).contiguous(memory_format=torch.channels_last)
        labels = labels.to(fabric.device)
        rate = config.learning_rate * learning_rate_factor(self.step, progress, _WARM_UP_STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with fabric.autocast():
            embeddings = self.model(images)
        embeddings = F.normalize(embeddings.float(), dim=1)
        cosines = embeddings @ F.normalize(self.persons.weight, dim=1).T
        entropy = F.cross_entropy(
            config.scale * cosines, labels, label_smoothing=config.label_smoothing
        )
        triplet = hardest_triplets(embeddings, labels, config.margin)
        (entropy + triplet).backward()  # type: ignore[no-untyped-call]
        parameters = [*self.model.parameters(), *self.persons.parameters()]
        average_gradients(fabric, parameters)
        torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm, error_if_nonfinite=True)
        self.optimizer.step()
        share_buffers(fabric, self.modules.values())
        self.step += 1
        return {"entropy": entropy.detach(), "triplet": triplet.detach()}

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of images of some persons, and who they are."""
        config = self.config
        persons = torch.randperm(len(self.rows), generator=generator)[: config.persons]
        rows = []
        for person in persons.tolist():
            own = self.rows[person]
            draws = torch.cat(
                [
                    torch.randperm(len(own), generator=generator)
                    for _ in range(-(-config.images // len(own)))
                ]
            )
            rows += [own[draw] for draw in draws[: config.images].tolist()]
        return torch.tensor(rows), persons.repeat_interleave(config.images)


def hardest_triplets(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Mean over the images of max(0, margin + the greatest cosine with another person's image - the
    least one with an image of the same person): embeddings [B, D] of length 1, labels [B]."""
    cosines = embeddings @ embeddings.T
    same = labels[:, None] == labels
    other = cosines.masked_fill(same, -torch.inf).amax(1)
    own = cosines.masked_fill(~same, torch.inf).amin(1)
    return F.relu(margin + other - own).mean()


def _varied(images: Tensor, generator: torch.Generator, config: ReidTrainConfig) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] mirrored, shifted, tinted and partly erased at random."""
    count, _, height, width = images.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    images = torch.where(uniform(1, 1, 1) < 0.5, images.flip(3), images)
    if config.shift:
        edge = config.shift
        padded = F.pad(images, (edge, edge, edge, edge), mode="replicate")
        shift = (uniform(2) * (2 * edge + 1)).long()
        y = torch.arange(height) + shift[:, :1]
        x = torch.arange(width) + shift[:, 1:]
        images = padded[torch.arange(count)[:, None, None], :, y[:, :, None], x[:, None]]
        images = images.movedim(3, 1)
    images = images * (1 + config.tint * (2 * uniform(3, 1, 1) - 1))
    size = (0.1 + 0.3 * uniform(2)) * torch.tensor((height, width))
    start = uniform(2) * (torch.tensor((height, width)) - size)
    y, x = torch.arange(height), torch.arange(width)
    inside_y = (y >= start[:, :1]) & (y < (start + size)[:, :1])
    inside_x = (x >= start[:, 1:]) & (x < (start + size)[:, 1:])
    erased = (inside_y[:, :, None] & inside_x[:, None])[:, None]
    erased &= uniform(1, 1, 1) < config.erase
    return torch.where(erased, 0.5, images).clamp(0, 1)


class _Run(TrainingRun[ReidTrainConfig, _Learner, ReidErrors]):
    def __init__(self, config: ReidTrainConfig, pool: PersonPool, validation: PersonPool) -> None:
        self.validation = validation
        fabric = launch_fabric(config)
        learner = _Learner(fabric, config, pool)
        facts = {
            "data": pool.source,
            "images": len(pool),
            "persons": len(learner.rows),
            "validation_images": len(validation),
        }
        super().__init__(config, fabric, learner, facts)

    def validate(self) -> ReidErrors:
        found = found_again(self.learner.model.eval(), self.validation)
        return ReidErrors(found.rank(1), found.mean_average_precision)

    def judged(self, errors: ReidErrors) -> float:
        return -errors.mean_average_precision

    def save_weights(self, path: Path, facts: dict[str, Any]) -> None:
        save_reid_network(self.learner.model, path, facts)

    def read_errors(self, values: Any) -> ReidErrors:
        return ReidErrors(*values)

    def run(self) -> ReidTrainResult:
        """All steps from the current one on."""
        finished = self.run_steps()
        best = self.config.out / WEIGHTS_NAME
        return ReidTrainResult(
            model=load_reid_network(best)[0] if self.validations else self.learner.model.eval(),
            validations=tuple(self.validations),
            steps=self.learner.step,
            seconds=self.clock.seconds,
            finished=finished,
        )


def train_reid(
    config: ReidTrainConfig, pool: PersonPool, validation: PersonPool
) -> ReidTrainResult:
    """Trains a `ReidNetwork`; Ctrl-C or SIGTERM ends a run at a step, with a checkpoint.

    Args:
        config: the settings.
        pool: images with identities, two persons at least; the same on every rank.
        validation: other persons, somebody of them shown twice: what the best weights are chosen
            by.

    Raises:
        ValueError: `out` holds a run and resume is not set, a resumed run of other settings, pools
            without identities, of another image size or too few persons.
        RuntimeError: the gradient is not finite.
    """
    height, width = config.network.size
    for name, people in (("pool", pool), ("validation", validation)):
        if people.size != (height, width):
            raise ValueError(
                f"{name} must have images of {width}x{height} pixels, "
                f"got {people.size[1]}x{people.size[0]}"
            )
        _, counts = torch.unique(_identities(people, name), return_counts=True)
        if len(counts) < 2 or (name == "validation" and int(counts.max()) < 2):
            raise ValueError(f"{name} must show two persons, one of them twice, got {len(people)}")
    config.out.mkdir(parents=True, exist_ok=True)
    return _Run(config, pool, validation).run()
