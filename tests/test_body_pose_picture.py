"""Pictures of poses: left is left, and the two views are of one pose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from human36m_files import STANDING

from dgpose.skeletons import BODY_COLORS
from dgpose.viz.body_pose import pose_view, pose_views, retrieval_picture

# Facing the camera: its left is the image's right.
POSE = 1000 * STANDING * np.array([1.0, -1.0, -1.0])


def columns_of(picture: npt.NDArray[np.uint8], part: str) -> npt.NDArray[np.int64]:
    found = (picture == np.array(BODY_COLORS[part], np.uint8)).all(axis=-1)
    return np.flatnonzero(found.any(axis=0))


def test_the_view_from_the_camera() -> None:
    picture = pose_view(POSE, 240)
    assert columns_of(picture, "right_leg").max() < 120 < columns_of(picture, "left_leg").min()


def test_the_view_from_the_side() -> None:
    """From the right of the image the camera is on the left: so is an arm that points at it."""
    pose = POSE.copy()
    pose[[15, 16], 2] -= [250, 500]
    picture = pose_view(pose, 240, side=True)
    assert columns_of(picture, "right_arm").min() < columns_of(picture, "left_leg").min() - 30
    assert pose_views(pose, 120).shape == (120, 240, 3)


def test_a_pose_larger_than_the_picture_still_fits() -> None:
    picture = pose_view(4 * POSE, 240)
    rows = np.flatnonzero((picture == np.array(BODY_COLORS["left_leg"], np.uint8)).all(-1).any(1))
    assert rows.max() < 239


def test_retrieval_picture() -> None:
    image = np.full((3, 32, 32), 200, np.uint8)
    candidates = np.stack([POSE, POSE + 50])
    picture = retrieval_picture(image, POSE, candidates, [3.0, 2.0], "crop", count=2, size=120)
    one = retrieval_picture(image, POSE, candidates[:1], [3.0], "crop", count=1, size=120)
    assert picture.shape == one.shape
    assert (picture != one).any()
