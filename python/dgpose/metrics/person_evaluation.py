"""What a model of DGPose makes of a pool of people, held against the truth and judged by a network.

Each row of the table is a set of images, from the true ones, which say what the judge and the other
measures are worth, over simple baselines to what the model makes:

- "true images"; "mean image", that of the reference;
- "reconstruction": of each image, in its true pose; of Semi-DGPose in the pose that it estimates;
- "swap": each image's appearance in the pose of the next image. There is no truth for it: the judge
  says whether the pose is the one that was asked for, part colours whether the person is. A plain
  VAE has no such codes: half of its code is taken from each, which is what no structure gives.
  "another person" is the next image itself, the worst case of the colours;
- "samples": appearances drawn from the prior, in the true poses;
- of pairs, whose true image is known: "true targets", "copy of the source" (that image itself, as
  if the pose did not matter), "transfer" (the source's appearance in the target's pose), and
  "indirect transfer" (in the pose that Semi-DGPose estimates in the target's image).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from dgpose.data.person_pairs import PersonPairs
from dgpose.data.person_pool import PersonPool
from dgpose.metrics.generation import (
    PartColors,
    color_distance,
    diversity,
    frechet_distance,
    part_colors,
)
from dgpose.metrics.image_quality import psnr, sharpness, ssim
from dgpose.metrics.keypoints import THRESHOLDS, KeypointErrors, keypoint_errors
from dgpose.models.dgpose import (
    ConditionalDGPose,
    DGPoseModel,
    ImageVAE,
    PoseRegressor,
    SemiDGPose,
)
from dgpose.nn.keypoint_network import KeypointNetwork

__all__ = [
    "ImageScores",
    "PersonReport",
    "estimate",
    "evaluate_person_model",
    "in_parts",
    "mean_pose",
    "reconstruct",
    "sample",
    "score_images",
    "transfer",
]

_AT_ONCE = 128


@dataclass(frozen=True)
class ImageScores:
    """A set of images; None where a figure has no meaning.

    Attributes:
        psnr, ssim: against the true image, means over the images.
        person_psnr: the same of the true image's person alone, by its mask.
        pck: of the judge, for the pose that the image was asked to have, at 0.1, 0.2 and 0.5.
        colors: distance of part colours from those of the person it was asked to show.
        sharpness: variance of the Laplacian.
        frechet: Fréchet distance of the judge's features from those of the reference.
        diversity: mean distance between these features of two images.
    """

    sharpness: float
    frechet: float
    diversity: float
    psnr: float | None = None
    ssim: float | None = None
    person_psnr: float | None = None
    pck: dict[str, float] | None = None
    colors: float | None = None


@dataclass(frozen=True, eq=False)
class PersonReport:
    """What `evaluate_person_model` found.

    Attributes:
        source: what the pool is.
        images: how many it holds.
        scores: by row of the table, in its order.
        poses: errors of poses found in the true images, by who found them: "judge",
            "mean pose" (of the reference) and, where the model estimates poses, "model".
    """

    source: str
    images: int
    scores: dict[str, ImageScores]
    poses: dict[str, KeypointErrors]

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values; of poses the whole curve (at `keypoints.CURVE`), and None for
        a joint that is never known."""
        return {
            "source": self.source,
            "images": self.images,
            "scores": {name: asdict(scores) for name, scores in self.scores.items()},
            "poses": {
                name: {
                    "scored": errors.scored,
                    "pck": _named(errors),
                    "area": errors.area,
                    "curve": errors.curve,
                    "by_joint_0.2": [
                        share if math.isfinite(share) else None
                        for share in errors.by_joint(0.2).tolist()
                    ],
                }
                for name, errors in self.poses.items()
            },
        }


@dataclass(frozen=True, eq=False)
class _People:
    """Images as floats with their joints, and their part colours."""

    images: Tensor
    keypoints: Tensor
    known: Tensor
    masks: Tensor | None
    colors: PartColors

    @classmethod
    def of(cls, pool: PersonPool) -> _People:
        images = pool.images.float() / 255
        return cls(images, *pool.body, pool.masks, part_colors(images, *pool.body))

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.images, self.keypoints, self.known


@torch.no_grad()
def reconstruct(
    model: ConditionalDGPose | SemiDGPose | ImageVAE, images: Tensor, pose_px: Tensor, known: Tensor
) -> Tensor:
    """Images made again from the means of their codes.

    Args:
        model: in evaluation mode. Semi-DGPose estimates the pose by itself.
        images: [B, 3, S, S] in [0, 1].
        pose_px: [B, 14, 2] of BODY14.
        known: [B, 14] bool.
    """
    return transfer(model, images, pose_px, known, images, pose_px, known, indirect=True)


