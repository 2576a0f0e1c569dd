"""The surface of a dressed person around H36M17 joints, as tapered capsules (spheres and cones).

The trunk is oval (columns side by side), the head a skull, a face and a jaw with nose and ears;
hands and feet, which the 17 joints do not have, get their directions from the limbs' frames. Hair,
hat, skirt or coat tails, and a bag are capsules of their own; a radius of 0 leaves them out.

Coordinates: x right, y DOWN (along gravity), z forward, millimetres. Offsets are of an adult of
average size and scale with the person's size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dgpose.data.body_capsules import (
    NODE,
    RING,
    SIDES,
    BodyShape,
    Builder,
    Frame,
    Gesture,
    frame_of,
)
from dgpose.data.body_head import place_head
from dgpose.data.counter_rng import FloatArray
from dgpose.data.rotations import cross, dot, rotate_about, unit

__all__ = ["BodySurface", "body_surface"]


class BodySurface(NamedTuple):
    """Capsules, and a frame for each body part, in which cloth is laid out.

    nodes [B, N, 3] mm, radii [B, N]; origins [B, P, 3]; axes [B, P, 3, 3]: rows across (the
    person's left), along and front; face_points [B, 5, 3]: nose, right eye, left eye, right ear,
    left ear; floor [B]: y of the body's lowest point.
    """

    nodes: FloatArray
    radii: FloatArray
    origins: FloatArray
    axes: FloatArray
    face_points: FloatArray
    floor: FloatArray


def body_surface(joints_mm: FloatArray, shape: BodyShape, gesture: Gesture) -> BodySurface:
    """The surface of people in given poses.

    Args:
        joints_mm: [B, 17, 3], H36M17, y DOWN along gravity.
        shape: of B people.
        gesture: of B people.
    """
    j = np.asarray(joints_mm, np.float64)
    build = Builder(len(j), shape.size)
    pelvis = frame_of(j[:, 4] - j[:, 1], j[:, 7] - 0.5 * (j[:, 1] + j[:, 4]))
    spine_up = 0.75 * unit(j[:, 8] - j[:, 7]) + 0.25 * unit(j[:, 9] - j[:, 8])
    chest = frame_of(j[:, 11] - j[:, 14], spine_up)
    _trunk(build, j, shape, pelvis, chest)
    face_points = place_head(build, j, shape, gesture, chest)
    for side in range(2):
        _arm(build, j, shape, gesture, chest, side)
        _leg(build, j, shape, gesture, pelvis, side)
    _skirt(build, j, shape, pelvis)
    _bag(build, j, shape, chest)
    return BodySurface(
        build.nodes,
        build.radii,
        build.origins,
        build.axes,
        face_points,
        _lowest(build),
    )


def _trunk(build: Builder, j: FloatArray, shape: BodyShape, pelvis: Frame, chest: Frame) -> None:
    k, girth, loose = shape.size, shape.girth, shape.loose_top
    hip_mid = 0.5 * (j[:, 1] + j[:, 4])
    waist_mid = 0.5 * (hip_mid + j[:, 8])
    waist = frame_of(pelvis.left + chest.left, pelvis.up + chest.up)
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
        hip = _hip_flesh(j, 1 if side == "right" else 4, k)
        build.put(
            f"seat_{side}",
            pelvis.at(hip, -sign * k * 8.0, k * 2.0, -k * 34.0),
            84.0 * girth * shape.hips + 0.5 * shape.loose_bottom,
        )
    build.frame("torso", hip_mid, waist)
    build.frame("skirt", hip_mid, pelvis)


def _hip_flesh(j: FloatArray, joint: int, size: FloatArray) -> FloatArray:
    """Where a thigh begins: at the hip, but no farther out than flesh is (Human3.6M's hips are)."""
    middle = 0.5 * (j[:, 1] + j[:, 4])
    out = j[:, joint] - middle
    reach = np.sqrt(dot(out, out))
    return middle + out * np.minimum(1.0, 92.0 * size[:, None] / np.maximum(reach, 1e-6))


_FLESH = [
    index for name, index in NODE.items() if not name.startswith(("skirt", "hem", "bag", "strap"))
]


def _lowest(build: Builder) -> FloatArray:
    """y [B] of the lowest point of what is not cloth."""
    radii = build.radii[:, _FLESH]
    bottom = build.nodes[:, _FLESH, 1] + radii
    lowest: FloatArray = np.where(radii > 0, bottom, -np.inf).max(axis=1)
    return lowest


def _arm(
    build: Builder,
    j: FloatArray,
    shape: BodyShape,
    gesture: Gesture,
    chest: Frame,
    side: int,
) -> None:
    s, k, girth = SIDES[side], shape.size, 0.25 + 0.75 * shape.girth
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
    upper_frame = frame_of(outward, shoulder - elbow)
    build.frame(f"{s}_upper_arm", shoulder, upper_frame)
    build.frame(f"{s}_forearm", elbow, frame_of(upper_frame.left, elbow - wrist))

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
    build.frame(f"{s}_hand", wrist, frame_of(breadth, -along))


def _leg(
    build: Builder,
    j: FloatArray,
    shape: BodyShape,
    gesture: Gesture,
    pelvis: Frame,
    side: int,
) -> None:
    s, k, girth = SIDES[side], shape.size, shape.girth
    # Under a skirt the thighs must not show through.
    covered = shape.skirt > 0
    loose = np.where(covered, 0.0, shape.loose_bottom)
    top = np.where(covered, 74.0, 86.0) * girth
    first = 1 if side == 0 else 4
    hip, knee, ankle = _hip_flesh(j, first, k), j[:, first + 1], j[:, first + 2]
    outward = pelvis.left * (-1.0 if side == 0 else 1.0)
    build.put(
        f"{s}_hip", hip + outward * (np.where(covered, 2.0, 14.0) * k * girth)[:, None], top + loose
    )
    build.put(f"{s}_thigh_end", knee, 55.0 * girth + loose)
    thigh, shank = unit(knee - hip), unit(ankle - knee)
    # The knee's hinge: from its own bend where there is one, else the pelvis' left.
    hinge = unit(cross(thigh, shank) + 0.3 * pelvis.left)
    leg = frame_of(hinge, -shank)
    build.put(f"{s}_knee", knee, 54.0 * girth + loose)
    calf = leg.at(knee + 0.3 * (ankle - knee), 0 * k, 0 * k, -12.0 * k)
    build.put(f"{s}_calf", calf, 54.0 * girth + loose)
    build.put(f"{s}_ankle", ankle, 37.0 * girth + 1.2 * loose)
    build.frame(f"{s}_thigh", hip, frame_of(pelvis.left, hip - knee))
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
    foot = frame_of(cross(-sole, toes), -(sole - toes * dot(sole, toes)))
    build.put(f"{s}_ankle_top", ankle, 36.0)
    build.put(f"{s}_heel", foot.at(ankle, 0 * k, -40.0 * k, -32.0 * k), 34.0)
    build.put(f"{s}_ball", foot.at(ankle, 0 * k, -44.0 * k, 105.0 * k), 31.0)
    build.put(f"{s}_toe", foot.at(ankle, 0 * k, -51.0 * k, 160.0 * k), 24.0)
    build.frame(f"{s}_foot", ankle, foot)


def _skirt(build: Builder, j: FloatArray, shape: BodyShape, pelvis: Frame) -> None:
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
    ring = frame_of(pelvis.left, top - hem)
    half = 0.5 * (legs[1] - legs[0])
    flare = (58.0 + 30.0 * np.minimum(shape.skirt, 1.4)) * girth * k
    wide = np.abs(dot(half, ring.left))[:, 0] + flare
    deep = np.abs(dot(half, ring.front))[:, 0] + flare
    # As thick as it takes to leave no gaps.
    pleat = np.maximum(0.56 * np.pi * np.sqrt(2.0 * (wide**2 + deep**2)) / RING, 36.0) / k
    for i in range(RING):
        angle = 2.0 * np.pi * (i + 0.5) / RING
        c, s = np.cos(angle), np.sin(angle)
        start = pelvis.at(top, c * 104.0 * girth * shape.hips * k, 0 * k, s * 56.0 * girth * k)
        build.put(f"skirt_{i}", start, np.where(worn, 54.0 * girth, 0.0))
        build.put(f"hem_{i}", ring.at(hem, c * wide, 0 * k, s * deep), np.where(worn, pleat, 0.0))


def _bag(build: Builder, j: FloatArray, shape: BodyShape, chest: Frame) -> None:
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
        build.nodes[slung, NODE[name]] = place[slung]
        build.radii[slung, NODE[name]] = radius * k[slung]
    build.frame("bag", mid, chest)
