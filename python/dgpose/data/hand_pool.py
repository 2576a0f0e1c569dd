"""Fixed pools of hand crops, some of which are labelled: what semi-supervised training learns from.

A pool is made from rendered NYU poses, one render a pose, or from a data set on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dgpose.data.cameras import Camera, unproject
from dgpose.data.hand_datasets import HandSample, HandSet
from dgpose.data.nyu import NyuPoses, load_poses
from dgpose.data.synthetic_hands import HandBatch, SyntheticHands, SyntheticHandsConfig
from dgpose_ext import depth_crop, find_hand_center

__all__ = [
    "UNIT_MM",
    "HandPool",
    "PoseSplit",
    "SplitPosesBy",
    "check_labelled_fraction",
    "dataset_pool",
    "pose_split",
    "rendered_pool",
    "roll_crops",
    "roll_joints",
    "stretch_to_nearest_pixel",
    "synthetic_pool",
]

UNIT_MM = 50.0
"""Millimetres in one unit of a pool's joints, as Crossing Nets takes them."""

Normalize = Literal["cube", "nearest_pixel"]
PoseSplit = Literal["train", "val", "test"]
SplitPosesBy = Literal["block", "actor"]
Center = tuple[float, float, float]

_BLOCK_ROWS, _GAP_ROWS = 200, 60
_BLOCKS = (0, 0, 0, 0, 0, 2, 2, 0, 0, 1)  # train, val and test, over and over
_RENDERED_AT_ONCE = _READ_AT_ONCE = 256
_ROWS_APART = 1_000_000  # between the samples of two renders of a pose: more than there are rows


@dataclass(frozen=True)
class HandPool:
    """Depth maps to learn from, all in memory.

    Attributes:
        depth: `[N, 1, S, S]` floating point, -1 .. 1.
        joints: `[N, J, 3]` (joint - centre of the cube) / 50 mm; x right, y UP, z forward.
        labelled: `[N]` bool: whose joints may be used.
        centers_mm: `[N, 3]` the middle of each cube, mm from the camera, or None.
    """

    depth: Tensor
    joints: Tensor
    labelled: Tensor
    centers_mm: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.depth)
        if self.depth.dim() != 4 or self.depth.shape[1] != 1:
            raise ValueError(f"depth must have shape [N, 1, S, S], got {list(self.depth.shape)}")
        if self.joints.shape[::2] != (count, 3):
            raise ValueError(
                f"joints must have shape [N, J, 3] with N = {count}, got {list(self.joints.shape)}"
            )
        if self.labelled.shape != (count,) or self.labelled.dtype != torch.bool:
            raise ValueError(f"labelled must be bool of shape [N] with N = {count}")
        if self.centers_mm is not None and self.centers_mm.shape != (count, 3):
            raise ValueError(
                f"centers_mm must have shape [N, 3] with N = {count}, "
                f"got {list(self.centers_mm.shape)}"
            )
        if not bool(self.labelled.any()):
            raise ValueError("labelled must be true for at least one frame")

    def __len__(self) -> int:
        return len(self.depth)

    def describe(self) -> dict[str, int]:
        """Counts, for checkpoints and logs."""
        return {"frames": len(self), "labelled": int(self.labelled.sum())}

    def with_labelled_fraction(self, fraction: float, seed: int) -> HandPool:
        """The same frames, of which a random share (at least one frame) keeps its label.

        Raises:
            ValueError: a fraction that is not in (0, 1].
        """
        check_labelled_fraction(fraction)
        rows = torch.nonzero(self.labelled)[:, 0]
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        labelled = torch.zeros_like(self.labelled)
        labelled[rows[order[: max(1, round(fraction * len(rows)))]]] = True
        return replace(self, labelled=labelled)


def check_labelled_fraction(fraction: float) -> None:
    """Raises ValueError unless it lies in (0, 1]."""
    if not 0 < fraction <= 1:
        raise ValueError(f"labelled fraction must lie in (0, 1], got {fraction}")