@torch.no_grad()
def transfer(
    model: ConditionalDGPose | SemiDGPose | ImageVAE,
    images: Tensor,
    pose_px: Tensor,
    known: Tensor,
    target: Tensor,
    target_px: Tensor,
    target_known: Tensor,
    *,
    indirect: bool = False,
) -> Tensor:
    """The appearance of images in the poses of others.

    Args:
        model, images, pose_px, known: as for `reconstruct`.
        target: [B, 3, S, S], the images whose pose it is.
        target_px: [B, 14, 2].
        target_known: [B, 14] bool.
        indirect: whether Semi-DGPose estimates the pose of `target` instead of taking `target_px`.
    """
    device = next(model.parameters()).device

    def made(*parts: Tensor) -> Tensor:
        image, pose, seen, other, other_pose, other_seen = (part.to(device) for part in parts)
        if isinstance(model, ImageVAE):
            z, other_z = model.appearance(image).mean, model.appearance(other).mean
            half = z.shape[1] // 2
            return model.decode(torch.cat((z[:, :half], other_z[:, half:]), 1)).cpu()
        if isinstance(model, ConditionalDGPose):
            code = model.appearance(image, pose, seen)
            return model.decode(code.mean, other_pose, other_seen).cpu()
        code = model.appearance(image)
        if indirect:
            estimated = model.pose_px(model.estimate_pose(other).mean)
            return model.decode(code.mean, estimated).cpu()
        return model.decode(code.mean, other_pose, other_seen).cpu()

    return in_parts(made, images, pose_px, known, target, target_px, target_known)


@torch.no_grad()
def estimate(model: SemiDGPose | PoseRegressor, images: Tensor) -> Tensor:
    """Poses [B, 14, 2] in pixels that a model finds in images."""
    device = next(model.parameters()).device
    return in_parts(
        lambda part: model.pose_px(model.estimate_pose(part.to(device)).mean).cpu(), images
    )


@torch.no_grad()
def sample(
    model: ConditionalDGPose | SemiDGPose | ImageVAE, pose_px: Tensor, known: Tensor, seed: int
) -> Tensor:
    """People [B, 3, S, S] whose appearance is drawn from the prior, in poses [B, 14, 2] (of
    `ImageVAE` drawn along)."""
    device = next(model.parameters()).device
    codes = model.sample_appearance(len(pose_px), torch.Generator().manual_seed(seed))
    if isinstance(model, ImageVAE):
        return in_parts(lambda z: model.decode(z.to(device)).cpu(), codes)

    def made(*parts: Tensor) -> Tensor:
        return model.decode(*(part.to(device) for part in parts)).cpu()

    return in_parts(made, codes, pose_px, known)


def in_parts(function: Callable[..., Tensor], *values: Tensor, at_once: int = _AT_ONCE) -> Tensor:
    """What a function of rows gives, some rows at a time."""
    split = (value.split(at_once) for value in values)  # type: ignore[no-untyped-call]
    return torch.cat([function(*parts) for parts in zip(*split, strict=True)])


def score_images(
    images: Tensor,
    judge: KeypointNetwork,
    reference: Tensor,
    *,
    true: Tensor | None = None,
    masks: Tensor | None = None,
    pose: tuple[Tensor, Tensor] | None = None,
    colors: PartColors | None = None,
) -> ImageScores:
    """Figures of a set of images.

    Args:
        images: [B, 3, S, S] in [0, 1].
        judge: on the CPU.
        reference: [N, F], its features of the images that the set is compared with as a whole.
        true: [B, 3, S, S], what the images should be.
        masks: [B, 1, S, S] bool, the person in `true`.
        pose: (keypoints_px [B, 14, 2], known [B, 14]) that the images should show.
        colors: of the persons that they should show.
    """
    features = judge.features(images)
    found = None if pose is None else keypoint_errors(judge.estimate(images)[0], *pose)
    distances = None
    if pose is not None and colors is not None:
        distances = color_distance(part_colors(images, *pose), colors)
    return ImageScores(
        sharpness=float(sharpness(images).mean()),
        frechet=frechet_distance(features, reference),
        diversity=diversity(features),
        psnr=None if true is None else float(in_parts(psnr, images, true).mean()),
        ssim=None if true is None else float(in_parts(ssim, images, true).mean()),
        person_psnr=(
            None
            if true is None or masks is None
            else float(in_parts(psnr, images, true, masks).nanmean())
        ),
        pck=None if found is None else _named(found),
        colors=None if distances is None else float(distances.nanmean()),
    )


def _named(errors: KeypointErrors) -> dict[str, float]:
    return {f"{threshold:g}": errors.pck(threshold) for threshold in THRESHOLDS}


