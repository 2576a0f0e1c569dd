"""What a generator of people makes, factor by factor: against true images, and by a judge.

Each row of the table is a set of images:

- "true images"; "mean image", that of the reference; "reconstruction" of each image;
- of DPIG, "FACTOR drawn": each image with one factor mapped from noise and the others kept, and
  "all drawn";
- of pairs, whose true image is known: "true targets", "copy of the source", and "pose-guided": the
  source's person in the target's pose.

SSIM falls where the source's background is kept, as DPIG does: it is not the target's. So each
factor has a measure of its own: part colours against those of the person that an image was asked to
show, the background against the source's outside of both bodies, and the pose by the judge. Masks
of the body are DPIG's, of the image's own pose (for mask-SSIM: the target's).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dgpose.data.person_pairs import PersonPairs
from dgpose.data.person_pool import PersonPool
from dgpose.metrics.generation import diversity, frechet_distance, part_colors
from dgpose.metrics.image_quality import mask_ssim, psnr
from dgpose.metrics.keypoints import keypoint_errors
from dgpose.metrics.person_evaluation import ImageScores, PersonReport, in_parts, score_images
from dgpose.models.dpig import DPIG, DPIGConfig, Factor, pose_inputs
from dgpose.nn.keypoint_network import KeypointNetwork
from dgpose.skeletons import BODY14

__all__ = [
    "Drawn",
    "FactorDiversity",
    "FactorReport",
    "FactorScores",
    "Generator",
    "People",
    "draw_factor",
    "drawable",
    "evaluate_generator",
    "factor_diversity",
    "generator_of",
]

_ANCHORS = 4
_VARIED = 1000  # people: each is made twice a factor and anchor, and compared with all others


class People(NamedTuple):
    """Images of people in poses: images [B, 3, H, W] in [0, 1], OPENPOSE18."""

    images: Tensor
    keypoints_px: Tensor
    visible: Tensor

    @classmethod
    def of(cls, pool: PersonPool) -> People:
        """Those of a pool."""
        return cls(pool.images.float() / 255, pool.keypoints_px, pool.visible)


@dataclass(frozen=True)
class FactorScores(ImageScores):
    """A set of images; None where a figure has no meaning. Those of `ImageScores`, and

    Attributes:
        mask_ssim: against the true image within the body of its pose, see `image_quality`.
        background_psnr: against the image whose background it was asked to have, outside of the
            bodies of both.
    """

    mask_ssim: float | None = None
    background_psnr: float | None = None


class FactorDiversity(NamedTuple):
    """How much a factor varies while the others are those of one image; mean over a few images."""

    drawn: float  #: `diversity` of images whose factor is drawn
    encoded: float  #: of images whose factor is that of other true images
    frechet: float  #: Fréchet distance between both sets


@dataclass(frozen=True, eq=False)
class FactorReport(PersonReport):
    """What `evaluate_generator` found: as `PersonReport`, its rows are `FactorScores`, and

    Attributes:
        diversity: by factor, of those that can be drawn.
    """

    diversity: Mapping[str, FactorDiversity] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values."""
        varied = {name: found._asdict() for name, found in self.diversity.items()}
        return {**super().as_json(), "diversity": varied}


class Drawn(NamedTuple):
    """Images some of whose factors were drawn."""

    images: Tensor
    keypoints_px: Tensor  #: [B, 18, 2], the pose that they were asked to have
    visible: Tensor


@dataclass(frozen=True)
class Generator:
    """What a system makes of people.

    Args:
        reconstruct: the images again.
        pose_guided: the people of the first in the poses of the second; None: it cannot.
        draw: by name, drawn images of given people and a seed.
        model: whose `factor_diversity` is measured.
    """

    reconstruct: Callable[[People], Tensor]
    pose_guided: Callable[[People, People], Tensor] | None = None
    draw: Mapping[str, Callable[[People, int], Drawn]] = field(default_factory=dict)
    model: DPIG | None = None


def generator_of(model: DPIG) -> Generator:
    """DPIG's: what of it is trained decides what can be drawn."""
    factors = drawable(model)
    draw: dict[str, Callable[[People, int], Drawn]] = {
        f"{factor} drawn": lambda people, seed, factor=factor: draw_factor(  # type: ignore[misc]
            model, people, (factor,), seed
        )
        for factor in factors
    }
    if factors == model.config.factors:
        draw["all drawn"] = lambda people, seed: draw_factor(model, people, factors, seed)

    def pose_guided(source: People, target: People) -> Tensor:
        return _guided(model, source, target)

    return Generator(lambda people: _guided(model, people, people), pose_guided, draw, model)


