"""Varied crops: the joints stay on what they were on."""

from __future__ import annotations

from dataclasses import replace

import torch

from dgpose.data.person_augmentation import PersonAugmentation, augment_people
from dgpose.skeletons import BODY14

STILL = PersonAugmentation(
    flip=0, scale=(1, 1), shift=0, turn_deg=0, brightness=0, contrast=(1, 1), tint=(1, 1), grey=0,
    blur=0, noise=0,
)  # fmt: skip
ALL = torch.ones(1, 14, dtype=torch.bool)


def dot_at(x: int, y: int) -> torch.Tensor:
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, :, y - 1 : y + 2, x - 1 : x + 2] = 255
    return image


def center(image: torch.Tensor) -> torch.Tensor:
    """Mean place of the light in [3, S, S]."""
    weights = image.mean(0)
    places = torch.arange(32.0)
    return (
        torch.stack(((weights.sum(0) * places).sum(), (weights.sum(1) * places).sum()))
        / weights.sum()
    )


def test_nothing_changes_where_nothing_varies() -> None:
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    keypoints = 31 * torch.rand(2, 14, 2)
    known = torch.rand(2, 14) < 0.5
    varied, moved, seen = augment_people(images, keypoints, known, torch.Generator(), STILL)
    assert torch.allclose(varied, images.float() / 255, atol=1e-4)
    assert torch.allclose(moved, keypoints, atol=1e-4)
    assert torch.equal(seen, known)


def test_joints_move_with_the_image() -> None:
    how = replace(STILL, flip=0.5, scale=(0.7, 1.3), shift=0.1, turn_deg=40)
    keypoints = torch.tensor([20.0, 13.0]).expand(1, 14, 2)
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        varied, moved, seen = augment_people(dot_at(20, 13), keypoints, ALL, generator, how)
        assert seen.all()
        assert (center(varied[0]) - moved[0, 0]).norm() < 0.3


def test_a_mirrored_person_changes_sides() -> None:
    keypoints = torch.zeros(1, 14, 2)
    wrists = [BODY14.joints.index(f"{side}_wrist") for side in ("right", "left")]
    keypoints[0, wrists[0]] = torch.tensor([4.0, 9.0])
    known = ALL.clone()
    known[0, wrists[1]] = False
    how = replace(STILL, flip=1)
    _, moved, seen = augment_people(dot_at(4, 9), keypoints, known, torch.Generator(), how)
    assert torch.allclose(moved[0, wrists[1]], torch.tensor([27.0, 9.0]), atol=1e-4)
    assert seen[0, wrists].tolist() == [False, True]


def test_joints_that_leave_the_crop_are_unknown() -> None:
    keypoints = torch.full((1, 14, 2), 15.5)
    keypoints[0, 0] = torch.tensor([31.0, 15.5])
    how = replace(STILL, scale=(1.5, 1.5))
    _, _, seen = augment_people(dot_at(15, 15), keypoints, ALL, torch.Generator(), how)
    assert seen[0].tolist() == [False] + [True] * 13


def test_the_same_generator_gives_the_same_crops() -> None:
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    keypoints, known = 31 * torch.rand(4, 14, 2), ALL.expand(4, -1)
    one, other, third = (
        augment_people(images, keypoints, known, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], third[0])
    assert float(one[0].min()) >= 0
    assert float(one[0].max()) <= 1