def evaluate_person_model(
    model: DGPoseModel,
    pool: PersonPool,
    judge: KeypointNetwork,
    reference: PersonPool,
    *,
    pairs: PersonPairs | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PersonReport:
    """Everything that can be measured of a model on labelled images.

    Args:
        model: any of the systems, in evaluation mode.
        pool: images that it has not learned from, two at least, of its size.
        judge: trained on true images alone.
        reference: other true images, such as the training set: what the Fréchet distance is from,
            and the mean image and the mean pose of. Small sets are far from everything: compare
            figures of pools of the same size only.
        pairs: rendered pairs, for transfer against the true image.
        seed: of the samples.
        progress: called with (rows done, all).

    Raises:
        ValueError: a pool of fewer than two images, of another size than the model's, or in which
            no torso is known.
    """
    size = model.config.image_size
    pools = {"pool": pool, "reference": reference}
    if pairs is not None:
        pools |= {"the pairs' source": pairs.source, "the pairs' target": pairs.target}
    for name, people in pools.items():
        if len(people) < 2 or people.size != (size, size):
            raise ValueError(
                f"{name} must hold at least two images of {size}x{size} pixels, "
                f"got {len(people)} of {people.size[0]}x{people.size[1]}"
            )
    shown = _People.of(pool)
    features = judge.features(reference.images)
    poses = {
        "judge": keypoint_errors(judge.estimate(shown.images)[0], shown.keypoints, shown.known),
        "mean pose": keypoint_errors(
            mean_pose(*reference.body).expand_as(shown.keypoints), shown.keypoints, shown.known
        ),
    }
    if not poses["judge"].scored:
        raise ValueError("pool must know a shoulder and the other side's hip of somebody, got none")
    if isinstance(model, (SemiDGPose, PoseRegressor)):
        found = estimate(model, shown.images)
        poses["model"] = keypoint_errors(found, shown.keypoints, shown.known)

    rows = _of_pool(model, shown, reference.images.float().mean(0) / 255, seed)
    if pairs is not None:
        rows |= _of_pairs(model, _People.of(pairs.source), _People.of(pairs.target))
    scores = {}
    for number, (name, make) in enumerate(rows.items(), start=1):
        made, wanted = make()
        scores[name] = score_images(made, judge, features, **wanted)
        if progress is not None:
            progress(number, len(rows))
    return PersonReport(pool.source, len(pool), scores, poses)


def mean_pose(keypoints_px: Tensor, known: Tensor) -> Tensor:
    """The mean place [14, 2] of each joint over the poses [N, 14, 2] that know it."""
    counts = known.sum(0).clamp_min(1)[:, None]
    return keypoints_px.where(known[..., None], 0).sum(0) / counts


_Row = Callable[[], tuple[Tensor, dict[str, Any]]]


def _of_pool(model: DGPoseModel, people: _People, mean: Tensor, seed: int) -> dict[str, _Row]:
    """How to make each row of the table, and what it is held against."""
    pose = (people.keypoints, people.known)
    truth = {"true": people.images, "masks": people.masks, "pose": pose, "colors": people.colors}
    rows: dict[str, _Row] = {
        "true images": lambda: (people.images, {"pose": pose}),
        "mean image": lambda: (mean.expand_as(people.images), truth),
    }
    if isinstance(model, PoseRegressor):
        return rows
    generator = model
    roll = torch.arange(len(people.images)).roll(-1)
    other = people.images[roll], people.keypoints[roll], people.known[roll]
    swapped = {"pose": other[1:], "colors": people.colors}
    return rows | {
        "reconstruction": lambda: (reconstruct(generator, *people.arguments), truth),
        "swap": lambda: (transfer(generator, *people.arguments, *other), swapped),
        "another person": lambda: (other[0], swapped),
        "samples": lambda: (
            sample(generator, *pose, seed),
            {} if isinstance(generator, ImageVAE) else {"pose": pose},
        ),
    }


def _of_pairs(model: DGPoseModel, source: _People, target: _People) -> dict[str, _Row]:
    pose = (target.keypoints, target.known)
    judged = {"pose": pose, "colors": source.colors}
    truth = judged | {"true": target.images, "masks": target.masks}
    rows: dict[str, _Row] = {
        "true targets": lambda: (target.images, judged),
        "copy of the source": lambda: (source.images, truth),
    }
    if isinstance(model, (ConditionalDGPose, SemiDGPose)):
        given = (model, *source.arguments, *target.arguments)
        rows["transfer"] = lambda: (transfer(*given), truth)
        if isinstance(model, SemiDGPose):
            rows["indirect transfer"] = lambda: (transfer(*given, indirect=True), truth)
    return rows
