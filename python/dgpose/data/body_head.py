"""Heads of rendered people: skull, face, nose and ears, hair and hats."""

from __future__ import annotations

import numpy as np

from dgpose.data.body_capsules import NODE, BodyShape, Builder, Frame, Gesture, frame_of
from dgpose.data.counter_rng import FloatArray
from dgpose.data.rotations import rotate_about, unit

__all__ = ["HAIR_STYLES", "place_head"]

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


def place_head(
    build: Builder, j: FloatArray, shape: BodyShape, gesture: Gesture, chest: Frame
) -> FloatArray:
    """Place the head on the neck; returns the points of ``BodySurface.face_points``."""
    k = shape.size * shape.head
    # Where the head's joint is differs between data sets; the trunk keeps it from tipping over.
    up = unit(0.75 * unit(j[:, 10] - j[:, 9]) + 0.25 * chest.up)
    turned = rotate_about(chest.left, up, np.radians(gesture.head_turn)[:, None])
    head = frame_of(turned, up)
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
                build.radii[has, NODE[node]] = (radius * shape.size)[has]
    for name, offset in _HAIR_NODES.items():
        build.nodes[:, NODE[name]] = place(offset)
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
    neck = frame_of(head.left, j[:, 9] - build.nodes[:, NODE["neck_base"]])
    build.frame("neck", build.nodes[:, NODE["neck_base"]], neck)
    return np.stack([place(offset) for offset in _FACE_POINTS.values()], axis=1)
