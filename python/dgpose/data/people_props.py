"""What stands around a rendered person: a stool under who sits, a pole or a block before them."""

from __future__ import annotations

import numpy as np

from dgpose.data.counter_rng import CounterRng, FloatArray
from dgpose.data.rotations import dot, unit

__all__ = ["PROPS", "sample_props"]

PROPS = 3
"""Capsules of each scene that are no person: seat and post of a stool, and what stands before."""


def sample_props(
    rng: CounterRng,
    joints: FloatArray,
    camera: FloatArray,
    down: FloatArray,
    floor: FloatArray,
    size: tuple[int, int],
    occluder_chance: float,
) -> tuple[FloatArray, FloatArray]:
    """A stool under those who sit, and now and then something before a person.

    Args:
        joints: [B, 17, 3] in the camera; camera [B, 4]; down [B, 3]: gravity in the camera.
        floor: [B] mm from the hip down to the floor.

    Returns:
        nodes [B, 2 PROPS, 3] and radii.
    """
    batch = len(rng)
    nodes, radii = np.zeros((batch, 2 * PROPS, 3)), np.zeros((batch, 2 * PROPS))
    thighs = unit(joints[:, [2, 5]] - joints[:, [1, 4]])
    shanks = unit(joints[:, [3, 6]] - joints[:, [2, 5]])
    slope, drop = dot(thighs, down[:, None]), dot(shanks, down[:, None])
    sits = (np.abs(slope).max(axis=(1, 2)) < 0.55) & (drop.min(axis=(1, 2)) > 0.7)
    across = joints[:, 4] - joints[:, 1]
    seat = 0.5 * (joints[:, 1] + joints[:, 4]) + 165.0 * down
    nodes[:, 0], nodes[:, 1] = seat - 0.7 * across, seat + 0.7 * across
    nodes[:, 2], nodes[:, 3] = seat, joints[:, 0] + floor[:, None] * down
    radii[:, :4] = sits[:, None] * np.array([70.0, 70.0, 40.0, 40.0])

    u = rng.uniform("occluder", 5)
    height, width = size
    fx, fy, cx, cy = camera.T
    z = joints[:, 0, 2] * (0.45 + 0.25 * u[:, 0])
    bottom = (1.1 * height - cy) / fy * z
    top = (height * (0.75 * u[:, 2] - 0.2) - cy) / fy * z
    # To the left or right of the middle, where a person is seldom hidden whole.
    x = np.where(u[:, 1] < 0.5, 0.8 * u[:, 1], 0.2 + 0.8 * u[:, 1])
    x = (x * width - cx) / fx * z
    lean = (u[:, 3] - 0.5) * 0.2 * (bottom - top)
    nodes[:, 4] = np.stack([x, bottom, z], axis=-1)
    nodes[:, 5] = np.stack([x + lean, top, z], axis=-1)
    shown = rng.chance("occluder.shown", occluder_chance)
    radius = np.where(shown, (0.02 + 0.08 * u[:, 4]) * width / fx * z, 0.0)
    radii[:, 4:] = radius[:, None]
    return nodes, radii
