"""PersonGenerator: what a person does with DGPose (IJCV 2020), from pictures to pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dgpose.data.person_crops import box_with_margin, to_crop
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.inference.person_keypoints import (
    KeypointEstimate,
    KeypointEstimator,
    described,
    moved,
)
from dgpose.inference.person_views import (
    Boxes,
    Images,
    PersonView,
    Poses,
    as_box,
    as_pose,
    known_joints,
    pose_box,
    stacked,
    together,
    view_person,
)
from dgpose.model_zoo import model_path
from dgpose.models.dgpose import ConditionalDGPose, SemiDGPose
from dgpose.models.dgpose import load_model as load_dgpose
from dgpose.skeletons import BODY14

__all__ = ["PersonGenerator", "PoseEdit"]

PoseEdit: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Pose [14, 2] and known [14] to the edited pose; `dgpose.data.pose_edits` has some to be bound."""

_AT_ONCE = 64


class PersonGenerator:
    """Reconstruction, pose transfer, generation, pose estimation and edits with DGPose.

    Images, poses and boxes are single ones or sequences: of one of a kind, all others have that
    one. An image is an array [H, W, 3] uint8 or a tensor [3, H, W] (or [B, 3, H, W]); a pose is
    [14, 2] BODY14 or [18, 2] OpenPose-18 in pixels of its picture, NaN where a joint is not known.

    **The crop.** The model sees a square around the person in S x S pixels. With a box (tight
    around the person, as a detector gives it) it is the box and 20 %; else with a pose 1.37 times
    the box around its joints, moved into the picture; else the whole picture.

    **No pose.** Where a pose is None, it is estimated: by the model where that is a Semi-DGPose, by
    `estimator` where one is given.

    Args:
        model: ConditionalDGPose or SemiDGPose in eval mode; used where it is (CPU or GPU).
        estimator: estimates poses in place of the model.
        name: for `info`.

    Raises:
        ValueError: another model, or one in training mode.
    """

    def __init__(
        self,
        model: ConditionalDGPose | SemiDGPose,
        *,
        estimator: KeypointEstimator | None = None,
        name: str = "unnamed",
    ) -> None:
        if not isinstance(model, ConditionalDGPose | SemiDGPose):
            raise ValueError(
                f"model must be a ConditionalDGPose or a SemiDGPose, got a {type(model).__name__}"
            )
        if model.training:
            raise ValueError("model must be in eval mode")
        if estimator is None and isinstance(model, SemiDGPose):
            estimator = KeypointEstimator(model, name=name)
        self.model, self.estimator, self._name = model, estimator, name

    @classmethod
    def load(
        cls,
        model: str | Path = "person_semi",
        *,
        estimator: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> PersonGenerator:
        """Load a model.

        Args:
            model: name of a shipped model, or a file of `dgpose.models.dgpose.save_model`.
            estimator: what estimates poses in its place, as for `KeypointEstimator.load`.
            device: where both run.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: an unknown name, a damaged file, another kind of model, or a device that
                torch does not have here.
        """
        network = moved(load_dgpose(model_path(model)), device)
        found = None if estimator is None else KeypointEstimator.load(estimator, device=device)
        try:
            return cls(network, estimator=found, name=str(model))
        except ValueError as error:
            raise ValueError(f"{model}: {error}") from None

    @property
    def image_size(self) -> int:
        """S: the edge of crops and generated images in pixels."""
        return self.model.config.image_size

    def info(self) -> dict[str, Any]:
        """What is loaded: model, network, image size, device, learned numbers, version."""
        return described(self._name, self.model, self.image_size)

    def reconstruct(
        self, images: Images, poses: Poses | None = None, *, boxes: Boxes | None = None
    ) -> GeneratedPeople:
        """The image again, from its appearance and its pose.

        Raises:
            ValueError, TypeError: images, poses or boxes that are not such, not as many as each
                other, or outside the picture; no pose, and nothing that estimates it.
        """
        sources = self._sources(
            view_person(image, self.image_size, pose, box)
            for image, pose, box in together(images=images, poses=poses, boxes=boxes)
        )
        return self._decoded(*sources, sources[1])

    def transfer(
        self,
        images: Images,
        poses: Poses | None,
        targets: Poses,
        *,
        boxes: Boxes | None = None,
        target_boxes: Boxes | None = None,
    ) -> GeneratedPeople:
        """The person of an image in another pose.

        Args:
            images: with the appearance.
            poses: theirs; None: estimated.
            targets: poses to show, in pixels of any picture.
            boxes: of the people in `images`.
            target_boxes: of the people whose poses `targets` are; None: 1.37 times the box around
                the joints, as for images.

        Raises:
            ValueError, TypeError: as `reconstruct`.
        """
        views, placed = [], []
        for image, pose, target, box, target_box in together(
            images=images, poses=poses, targets=targets, boxes=boxes, target_boxes=target_boxes
        ):
            joints = as_pose(target)
            views.append(view_person(image, self.image_size, pose, box))
            given = target_box is not None
            around = box_with_margin(as_box(target_box)) if given else pose_box(joints)
            placed.append(to_crop(joints, around, self.image_size))
        return self._decoded(*self._sources(views), stacked(placed))

    def indirect_transfer(
        self,
        images: Images,
        pose_images: Images,
        *,
        poses: Poses | None = None,
        boxes: Boxes | None = None,
        pose_boxes: Boxes | None = None,
    ) -> GeneratedPeople:
        """The person of one image in the pose of another, which is estimated.

        Args:
            images: with the appearance.
            pose_images: with the poses.
            poses: of the people in `images`; None: estimated, too.
            boxes: of the people in `images`.
            pose_boxes: of those in `pose_images`.

        Raises:
            ValueError, TypeError: as `reconstruct`.
        """
        views, seen = [], []
        for image, pose, box, other, other_box in together(
            images=images, poses=poses, boxes=boxes, pose_images=pose_images, pose_boxes=pose_boxes
        ):
            views.append(view_person(image, self.image_size, pose, box))
            seen.append(view_person(other, self.image_size, None, other_box))
        return self._decoded(*self._sources(views), self._sources(seen)[1])

    def edit(
        self,
        images: Images,
        poses: Poses | None,
        edits: PoseEdit | Sequence[PoseEdit],
        *,
        boxes: Boxes | None = None,
    ) -> GeneratedPeople:
        """The person in poses that are made of the image's own, at the same place in the picture.

            generator.edit(image, pose, lambda pose, known: scale_height(pose, 1.2, known))

        Args:
            images: with the appearance.
            poses: theirs; None: estimated.
            edits: called with pose [14, 2] in pixels of the picture (NaN where not known) and known
                [14]; see `dgpose.data.pose_edits`. All edits of an image share the crop, which
                without a box holds all their poses.
            boxes: of the people in `images`.

        Returns:
            The edits of the first image first.

        Raises:
            ValueError, TypeError: as `reconstruct`, and what the edits raise.
        """
        wanted = list(edits) if isinstance(edits, Sequence) else [edits]
        if not wanted:
            raise ValueError("edits must hold at least one, got none")
        views, placed = [], []
        for image, pose, box in together(images=images, poses=poses, boxes=boxes):
            given = self.estimate(image, boxes=box).poses_px[0] if pose is None else as_pose(pose)
            joints = torch.from_numpy(given)
            edited = [as_pose(edit(joints, joints.isfinite().all(-1))) for edit in wanted]
            view = view_person(image, self.image_size, given, box, edited)
            views += [view] * len(edited)
            placed += [to_crop(after, view.box, self.image_size) for after in edited]
        return self._decoded(*self._sources(views), stacked(placed))

    def generate(
        self, poses: Poses | None = None, *, count: int = 1, seed: int = 0
    ) -> GeneratedPeople:
        """People who never were: their appearance is drawn from the prior.

        Args:
            poses: each is shown in `count` appearances, the same for all poses; in the square of
                1.37 times the box around its joints. None: `count` people in poses from the prior
                of a Semi-DGPose.
            count: people a pose.
            seed: of the draws.

        Returns:
            Those of the first pose first.

        Raises:
            ValueError: a count below 1, a pose that is not one, or no poses where the model is a
                Conditional-DGPose.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        random = torch.Generator().manual_seed(seed)
        looks = self.model.sample_appearance(count, random).to(self._device)
        if poses is not None:
            joints = [as_pose(pose) for (pose,) in together(poses=poses)]
            placed = stacked([to_crop(p, pose_box(p), self.image_size) for p in joints])
            shown = placed.repeat_interleave(count, 0)
        elif isinstance(self.model, SemiDGPose):
            shown = self.model.sample_pose(count, random).cpu()
        else:
            raise ValueError(
                "poses must be given to a conditional model (a semi model has a prior of poses)"
            )
        return GeneratedPeople(self._decode(looks.repeat(len(shown) // count, 1), shown), shown)

    def estimate(self, images: Images, *, boxes: Boxes | None = None) -> KeypointEstimate:
        """The poses of people in images, as `KeypointEstimator.estimate`.

        Raises:
            ValueError, TypeError: as `reconstruct`.
        """
        return self._needed_estimator().estimate(images, boxes=boxes)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _sources(self, views: Iterable[PersonView]) -> tuple[Tensor, Tensor]:
        """Crops [B, 3, S, S] and their poses [B, 14, 2], estimated where there is none."""
        seen = list(views)
        crops = torch.stack([view.image for view in seen])
        missing = [row for row, view in enumerate(seen) if view.pose_px is None]
        nothing = np.full((len(BODY14), 2), np.nan)
        poses = stacked([nothing if view.pose_px is None else view.pose_px for view in seen])
        if missing:
            poses[missing] = self._needed_estimator().of_crops(crops[missing]).poses_px
        return crops, poses

    def _needed_estimator(self) -> KeypointEstimator:
        if self.estimator is None:
            raise ValueError(
                "a pose must be given: a conditional model estimates none "
                "(a semi model does, or an estimator beside it)"
            )
        return self.estimator

    def _decoded(self, crops: Tensor, poses: Tensor, targets: Tensor) -> GeneratedPeople:
        """The people of crops [B, 3, S, S] in poses [B, 14, 2] as targets [B, 14, 2]."""
        looks = []
        with torch.no_grad():
            for crop, pose in zip(crops.split(_AT_ONCE), poses.split(_AT_ONCE), strict=True):  # type: ignore[no-untyped-call]
                given = (values.to(self._device) for values in (crop, *known_joints(pose)))
                looks.append(self.model.appearance(*given).mean)
        return GeneratedPeople(self._decode(torch.cat(looks), targets), targets, crops, poses)

    @torch.no_grad()
    def _decode(self, looks: Tensor, poses: Tensor) -> Tensor:
        parts = []
        for look, pose in zip(looks.split(_AT_ONCE), poses.split(_AT_ONCE), strict=True):  # type: ignore[no-untyped-call]
            joints, known = known_joints(pose)
            parts.append(self.model.decode(look, joints.to(self._device), known.to(self._device)))
        return torch.cat(parts).cpu()