def pose_split(poses: NyuPoses, by: SplitPosesBy, split: PoseSplit) -> npt.NDArray[np.bool_]:
    """Which poses belong to a split, `[N]`.

    "block": blocks of 200 rows, of ten seven to train, one to validate, two to test, and 60 rows
    of training left out at each border. "actor": actor 1 to train (its last 401 rows, after a gap
    of 60, to validate), actor 0 to test.
    """
    row, kind = poses.row, ("train", "val", "test").index(split)
    if by == "actor":
        if split == "test":
            return np.asarray(poses.actor == 0)
        first = row[poses.actor == 1].max() - 400
        here = row >= first if split == "val" else row < first - _GAP_ROWS
        return np.asarray((poses.actor == 1) & here)
    pattern = np.array(_BLOCKS)

    def of(rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int_]:
        kinds: npt.NDArray[np.int_] = pattern[np.maximum(rows, 0) // _BLOCK_ROWS % len(pattern)]
        return kinds

    if split != "train":
        return np.asarray(of(row) == kind)
    gaps = (of(row - _GAP_ROWS) == 0) & (of(row + _GAP_ROWS) == 0)
    return np.asarray((of(row) == 0) & gaps)


def rendered_pool(
    data_dir: str | Path,
    split: PoseSplit = "train",
    *,
    by: SplitPosesBy = "block",
    size: int = 128,
    cube_mm: float = 250.0,
    normalize: Normalize = "nearest_pixel",
    seed: int = 0,
    renders: int = 1,
    turn: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> HandPool:
    """The NYU poses of a split as rendered crops, one or more a pose, all labelled.

    Surface, forearm, camera and sensor differ from frame to frame; the cube is centred at joint 34
    with an error of 5 mm; nothing else is in it.

    Args:
        data_dir: folder with `hand/nyu/labels`.
        split, by: which poses; see `pose_split`.
        size, cube_mm, normalize: of the crops.
        seed: of all that differs.
        renders: frames of each pose.
        turn: changes poses `[N, 36, 3]` mm before they are rendered.
        progress: called with (frames done, frames in all).

    Raises:
        FileNotFoundError: the poses are not there.
        ValueError: renders below 1.
    """
    if renders < 1:
        raise ValueError(f"renders must be at least 1, got {renders}")
    config = SyntheticHandsConfig(
        held_object_chance=0.0,
        thin_occluder_chance=0.0,
        body_chance=0.0,
        neighbour_chance=0.0,
        plane_chance=0.0,
        given_center_share=1.0,
        center_std_mm=5.0,
        center_wide_share=0.0,
        cube_std=0.0,
    )
    poses = load_poses(Path(data_dir))
    chosen = pose_split(poses, by, split)
    joints_mm = poses.xyz_mm[chosen].astype(np.float64)
    if turn is not None:
        joints_mm = turn(joints_mm)
    rows = poses.row[chosen].astype(np.int64)
    indices = np.concatenate([rows + k * _ROWS_APART for k in range(renders)])
    joints_mm = np.tile(joints_mm, (renders, 1, 1))
    frames = SyntheticHands(
        seed, poses="kinematic", split=split, size=size, cube_mm=cube_mm, config=config
    )
    return _gathered(
        lambda part: frames.posed(joints_mm[part], indices[part]), len(indices), normalize, progress
    )


def synthetic_pool(
    frames: SyntheticHands,
    count: int,
    *,
    normalize: Normalize = "cube",
    progress: Callable[[int, int], None] | None = None,
) -> HandPool:
    """The first `count` samples of `SyntheticHands`, all labelled.

    Args:
        frames: with `config.cube_std` 0: joints are metric, and a crop does not say how large its
            cube is.
        count: samples.
        normalize: of the crops.
        progress: called with (frames done, frames in all).

    Raises:
        ValueError: a cube that varies, or a count below 1.
    """
    if frames.config.cube_std:
        raise ValueError(f"frames must have cube_std 0, got {frames.config.cube_std}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return _gathered(lambda part: frames.batch(np.arange(count)[part]), count, normalize, progress)


def _gathered(
    render: Callable[[slice], HandBatch],
    count: int,
    normalize: Normalize,
    progress: Callable[[int, int], None] | None,
) -> HandPool:
    """Rendered batches as one pool."""
    crops, joints, centers = [], [], []
    for first in range(0, count, _RENDERED_AT_ONCE):
        batch = render(slice(first, first + _RENDERED_AT_ONCE))
        stretched = normalize == "nearest_pixel"
        crops.append((stretch_to_nearest_pixel(batch.crop) if stretched else batch.crop).half())
        places = zip(batch.centers.double().numpy(), batch.camera.double().numpy(), strict=True)
        middle = np.stack([unproject(center, Camera(*camera)) for center, camera in places])
        centers.append(torch.from_numpy(middle).float())
        joints.append((batch.joints_mm - torch.from_numpy(middle)[:, None]).float() / UNIT_MM)
        if progress is not None:
            progress(min(first + _RENDERED_AT_ONCE, count), count)
    labelled = torch.ones(count, dtype=torch.bool)
    return HandPool(torch.cat(crops), torch.cat(joints), labelled, torch.cat(centers))


def dataset_pool(
    frames: HandSet,
    *,
    size: int = 128,
    cube_mm: float | None = 250.0,
    normalize: Normalize = "nearest_pixel",
    every_frame: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> HandPool:
    """The images of a data set as crops, all labelled, read by several threads.

    The centre is what the centre file says that the set was opened with, else
    `find_hand_center`'s.

    Args:
        frames: an opened data set.
        size, normalize: of the crops.
        cube_mm: edge of the cube; None: what the set's users take for each image.
        every_frame: whether an image in which no hand is found is cropped where the one before
            was, as published results have a line for every image; else it is left out.
        progress: called with (frames done, frames in all).

    Raises:
        ValueError: no image has a centre; with `every_frame`, the first has none.
        FileNotFoundError, DepthFormatError: an image is missing or damaged.
    """
    count = len(frames)
    depth = torch.empty((count, 1, size, size), dtype=torch.float16)
    joints, centers = torch.empty(count, frames.joints, 3), torch.empty(count, 3)

    def read(index: int) -> tuple[HandSample, Center | None]:
        sample = frames[index]
        center = sample.center
        if center is None:
            center = find_hand_center(_image(sample), sample.camera)
        return sample, center

    kept, last = 0, None
    with ThreadPoolExecutor() as workers:
        for first in range(0, count, _READ_AT_ONCE):
            part = range(first, min(first + _READ_AT_ONCE, count))
            for sample, found in workers.map(read, part):
                center = last if found is None and every_frame else found
                if center is not None:
                    edge = sample.cube_mm if cube_mm is None else cube_mm
                    where = torch.tensor([center], dtype=torch.float64)
                    middle = unproject(where[0], sample.camera)
                    depth[kept] = depth_crop(
                        _image(sample)[None], where, sample.camera, edge, size, normalize=normalize
                    )[0]
                    joints[kept] = (torch.from_numpy(sample.joints_mm) - middle) / UNIT_MM
                    centers[kept] = middle
                    kept, last = kept + 1, center
                elif every_frame:
                    raise ValueError(
                        f"{frames.root}: no hand was found in the first image, {sample.name}: "
                        "give a centre file"
                    )
            if progress is not None:
                progress(part.stop, count)
    if not kept:
        raise ValueError(f"{frames.root}: no hand was found in any of the {count} images")
    labelled = torch.ones(kept, dtype=torch.bool)
    return HandPool(depth[:kept], joints[:kept], labelled, centers[:kept])


def _image(sample: HandSample) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(sample.depth))


def stretch_to_nearest_pixel(crop: Tensor) -> Tensor:
    """`depth_crop`'s "cube" crops [B, 1, S, S] as its "nearest_pixel" ones: the nearest pixel of
    each at -1, the cube's back at +1. Crops without a hand stay as they are."""
    nearest = crop.amin((1, 2, 3), keepdim=True)
    room = (1 - nearest).clamp_min(1e-6)
    return torch.where(nearest < 1, 1 - 2 * (1 - crop) / room, crop)


def roll_crops(depth: Tensor, radians: Tensor) -> Tensor:
    """Crops as a camera rolled about its axis would see them, the hands turned counter-clockwise.

    The cube follows the hand, so the crop turns about its own middle: exact for square pixels, but
    for what came from outside of the crop, which is background.

    Args:
        depth: [B, 1, S, S], +1 = background.
        radians: [B].
    """
    cosine, sine = radians.cos(), radians.sin()
    zero = torch.zeros_like(cosine)
    # From a place in the turned crop (v down) to the place it comes from.
    back = torch.stack((cosine, -sine, zero, sine, cosine, zero), 1).view(-1, 2, 3)
    grid = F.affine_grid(back.to(depth), list(depth.shape), align_corners=False)
    return F.grid_sample(depth - 1, grid, mode="nearest", align_corners=False) + 1


def roll_joints(joints: Tensor, radians: Tensor) -> Tensor:
    """The joints [B, J, 3] of crops that `roll_crops` turned, relative to the cube's centre."""
    x, y, z = joints.unbind(-1)
    cosine, sine = radians.cos()[:, None].to(joints), radians.sin()[:, None].to(joints)
    return torch.stack((cosine * x - sine * y, sine * x + cosine * y, z), -1)
