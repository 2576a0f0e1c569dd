"""A kinematic body that yields the 17 joints of Human3.6M, with joint limits; lengths of its bones.

Coordinates: x right, y DOWN, z forward, millimetres; poses are relative to the hip. A body that
faces the camera (-z) has its left at +x, as the camera sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dgpose.data.counter_rng import CounterRng, FloatArray
from dgpose.data.rotations import apply_rotation, dot, rotate_about, unit
from dgpose.skeletons import H36M17

__all__ = ["BONE_PARENTS", "REFERENCE_BONES_MM", "sample_body_poses", "with_bone_lengths"]

BONE_PARENTS: tuple[int, ...] = tuple(
    parent for _, parent in sorted((b, a) for a, b in H36M17.edges)
)
"""The joint that bone j - 1 comes from; it ends in joint j (1 to 16)."""

REFERENCE_BONES_MM: FloatArray = np.array(
    [
        *(132.0, 432.0, 414.0),  # hip to right hip, knee, ankle
        *(132.0, 432.0, 414.0),  # left
        *(175.0, 185.0, 158.0, 145.0),  # spine, thorax, neck, head
        *(192.0, 295.0, 255.0),  # thorax to left shoulder, elbow, wrist
        *(192.0, 295.0, 255.0),  # right
    ]
)
"""Bones of an adult of 1.74 m, in the order of joints 1 to 16 (segment lengths of Drillis and
Contini, "Body segment parameters", 1966)."""

_UP = np.array([0.0, -1.0, 0.0])
_LEFT = np.array([1.0, 0.0, 0.0])
_FRONT = np.array([0.0, 0.0, -1.0])
# Tries a pose has to keep its limbs apart.
_TRIES = 4


def with_bone_lengths(joints_mm: FloatArray, lengths_mm: FloatArray) -> FloatArray:
    """The same directions of bones with other lengths: a pose on another body.

    Args:
        joints_mm: [..., 17, 3], H36M17.
        lengths_mm: [16] or [..., 16], in the order of joints 1 to 16.

    Returns:
        [..., 17, 3] float64; the hip stays where it is.
    """
    source = np.asarray(joints_mm, np.float64)
    moved: FloatArray = source.copy()
    for joint, parent in enumerate(BONE_PARENTS, start=1):
        direction = unit(source[..., joint, :] - source[..., parent, :])
        moved[..., joint, :] = (
            moved[..., parent, :] + direction * np.asarray(lengths_mm)[..., joint - 1, None]
        )
    return moved


@dataclass(frozen=True)
class _Range:
    """Angles in degrees, lowest and highest; limbs: right and left are drawn alike."""

    lean: tuple[float, float] = (-4.0, 8.0)  # of the trunk forward
    raise_arm: tuple[float, float] = (4.0, 22.0)  # of the upper arm from hanging, up to 170
    arm_front: tuple[float, float] = (-25.0, 70.0)  # where to: 0 sideways, 90 before the body
    elbow: tuple[float, float] = (5.0, 50.0)
    forearm_up: tuple[float, float] = (0.0, 40.0)  # of a raised arm: 0 bends forward, 90 up
    hip: tuple[float, float] = (-6.0, 8.0)  # flexion of the thigh
    spread: tuple[float, float] = (0.0, 7.0)  # of the thigh sideways
    knee: tuple[float, float] = (0.0, 12.0)


_STAND = _Range()
_RANGES = (
    _STAND,
    _Range(elbow=(60.0, 135.0), arm_front=(20.0, 85.0), raise_arm=(10.0, 60.0)),  # hands in use
    _Range(elbow=(10.0, 70.0)),  # walking: legs and arms by phase
    _Range(lean=(-12.0, 20.0), hip=(72.0, 98.0), spread=(2.0, 18.0), knee=(65.0, 105.0)),  # sitting
    _Range(raise_arm=(60.0, 165.0), elbow=(0.0, 110.0), forearm_up=(-10.0, 95.0)),  # arms raised
    _Range(  # anything
        lean=(-12.0, 45.0),
        raise_arm=(0.0, 165.0),
        arm_front=(-30.0, 100.0),
        elbow=(0.0, 135.0),
        forearm_up=(-20.0, 95.0),
        hip=(-15.0, 70.0),
        spread=(-3.0, 22.0),
        knee=(0.0, 110.0),
    ),
)
_WALKING = 2
_SHARES = np.array([0.17, 0.17, 0.26, 0.12, 0.14, 0.14])


def sample_body_poses(rng: CounterRng) -> FloatArray:
    """Draw poses: standing, hands in use, walking, sitting, arms raised, anything.

    Returns:
        [B, 17, 3] mm, hip at 0, on the reference body, facing the camera.
    """
    batch = len(rng)
    poses = _draw(rng)
    keep = np.argmax(_limbs_apart(poses), axis=1)  # the first good one, or else the first
    chosen: FloatArray = poses[np.arange(batch), keep]
    return chosen


def _draw(rng: CounterRng) -> FloatArray:
    kind = np.searchsorted(np.cumsum(_SHARES[:-1]), rng.uniform("pose.kind", _TRIES), "right")
    walking = (kind == _WALKING)[..., None]

    def angle(name: str, *sides: int) -> FloatArray:
        bounds = np.array([getattr(r, name) for r in _RANGES])[kind]
        u = rng.uniform(f"pose.{name}", _TRIES, *sides)
        low, high = (bounds[..., i].reshape(*kind.shape, *(1 for _ in sides)) for i in (0, 1))
        drawn: FloatArray = low + (high - low) * u
        return drawn

    # Sides: right, left.
    hip, knee, elbow = angle("hip", 2), angle("knee", 2), angle("elbow", 2)
    raised, front = angle("raise_arm", 2), angle("arm_front", 2)
    phase = rng.uniform("pose.phase", _TRIES, 1, high=2 * np.pi) + np.array([0.0, np.pi])
    stride = rng.uniform("pose.stride", _TRIES, 1, low=10.0, high=32.0)
    hip = np.where(walking, stride * np.sin(phase) + 4.0, hip)
    knee = np.where(walking, 6.0 + 2.0 * stride * np.maximum(np.cos(phase), 0.0), knee)
    swing = -stride * np.sin(phase)
    raised = np.where(walking, np.abs(swing) + 6.0, raised)
    front = np.where(walking, np.where(swing > 0, 75.0, -75.0), front)

    trunk = rng.normal("pose.trunk", _TRIES, 3, std=6.0)  # aside, turned, pelvis aside
    lean = angle("lean")
    spine = _turned(0.5 * lean, 0.5 * trunk[..., 0], 0.6 * trunk[..., 1])
    chest = _turned(lean, trunk[..., 0], 1.4 * trunk[..., 1])
    nod = rng.normal("pose.nod", _TRIES, 2, std=7.0)
    neck = _turned(lean + nod[..., 0] + 6.0, trunk[..., 0], 0.0 * lean)
    head = _turned(
        0.6 * lean + 2.0 * nod[..., 0] - 2.0, 0.6 * trunk[..., 0] + nod[..., 1], 0 * lean
    )
    pelvis = _turned(0.2 * lean, 0.3 * trunk[..., 2], 0 * lean)

    directions = np.zeros((*kind.shape, 16, 3))
    for bone, frame in ((6, pelvis), (7, spine), (8, neck), (9, head)):
        directions[..., bone, :] = apply_rotation(_UP, frame)
    spread, forearm_up = angle("spread", 2), angle("forearm_up", 2)
    for side, (leg, arm) in enumerate(((0, 13), (3, 10))):
        out = -_LEFT if side == 0 else _LEFT
        directions[..., leg, :] = apply_rotation(unit(out - 1.2 * _UP), pelvis)
        thigh = _swung(-_UP, out, hip[..., side], spread[..., side])
        hinge = _swung(_LEFT, out, 0 * hip[..., side], spread[..., side])
        shank = rotate_about(thigh, hinge, np.radians(knee[..., side, None]))
        directions[..., leg + 1, :] = apply_rotation(thigh, pelvis)
        directions[..., leg + 2, :] = apply_rotation(shank, pelvis)

        shrug = 0.2 + 0.5 * np.clip(raised[..., side, None] - 60.0, 0.0, 100.0) / 100.0
        directions[..., arm, :] = apply_rotation(unit(out + shrug * _UP), chest)
        away, before = np.radians(raised[..., side, None]), np.radians(front[..., side, None])
        level = out * np.cos(before) + _FRONT * np.sin(before)
        upper = -_UP * np.cos(away) + level * np.sin(away)
        up = np.radians(forearm_up[..., side, None])
        bend = _FRONT * np.cos(up) + _UP * np.sin(up) - 0.35 * out
        bend = unit(bend - upper * dot(bend, upper))
        flexed = np.radians(elbow[..., side, None])
        lower = upper * np.cos(flexed) + bend * np.sin(flexed)
        directions[..., arm + 1, :] = apply_rotation(upper, chest)
        directions[..., arm + 2, :] = apply_rotation(lower, chest)

    joints = np.zeros((*kind.shape, 17, 3))
    for joint, parent in enumerate(BONE_PARENTS, start=1):
        step = directions[..., joint - 1, :] * REFERENCE_BONES_MM[joint - 1]
        joints[..., joint, :] = joints[..., parent, :] + step
    return joints


def _turned(forward: FloatArray, aside: FloatArray, about: FloatArray) -> FloatArray:
    """Rotations [..., 3, 3] by degrees: leaning forward, then aside, turned about the vertical."""
    axes = np.broadcast_to(np.eye(3), (*forward.shape, 3, 3))
    for axis, degrees in ((_UP, about), (_FRONT, aside), (-_LEFT, forward)):
        axes = rotate_about(axes, axis, np.radians(degrees)[..., None, None])
    return axes


def _swung(
    vector: FloatArray, out: FloatArray, forward: FloatArray, aside: FloatArray
) -> FloatArray:
    """A vector of a hanging leg, swung aside (toward ``out``) and then forward, in degrees."""
    sign = out[0]
    moved = rotate_about(
        np.broadcast_to(vector, (*forward.shape, 3)), _FRONT, np.radians(sign * aside)[..., None]
    )
    return rotate_about(moved, -_LEFT, np.radians(forward)[..., None])


def _limbs_apart(joints: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether no limb [..., 17, 3] runs through another, as far as joints tell."""

    def far(joint: int, start: int, end: int, mm: float) -> npt.NDArray[np.bool_]:
        a, p = joints[..., start, :], joints[..., joint, :]
        bone = joints[..., end, :] - a
        along = np.clip(dot(p - a, bone) / np.maximum(dot(bone, bone), 1.0), 0.0, 1.0)
        gap = p - a - along * bone
        apart: npt.NDArray[np.bool_] = dot(gap, gap)[..., 0] > mm * mm
        return apart

    good = far(3, 6, 5, 95.0) & far(2, 5, 4, 95.0) & far(6, 3, 2, 95.0) & far(13, 16, 15, 80.0)
    for elbow, wrist in ((15, 16), (12, 13)):
        good &= far(wrist, 0, 8, 165.0) & far(elbow, 0, 8, 150.0) & far(wrist, 9, 10, 150.0)
        good &= far(wrist, 1, 2, 110.0) & far(wrist, 4, 5, 110.0)
    return good
