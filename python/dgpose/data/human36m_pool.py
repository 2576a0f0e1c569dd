"""Frames of Human3.6M as crops in memory with 3D poses, or as photographs with 2D joints."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from dgpose.data.human36m import Human36M
from dgpose.data.image_files import ImageFiles
from dgpose.data.person_photos import PersonPhotos
from dgpose.data.pose_pool import PosePool
from dgpose.skeletons import H36M17, to_openpose18

__all__ = ["human36m_photos", "human36m_pool"]


def human36m_pool(
    frames: Human36M, size: int, *, progress: Callable[[int, int], None] | None = None
) -> PosePool:
    """The crops of all frames: 3 S² bytes each, so 49 KB at 128 pixels.

    Args:
        frames: of which every image is there (`Human36M.with_images` leaves out the others).
        size: S of the crops.
        progress: called with (frames read, all).

    Raises:
        ValueError: no frame, or an image that cannot be decoded.
        FileNotFoundError: an image is not there.
    """
    count = len(frames)
    if count == 0:
        raise ValueError(f"frames must hold at least one image, none is in {frames.images}")
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    joints = np.empty((count, frames.poses_mm.shape[1], 2), np.float32)
    for row in range(count):
        images[row] = torch.from_numpy(frames.crop(row, size))
        joints[row] = frames.joints_in_crop(row, size)
        if progress is not None:
            progress(row + 1, count)
    names = tuple(sorted(set(frames.actions)))
    places = {name: place for place, name in enumerate(names)}
    actions = torch.tensor([places[name] for name in frames.actions])
    return PosePool(
        images,
        torch.from_numpy(frames.relative_mm),
        torch.from_numpy(joints),
        actions,
        names,
        _said(frames),
    )


def human36m_photos(frames: Human36M) -> PersonPhotos:
    """Frames with their joints in the image, all of them known; the subject is the identity."""
    keypoints, known = to_openpose18(frames.joints_px, H36M17)
    paths = (frames.image_path(row) for row in range(len(frames)))
    return PersonPhotos(
        ImageFiles(frames.images),
        tuple(path.relative_to(frames.images).as_posix() for path in paths),
        keypoints,
        known,
        _said(frames),
        frames.boxes,
        np.array([int(subject[1:]) for subject in frames.subjects], np.int64),
    )


def _said(frames: Human36M) -> str:
    subjects = ", ".join(sorted(set(frames.subjects), key=lambda name: int(name[1:])))
    return f"{len(frames)} frames of Human3.6M, subjects {subjects}"
