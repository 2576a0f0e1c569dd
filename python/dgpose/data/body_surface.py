"""The surface of a dressed person around H36M17 joints, as tapered capsules (spheres and cones).

The trunk is oval (columns side by side), the head a skull, a face and a jaw with nose and ears;
hands and feet, which the 17 joints do not have, get their directions from the limbs' frames. Hair,
hat, skirt or coat tails, and a bag are capsules of their own; a radius of 0 leaves them out.

Coordinates: x right, y DOWN (along gravity), z forward, millimetres. Offsets are of an adult of
average size and scale with the person's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dgpose.data.counter_rng import CounterRng, FloatArray, IntArray
from dgpose.data.rotations import cross, dot, rotate_about, unit

__all__ = [
    "BODY_PARTS",
    "EDGES",
    "EDGE_PARTS",
    "BodyShape",
    "BodySurface",
    "Gesture",
    "body_surface",
    "sample_gesture",
]

BODY_PARTS: tuple[str, ...] = (
    *("torso", "neck", "head", "hair", "hat"),
    *("right_upper_arm", "right_forearm", "right_hand"),
    *("left_upper_arm", "left_forearm", "left_hand"),
    *("right_thigh", "right_shank", "right_foot"),
    *("left_thigh", "left_shank", "left_foot"),
    *("skirt", "bag"),
)
"""Names of the values of a part map; "skirt" is also the tails of a coat."""

_SIDES = ("right", "left")
_RING = 12
_HEAD_NODES = {
    # left, up, front from the head's middle; radius
    "face": (0.0, 13.0, 24.0, 72.0),
    "skull": (0.0, 27.0, -20.0, 79.0),
    "jaw": (0.0, -52.0, 33.0, 46.0),
    "bridge": (0.0, 8.0, 91.0, 8.0),
    "nose": (0.0, -15.0, 99.0, 11.0),
    "right_ear": (-75.0, -3.0, -4.0, 15.0),
    "left_ear": (75.0, -3.0, -4.0, 15.0),
}
# Points that OpenPose-18 wants on the head, in the same frame.
_FACE_POINTS = {
    "nose": (0.0, -15.0, 108.0),
    "right_eye": (-31.0, 14.0, 88.0),
    "left_eye": (31.0, 14.0, 88.0),
    "right_ear": (-79.0, -3.0, -4.0),
    "left_ear": (79.0, -3.0, -4.0),
}
_HAIR_NODES = {
    "hair_front": (0.0, 40.0, 6.0, 75.0),
    "hair_back": (0.0, 30.0, -30.0, 81.0),
    "hair_nape": (0.0, -40.0, -48.0, 52.0),
    "hair_tail": (0.0, -190.0, -78.0, 44.0),
    "right_lock": (-62.0, 15.0, -14.0, 34.0),
    "left_lock": (62.0, 15.0, -14.0, 34.0),
    "right_lock_end": (-66.0, -125.0, -22.0, 26.0),
    "left_lock_end": (66.0, -125.0, -22.0, 26.0),
    "bun": (0.0, 62.0, -108.0, 38.0),
    "ponytail": (0.0, 35.0, -108.0, 28.0),
    "ponytail_end": (0.0, -150.0, -128.0, 17.0),
}
# Which nodes a hair style has, and what its radii are multiplied by.
HAIR_STYLES: tuple[tuple[float, tuple[str, ...]], ...] = (
    (1.0, ()),
    (1.0, ("hair_front", "hair_back", "hair_nape")),
    (1.06, ("hair_front", "hair_back", "hair_nape", "right_lock", "left_lock", "lock_ends")),
    (
        1.04,
        (
            "hair_front",
            "hair_back",
            "hair_nape",
            "hair_tail",
            "right_lock",
            "left_lock",
            "lock_ends",
        ),
    ),
    (1.0, ("hair_front", "hair_back", "hair_nape", "bun")),
    (1.0, ("hair_front", "hair_back", "hair_nape", "ponytail")),
    (1.28, ("hair_front", "hair_back", "hair_nape")),
)
HAT_STYLES = ("none", "cap", "beanie")
BAG_STYLES = ("none", "backpack", "shoulder bag")


def _edge_table() -> list[tuple[str, str, str]]:
    """(part, node, node) of each capsule."""
    table = []
    for column in ("right", "left", "middle"):
        nodes = [f"{level}_{column}" for level in ("pelvis", "waist", "chest")]
        table += [("torso", a, b) for a, b in pairwise(nodes)]
    table += [
        *(("torso", f"chest_{s}", f"girdle_{s}") for s in _SIDES),
        ("torso", "girdle_right", "girdle_left"),
        *(("torso", "neck_base", f"girdle_{s}") for s in _SIDES),
        *(("torso", f"bust_{s}", f"bust_{s}") for s in _SIDES),
        *(("torso", f"seat_{s}", f"pelvis_{s}") for s in _SIDES),
        ("neck", "neck_base", "neck_top"),
        *(("head", a, b) for a, b in (("face", "skull"), ("face", "jaw"), ("skull", "jaw"))),
        ("head", "bridge", "nose"),
        *(("head", f"{s}_ear", f"{s}_ear") for s in _SIDES),
        ("hair", "hair_front", "hair_back"),
        ("hair", "hair_back", "hair_nape"),
        ("hair", "hair_nape", "hair_tail"),
        *(("hair", f"{s}_lock", f"{s}_lock_end") for s in _SIDES),
        ("hair", "bun", "bun"),
        ("hair", "ponytail", "ponytail_end"),
        ("hat", "hat", "hat_back"),
        *(("hat", f"brim_{i}", f"brim_end_{i}") for i in range(3)),
    ]
    for s in _SIDES:
        table += [
            (f"{s}_upper_arm", f"{s}_shoulder", f"{s}_elbow"),
            (f"{s}_forearm", f"{s}_forearm_top", f"{s}_forearm_belly"),
            (f"{s}_forearm", f"{s}_forearm_belly", f"{s}_wrist"),
            *((f"{s}_hand", f"{s}_palm_{i}", f"{s}_knuckle_{i}") for i in range(2)),
            *((f"{s}_hand", f"{s}_knuckle_{i}", f"{s}_finger_{i}") for i in range(2)),
            (f"{s}_hand", f"{s}_thumb", f"{s}_thumb_tip"),
            (f"{s}_thigh", f"{s}_hip", f"{s}_thigh_end"),
            (f"{s}_shank", f"{s}_knee", f"{s}_calf"),
            (f"{s}_shank", f"{s}_calf", f"{s}_ankle"),
            (f"{s}_foot", f"{s}_ankle_top", f"{s}_heel"),
            (f"{s}_foot", f"{s}_ankle_top", f"{s}_ball"),
            (f"{s}_foot", f"{s}_heel", f"{s}_ball"),
            (f"{s}_foot", f"{s}_ball", f"{s}_toe"),
        ]
    table += [("skirt", f"skirt_{i}", f"hem_{i}") for i in range(_RING)]
    table += [("bag", f"bag_{i}", f"bag_end_{i}") for i in range(2)]
    table += [("bag", f"strap_{i}", f"strap_end_{i}") for i in range(2)]
    return table


_TABLE = _edge_table()
_NODES = tuple(dict.fromkeys(name for _, a, b in _TABLE for name in (a, b)))
_NODE = {name: i for i, name in enumerate(_NODES)}
EDGES: IntArray = np.array([(_NODE[a], _NODE[b]) for _, a, b in _TABLE], np.int64)
"""[E, 2] nodes of each capsule."""
EDGE_PARTS: npt.NDArray[np.int16] = np.array(
    [BODY_PARTS.index(part) for part, _, _ in _TABLE], np.int16
)
"""[E] body part of each capsule, an index of BODY_PARTS."""


@dataclass(frozen=True)
class BodyShape:
    """The build and the outline of the clothes of B people; each field is an array [B]."""

    size: FloatArray  # of all lengths, 1: an adult of average size
    girth: FloatArray  # thickness of trunk and limbs
    shoulders: FloatArray  # breadth of the chest
    hips: FloatArray
    belly: FloatArray  # 0 to 1
    bust: FloatArray  # 0 none, 1
    head: FloatArray  # size of the head relative to the body
    hair: IntArray  # HAIR_STYLES
    hat: IntArray  # HAT_STYLES
    bag: IntArray  # BAG_STYLES
    loose_top: FloatArray  # mm that the top is wider than the body
    loose_bottom: FloatArray
    sleeve: FloatArray  # 0 none, 0.3-0.9 on the upper arm, 2: to the wrist
    skirt: FloatArray  # length: 0 none, 1 to the knee, 2 to the ankle


class Gesture(NamedTuple):
    """What the 17 joints do not say; degrees, each [B, ...]."""

    head_turn: FloatArray  # [B]
    hand_roll: FloatArray  # [B, 2] right, left: about the forearm
    hand_bend: FloatArray  # [B, 2]
    curl: FloatArray  # [B, 2] of the fingers
    toes_out: FloatArray  # [B, 2]


class BodySurface(NamedTuple):
    """Capsules, and a frame for each body part, in which cloth is laid out.

    nodes [B, N, 3] mm, radii [B, N]; origins [B, P, 3]; axes [B, P, 3, 3]: rows across (the
    person's left), along and front; face_points [B, 5, 3]: nose, right eye, left eye, right ear,
    left ear; floor [B]: y of the lowest point of the feet.
    """

    nodes: FloatArray
    radii: FloatArray
    origins: FloatArray
    axes: FloatArray
    face_points: FloatArray
    floor: FloatArray


def sample_gesture(rng: CounterRng) -> Gesture:
    """Draw head and hands."""
    return Gesture(
        head_turn=rng.normal("gesture.head", std=16.0, clip=2.5),
        hand_roll=rng.normal("gesture.roll", 2, std=35.0, clip=2.0),
        hand_bend=rng.normal("gesture.bend", 2, std=14.0, clip=2.0),
        curl=rng.uniform("gesture.curl", 2, low=5.0, high=75.0),
        toes_out=rng.normal("gesture.toes", 2, std=6.0, clip=2.0) + 7.0,
    )


class _Frame(NamedTuple):
    left: FloatArray  # [B, 3] unit vectors
    up: FloatArray
    front: FloatArray

    def at(
        self, origin: FloatArray, left: FloatArray, up: FloatArray, front: FloatArray
    ) -> FloatArray:
        """Points [B, 3] by offsets [B] in mm."""
        return (
            origin
            + self.left * np.asarray(left)[..., None]
            + self.up * np.asarray(up)[..., None]
            + self.front * np.asarray(front)[..., None]
        )


def _frame(left: FloatArray, up: FloatArray) -> _Frame:
    """Frame that keeps ``up`` and comes as near to ``left`` as it can."""
    u = unit(up)
    side = unit(left - u * dot(left, u))
    return _Frame(side, u, cross(side, u))


class _Builder:
    """Collects nodes by name, and part frames."""

    def __init__(self, batch: int, size: FloatArray) -> None:
        self.size = size
        self.nodes = np.zeros((batch, len(_NODES), 3))
        self.radii = np.zeros((batch, len(_NODES)))
        self.origins = np.zeros((batch, len(BODY_PARTS), 3))
        self.axes = np.zeros((batch, len(BODY_PARTS), 3, 3))

    def put(self, name: str, place: FloatArray, radius: FloatArray | float) -> FloatArray:
        """``radius`` is multiplied by the person's size; places are not."""
        self.nodes[:, _NODE[name]] = place
        self.radii[:, _NODE[name]] = radius * self.size
        return place

    def frame(self, part: str, origin: FloatArray, frame: _Frame) -> None:
        index = BODY_PARTS.index(part)
        self.origins[:, index] = origin
        self.axes[:, index] = np.stack([frame.left, frame.up, frame.front], axis=1)


def body_surface(joints_mm: FloatArray, shape: BodyShape, gesture: Gesture) -> BodySurface:
    """The surface of people in given poses.

    Args:
        joints_mm: [B, 17, 3], H36M17, y DOWN along gravity.
        shape: of B people.
        gesture: of B people.
    """
    j = np.asarray(joints_mm, np.float64)
    build = _Builder(len(j), shape.size)
    pelvis = _frame(j[:, 4] - j[:, 1], j[:, 7] - 0.5 * (j[:, 1] + j[:, 4]))
    spine_up = 0.75 * unit(j[:, 8] - j[:, 7]) + 0.25 * unit(j[:, 9] - j[:, 8])
    chest = _frame(j[:, 11] - j[:, 14], spine_up)
    _trunk(build, j, shape, pelvis, chest)
    face_points = _head(build, j, shape, gesture, chest)
    feet = []
    for side in range(2):
        _arm(build, j, shape, gesture, chest, side)
        feet.append(_leg(build, j, shape, gesture, pelvis, side))
    _skirt(build, j, shape, pelvis)
    _bag(build, j, shape, chest)
    return BodySurface(
        build.nodes,
        build.radii,
        build.origins,
        build.axes,
        face_points,
        np.maximum(*feet),
    )


def _trunk(build: _Builder, j: FloatArray, shape: BodyShape, pelvis: _Frame, chest: _Frame) -> None:
    k, girth, loose = shape.size, shape.girth, shape.loose_top
    hip_mid = 0.5 * (j[:, 1] + j[:, 4])
    waist_mid = 0.5 * (hip_mid + j[:, 8])
    waist = _frame(pelvis.left + chest.left, pelvis.up + chest.up)
    belly, slim = shape.belly, np.where(shape.bust > 0, 0.9, 1.0)
    hip_r, waist_r, chest_r = 96.0 * girth * shape.hips, 86.0 * girth, 93.0 * girth
    for name, sign in (("right", -1.0), ("left", 1.0), ("middle", 0.0)):
        wide = 0.0 if name == "middle" else 1.0
        grow = np.where(wide, 0.0, 3.0)
        build.put(
            f"pelvis_{name}",
            pelvis.at(hip_mid, sign * k * 62.0 * girth * shape.hips, k * 42.0, -k * 6.0),
            hip_r + 0.5 * loose + grow,
        )
        build.put(
            f"waist_{name}",
            waist.at(
                waist_mid,
                sign * k * 46.0 * girth * slim * (1 + 0.2 * belly),
                0 * k,
                k * (4 + 30 * belly),
            ),
            waist_r * slim * (1 + 0.25 * belly) + loose + grow,
        )
        build.put(
            f"chest_{name}",
            chest.at(j[:, 8], sign * k * 62.0 * shape.shoulders * girth, -k * 42.0, k * 4.0),
            chest_r + 0.7 * loose + grow,
        )
    shoulder_mid = 0.5 * (j[:, 11] + j[:, 14])
    base = chest.at(shoulder_mid, 0 * k, k * 22.0, -k * 8.0)
    build.put("neck_base", base, 54.0 * (0.5 + 0.5 * girth))
    for side, joint, sign in (("right", 14, -1.0), ("left", 11, 1.0)):
        inward = chest.at(j[:, joint], -sign * k * 36.0, -k * 6.0, -k * 4.0)
        build.put(f"girdle_{side}", inward, 48.0 * (0.4 + 0.6 * girth) + 0.4 * loose)
        bust = chest.at(j[:, 8], sign * k * 66.0 * girth, -k * 48.0, k * (36.0 + 30.0 * shape.bust))
        build.put(f"bust_{side}", bust, (shape.bust > 0) * (62.0 + 6.0 * shape.bust) * girth)
        hip = j[:, 1 if side == "right" else 4]
        build.put(
            f"seat_{side}",
            pelvis.at(hip, -sign * k * 8.0, k * 2.0, -k * 34.0),
            84.0 * girth * shape.hips + 0.5 * shape.loose_bottom,
        )
    build.frame("torso", hip_mid, waist)
    build.frame("skirt", hip_mid, pelvis)


def _head(
    build: _Builder, j: FloatArray, shape: BodyShape, gesture: Gesture, chest: _Frame
) -> FloatArray:
    k = shape.size * shape.head
    up = unit(j[:, 10] - j[:, 9])
    turned = rotate_about(chest.left, up, np.radians(gesture.head_turn)[:, None])
    head = _frame(turned, up)
    middle = head.at(j[:, 9], 0 * k, 86.0 * k, 20.0 * k)

    def place(offset: tuple[float, ...]) -> FloatArray:
        return head.at(middle, offset[0] * k, offset[1] * k, offset[2] * k)

    for name, offset in _HEAD_NODES.items():
        build.put(name, place(offset), offset[3] * shape.head)
    for style, (factor, names) in enumerate(HAIR_STYLES):
        has = shape.hair == style
        for name in names:
            for node in ("right_lock_end", "left_lock_end") if name == "lock_ends" else (name,):
                radius = _HAIR_NODES[node][3] * shape.head * factor
                build.radii[has, _NODE[node]] = (radius * shape.size)[has]
    for name, offset in _HAIR_NODES.items():
        build.nodes[:, _NODE[name]] = place(offset)
    hat, cap = shape.hat > 0, shape.hat == 1
    build.put("hat", place((0.0, 58.0, 4.0)), np.where(hat, 79.0 * shape.head, 0.0))
    build.put("hat_back", place((0.0, 52.0, -24.0)), np.where(hat, 84.0 * shape.head, 0.0))
    for i, x in enumerate((-38.0, 0.0, 38.0)):
        far = 150.0 - 0.3 * abs(x)
        build.put(f"brim_{i}", place((x, 52.0, 60.0)), np.where(cap, 12.0 * shape.head, 0.0))
        build.put(
            f"brim_end_{i}", place((0.8 * x, 42.0, far)), np.where(cap, 9.0 * shape.head, 0.0)
        )
    build.put(
        "neck_top", head.at(j[:, 9], 0 * k, 10.0 * k, -6.0 * k), 50.0 * (0.5 + 0.5 * shape.girth)
    )
    for part in ("head", "hair", "hat"):
        build.frame(part, middle, head)
    neck = _frame(head.left, j[:, 9] - build.nodes[:, _NODE["neck_base"]])
    build.frame("neck", build.nodes[:, _NODE["neck_base"]], neck)
    return np.stack([place(offset) for offset in _FACE_POINTS.values()], axis=1)


def _arm(
    build: _Builder,
    j: FloatArray,
    shape: BodyShape,
    gesture: Gesture,
    chest: _Frame,
    side: int,
) -> None:
    s, k, girth = _SIDES[side], shape.size, 0.25 + 0.75 * shape.girth
    shoulder, elbow, wrist = (j[:, i] for i in ((14, 15, 16) if side == 0 else (11, 12, 13)))
    outward = chest.left * (-1.0 if side == 0 else 1.0)
    sleeve = np.where(shape.sleeve > 0, shape.loose_top, 0.0)
    cuff = np.where(shape.sleeve > 1, 0.7 * shape.loose_top, 0.0)
    build.put(
        f"{s}_shoulder", chest.at(shoulder, 0 * k, -8.0 * k, 0 * k), 47.0 * girth + 0.6 * sleeve
    )
    build.put(f"{s}_elbow", elbow, 40.0 * girth + 0.7 * np.maximum(cuff, 0.5 * sleeve))
    lower = unit(wrist - elbow)
    build.put(f"{s}_forearm_top", elbow, 39.0 * girth + 0.7 * cuff)
    build.put(f"{s}_forearm_belly", elbow + 0.25 * (wrist - elbow), 41.0 * girth + cuff)
    build.put(f"{s}_wrist", wrist, 27.0 * girth + cuff)
    upper_frame = _frame(outward, shoulder - elbow)
    build.frame(f"{s}_upper_arm", shoulder, upper_frame)
    build.frame(f"{s}_forearm", elbow, _frame(upper_frame.left, elbow - wrist))

    # The hand: along the forearm, bent; its breadth lies front to back on a hanging arm.
    breadth = unit(chest.front - 0.6 * chest.up + 1e-3 * outward)
    breadth = unit(breadth - lower * dot(breadth, lower))
    breadth = rotate_about(breadth, lower, np.radians(gesture.hand_roll[:, side, None]))
    along = rotate_about(lower, breadth, np.radians(gesture.hand_bend[:, side, None]))
    palm = cross(breadth, along) * (-1.0 if side == 0 else 1.0)  # out of the palm, to the body
    curl = np.radians(gesture.curl[:, side, None])
    fingers = along * np.cos(curl) + palm * np.sin(curl)
    for i, across in enumerate((-15.0, 15.0)):
        start = wrist + breadth * (0.6 * across * k)[:, None] + along * (15.0 * k)[:, None]
        knuckle = wrist + breadth * (1.25 * across * k)[:, None] + along * (82.0 * k)[:, None]
        tip = knuckle + fingers * ((82.0 + 0.4 * across) * k)[:, None]
        build.put(f"{s}_palm_{i}", start, 22.0)
        build.put(f"{s}_knuckle_{i}", knuckle, 20.0)
        build.put(f"{s}_finger_{i}", tip, 12.0)
    thumb = wrist + along * (30.0 * k)[:, None] + breadth * (20.0 * k)[:, None]
    tip = thumb + unit(0.8 * along + 0.6 * breadth + 0.3 * palm) * (68.0 * k)[:, None]
    build.put(f"{s}_thumb", thumb, 16.0)
    build.put(f"{s}_thumb_tip", tip, 11.0)
    build.frame(f"{s}_hand", wrist, _frame(breadth, -along))


def _leg(
    build: _Builder,
    j: FloatArray,
    shape: BodyShape,
    gesture: Gesture,
    pelvis: _Frame,
    side: int,
) -> FloatArray:
    """Returns y [B] of the foot's lowest point."""
    s, k, girth = _SIDES[side], shape.size, shape.girth
    # Under a skirt the thighs must not show through.
    covered = shape.skirt > 0
    loose = np.where(covered, 0.0, shape.loose_bottom)
    top = np.where(covered, 74.0, 86.0) * girth
    hip, knee, ankle = (j[:, i] for i in ((1, 2, 3) if side == 0 else (4, 5, 6)))
    outward = pelvis.left * (-1.0 if side == 0 else 1.0)
    build.put(
        f"{s}_hip", hip + outward * (np.where(covered, 2.0, 14.0) * k * girth)[:, None], top + loose
    )
    build.put(f"{s}_thigh_end", knee, 55.0 * girth + loose)
    thigh, shank = unit(knee - hip), unit(ankle - knee)
    # The knee's hinge: from its own bend where there is one, else the pelvis' left.
    hinge = unit(cross(thigh, shank) + 0.3 * pelvis.left)
    leg = _frame(hinge, -shank)
    build.put(f"{s}_knee", knee, 54.0 * girth + loose)
    calf = leg.at(knee + 0.3 * (ankle - knee), 0 * k, 0 * k, -12.0 * k)
    build.put(f"{s}_calf", calf, 54.0 * girth + loose)
    build.put(f"{s}_ankle", ankle, 37.0 * girth + 1.2 * loose)
    build.frame(f"{s}_thigh", hip, _frame(pelvis.left, hip - knee))
    build.frame(f"{s}_shank", knee, leg)

    # A foot that bears the body lies level; others point down a little.
    lowest = np.maximum(j[:, 3, 1], j[:, 6, 1])
    down = np.array([0.0, 1.0, 0.0])
    bears = np.clip(1.6 - (lowest - ankle[:, 1]) / (90.0 * k), 0.0, 1.0)[:, None]
    level = unit(leg.front - down * dot(leg.front, down) + 1e-6 * leg.front)
    free = unit(leg.front + 0.35 * shank)
    toes = unit(bears * level + (1.0 - bears) * free)
    turn = np.radians(gesture.toes_out[:, side, None]) * (-1.0 if side == 0 else 1.0)
    sole = unit(bears * down + (1.0 - bears) * shank)
    toes = rotate_about(toes, -sole, turn)
    foot = _frame(cross(-sole, toes), -(sole - toes * dot(sole, toes)))
    build.put(f"{s}_ankle_top", ankle, 36.0)
    build.put(f"{s}_heel", foot.at(ankle, 0 * k, -40.0 * k, -32.0 * k), 34.0)
    build.put(f"{s}_ball", foot.at(ankle, 0 * k, -44.0 * k, 105.0 * k), 31.0)
    build.put(f"{s}_toe", foot.at(ankle, 0 * k, -51.0 * k, 160.0 * k), 24.0)
    build.frame(f"{s}_foot", ankle, foot)
    ends = [_NODE[f"{s}_{name}"] for name in ("heel", "ball", "toe")]
    return (build.nodes[:, ends, 1] + build.radii[:, ends]).max(axis=1)


def _skirt(build: _Builder, j: FloatArray, shape: BodyShape, pelvis: _Frame) -> None:
    k, girth = shape.size, shape.girth
    length = shape.skirt[:, None]
    worn = shape.skirt > 0
    legs = []
    for hip, knee, ankle in ((1, 2, 3), (4, 5, 6)):
        on_thigh = j[:, hip] + np.minimum(length, 1.0) * (j[:, knee] - j[:, hip])
        legs.append(on_thigh + np.maximum(length - 1.0, 0.0) * (j[:, ankle] - j[:, knee]))
    hip_mid = 0.5 * (j[:, 1] + j[:, 4])
    top = pelvis.at(hip_mid, 0 * k, 75.0 * k, 0 * k)
    hem = 0.5 * (legs[0] + legs[1])
    ring = _frame(pelvis.left, top - hem)
    half = 0.5 * (legs[1] - legs[0])
    flare = (58.0 + 30.0 * np.minimum(shape.skirt, 1.4)) * girth * k
    wide = np.abs(dot(half, ring.left))[:, 0] + flare
    deep = np.abs(dot(half, ring.front))[:, 0] + flare
    # As thick as it takes to leave no gaps.
    pleat = np.maximum(0.56 * np.pi * np.sqrt(2.0 * (wide**2 + deep**2)) / _RING, 36.0) / k
    for i in range(_RING):
        angle = 2.0 * np.pi * (i + 0.5) / _RING
        c, s = np.cos(angle), np.sin(angle)
        start = pelvis.at(top, c * 104.0 * girth * shape.hips * k, 0 * k, s * 56.0 * girth * k)
        build.put(f"skirt_{i}", start, np.where(worn, 54.0 * girth, 0.0))
        build.put(f"hem_{i}", ring.at(hem, c * wide, 0 * k, s * deep), np.where(worn, pleat, 0.0))


def _bag(build: _Builder, j: FloatArray, shape: BodyShape, chest: _Frame) -> None:
    k, girth = shape.size, shape.girth
    pack, slung = shape.bag == 1, shape.bag == 2
    mid = j[:, 8]
    for i, sign in enumerate((-1.0, 1.0)):
        high = chest.at(mid, sign * 70.0 * k, 20.0 * k, -(125.0 * girth + 30.0) * k)
        low = chest.at(mid, sign * 75.0 * k, -250.0 * k, -(120.0 * girth + 45.0) * k)
        build.put(f"bag_{i}", high, np.where(pack, 70.0, 0.0))
        build.put(f"bag_end_{i}", low, np.where(pack, 85.0, 0.0))
        over = chest.at(mid, sign * 95.0 * k, 85.0 * k, 30.0 * k)
        under = chest.at(mid, sign * 105.0 * k, -120.0 * k, 70.0 * girth * k)
        build.put(f"strap_{i}", over, np.where(pack, 34.0, 0.0))
        build.put(f"strap_end_{i}", under, np.where(pack, 30.0, 0.0))
    # A bag at the left hip, its strap across the chest.
    side = 205.0 * girth * k
    a = chest.at(j[:, 0], side, -10.0 * k, 60.0 * k)
    b = chest.at(j[:, 0], side, -10.0 * k, -70.0 * k)
    strap = chest.at(mid, -110.0 * k, 90.0 * k, 60.0 * k)
    end = chest.at(mid, 130.0 * k * girth, -180.0 * k, 88.0 * girth * k)
    for name, place, radius in (
        ("bag_0", a, 62.0),
        ("bag_end_0", b, 62.0),
        ("strap_0", strap, 24.0),
        ("strap_end_0", end, 24.0),
    ):
        build.nodes[slung, _NODE[name]] = place[slung]
        build.radii[slung, _NODE[name]] = radius * k[slung]
    build.frame("bag", mid, chest)