def drawable(model: DPIG) -> tuple[Factor, ...]:
    """The factors whose mappers, and what these need, are trained."""
    have = model.trained
    return tuple(
        factor
        for factor in model.config.factors
        if f"{factor}_mapper" in have and (factor != "pose" or "pose_autoencoder" in have)
    )


@torch.no_grad()
def _guided(model: DPIG, source: People, target: People) -> Tensor:
    device = next(model.parameters()).device

    def made(*parts: Tensor) -> Tensor:
        images, pose, seen, other_pose, other_seen = (part.to(device) for part in parts)
        return model.decode(*model.encode_images(images, pose, seen), other_pose, other_seen).cpu()

    return in_parts(made, *source, *target[1:], at_once=model.config.images_at_once)


@torch.no_grad()
def draw_factor(model: DPIG, people: People, factors: tuple[Factor, ...], seed: int) -> Drawn:
    """People some of whose factors are mapped from noise; the other factors are their own.

    Raises:
        ValueError: as `DPIG.sample`.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    codes = {f: model.sample(f, len(people.images), generator).cpu() for f in factors}
    pose = people.keypoints_px, people.visible
    if "pose" in codes:
        pose = tuple(part.cpu() for part in model.decode_pose(codes["pose"].to(device)))  # type: ignore[assignment]
    empty = torch.zeros(len(people.images), 0)
    drawn = codes.get("foreground", empty), codes.get("background", empty)

    def made(*parts: Tensor) -> Tensor:
        images, own, seen, fore, back, shown, shown_seen = (part.to(device) for part in parts)
        foreground, background = model.encode_images(images, own, seen)
        return model.decode(
            fore if fore.shape[1] else foreground,
            back if back.shape[1] else background,
            shown,
            shown_seen,
        ).cpu()

    return Drawn(in_parts(made, *people, *drawn, *pose, at_once=model.config.images_at_once), *pose)


@torch.no_grad()
def factor_diversity(
    model: DPIG, people: People, judge: KeypointNetwork, seed: int = 0
) -> dict[str, FactorDiversity]:
    """`FactorDiversity` of the factors that can be drawn.

    The others are those of the first few people, all of whom are given each drawn factor, and those
    of the true people. Of more than 1,000 people so many are taken, evenly spread.

    Raises:
        ValueError: fewer than two people.
    """
    device = next(model.parameters()).device
    if (count := len(people.images)) > _VARIED:
        rows = torch.linspace(0, count - 1, _VARIED).round().long()
        people = People(*(part[rows] for part in people))
    found: dict[str, FactorDiversity] = {}
    for factor in drawable(model):
        figures = []
        for anchor in range(min(_ANCHORS, len(people.images))):
            same = People(*(part[anchor].expand_as(part) for part in people))
            drawn = draw_factor(model, same, (factor,), seed + anchor).images
            if factor == "pose":
                encoded = _guided(model, same, people)
            else:
                is_fore = factor == "foreground"

                def made(*parts: Tensor, is_fore: bool = is_fore) -> Tensor:
                    one, other = (
                        model.encode_images(*(part.to(device) for part in some))
                        for some in (parts[:3], parts[3:])
                    )
                    codes = (other[0], one[1]) if is_fore else (one[0], other[1])
                    return model.decode(*codes, *(part.to(device) for part in parts[1:3])).cpu()

                encoded = in_parts(made, *same, *people, at_once=model.config.images_at_once)
            features = judge.features(drawn), judge.features(encoded)
            figures.append((*(diversity(some) for some in features), frechet_distance(*features)))
        found[factor] = FactorDiversity(*(sum(f) / len(f) for f in zip(*figures, strict=True)))
    return found


def evaluate_generator(
    generator: Generator,
    pool: PersonPool,
    judge: KeypointNetwork,
    reference: PersonPool,
    *,
    pairs: PersonPairs | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FactorReport:
    """Everything that can be measured of a generator on people whose poses are known.

    Args:
        generator: what it makes; of DPIG that of `generator_of`.
        pool: images of (128, 64) or (256, 256) pixels that it has not learned from, two at least.
        judge: trained on true images alone.
        reference: other true images of the same size: what the Fréchet distance is from, and the
            mean image of. Compare figures of pools of the same numbers only.
        pairs: source and target images of the same people, for "pose-guided".
        seed: of what is drawn.
        progress: called with (rows done, all).

    Raises:
        ValueError: a pool of fewer than two images or of another size than the others, or in which
            no torso is known.
    """
    pools = {"reference": reference}
    if pairs is not None:
        pools |= {"the pairs' source": pairs.source, "the pairs' target": pairs.target}
    for name, people in {"pool": pool, **pools}.items():
        if len(people) < 2 or people.size != pool.size:
            raise ValueError(
                f"{name} must hold at least two images of {pool.size[1]}x{pool.size[0]} pixels, "
                f"got {len(people)} of {people.size[1]}x{people.size[0]}"
            )
    shown = People.of(pool)
    features = judge.features(reference.images)
    errors = keypoint_errors(judge.estimate(shown.images)[0], *pool.body)
    if not errors.scored:
        raise ValueError("pool must know a shoulder and the other side's hip of somebody, got none")
    rows = _of_pool(generator, pool, reference.images.float().mean(0) / 255, seed)
    if pairs is not None:
        rows |= _of_pairs(generator, pairs)
    scores: dict[str, ImageScores] = {}
    for number, (name, make) in enumerate(rows.items(), start=1):
        scores[name] = _score(make(), judge, features)
        if progress is not None:
            progress(number, len(rows))
    varied = {}
    if generator.model is not None:
        varied = factor_diversity(generator.model, shown, judge, seed)
    return FactorReport(pool.source, len(pool), scores, {"judge": errors}, varied)


@dataclass(frozen=True)
class _Asked:
    """Images, and what they were asked to show."""

    images: Tensor
    pose: tuple[Tensor, Tensor]  # 18 joints, and which are known
    true: People | None = None
    masks: Tensor | None = None  # of the true image's person
    person: People | None = None  # whose appearance
    background: People | None = None  # whose background


def _score(asked: _Asked, judge: KeypointNetwork, reference: Tensor) -> FactorScores:
    joints = len(BODY14)
    pose = asked.pose[0][:, :joints], asked.pose[1][:, :joints]
    person, true = asked.person, asked.true
    scores = score_images(
        asked.images,
        judge,
        reference,
        true=None if true is None else true.images,
        masks=asked.masks,
        pose=pose,
        colors=(
            None
            if person is None
            else part_colors(
                person.images, person.keypoints_px[:, :joints], person.visible[:, :joints]
            )
        ),
    )
    similar = behind = None
    if true is not None:
        body = _body(true.keypoints_px, true.visible, asked.images)
        similar = float(in_parts(mask_ssim, asked.images, true.images, body).mean())
    if asked.background is not None:
        kept = asked.background
        bodies = _body(kept.keypoints_px, kept.visible, kept.images) | _body(
            *asked.pose, asked.images
        )
        behind = float(in_parts(psnr, asked.images, kept.images, ~bodies).nanmean())
    figures = asdict(scores) | {"mask_ssim": similar, "background_psnr": behind}
    # Drawn poses may show no torso to measure by, and bodies fill the image.
    if scores.pck is not None and math.isnan(scores.pck["0.5"]):
        figures["pck"] = None
    for name, value in figures.items():
        if isinstance(value, float) and math.isnan(value):
            figures[name] = None
    return FactorScores(**figures)


def _body(keypoints_px: Tensor, visible: Tensor, images: Tensor) -> Tensor:
    """[B, 1, H, W] bool, DPIG's mask."""
    config = DPIGConfig.paper((images.shape[2], images.shape[3]))
    return in_parts(
        lambda pose, seen: pose_inputs(pose, seen, config).mask.bool(), keypoints_px, visible
    )


