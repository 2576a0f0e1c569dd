"""Joint names, their order, and the lines that draw a skeleton.

Joint orders follow the data sets' own label files: the NYU hand set (Tompson et al. 2014, names as
in `joint_data.mat`), ICVL (Tang et al. 2014) and MSRA15 (Sun et al. 2015); bodies as COCO, MPII,
LSP and Human3.6M label them, and as OpenPose and MediaPipe report them. `to_openpose18` brings the
other body orders to that of OpenPose-18, `nyu36_to_21` NYU's hand to those of 21 joints.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BODY14",
    "BODY_25",
    "BODY_COLORS",
    "COCO17",
    "DPIG_LIMBS",
    "DPIG_PARTS",
    "DPIG_PART_NAMES",
    "FINGER_COLORS",
    "H36M17",
    "ICVL16",
    "LSP14",
    "MEDIAPIPE21",
    "MEDIAPIPE33",
    "MPII16",
    "MSRA21",
    "NYU14",
    "NYU36",
    "NYU_SCORED14",
    "OPENPOSE18",
    "Skeleton",
    "flip_keypoints",
    "hand_skeleton",
    "nyu36_to_21",
    "to_openpose18",
]

Array = TypeVar("Array", NDArray[Any], "Tensor")

FINGER_COLORS: dict[str, tuple[int, int, int]] = {
    "thumb": (230, 85, 60),
    "index": (245, 170, 40),
    "middle": (90, 180, 70),
    "ring": (60, 140, 220),
    "little": (160, 95, 205),
    "palm": (140, 145, 155),
}
"""RGB colour (0 to 255) of each joint group of a hand."""

BODY_COLORS: dict[str, tuple[int, int, int]] = {
    "head": (230, 85, 60),
    "torso": (140, 145, 155),
    "right_arm": (245, 170, 40),
    "left_arm": (60, 140, 220),
    "right_leg": (90, 180, 70),
    "left_leg": (160, 95, 205),
}
"""RGB colour (0 to 255) of each joint group of a body."""

_COLORS = FINGER_COLORS | BODY_COLORS


@dataclass(frozen=True)
class Skeleton:
    """A fixed set of joints.

    Attributes:
        name: short name, e.g. `"nyu36"`.
        joints: joint names; a joint's index is its row in every `[..., J, 3]` array.
        groups: the group of each joint: a key of FINGER_COLORS (hands) or BODY_COLORS (bodies).
        edges: pairs of joint indices, each drawn as one line (a body's limbs).

    Raises:
        ValueError: a group per joint is missing, or an edge names a joint that does not exist.
    """

    name: str
    joints: tuple[str, ...]
    groups: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.joints):
            raise ValueError(
                f"groups must name one group per joint ({len(self.joints)}), got {len(self.groups)}"
            )
        for edge in self.edges:
            if not all(0 <= joint < len(self.joints) for joint in edge):
                raise ValueError(f"edges must lie in 0..{len(self.joints) - 1}, got {edge}")

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def edge_groups(self) -> tuple[str, ...]:
        """The group of each edge: a line between two groups counts as the palm's or the torso's."""
        between = "palm" if self.groups[0] in FINGER_COLORS else "torso"
        return tuple(
            self.groups[a] if self.groups[a] == self.groups[b] else between for a, b in self.edges
        )

    @property
    def flip(self) -> tuple[int, ...]:
        """For each joint the one that takes its place in a mirrored image: left and right change
        sides, the others stay."""
        return tuple(self.joints.index(_other_side(joint)) for joint in self.joints)

    @property
    def edge_colors(self) -> tuple[tuple[int, int, int], ...]:
        """The RGB colour of each edge."""
        return tuple(_COLORS[group] for group in self.edge_groups)

    @property
    def joint_colors(self) -> tuple[tuple[int, int, int], ...]:
        """The RGB colour of each joint."""
        return tuple(_COLORS[group] for group in self.groups)


def _other_side(joint: str) -> str:
    sides = {"left": "right", "right": "left"}
    return "_".join(sides.get(word, word) for word in joint.split("_"))


def _chain(*joints: int) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(joints))


_NYU_FINGERS = (
    ("F1", "little"),
    ("F2", "ring"),
    ("F3", "middle"),
    ("F4", "index"),
    ("TH", "thumb"),
)
# Each finger runs from its tip (KNU3_A) to its root (KNU1_B). Palm: 30 and 31 are the sides of the
# wrist (little finger's, thumb's), 35 its middle, 32 and 33 lie under the knuckles, 34 in between.
NYU36 = Skeleton(
    name="nyu36",
    joints=tuple(
        f"{prefix}_KNU{knuckle}_{end}"
        for prefix, _ in _NYU_FINGERS
        for knuckle in (3, 2, 1)
        for end in "AB"
    )
    + tuple(f"PALM_{i}" for i in range(1, 7)),
    groups=tuple(finger for _, finger in _NYU_FINGERS for _ in range(6)) + ("palm",) * 6,
    edges=(
        *_chain(0, 1, 2, 3, 4, 5),
        *_chain(6, 7, 8, 9, 10, 11),
        *_chain(12, 13, 14, 15, 16, 17),
        *_chain(18, 19, 20, 21, 22, 23),
        *_chain(24, 25, 26, 27, 28, 29),
        (5, 33),
        (11, 33),
        (17, 32),
        (23, 32),
        (29, 34),
        (29, 35),
        *_chain(32, 33, 34, 32),
        (34, 35),
        *_chain(30, 35, 31),
    ),
)
"""All 36 joints of the NYU hand set."""

NYU_SCORED14 = (0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32)
"""The 14 of the 36 NYU joints that every published NYU error is measured on."""

NYU14 = Skeleton(
    name="nyu14",
    joints=tuple(NYU36.joints[j] for j in NYU_SCORED14),
    groups=tuple(NYU36.groups[j] for j in NYU_SCORED14),
    edges=(
        *_chain(0, 1, 13),
        *_chain(2, 3, 13),
        *_chain(4, 5, 13),
        *_chain(6, 7, 13),
        *_chain(8, 9, 10, 12),
        *_chain(13, 11, 12, 13),
    ),
)
"""The 14 scored NYU joints alone, in the order of `NYU_SCORED14`."""

_ICVL_FINGERS = ("thumb", "index", "middle", "ring", "little")
ICVL16 = Skeleton(
    name="icvl16",
    joints=(
        "palm",
        *(f"{finger}_{part}" for finger in _ICVL_FINGERS for part in ("root", "mid", "tip")),
    ),
    groups=("palm", *(finger for finger in _ICVL_FINGERS for _ in range(3))),
    edges=tuple(edge for root in range(1, 16, 3) for edge in _chain(0, root, root + 1, root + 2)),
)
"""The 16 joints of the ICVL hand set."""

_PARTS = ("mcp", "pip", "dip", "tip")


def _hand21(name: str, fingers: tuple[str, ...], thumb: tuple[str, ...]) -> Skeleton:
    """A wrist and four joints a finger, from its root to its tip."""
    joints = (
        f"{finger}_{part}"
        for finger in fingers
        for part in (thumb if finger == "thumb" else _PARTS)
    )
    return Skeleton(
        name,
        ("wrist", *joints),
        ("palm", *(finger for finger in fingers for _ in range(4))),
        tuple(edge for root in range(1, 21, 4) for edge in _chain(0, *range(root, root + 4))),
    )


MSRA21 = _hand21("msra21", ("index", "middle", "ring", "little", "thumb"), _PARTS)
"""The 21 joints of the MSRA15 hand set."""

MEDIAPIPE21 = _hand21(
    "mediapipe21", ("thumb", "index", "middle", "ring", "little"), ("cmc", "mcp", "ip", "tip")
)
"""The 21 landmarks of MediaPipe's hand model; OpenPose's hands have the same order."""


def hand_skeleton(joints: int) -> Skeleton:
    """The hand data set that labels so many joints: NYU36, MSRA21 or ICVL16.

    Raises:
        ValueError: none does.
    """
    known = (NYU36, MSRA21, ICVL16)
    for skeleton in known:
        if len(skeleton) == joints:
            return skeleton
    counts = ", ".join(f"{len(skeleton)} ({skeleton.name})" for skeleton in known)
    raise ValueError(f"joints must be one of {counts}, got {joints}")


Four = tuple[int, int, int, int]
Weights = tuple[float, float, float, float]


def _beside_hinges() -> dict[str, tuple[Four, Four, Four]]:
    """Of each finger and hinge (knuckle, middle, tip) the four NYU points that place it."""
    palm = {"little": 33, "ring": 33, "middle": 32, "index": 32, "thumb": 34}
    points = {}
    for number, (_, finger) in enumerate(_NYU_FINGERS):
        tip = 6 * number
        points[finger] = (
            (tip + 5, tip + 4, palm[finger], 34),
            (tip + 4, tip + 3, tip + 5, tip + 2),
            (tip + 2, tip + 1, tip + 3, tip),
        )
    return points


HINGE_POINTS = _beside_hinges()
# Fitted by tools/fit_hand_hinges.py; the thumb's first bone begins at its root, NYU's last point.
HINGE_WEIGHTS: dict[str, tuple[Weights, Weights, Weights]] = {
    "little": ((0.99, -0.29, 0.49, -0.19), (0.94, 0.55, -0.26, -0.23), (1.02, 0.80, -0.57, -0.25)),
    "ring": ((1.41, -0.45, 0.02, 0.02), (0.47, 0.47, -0.17, 0.23), (0.55, 0.52, -0.03, -0.04)),
    "middle": ((1.10, -0.14, 0.07, -0.03), (0.82, 0.67, -0.42, -0.07), (0.38, 0.66, -0.14, 0.10)),
    "index": ((1.00, 0.00, -0.03, 0.03), (0.70, 0.64, -0.27, -0.07), (1.25, 0.49, -0.44, -0.30)),
    "thumb": ((1.0, 0.0, 0.0, 0.0), (0.73, 0.58, -0.21, -0.10), (1.01, 0.87, -0.66, -0.22)),
}

_TORSO = ("neck", "thorax", "spine", "pelvis", "hip", "mid_hip")
_ARM = ("shoulder", "elbow", "wrist", "pinky", "index", "thumb")
_LEG = ("hip", "knee", "ankle", "heel", "foot_index", "big_toe", "small_toe")


def _body(name: str, joints: str, edges: tuple[tuple[int, int], ...]) -> Skeleton:
    """A body from its joint names, separated by blanks; the names give the groups."""

    def group(joint: str) -> str:
        side, _, part = joint.partition("_")
        if joint in _TORSO:
            return "torso"
        if part in _ARM:
            return f"{side}_arm"
        return f"{side}_leg" if part in _LEG else "head"

    names = tuple(joints.split())
    return Skeleton(name, names, tuple(group(joint) for joint in names), edges)


OPENPOSE18 = _body(
    "openpose18",
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
    "right_hip right_knee right_ankle left_hip left_knee left_ankle "
    "right_eye left_eye right_ear left_ear",
    (
        *_chain(1, 2, 3, 4),
        *_chain(1, 5, 6, 7),
        *_chain(1, 8, 9, 10),
        *_chain(1, 11, 12, 13),
        *_chain(1, 0, 14, 16),
        *_chain(0, 15, 17),
    ),
)
"""OpenPose's 18 joints (COCO model). Right is the person's right."""

BODY14 = _body(
    "body14",
    " ".join(OPENPOSE18.joints[:14]),
    tuple(edge for edge in OPENPOSE18.edges if max(edge) < 14),
)
"""The first 14 joints of OpenPose-18, without eyes and ears: all body data sets can supply them."""

DPIG_LIMBS: tuple[tuple[int, int], ...] = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12)),
    *((12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (1, 16), (1, 17), (8, 11), (11, 5)),
    *((8, 2), (16, 17)),
)
"""The 23 limbs between OpenPose-18 joints that DPIG's mask is drawn along (CVPR 2018)."""

DPIG_PARTS: tuple[tuple[int, ...], ...] = (
    (0, 1, 2, 5, 14, 15, 16, 17),
    (2, 3, 4, 5, 6, 7, 8, 11),
    (8, 9, 10, 11, 12, 13),
    (5, 6, 7),
    (2, 3, 4),
    (11, 12, 13),
    (8, 9, 10),
)
"""OpenPose-18 joints of DPIG's seven parts, in the order of DPIG_PART_NAMES."""

DPIG_PART_NAMES: tuple[str, ...] = (
    *("head_and_shoulders", "upper_body", "legs"),
    *("left_arm", "right_arm", "left_leg", "right_leg"),
)
"""DPIG's seven parts."""

COCO17 = _body(
    "coco17",
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow "
    "right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle "
    "right_ankle",
    (
        *_chain(15, 13, 11, 12, 14, 16),
        *_chain(11, 5, 6, 12),
        *_chain(5, 7, 9),
        *_chain(6, 8, 10),
        *_chain(3, 1, 2, 4),
        *_chain(1, 0, 2),
        (3, 5),
        (4, 6),
    ),
)
"""The 17 joints of COCO's person keypoints."""

BODY_25 = _body(
    "body_25",
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip "
    "right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear "
    "left_ear left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel",
    (
        *_chain(0, 1, 8),
        *_chain(1, 2, 3, 4),
        *_chain(1, 5, 6, 7),
        *_chain(8, 9, 10, 11),
        *_chain(8, 12, 13, 14),
        *_chain(0, 15, 17),
        *_chain(0, 16, 18),
        *_chain(14, 19, 20),
        (14, 21),
        *_chain(11, 22, 23),
        (11, 24),
    ),
)
"""OpenPose's 25 joints with feet."""

MEDIAPIPE33 = _body(
    "mediapipe33",
    "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer "
    "left_ear right_ear mouth_left mouth_right left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_pinky right_pinky left_index right_index left_thumb right_thumb "
    "left_hip right_hip left_knee right_knee left_ankle right_ankle left_heel right_heel "
    "left_foot_index right_foot_index",
    (
        *_chain(0, 1, 2, 3, 7),
        *_chain(0, 4, 5, 6, 8),
        (9, 10),
        *_chain(12, 11, 13, 15, 17, 19, 15, 21),
        *_chain(12, 14, 16, 18, 20, 16, 22),
        *_chain(11, 23, 24, 12),
        *_chain(23, 25, 27, 29, 31, 27),
        *_chain(24, 26, 28, 30, 32, 28),
    ),
)
"""The 33 landmarks of MediaPipe's pose model (BlazePose)."""

MPII16 = _body(
    "mpii16",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax upper_neck "
    "head_top right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist",
    (
        *_chain(0, 1, 2, 6, 3, 4, 5),
        *_chain(6, 7, 8, 9),
        *_chain(10, 11, 12, 7, 13, 14, 15),
    ),
)
"""The 16 joints of MPII Human Pose."""

LSP14 = _body(
    "lsp14",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow "
    "right_shoulder left_shoulder left_elbow left_wrist neck head_top",
    (
        *_chain(0, 1, 2, 3, 4, 5),
        *_chain(6, 7, 8, 12, 9, 10, 11),
        *_chain(2, 8),
        *_chain(3, 9),
        (12, 13),
    ),
)
"""The 14 joints of Leeds Sports Pose and its extension."""

H36M17 = _body(
    "h36m17",
    "hip right_hip right_knee right_ankle left_hip left_knee left_ankle spine thorax neck head "
    "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist",
    (
        *_chain(0, 1, 2, 3),
        *_chain(0, 4, 5, 6),
        *_chain(0, 7, 8, 9, 10),
        *_chain(8, 11, 12, 13),
        *_chain(8, 14, 15, 16),
    ),
)
"""The 17 joints of Human3.6M that are scored."""


def flip_keypoints(keypoints: Array, skeleton: Skeleton, width: int) -> Array:
    """The keypoints of the mirrored image.

    Args:
        keypoints: [..., J, D] with D >= 2 (x, y, ...) in pixels, a NumPy array or a tensor.
        skeleton: names the joints that change sides.
        width: W of the image; x becomes W - 1 - x (pixel centres are integers).

    Returns:
        [..., J, D]; twice gives the keypoints back.

    Raises:
        ValueError: keypoints has another shape.
    """
    _require_joints(keypoints, skeleton)
    flipped = keypoints[..., list(skeleton.flip), :]  # a copy
    flipped[..., 0] = width - 1 - flipped[..., 0]
    return flipped


# Joints of OpenPose-18 as the mean of two (or one) of joints that a skeleton has, where its own
# are other ones. OpenPose's neck is the middle of the shoulders, MPII's thorax. Human3.6M's
# "neck" lies at the height of the mouth, its head at that of the forehead.
_OPENPOSE18_FROM: dict[str, dict[str, tuple[str, ...]]] = {
    "coco17": {"neck": ("left_shoulder", "right_shoulder")},
    "body_25": {},
    "body14": {},
    "mediapipe33": {"neck": ("left_shoulder", "right_shoulder")},
    "mpii16": {"neck": ("thorax",), "nose": ("upper_neck", "head_top")},
    "lsp14": {"nose": ("neck", "head_top")},
    "h36m17": {"neck": ("left_shoulder", "right_shoulder"), "nose": ("neck", "head")},
}


def to_openpose18(
    keypoints: Array, skeleton: Skeleton, visible: Array | None = None
) -> tuple[Array, Array]:
    """Joints of another order as OpenPose-18.

    Where the skeleton has no neck, the neck is the mean of the shoulders; MPII's is its thorax.
    Where it has no nose (MPII, LSP, Human3.6M), the nose lies halfway between (upper) neck and the
    top of the head: our choice. A mean is visible where both joints are. Joints that the skeleton
    lacks (eyes and ears, mostly) are zero and invisible.

    Args:
        keypoints: [..., J, D], a NumPy array or a tensor of floating point (D = 2 or 3).
        skeleton: COCO17, BODY_25, BODY14, MEDIAPIPE33, MPII16, LSP14 or H36M17.
        visible: [..., J], 0 for joints that are not there; None: all are there.

    Returns:
        keypoints [..., 18, D] in the given dtype and visible [..., 18] (bool). Invisible joints are
        zero.

    Raises:
        ValueError: the skeleton has no converter, or shapes do not fit.
    """
    if skeleton.name not in _OPENPOSE18_FROM:
        known = ", ".join(_OPENPOSE18_FROM)
        raise ValueError(f"skeleton must be one of {known}, got {skeleton.name}")
    _require_joints(keypoints, skeleton)
    if visible is not None and tuple(visible.shape) != tuple(keypoints.shape[:-1]):
        raise ValueError(
            f"visible must have shape {list(keypoints.shape[:-1])}, got {list(visible.shape)}"
        )
    names = skeleton.joints
    rows, weights = [], []  # every joint is the mean of two rows; missing ones have weight 0
    for joint in OPENPOSE18.joints:
        sources = _OPENPOSE18_FROM[skeleton.name].get(joint, (joint,))
        present = all(source in names for source in sources)
        rows.append([names.index(s) for s in (sources[0], sources[-1])] if present else [0, 0])
        weights.append(present)
    first, second = ([pair[k] for pair in rows] for k in (0, 1))
    if isinstance(keypoints, np.ndarray):
        seen = np.ones(keypoints.shape[:-1], bool) if visible is None else np.asarray(visible) != 0
        there = seen[..., first] & seen[..., second] & np.array(weights)
        mean = (keypoints[..., first, :] + keypoints[..., second, :]) / 2
        return np.where(there[..., None], mean, 0).astype(keypoints.dtype), there
    import torch

    device = keypoints.device
    if visible is None:
        mask = torch.ones(keypoints.shape[:-1], dtype=torch.bool, device=device)
    else:
        mask = visible.to(device) != 0
    shown = mask[..., first] & mask[..., second] & torch.tensor(weights, device=device)
    middle = (keypoints[..., first, :] + keypoints[..., second, :]) / 2
    return torch.where(shown[..., None], middle, 0.0).to(keypoints.dtype), shown


def nyu36_to_21(joints: Array, skeleton: Skeleton = MEDIAPIPE21) -> Array:
    """The 36 joints of the NYU layout as the 21 of MSRA15 or MediaPipe.

    The wrist is NYU's middle of the wrist (PALM_6), tips are its outermost points (KNU3_A), and the
    root of the thumb (CMC; MSRA15 calls it thumb_mcp) is its KNU1_B. NYU marks the bones beside the
    other hinges: each of those is a weighted mean of four NYU points, the ends of the two bones
    that meet there (knuckles: of the first bone, and two points of the palm).

    Args:
        joints: [..., 36, D], a NumPy array or a tensor of floating point, in any unit: the weights
            of a joint add up to 1. Pixels of a hand seen in perspective are a little off (means of
            pixels are not pixels of means); exact are mm, then projected.
        skeleton: MSRA21 or MEDIAPIPE21.

    Returns:
        [..., 21, D], of the given kind and dtype. NaN where one of a joint's points is NaN.

    Raises:
        ValueError: another skeleton or shape.
        TypeError: joints are not of floating point.
    """
    if skeleton not in _FROM_NYU36:
        known = ", ".join(s.name for s in _FROM_NYU36)
        raise ValueError(f"skeleton must be one of {known}, got {skeleton.name}")
    _require_joints(joints, NYU36, "joints")
    points, weights = _means_of_nyu36(skeleton)
    if isinstance(joints, np.ndarray):
        if not np.issubdtype(joints.dtype, np.floating):
            raise TypeError(f"joints must be of floating point, got {joints.dtype}")
        shares = np.array(weights, joints.dtype)[..., None]
        means: Array = (joints[..., points, :] * shares).sum(-2)
        return means
    import torch

    if not joints.is_floating_point():
        raise TypeError(f"joints must be of floating point, got {joints.dtype}")
    share = torch.tensor(weights, dtype=joints.dtype, device=joints.device)
    return (joints[..., torch.tensor(points), :] * share[..., None]).sum(-2)


_FROM_NYU36 = (MSRA21, MEDIAPIPE21)


def _means_of_nyu36(skeleton: Skeleton) -> tuple[list[Four], list[Weights]]:
    """Four points and their weights of each of the 21 joints; the wrist and the tips are points."""
    alone = (1.0, 0.0, 0.0, 0.0)
    points: list[Four] = [(35, 35, 35, 35)]
    weights: list[Weights] = [alone]
    for finger in skeleton.groups[1::4]:
        tip = HINGE_POINTS[finger][2][3]
        points += [*HINGE_POINTS[finger], (tip, tip, tip, tip)]
        weights += [*HINGE_WEIGHTS[finger], alone]
    return points, weights


def _require_joints(keypoints: Array, skeleton: Skeleton, name: str = "keypoints") -> None:
    shape = tuple(keypoints.shape)
    if len(shape) < 2 or shape[-2] != len(skeleton) or shape[-1] < 2:
        raise ValueError(
            f"{name} must have shape [..., {len(skeleton)}, D] with D >= 2 ({skeleton.name}), "
            f"got {list(shape)}"
        )
