"""Pairs of rendered images that differ in one thing alone: what no set of photographs has.

A source shows a person in one pose, its target the same person in another one or of another height,
with the same clothes, place, light and camera.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dgpose.data.body_kinematics import with_bone_lengths
from dgpose.data.person_pool import PersonPool, pool_of_batches
from dgpose.data.synthetic_people import PeopleBatch, SyntheticPeople

__all__ = ["PersonPairs", "height_pairs", "pose_pairs"]

Progress = Callable[[int, int], None]

_AT_ONCE = 256
_ANKLES = [3, 6]


class PersonPairs(NamedTuple):
    """Row i of one pool belongs to row i of the other."""

    source: PersonPool
    target: PersonPool


def pose_pairs(
    people: SyntheticPeople, count: int, *, source: str = "", progress: Progress | None = None
) -> PersonPairs:
    """People in two poses each.

    Pair i shows the person of sample i, in that sample's pose and in that of sample `count` + i,
    with the bones of this person. The crop is the one around the person in each, so that the place
    behind moves along with it.

    Args:
        people: renders square images.
        count: pairs.
        source: one sentence on what they are.
        progress: called with (pairs done, all).

    Raises:
        ValueError: a count below 1.
    """

    def pair(rows: Any, first: PeopleBatch) -> tuple[PeopleBatch, PeopleBatch]:
        who = first.identity
        other = people.batch(rows + count).joints_mm.double().numpy()
        moved = with_bone_lengths(other - other[:, :1], people.bone_lengths(who))
        return people.posed(first.joints_mm, who, rows), people.posed(moved, who, rows)

    return _pairs(people, count, pair, source, progress)


def height_pairs(
    people: SyntheticPeople,
    count: int,
    factor: float,
    *,
    source: str = "",
    progress: Progress | None = None,
) -> PersonPairs:
    """People, and the same people `factor` times as tall.

    All of the body is so much larger, about the point between the ankles at the height of the lower
    one, as `dgpose.data.pose_edits.scale_height` has it. The crop of the target is the source's.

    Args:
        people, count, source, progress: as for `pose_pairs`.
        factor: positive.

    Raises:
        ValueError: a count below 1, or a factor that is not positive.
    """
    if not factor > 0:
        raise ValueError(f"factor must be positive, got {factor}")

    def pair(rows: Any, first: PeopleBatch) -> tuple[PeopleBatch, PeopleBatch]:
        who, joints = first.identity, first.joints_mm.double().numpy()
        ankles = joints[:, _ANKLES]
        ground = ankles.mean(1, keepdims=True)
        ground[..., 1] = ankles[..., 1].max(1, keepdims=True)
        scaled = ground + factor * (joints - ground)
        camera = first.camera
        return (
            people.posed(joints, who, rows, camera=camera),
            people.posed(scaled, who, rows, camera=camera),
        )

    return _pairs(people, count, pair, source, progress)


def _pairs(
    people: SyntheticPeople,
    count: int,
    pair: Callable[[Any, PeopleBatch], tuple[PeopleBatch, PeopleBatch]],
    source: str,
    progress: Progress | None,
) -> PersonPairs:
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    made = []
    for first in range(0, count, _AT_ONCE):
        rows = np.arange(first, min(first + _AT_ONCE, count))
        made.append(pair(rows, people.batch(rows)))
        if progress is not None:
            progress(int(rows[-1]) + 1, count)
    return PersonPairs(*(pool_of_batches(batches, source) for batches in zip(*made, strict=True)))
