"""What a dressed person is made of: body parts, their capsules, and the measures that vary.

``body_surface`` says where the capsules are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dgpose.data.counter_rng import CounterRng, FloatArray, IntArray
from dgpose.data.rotations import cross, dot, unit

__all__ = [
    "BAG_STYLES",
    "BODY_PARTS",
    "EDGES",
    "EDGE_PARTS",
    "HAT_STYLES",
    "NODE",
    "RING",
    "SIDES",
    "BodyShape",
    "Builder",
    "Frame",
    "Gesture",
    "frame_of",
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

SIDES = ("right", "left")
RING = 12
"""Capsules around a skirt."""
HAT_STYLES = ("none", "cap", "beanie")
BAG_STYLES = ("none", "backpack", "shoulder bag")


def _edge_table() -> list[tuple[str, str, str]]:
    """(part, node, node) of each capsule."""
    table = []
    for column in ("right", "left", "middle"):
        nodes = [f"{level}_{column}" for level in ("pelvis", "waist", "chest")]
        table += [("torso", a, b) for a, b in pairwise(nodes)]
    table += [
        *(("torso", f"chest_{s}", f"girdle_{s}") for s in SIDES),
        ("torso", "girdle_right", "girdle_left"),
        *(("torso", "neck_base", f"girdle_{s}") for s in SIDES),
        *(("torso", f"bust_{s}", f"bust_{s}") for s in SIDES),
        *(("torso", f"seat_{s}", f"pelvis_{s}") for s in SIDES),
        ("neck", "neck_base", "neck_top"),
        *(("head", a, b) for a, b in (("face", "skull"), ("face", "jaw"), ("skull", "jaw"))),
        ("head", "bridge", "nose"),
        *(("head", f"{s}_ear", f"{s}_ear") for s in SIDES),
        ("hair", "hair_front", "hair_back"),
        ("hair", "hair_back", "hair_nape"),
        ("hair", "hair_nape", "hair_tail"),
        *(("hair", f"{s}_lock", f"{s}_lock_end") for s in SIDES),
        ("hair", "bun", "bun"),
        ("hair", "ponytail", "ponytail_end"),
        ("hat", "hat", "hat_back"),
        *(("hat", f"brim_{i}", f"brim_end_{i}") for i in range(3)),
    ]
    for s in SIDES:
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
    table += [("skirt", f"skirt_{i}", f"hem_{i}") for i in range(RING)]
    table += [("bag", f"bag_{i}", f"bag_end_{i}") for i in range(2)]
    table += [("bag", f"strap_{i}", f"strap_end_{i}") for i in range(2)]
    return table


_TABLE = _edge_table()
_NODES = tuple(dict.fromkeys(name for _, a, b in _TABLE for name in (a, b)))
NODE = {name: i for i, name in enumerate(_NODES)}
EDGES: IntArray = np.array([(NODE[a], NODE[b]) for _, a, b in _TABLE], np.int64)
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


def sample_gesture(rng: CounterRng) -> Gesture:
    """Draw head and hands."""
    return Gesture(
        head_turn=rng.normal("gesture.head", std=16.0, clip=2.5),
        hand_roll=rng.normal("gesture.roll", 2, std=35.0, clip=2.0),
        hand_bend=rng.normal("gesture.bend", 2, std=14.0, clip=2.0),
        curl=rng.uniform("gesture.curl", 2, low=5.0, high=75.0),
        toes_out=rng.normal("gesture.toes", 2, std=6.0, clip=2.0) + 7.0,
    )


class Frame(NamedTuple):
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


def frame_of(left: FloatArray, up: FloatArray) -> Frame:
    """Frame that keeps ``up`` and comes as near to ``left`` as it can."""
    u = unit(up)
    side = unit(left - u * dot(left, u))
    return Frame(side, u, cross(side, u))


class Builder:
    """Collects nodes by name, and part frames."""

    def __init__(self, batch: int, size: FloatArray) -> None:
        self.size = size
        self.nodes = np.zeros((batch, len(NODE), 3))
        self.radii = np.zeros((batch, len(NODE)))
        self.origins = np.zeros((batch, len(BODY_PARTS), 3))
        self.axes = np.zeros((batch, len(BODY_PARTS), 3, 3))

    def put(self, name: str, place: FloatArray, radius: FloatArray | float) -> FloatArray:
        """``radius`` is multiplied by the person's size; places are not."""
        self.nodes[:, NODE[name]] = place
        self.radii[:, NODE[name]] = radius * self.size
        return place

    def frame(self, part: str, origin: FloatArray, frame: Frame) -> None:
        index = BODY_PARTS.index(part)
        self.origins[:, index] = origin
        self.axes[:, index] = np.stack([frame.left, frame.up, frame.front], axis=1)
