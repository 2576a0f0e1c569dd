"""What is known of a rendered person's keypoints: where they are in the image, and which are seen.

A keypoint is visible where it lies inside the image and the depth map holds nothing before it but
its own flesh and cloth: a knee under a skirt is visible, a wrist behind the back is not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dgpose.data.body_capsules import BODY_PARTS
from dgpose.data.counter_rng import FloatArray

__all__ = ["Keypoints", "find_keypoints", "project"]

# A surface this far before a joint is still its own, whatever part it is of; mm.
_JOINT_DEPTH_MM = np.array(
    [
        *(150.0, 130.0, 85.0, 65.0, 130.0, 85.0, 65.0),
        *(150.0, 150.0, 105.0, 120.0),
        *(85.0, 65.0, 50.0, 85.0, 65.0, 50.0),
    ]
)
_FACE_DEPTH_MM = np.array([30.0, 30.0, 30.0, 50.0, 50.0])
_NECK_DEPTH_MM = 105.0
# Parts that are a joint's own flesh and cloth, and how far before it they may lie.
_OWN_MM = 260.0
_OWN_PARTS = (
    ("torso", "skirt"),
    ("torso", "skirt", "right_thigh"),
    ("skirt", "right_thigh", "right_shank"),
    ("skirt", "right_shank", "right_foot"),
    ("torso", "skirt", "left_thigh"),
    ("skirt", "left_thigh", "left_shank"),
    ("skirt", "left_shank", "left_foot"),
    ("torso",),
    ("torso", "neck"),
    ("neck", "head", "hair"),
    ("head", "hair", "hat"),
    ("torso", "left_upper_arm"),
    ("left_upper_arm", "left_forearm"),
    ("left_forearm", "left_hand"),
    ("torso", "right_upper_arm"),
    ("right_upper_arm", "right_forearm"),
    ("right_forearm", "right_hand"),
)
_OWN = np.array([[part in own for part in BODY_PARTS] for own in _OWN_PARTS])
_NECK_OWN = np.array([[part in ("torso", "neck") for part in BODY_PARTS]])
_FACE_OWN = np.zeros((5, len(BODY_PARTS)), bool)
# Shoulders to ankles of OpenPose-18 (2 to 13) among H36M17.
_OPENPOSE_FROM = [14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6]


class Keypoints(NamedTuple):
    """Pixels and visibility: 17 joints of H36M17 and 18 keypoints of OpenPose."""

    joints_px: FloatArray  # [B, 17, 2]
    visible: npt.NDArray[np.bool_]  # [B, 17]
    keypoints_px: FloatArray  # [B, 18, 2]
    keypoint_visible: npt.NDArray[np.bool_]  # [B, 18]


def project(points: FloatArray, camera: FloatArray) -> FloatArray:
    """Pixels [B, J, 2] of points [B, J, 3] in cameras [B, 4] (fx, fy, cx, cy)."""
    pixels: FloatArray = (
        points[..., :2] / points[..., 2:] * camera[:, None, :2] + camera[:, None, 2:]
    )
    return pixels


def find_keypoints(
    joints: FloatArray,
    face: FloatArray,
    camera: FloatArray,
    parts: npt.NDArray[np.int16],
    depth: npt.NDArray[np.float32],
    thickness: FloatArray,
) -> Keypoints:
    """Project keypoints and say which are visible.

    Args:
        joints: [B, 17, 3] mm in the camera.
        face: [B, 5, 3] nose, right eye, left eye, right ear, left ear.
        camera: [B, 4].
        parts: [B, H, W] part map, -1 where no person is.
        depth: [B, H, W] mm.
        thickness: [B] of the body, relative to an average one.
    """
    neck = 0.5 * (joints[:, 11:12] + joints[:, 14:15])  # OpenPose's is between the shoulders
    points = np.concatenate([joints, neck, face], axis=1)
    pixels = project(points, camera)
    slack = np.concatenate([_JOINT_DEPTH_MM, [_NECK_DEPTH_MM], _FACE_DEPTH_MM])
    own = np.concatenate([_OWN, _NECK_OWN, _FACE_OWN])
    seen = _seen(points, pixels, slack * thickness[:, None], own, parts, depth)
    order = [18, 17, *_OPENPOSE_FROM, 19, 20, 21, 22]
    return Keypoints(pixels[:, :17], seen[:, :17], pixels[:, order], seen[:, order])


def _seen(
    points: FloatArray,
    pixels: FloatArray,
    slack: FloatArray,
    own: npt.NDArray[np.bool_],
    parts: npt.NDArray[np.int16],
    depth: npt.NDArray[np.float32],
) -> npt.NDArray[np.bool_]:
    """Which points [B, J, 3] are seen; ``slack`` [B, J] mm, ``own`` [J, P] parts."""
    height, width = depth.shape[1:]
    nearest = np.rint(np.clip(pixels, -1.0, max(height, width) + 1.0)).astype(np.int64)
    x, y = nearest[..., 0], nearest[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    b = np.arange(len(points))[:, None]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    part = parts[b, y, x]
    allowed = np.where(own[np.arange(len(own)), part], _OWN_MM, slack)
    before = points[..., 2] - depth[b, y, x]
    seen: npt.NDArray[np.bool_] = inside & (part >= 0) & (before < allowed)
    return seen
