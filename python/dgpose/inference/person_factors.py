"""PersonFactors: what a person does with DPIG (CVPR 2018), from pictures to pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from dgpose.inference.code_inversion import InversionConfig, InvertedCodes, invert_codes
from dgpose.inference.factor_codec import FactorCodec, Parts
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.inference.person_keypoints import KeypointEstimator, described, moved
from dgpose.inference.person_views import Boxes, Images, Poses, together
from dgpose.metrics.image_quality import psnr
from dgpose.model_zoo import model_path
from dgpose.models.dpig import DPIG, Factor, load_dpig
from dgpose.skeletons import OPENPOSE18

__all__ = ["InvertedPair", "PersonFactors"]

SomeFactors: TypeAlias = Factor | Collection[Factor]
"""One or several."""


@dataclass(frozen=True, eq=False)
class InvertedPair:
    """Two images whose codes were brought back to noise, and what lies between them.

    Attributes:
        frames: the way from the first image to the second, in equal steps of the noise; what was
            not inverted is the first image's.
        found: the noise of each factor that was inverted, of both images, and its error.
        inverted: both images from the codes of that noise; what was not inverted is their own.
        rebuilt: both from their own codes, which is the best that `inverted` can be.
        psnr: [2] dB of `inverted` against the images.
        rebuilt_psnr: [2], likewise of `rebuilt`.
        pose_error_px: [2], mean distance of the joints that the image and the pose of the noise
            both have; None where the pose was not inverted.
    """

    frames: GeneratedPeople
    found: dict[Factor, InvertedCodes]
    inverted: GeneratedPeople
    rebuilt: GeneratedPeople
    psnr: Tensor
    rebuilt_psnr: Tensor
    pose_error_px: Tensor | None


class PersonFactors:
    """Images of people as foreground, background and pose: kept, exchanged, drawn, interpolated.

    Images, poses and boxes are given as for `PersonGenerator`, and cut out alike, but to H x W
    pixels; a pose is [18, 2] OpenPose-18, or [14, 2] BODY14 without eyes and ears, in pixels of its
    picture, NaN where a joint is not known.

    Args:
        model: in eval mode; used where it is (CPU or GPU). What was not trained of it is an error
            where it is needed.
        estimator: estimates poses that are not given.
        name: for `info`.

    Raises:
        ValueError: another model, or one in training mode.
    """

    def __init__(
        self, model: DPIG, *, estimator: KeypointEstimator | None = None, name: str = "unnamed"
    ) -> None:
        if not isinstance(model, DPIG):
            raise ValueError(f"model must be a DPIG, got a {type(model).__name__}")
        if model.training:
            raise ValueError("model must be in eval mode")
        self.model, self.estimator, self._name = model, estimator, name
        self._codec = FactorCodec(model, estimator)

    @classmethod
    def load(
        cls,
        model: str | Path = "dpig_small",
        *,
        estimator: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> PersonFactors:
        """Load a model.

        Args:
            model: name of a shipped model, or a file of `dgpose.models.dpig.save_dpig`.
            estimator: what estimates poses that are not given, as for `KeypointEstimator.load`.
            device: where both run.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: an unknown name, a damaged file, another kind of model, or a device that
                torch does not have here.
        """
        network = moved(load_dpig(model_path(model)), device)
        found = None if estimator is None else KeypointEstimator.load(estimator, device=device)
        return cls(network, estimator=found, name=str(model))

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of crops and generated images in pixels."""
        return self.model.config.size

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Those that the model tells apart; with 256x256 pixels none is the background."""
        return self.model.config.factors

    def info(self) -> dict[str, Any]:
        """What is loaded: model, network, image size, device, learned numbers, version; factors,
        and what of them was trained."""
        return {
            **described(self._name, self.model, self.image_size, OPENPOSE18),
            "factors": list(self.factors),
            "trained": sorted(self.model.trained),
        }

    def reconstruct(
        self, images: Images, poses: Poses | None = None, *, boxes: Boxes | None = None
    ) -> GeneratedPeople:
        """The image again, from its codes and its pose.

        Raises:
            ValueError, TypeError: images, poses or boxes that are not such, not as many as each
                other, or outside the picture; no pose, and nothing that estimates it; a model whose
                stage 1 was not trained.
        """
        return self.swap(images, poses, boxes=boxes)

    def pose_guided(
        self,
        images: Images,
        poses: Poses | None,
        targets: Poses,
        *,
        boxes: Boxes | None = None,
        target_boxes: Boxes | None = None,
    ) -> GeneratedPeople:
        """The person and the place of an image in another pose; see `swap`.

        Raises:
            ValueError, TypeError: as `reconstruct`.
        """
        return self.swap(images, poses, targets=targets, boxes=boxes, target_boxes=target_boxes)

    def swap(
        self,
        images: Images,
        poses: Poses | None = None,
        *,
        targets: Poses | None = None,
        backgrounds: Images | None = None,
        boxes: Boxes | None = None,
        target_boxes: Boxes | None = None,
        background_poses: Poses | None = None,
        background_boxes: Boxes | None = None,
    ) -> GeneratedPeople:
        """The foreground of one image, the background of another, the pose of a third.

        Args:
            images: with the foreground.
            poses: of the people in `images`; None: estimated.
            targets: poses to show, in pixels of any picture; None: the images' own.
            backgrounds: with the background, behind a person as in `images`; None: the images' own.
            boxes: of the people in `images`.
            target_boxes: of the people whose poses `targets` are; None: 1.37 times the box around
                the joints, as for images.
            background_poses: of the people in `backgrounds`; None: estimated.
            background_boxes: of the people in `backgrounds`.

        Raises:
            ValueError, TypeError: as `reconstruct`; backgrounds for a model that has none.
        """
        if backgrounds is not None:
            self._wanted("background", "what is swapped")
        rows = together(
            images=images, poses=poses, boxes=boxes, targets=targets, target_boxes=target_boxes,
            backgrounds=backgrounds, background_poses=background_poses,
            background_boxes=background_boxes,
        )  # fmt: skip
        crops, parts = self._codec.people(row[:3] for row in rows)
        shown = dict(parts)
        if targets is not None:
            shown["pose"] = self._codec.placed(row[3:5] for row in rows)
        if backgrounds is not None:
            shown["background"] = self._codec.people(row[5:] for row in rows)[1]["background"]
        return GeneratedPeople(self._codec.decode(shown), shown["pose"], crops, parts["pose"])

    def sample(
        self,
        images: Images | None = None,
        poses: Poses | None = None,
        *,
        vary: SomeFactors | None = None,
        count: int = 1,
        seed: int = 0,
        boxes: Boxes | None = None,
    ) -> GeneratedPeople:
        """People of whom some factors are drawn and the others are those of an image.

        Args:
            images: keep what is not drawn; None: nobody, and all is drawn but the pose, where
                `poses` are given.
            poses: of the people in `images`, None: estimated; without images the poses to show,
                in the box of 1.37 times that around their joints.
            vary: the factors that are drawn; None: all, without images all that are not given.
            count: draws; each image gets the same ones.
            seed: of the draws; each factor has draws of its own, whatever else is drawn.
            boxes: of the people in `images`.

        Returns:
            The draws of the first image first.

        Raises:
            ValueError, TypeError: as `reconstruct`; a count below 1, no factor or one that the
                model has not; a factor that is to be kept, and no image; a mapper that was not
                trained.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        crops, own, wanted = self._kept(images, poses, boxes, vary)
        noise = {factor: self._codec.noise(factor, count, seed) for factor in wanted}
        drawn = {factor: self._codec.part(factor, draws) for factor, draws in noise.items()}
        return self._made(crops, own, drawn, count)

    def interpolate(
        self,
        images: Images | None = None,
        poses: Poses | None = None,
        *,
        vary: SomeFactors | None = None,
        count: int = 8,
        seeds: tuple[int, int] = (0, 1),
        boxes: Boxes | None = None,
    ) -> GeneratedPeople:
        """The way between two draws, in equal steps of the noise.

        Args:
            images, poses, boxes: as for `sample`; without images, what is not on the way is drawn
                with the first seed.
            vary: the factors that go from one draw to the other; None: all.
            count: frames, both ends included.
            seeds: of the draws: frame 0 is what `sample` draws with the first, the last frame with
                the second.

        Raises:
            ValueError, TypeError: as `sample`; fewer than two frames.
        """
        if count < 2:
            raise ValueError(f"count must be at least 2 frames, got {count}")
        crops, own, drawn = self._kept(images, poses, boxes, None if images is None else vary)
        wanted = drawn if vary is None else self._wanted(vary, "vary")
        if not set(wanted) <= set(drawn):
            raise ValueError("poses must not be given where the pose is on the way")
        parts = {}
        for factor in drawn:
            start = self._codec.noise(factor, 1, seeds[0])
            end = self._codec.noise(factor, 1, seeds[1]) if factor in wanted else start
            parts[factor] = self._codec.part(factor, _line(start, end, count))
        return self._made(crops, own, parts, count)

    def invert(
        self,
        images: Images,
        poses: Poses | None = None,
        *,
        factors: SomeFactors | None = None,
        count: int = 8,
        seed: int = 0,
        config: InversionConfig | None = None,
        boxes: Boxes | None = None,
    ) -> InvertedPair:
        """Inverse interpolation: the way between two images, through noise.

        Args:
            images: two.
            poses, boxes: of the people in them.
            factors: that go from one image to the other; None: all. The pose alone gives the
                person of the first image a motion between both poses.
            count: frames, both ends included.
            seed: of the noise that the search starts from.
            config: of the search.

        Raises:
            ValueError, TypeError: as `reconstruct`; not two images, fewer than two frames, no
                factor or one that the model has not; a mapper that was not trained.
        """
        wanted = self._wanted(factors, "factors")
        if count < 2:
            raise ValueError(f"count must be at least 2 frames, got {count}")
        crops, own = self._codec.people(together(images=images, poses=poses, boxes=boxes))
        if len(crops) != 2:
            raise ValueError(f"images must be two, got {len(crops)}")
        found = {
            factor: invert_codes(
                self.model, factor, self._codec.code(own, factor), config=config, seed=seed
            )
            for factor in wanted
        }
        ends, ways = dict(own), {}
        for factor, result in found.items():
            ends[factor] = self._codec.part(factor, result.noise)
            way = _line(result.noise[:1], result.noise[1:], count)
            ways[factor] = self._codec.part(factor, way)
        first = {factor: part[:1] for factor, part in own.items()}
        inverted, rebuilt = self._codec.decode(ends), self._codec.decode(own)
        off = (ends["pose"] - own["pose"]).norm(dim=2).nanmean(1)
        return InvertedPair(
            self._made(crops[:1], first, ways, count),
            found,
            GeneratedPeople(inverted, ends["pose"], crops, own["pose"]),
            GeneratedPeople(rebuilt, own["pose"], crops, own["pose"]),
            psnr(inverted, crops),
            psnr(rebuilt, crops),
            off if "pose" in found else None,
        )

    def _wanted(self, factors: SomeFactors | None, name: str) -> tuple[Factor, ...]:
        """The factors that an argument names, in their order; None: all."""
        named = self.factors if factors is None else factors
        named = (named,) if isinstance(named, str) else tuple(named)
        strange = [factor for factor in named if factor not in self.factors]
        if strange or not named:
            raise ValueError(
                f"{name} must be among {', '.join(self.factors)}, which this model has, "
                f"got {', '.join(map(str, strange)) or 'none'}"
            )
        return tuple(factor for factor in self.factors if factor in named)

    def _kept(
        self,
        images: Images | None,
        poses: Poses | None,
        boxes: Boxes | None,
        vary: SomeFactors | None,
    ) -> tuple[Tensor | None, Parts, tuple[Factor, ...]]:
        """Crops and parts that are given, and the factors that are drawn."""
        if images is not None:
            crops, own = self._codec.people(together(images=images, poses=poses, boxes=boxes))
            return crops, own, self._wanted(vary, "vary")
        if boxes is not None:
            raise ValueError("boxes must come with images, got boxes alone")
        given: Parts = {}
        if poses is not None:
            given["pose"] = self._codec.placed((pose, None) for (pose,) in together(poses=poses))
        free = tuple(factor for factor in self.factors if factor not in given)
        wanted = free if vary is None else self._wanted(vary, "vary")
        if wanted != free:
            raise ValueError(
                f"without images, what is not given must be drawn: {', '.join(free)}, "
                f"got {', '.join(wanted)}"
            )
        return None, given, wanted

    def _made(
        self, crops: Tensor | None, own: Parts, drawn: Mapping[Factor, Tensor], count: int
    ) -> GeneratedPeople:
        """Each of one's own people with each of `count` rows of what is drawn."""
        people = max((len(part) for part in own.values()), default=1)
        parts = {factor: part.repeat_interleave(count, 0) for factor, part in own.items()}
        for factor, part in drawn.items():
            parts[factor] = part.repeat(people, *[1] * (part.dim() - 1))
        images, poses = self._codec.decode(parts), parts["pose"]
        if crops is None:
            return GeneratedPeople(images, poses)
        sources, theirs = (x.repeat_interleave(count, 0) for x in (crops, own["pose"]))
        return GeneratedPeople(images, poses, sources, theirs)


def _line(start: Tensor, end: Tensor, count: int) -> Tensor:
    """[count, D] from [1, D] to [1, D] in equal steps, both included."""
    return torch.lerp(start, end, torch.linspace(0, 1, count, device=start.device)[:, None])
