"""Rendered pairs: what they share, and what differs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dgpose.data.person_pairs import height_pairs, pose_pairs
from dgpose.data.pose_edits import scale_height
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.metrics.generation import color_distance, part_colors


@pytest.fixture(scope="module")
def people() -> SyntheticPeople:
    return SyntheticPeople(poses="kinematic", split="test", size=48)


def test_one_person_in_two_poses(people: SyntheticPeople) -> None:
    pairs = pose_pairs(people, 12, source="pairs")
    source, target = pairs
    assert torch.equal(source.identity, people.batch(np.arange(12)).identity)  # type: ignore[arg-type]
    assert torch.equal(source.identity, target.identity)  # type: ignore[arg-type]
    assert source.source == "pairs"
    # The source is the sample itself; the target shows the pose of another sample.
    own = people.batch(np.arange(12))
    # Joints in float32 went there and back: single pixels may round to another value.
    assert (source.images.float() - 255 * own.image).abs().mean() < 0.3
    assert (source.body[0] - target.body[0]).norm(dim=2).mean() > 4
    # The clothes stay: part colours are nearer to the own source's than to the next one's.
    looks = [part_colors(pool.images.float() / 255, *pool.body) for pool in pairs]
    other = type(looks[0])(*(field.roll(1, 0) for field in looks[0]))
    own_distance, far = (color_distance(looks[1], look) for look in (looks[0], other))
    assert own_distance.mean() < 0.7 * far.mean()


def test_taller_and_shorter(people: SyntheticPeople) -> None:
    """The same camera; joints move as an edit of the image's pose would move them."""
    source, target = height_pairs(people, 12, 0.8)
    expected = scale_height(source.body[0], 0.8)
    assert (target.body[0] - expected).norm(dim=2).mean() < 0.6
    assert (target.body[0] - source.body[0]).norm(dim=2).mean() > 3
    # Nothing else moved: beside both persons the place is the same, but for the camera's noise.
    assert source.masks is not None
    assert target.masks is not None
    place = ~(source.masks | target.masks)
    place = ~torch.nn.functional.max_pool2d((~place).float(), 9, 1, 4).bool()  # without shadows
    difference = (source.images.float() - target.images.float()).abs().mean(1, keepdim=True)
    assert difference[place].median() < 6


def test_what_they_refuse(people: SyntheticPeople) -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        pose_pairs(people, 0)
    with pytest.raises(ValueError, match="factor must be positive, got -1"):
        height_pairs(people, 2, -1)


def test_a_given_camera(people: SyntheticPeople) -> None:
    own = people.batch([3])
    again = people.posed(own.joints_mm, own.identity, [3], camera=own.camera)
    assert (own.image - again.image).abs().mean() < 1e-3
    assert torch.equal(own.camera, again.camera)
    moved = own.joints_mm + torch.tensor([100.0, 0.0, 0.0])
    aside = people.posed(moved, own.identity, [3], camera=own.camera)
    shift = aside.joints_px - own.joints_px
    expected = own.camera[0, 0] * 100 / own.joints_mm[0, 0, 2]
    assert torch.allclose(shift[0, 0], torch.stack((expected, torch.tensor(0.0))), atol=1e-2)
    with pytest.raises(ValueError, match=r"camera must be finite, of shape \[1, 4\], got \[1, 3\]"):
        people.posed(own.joints_mm, own.identity, [3], camera=own.camera[:, :3])
    with pytest.raises(ValueError, match="hips before the camera"):
        people.posed(-own.joints_mm, own.identity, [3], camera=own.camera)