_Row = Callable[[], _Asked]


def _of_pool(generator: Generator, pool: PersonPool, mean: Tensor, seed: int) -> dict[str, _Row]:
    people = People.of(pool)
    pose = pool.keypoints_px, pool.known

    def held(images: Tensor) -> _Asked:
        return _Asked(images, pose, people, pool.masks, people, people)

    rows: dict[str, _Row] = {
        "true images": lambda: _Asked(people.images, pose),
        "mean image": lambda: held(mean.expand_as(people.images).contiguous()),
        "reconstruction": lambda: held(generator.reconstruct(people)),
    }
    for name, draw in generator.draw.items():

        def made(name: str = name, draw: Callable[[People, int], Drawn] = draw) -> _Asked:
            drawn = draw(people, seed)
            return _Asked(
                drawn.images,
                (drawn.keypoints_px, drawn.visible),
                person=people if name in ("background drawn", "pose drawn") else None,
                background=people if name in ("foreground drawn", "pose drawn") else None,
            )

        rows[name] = made
    return rows


def _of_pairs(generator: Generator, pairs: PersonPairs) -> dict[str, _Row]:
    source, target = People.of(pairs.source), People.of(pairs.target)
    pose = pairs.target.keypoints_px, pairs.target.known

    def held(images: Tensor) -> _Asked:
        return _Asked(images, pose, target, pairs.target.masks, source, source)

    rows: dict[str, _Row] = {
        "true targets": lambda: _Asked(target.images, pose, person=source, background=source),
        # Its background is the source's to the bit.
        "copy of the source": lambda: replace(held(source.images), background=None),
    }
    guided = generator.pose_guided
    if guided is not None:
        rows["pose-guided"] = lambda: held(guided(source, target))
    return rows
