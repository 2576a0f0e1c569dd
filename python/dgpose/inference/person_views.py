"""People in pictures as models see them: crops, and poses in the crops' pixels.

A pose here is one array [J, 2], BODY14 or OPENPOSE18, NaN where a joint is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data.person_crops import (
    PERSON_MARGIN,
    CropSize,
    box_with_margin,
    edges,
    person_crop,
    require_box,
    to_crop,
    whole_image,
)
from dgpose.skeletons import BODY14, OPENPOSE18, Skeleton

__all__ = [
    "Box",
    "Boxes",
    "FloatArray",
    "Image",
    "Images",
    "PersonView",
    "Pose",
    "Poses",
    "as_box",
    "as_picture",
    "as_pose",
    "known_joints",
    "pose_box",
    "stacked",
    "together",
    "view_person",
]

Image: TypeAlias = npt.NDArray[np.uint8] | Tensor
"""One picture: RGB, an array [H, W, 3] uint8 or a tensor [3, H, W] (uint8, or float in [0, 1])."""
Pose: TypeAlias = npt.NDArray[Any] | Tensor
"""One pose in pixels: [14, 2] BODY14, or [18, 2] OpenPose-18, whose first 14 joints those are."""
Box: TypeAlias = Sequence[float] | npt.NDArray[Any]
"""x1, y1, x2, y2 in pixels."""
Images: TypeAlias = Image | Sequence[Image]
Poses: TypeAlias = Pose | Sequence[Pose]
Boxes: TypeAlias = Box | Sequence[Box]

FloatArray = npt.NDArray[np.float64]

_DIMENSIONS = {
    **dict.fromkeys(("images", "pose_images", "backgrounds"), 3),
    **dict.fromkeys(("poses", "targets", "background_poses"), 2),
    **dict.fromkeys(("boxes", "pose_boxes", "target_boxes", "background_boxes"), 1),
}
"""Of a single one."""

# Crop over the box around BODY14: the median over rendered people in squares, between 1.18 and
# 1.65, and that of Leeds Sports' crops; in 128x64 it is 1.39.
_POSE_MARGIN = 1.37
_LARGEST = 4


class PersonView(NamedTuple):
    """One person in a crop.

    Attributes:
        image: [3, H, W] float32, RGB in [0, 1].
        pose_px: [J, 2] pixels of the crop, NaN where not known; None where no pose was given.
        box: what of the picture is seen, x1, y1, x2, y2 in its pixels.
    """

    image: Tensor
    pose_px: FloatArray | None
    box: FloatArray


def as_picture(image: Image) -> npt.NDArray[np.uint8]:
    """The picture [H, W, 3] uint8 of an `Image`.

    Raises:
        ValueError: another shape, no pixels, or values that are not finite or not in [0, 1].
        TypeError: another dtype, or neither array nor tensor.
    """
    if isinstance(image, Tensor):
        if image.dim() != 3 or image.shape[0] != 3 or not image.numel():
            raise ValueError(
                f"image must have shape [3, H, W] as a tensor, got {list(image.shape)}"
            )
        values = image.detach().cpu()
        if values.is_floating_point():
            if not bool(((values >= 0) & (values <= 1)).all()):  # NaN neither
                raise ValueError("image must lie in [0, 1] as a tensor of floating point")
            values = (255 * values.double()).round().to(torch.uint8)
        if values.dtype != torch.uint8:
            raise TypeError(f"image must be uint8 or of floating point, got {values.dtype}")
        return np.ascontiguousarray(values.permute(1, 2, 0).numpy())
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"image must be a tensor or an array of uint8, got {kind}")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image must have shape [H, W, 3] as an array, got {list(image.shape)}")
    return image


def as_pose(pose: Pose, skeleton: Skeleton = BODY14) -> FloatArray:
    """The pose [J, 2] of a `Pose`; a joint with a NaN is NaN in both coordinates.

    Args:
        pose: the pose.
        skeleton: BODY14, or OPENPOSE18, of which eyes and ears are not known where they are not
            given.

    Raises:
        ValueError: another shape, an infinite coordinate, or no joint that is known.
        TypeError: neither array nor tensor of numbers.
    """
    given = pose.detach().cpu().numpy() if isinstance(pose, Tensor) else pose
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "fiu":
        kind = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise TypeError(f"pose must be an array or a tensor of numbers, got {kind}")
    points = np.array(given, np.float64)
    if points.shape not in ((len(BODY14), 2), (len(OPENPOSE18), 2)):
        raise ValueError(f"pose must have shape [14, 2] or [18, 2], got {list(points.shape)}")
    missing = max(len(skeleton) - len(points), 0)
    points = np.pad(points[: len(skeleton)], ((0, missing), (0, 0)), constant_values=np.nan)
    if np.isinf(points).any():
        raise ValueError("pose must be finite (NaN: not known), got Inf")
    points[np.isnan(points).any(axis=1)] = np.nan
    if np.isnan(points).all():
        raise ValueError("pose must have a known joint, got none")
    return points


def as_box(box: Box) -> FloatArray:
    """The four numbers of a `Box`.

    Raises:
        ValueError: not four finite numbers, or an empty box.
    """
    values = np.array(box, np.float64)
    if values.shape != (4,) or not (np.isfinite(values).all() and (values[:2] < values[2:]).all()):
        raise ValueError(f"box must be x1, y1, x2, y2 with x1 < x2 and y1 < y2, got {list(box)}")
    return values


def pose_box(
    poses_px: npt.NDArray[Any],
    size: CropSize = 1,
    picture: npt.NDArray[np.uint8] | None = None,
    what: str = "pose",
) -> FloatArray:
    """Where a pose is seen as in training: 1.37 times the box around its joints.

    Args:
        poses_px: [..., J, 2] pixels, NaN where not known; the box holds all of them.
        size: of the crop, whose shape the box has.
        picture: [H, W, 3]; the box is moved into it, and made smaller, to 1.2 times that around the
            joints, where it does not fit.
        what: they are called in errors.

    Returns:
        x1, y1, x2, y2.

    Raises:
        ValueError: fewer than two joints, all at one place, wholly outside the picture, or four
            times as far apart as it is large.
    """
    without_box = "" if picture is None else ", unless a box is given (--box)"
    points = poses_px.reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points) or np.ptp(points, axis=0).max() < 1:
        raise ValueError(f"{what} must have two known joints a pixel or more apart{without_box}")
    low, high = points.min(axis=0), points.max(axis=0)
    shape = np.array(edges(size)[::-1], np.float64)
    tight = shape * ((high - low) / shape).max()
    middle, box = (low + high) / 2, _POSE_MARGIN * tight
    if picture is not None:
        sides = np.array(picture.shape[1::-1], np.float64)
        far = (high - low).max() > _LARGEST * sides.max()
        if (high < 0).any() or (low > sides - 1).any() or far:
            x1, y1, x2, y2 = np.concatenate([low, high])
            raise ValueError(
                f"{what} must lie in the image of {sides[0]:g}x{sides[1]:g} pixels{without_box}, "
                f"got joints from {x1:g},{y1:g} to {x2:g},{y2:g}"
            )
        box = np.maximum(box * min(1.0, (sides / box).min()), PERSON_MARGIN * tight)
        half = box / 2
        inside = np.clip(middle, half - 0.5, np.maximum(sides - half, half) - 0.5)
        middle = np.where(sides >= box, inside, middle)  # a larger box stays around the joints
    return np.concatenate([middle - box / 2, middle + box / 2])


def view_person(
    image: Image,
    size: CropSize,
    pose: Pose | None = None,
    box: Box | None = None,
    others: Sequence[FloatArray] = (),
    skeleton: Skeleton = BODY14,
) -> PersonView:
    """The crop [3, H, W] of a person, with the pose in its pixels.

    What of it lies outside the picture repeats its border.

    Args:
        image: the picture.
        size: of the crop.
        pose: in pixels of the picture.
        box: tight around the person, as a detector gives it: 20 % are added. None: `pose_box`, and
            where fewer than two joints are known the whole picture.
        others: more poses in pixels of the picture that the crop shall hold.
        skeleton: as for `as_pose`.

    Raises:
        ValueError, TypeError: as `as_picture` and `as_pose`; a box or a pose outside the picture.
    """
    picture = as_picture(image)
    joints = None if pose is None else as_pose(pose, skeleton)
    around: FloatArray
    if box is not None:
        require_box(picture, box)  # the error names this box, not the one around it
        around = box_with_margin(np.asarray(box, np.float64), size)
    elif joints is not None and np.isfinite(joints[:, 0]).sum() > 1:
        around = pose_box(joints, size, picture)
        if others:
            around = pose_box(np.stack([joints, *others]), size, picture, "the pose to show")
    else:
        around = np.array(whole_image(picture))
    crop = torch.from_numpy(person_crop(picture, around, size, repeat_border=True)).float() / 255
    seen = None if joints is None else to_crop(joints, around, size)
    return PersonView(crop, seen, around)


def known_joints(pose_px: Tensor) -> tuple[Tensor, Tensor]:
    """Poses [B, J, 2] with 0 for NaN, and which joints are known [B, J]."""
    known = pose_px.isfinite().all(-1)
    return pose_px.where(known[..., None], 0), known


def stacked(poses_px: Sequence[FloatArray]) -> Tensor:
    """Poses [J, 2] as [B, J, 2] float32."""
    return torch.from_numpy(np.stack(poses_px)).float()


def together(**given: Any) -> list[tuple[Any, ...]]:
    """Images, poses and boxes side by side: one of a kind goes with all of the others."""
    columns = {name: _many(name, value) for name, value in given.items()}
    count = max(len(column) for column in columns.values())
    wrong = {name: len(column) for name, column in columns.items() if len(column) not in (1, count)}
    if wrong or not all(columns.values()):
        said = ", ".join(f"{len(column)} {name}" for name, column in columns.items())
        raise ValueError(f"there must be one of each, or as many as of the others, got {said}")
    wide = [column * count if len(column) == 1 else column for column in columns.values()]
    return list(zip(*wide, strict=True))


def _many(name: str, value: Any) -> list[Any]:
    """A list of what may be a single one."""
    if value is None:
        return [None]
    if isinstance(value, np.ndarray | Tensor):
        return list(value) if value.ndim > _DIMENSIONS[name] else [value]
    one_box = "boxes" in name and all(isinstance(number, Real) for number in value)
    return [value] if one_box else list(value)
