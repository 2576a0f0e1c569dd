"""Errors of 3D body poses, against plain loops and cases whose answer is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from dgpose.metrics.body import BodyErrors, align, evaluate_body, mpjpe, pa_mpjpe, pck3d, pck3d_auc

Array = npt.NDArray[np.float64]


def poses(count: int = 7, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 300, (count, 17, 3))


def procrustes_loop(predicted: Array, truth: Array) -> Array:
    """One pose after another, rotation by Kabsch's formula with the determinant as correction."""
    result = np.empty_like(predicted)
    for n, (p, t) in enumerate(zip(predicted, truth, strict=True)):
        a, b = p - p.mean(0), t - t.mean(0)
        u, _, vt = np.linalg.svd(a.T @ b)
        correction = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
        turn = vt.T @ correction @ u.T
        turned = (turn @ a.T).T
        scale = (turned * b).sum() / (a * a).sum()
        result[n] = scale * turned + t.mean(0)
    return result


def test_mpjpe_is_root_relative() -> None:
    truth = poses()
    moved = truth + np.array([100.0, -50.0, 2000.0])
    assert mpjpe(moved, truth) == pytest.approx(0, abs=1e-9)
    off = truth.copy()
    off[:, 5] += [3.0, 4.0, 0.0]
    assert mpjpe(off, truth) == pytest.approx(5 / 17)
    hip = truth.copy()
    hip[:, 0] += [0.0, 0.0, 17.0]  # a wrong hip moves the sixteen others
    assert mpjpe(hip, truth) == pytest.approx(16)


def test_pa_mpjpe_against_a_loop() -> None:
    truth, predicted = poses(seed=1), poses(seed=2)
    predicted[3:] = truth[3:] + np.random.default_rng(3).normal(0, 40, truth[3:].shape)
    expected = procrustes_loop(predicted, truth)
    np.testing.assert_allclose(align(predicted, truth), expected, atol=1e-8)
    wanted = np.linalg.norm(expected - truth, axis=-1).mean()
    assert pa_mpjpe(predicted, truth) == pytest.approx(wanted)
    assert pa_mpjpe(predicted, truth) < mpjpe(predicted, truth)


def test_pa_mpjpe_forgives_a_similarity_and_no_reflection() -> None:
    truth = poses()
    turns = Rotation.random(len(truth), random_state=4).as_matrix()
    similar = 0.7 * truth @ turns.transpose(0, 2, 1) + 40
    assert pa_mpjpe(similar, truth) == pytest.approx(0, abs=1e-9)
    assert mpjpe(similar, truth) > 100
    mirrored = truth * np.array([-1.0, 1.0, 1.0])
    assert pa_mpjpe(mirrored, truth) > 50


def test_pa_mpjpe_of_a_point() -> None:
    truth = poses(2)
    point = np.ones_like(truth)
    wanted = np.linalg.norm(truth - truth.mean(1, keepdims=True), axis=-1).mean()
    assert pa_mpjpe(point, truth) == pytest.approx(wanted)


def test_two_means_over_actions() -> None:
    truth = poses(4)
    predicted = truth.copy()
    for row, size in enumerate((10.0, 10.0, 10.0, 50.0)):
        predicted[row, 1:, 0] += size * 17 / 16
    errors = evaluate_body(predicted, truth, ["Walking", "Walking", "Walking", "Eating"])
    assert list(errors.by_action) == ["Eating", "Walking"]
    assert errors.by_action["Walking"].frames == 3
    assert errors.by_action["Eating"].mpjpe_mm == pytest.approx(50)
    assert errors.frame_mean_mm == pytest.approx(20)
    assert errors.action_mean_mm == pytest.approx(30)
    assert errors.aligned_action_mean_mm < errors.action_mean_mm
    assert errors.aligned_frame_mean_mm == pytest.approx(pa_mpjpe(predicted, truth))
    parts = [
        evaluate_body(predicted[rows], truth[rows], ["Walking", "Eating"][: len(truth[rows])])
        for rows in (slice(2, 4), slice(0, 1))
    ]
    joined = BodyErrors.joined(parts)
    assert joined.by_action["Walking"].frames == 2
    assert joined.frame_mean_mm == pytest.approx((10 + 50 + 10) / 3)
    assert errors.per_joint_mm.shape == (17,)
    assert errors.per_joint_mm[0] == 0


def test_pck3d() -> None:
    errors = np.array([[0.0, 150.0, 151.0, 400.0]])
    assert pck3d(errors) == 0.5
    assert pck3d_auc(np.zeros((1, 3))) == 1
    assert pck3d_auc(np.full((1, 3), 75.0)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (
            poses(3)[..., :2],
            poses(3),
            r"predicted_mm must have shape \[N, J, 3\], got \[3, 17, 2\]",
        ),
        (poses(2), poses(3), r"shape of truth_mm \[3, 17, 3\], got \[2, 17, 3\]"),
        (poses(3), poses(0), r"truth_mm must have shape \[N, J, 3\], got \[0, 17, 3\]"),
        (poses(3) * np.nan, poses(3), "predicted_mm must be finite, got NaN or Inf in pose 0"),
    ],
)
def test_wrong_arguments(predicted: Array, truth: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mpjpe(predicted, truth)


def test_one_action_a_pose() -> None:
    with pytest.raises(ValueError, match=r"actions must be one a pose \(2\), got 1"):
        evaluate_body(poses(2), poses(2), ["Walking"])
