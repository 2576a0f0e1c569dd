"""PCK, image quality, distances between sets and part colours, against figures computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dgpose.metrics.generation import (
    PART_NAMES,
    color_distance,
    diversity,
    energy_distance,
    frechet_distance,
    gaussian_distance,
    part_colors,
)
from dgpose.metrics.image_quality import psnr, sharpness, ssim
from dgpose.metrics.keypoints import CURVE, keypoint_errors, pck, torso_px
from dgpose.skeletons import BODY14

JOINT = {name: row for row, name in enumerate(BODY14.joints)}
ALL = torch.ones(1, 14, dtype=torch.bool)


def standing() -> torch.Tensor:
    """A pose whose torso diagonals are 50 (right shoulder, left hip) and 30 pixels long."""
    pose = torch.zeros(1, 14, 2)
    for joint, place in {
        "right_shoulder": (0, 0),
        "left_hip": (30, 40),
        "left_shoulder": (30, 10),
        "right_hip": (30, 40),
    }.items():
        pose[0, JOINT[joint]] = torch.tensor(place, dtype=torch.float32)
    return pose


def without(*joints: str) -> torch.Tensor:
    known = ALL.clone()
    known[0, [JOINT[joint] for joint in joints]] = False
    return known


def test_the_torso_is_the_mean_of_two_diagonals() -> None:
    assert torso_px(standing(), ALL).item() == 40
    assert torso_px(standing(), without("left_shoulder")).item() == 50
    assert torso_px(standing(), without("left_hip", "nose")).item() == 30
    assert torso_px(standing(), without("left_hip", "right_hip")).isnan().item()
    assert torso_px(torch.zeros(1, 14, 2), ALL).isnan().item()


def test_pck_by_hand() -> None:
    """Torso 40: thresholds of 4, 8 and 20 pixels."""
    true = standing()
    estimate = true.clone()
    estimate[0, JOINT["nose"]] += torch.tensor([0.0, 4.0])  # 0.1, which counts
    estimate[0, JOINT["neck"]] += torch.tensor([3.0, 4.0])  # 0.125
    estimate[0, JOINT["left_ankle"]] += torch.tensor([0.0, 21.0])  # 0.525
    estimate[0, JOINT["right_ankle"]] = torch.nan
    assert pck(estimate, true, ALL) == [11 / 14, 12 / 14, 12 / 14]
    hidden = without("right_ankle", "left_ankle")
    assert pck(estimate, true, hidden) == [11 / 12, 1.0, 1.0]
    errors = keypoint_errors(estimate, true, hidden)
    assert errors.by_joint(0.1)[JOINT["neck"]] == 0
    assert errors.by_joint(0.1)[JOINT["left_ankle"]].isnan()
    # The nose is found from 0.1 on, the neck from 0.125.
    assert errors.curve == [10 / 12] * 10 + [11 / 12] * 3 + [1.0] * (len(CURVE) - 13)
    # Trapezoids of width 0.01 over 0.5: the steps of two rises lie between two thresholds each.
    assert math.isclose(errors.area, (9.5 * 10 / 12 + 3 * 11 / 12 + 37.5) / 50)


def test_poses_without_a_torso_are_left_out() -> None:
    true = standing().repeat(2, 1, 1)
    estimate = true.clone()
    estimate[1] += 100
    known = torch.cat((ALL, without("left_hip", "right_hip")))
    errors = keypoint_errors(estimate, true, known)
    assert errors.scored == 1
    assert errors.pck(0.1) == 1
    nothing = keypoint_errors(estimate[1:], true[1:], known[1:])
    assert nothing.scored == 0
    assert math.isnan(nothing.pck(0.5))


def test_pck_does_not_change_with_the_size_of_the_image() -> None:
    torch.manual_seed(0)
    true, estimate = 60 * torch.rand(20, 14, 2), 60 * torch.rand(20, 14, 2)
    known = torch.rand(20, 14) < 0.9
    assert pck(estimate, true, known) == pck(4 * estimate, 4 * true, known)


def test_what_pck_refuses() -> None:
    with pytest.raises(ValueError, match=r"estimate_px must have shape .* got \[2, 14, 2\]"):
        pck(torch.zeros(2, 14, 2), standing(), ALL)
    with pytest.raises(ValueError, match="known must be bool"):
        pck(standing(), standing(), ALL.float())


def test_psnr_by_hand() -> None:
    true = torch.full((2, 3, 16, 16), 0.5)
    images = true.clone()
    images[0] += 0.1
    images[1, :, :8] += 0.01
    masks = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    masks[:, :, :8] = True
    expected = [20.0, 40 + 10 * math.log10(2)]
    assert torch.allclose(psnr(images, true), torch.tensor(expected), atol=1e-3)
    # Within the mask all pixels are off by 0.1 and 0.01.
    assert torch.allclose(psnr(images, true, masks), torch.tensor([20.0, 40.0]), atol=1e-3)
    assert psnr(true, true).isinf().all()
    assert psnr(images, true, torch.zeros_like(masks)).isnan().all()


def test_ssim_of_constant_images() -> None:
    """Without any variance the contrast term is 1: (2ab + C1) / (a² + b² + C1) remains."""
    one, other = torch.full((1, 3, 32, 32), 0.2), torch.full((1, 3, 32, 32), 0.6)
    c1 = 0.01**2
    expected = (2 * 0.12 + c1) / (0.04 + 0.36 + c1)
    assert math.isclose(ssim(one, other).item(), expected, rel_tol=1e-3)
    noise = torch.rand(1, 3, 32, 32)
    assert math.isclose(ssim(noise, noise).item(), 1, abs_tol=1e-4)


def test_sharpness() -> None:
    checkers = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).float()
    images = checkers.expand(1, 3, 8, 8)
    # The Laplacian is 4 at the black and -4 at the white of 36 inner pixels.
    assert math.isclose(sharpness(images).item(), 16 * 36 / 35, rel_tol=1e-5)
    assert sharpness(torch.full((1, 3, 8, 8), 0.3)).item() < 1e-10


def test_frechet_distance_of_gaussians() -> None:
    """Of diagonal ones it is the distance of means and of standard deviations."""
    mean, other = torch.tensor([0.0, 1.0]), torch.tensor([3.0, 5.0])
    covariance, second = torch.diag(torch.tensor([4.0, 9.0])), torch.diag(torch.tensor([1.0, 0.0]))
    distance = gaussian_distance(mean, covariance, other, second)
    assert math.isclose(distance.item(), 25 + 1 + 9, rel_tol=1e-9)
    # It does not change when both are turned.
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    mean, covariance, other, second = (v.double() for v in (mean, covariance, other, second))
    turned = gaussian_distance(
        turn @ mean, turn @ covariance @ turn.T, turn @ other, turn @ second @ turn.T
    )
    assert math.isclose(turned.item(), 35, rel_tol=1e-7)


def test_frechet_distance_of_few_samples() -> None:
    """Five samples of 50 numbers: covariances of rank 4, and nothing gets lost or negative."""
    torch.manual_seed(0)
    features = torch.randn(5, 50)
    assert frechet_distance(features, features) < 1e-6
    assert math.isclose(frechet_distance(features, features + 2), 200, rel_tol=1e-6)
    # Scaling by 3 leaves Gaussians of thrice the deviation: (3 - 1)² times the variance.
    variance = features.double().var(0).sum().item()
    centred = features - features.mean(0)
    assert math.isclose(frechet_distance(centred, 3 * centred), 4 * variance, rel_tol=1e-5)
    with pytest.raises(ValueError, match="other must be finite"):
        frechet_distance(features, features * math.nan)
    with pytest.raises(ValueError, match=r"\[N, F\] with N >= 2, got \[1, 50\]"):
        frechet_distance(features[:1], features)


def test_energy_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other, coins = (torch.randn(400, 3, generator=generator) for _ in range(3))
    assert abs(energy_distance(one, other)) < 0.005
    # The same mean and covariance, and yet another distribution.
    assert energy_distance(one, coins.sign()) > 0.02
    # Two places: nothing within, everything between.
    places = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    assert energy_distance(*places) == 1
    assert energy_distance(places[0], places[0]) == 0
    pairs = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    assert energy_distance(*pairs) == pytest.approx(1 - (2 + 4) / (2 * (1 + 5 + 1 + 3) / 4))
    with pytest.raises(ValueError, match="other must be finite"):
        energy_distance(one, one * math.nan)


def test_diversity() -> None:
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert diversity(corners) == 4.0  # (3 + 4 + 5) / 3
    with pytest.raises(ValueError, match="N >= 2"):
        diversity(corners[:1])


def test_part_colors() -> None:
    """A red left arm, a green right one, all else blue."""
    pose = 32 * torch.ones(1, 14, 2)
    places = {"right_shoulder": (24, 20), "left_shoulder": (40, 20)}
    places |= {"right_elbow": (12, 20), "left_elbow": (52, 20)}
    places |= {"right_wrist": (4, 20), "left_wrist": (60, 20)}
    places |= {"right_hip": (26, 44), "left_hip": (38, 44), "neck": (32, 20), "nose": (32, 10)}
    for joint, place in places.items():
        pose[0, JOINT[joint]] = torch.tensor(place, dtype=torch.float32)
    image = torch.zeros(1, 3, 64, 64)
    image[:, 2] = 1
    image[:, :, 12:28, :20] = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    image[:, :, 12:28, 44:] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    colors = part_colors(image, pose, ALL)
    part = {name: colors.mean[0, row] for row, name in enumerate(PART_NAMES)}
    assert (part["left_forearm"] - torch.tensor([1.0, 0.0, 0.0])).norm() < 0.01
    assert (part["right_forearm"] - torch.tensor([0.0, 1.0, 0.0])).norm() < 0.01
    assert (part["torso"] - torch.tensor([0.0, 0.0, 1.0])).norm() < 0.02
    assert color_distance(colors, colors).item() < 1e-3
    # The mirrored image has the arms' colours the other way round: 4 of 10 parts differ.
    mirrored = part_colors(image.flip(3), pose, ALL)
    assert 0.4 < color_distance(colors, mirrored).item() < 0.6
    fewer = part_colors(image, pose, without("left_wrist"))
    assert fewer.known[0].tolist() == [name != "left_forearm" for name in PART_NAMES]
    nothing = part_colors(image, pose, torch.zeros_like(ALL))
    assert color_distance(nothing, colors).isnan().item()
