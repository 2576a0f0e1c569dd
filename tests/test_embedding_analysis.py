"""Principal components against embeddings that were made to have them."""

from __future__ import annotations

import numpy as np
import pytest
from human36m_files import STANDING

from dgpose.metrics.embedding import analyse_embedding, body_heading, leg_spread
from dgpose.viz.embedding import embedding_picture

ANGLES = np.linspace(-np.pi, np.pi, 400, endpoint=False) + 0.01


def turned(angles: np.ndarray, spread: np.ndarray | None = None) -> np.ndarray:
    """STANDING (x to its left, y up, z ahead) in camera coordinates, facing these angles."""
    poses = np.repeat(1000 * STANDING[None], len(angles), 0)
    if spread is not None:
        poses[:, 3, 0], poses[:, 6, 0] = -spread / 2, spread / 2
    left, up, ahead = np.moveaxis(poses, -1, 0)
    s, c = np.sin(angles)[:, None], np.cos(angles)[:, None]
    # Facing the camera (0), its left is the image's right; at pi / 2 it looks to the right.
    return np.stack([c * left + s * ahead, -up, s * left - c * ahead], axis=-1)


def test_heading() -> None:
    poses = turned(ANGLES)
    np.testing.assert_allclose(body_heading(poses), ANGLES, atol=1e-9)
    facing = turned(np.zeros(1))[0]
    assert facing[9, 2] < facing[8, 2]  # the nose is nearer to the camera than the thorax
    assert facing[1, 0] < 0 < facing[4, 0]  # right hip on the left of the image


def test_leg_spread() -> None:
    spread = np.linspace(0, 800, 400)
    np.testing.assert_allclose(leg_spread(turned(ANGLES, spread)), spread, atol=1e-9)


def test_components_are_those_that_were_put_in() -> None:
    random = np.random.default_rng(0)
    spread = random.uniform(0, 800, len(ANGLES))
    poses = turned(ANGLES, spread)
    latent = np.stack(
        [
            10 * np.sin(ANGLES + 0.3),
            7 * np.cos(ANGLES + 0.3),
            spread / 100,
            random.normal(size=400),
        ],
        axis=1,
    )
    basis = np.linalg.qr(random.normal(size=(32, 4)))[0]
    result = analyse_embedding(latent @ basis.T + 5, poses)
    assert result.heading_correlation[:2] == pytest.approx(1, abs=0.05)
    assert result.leg_correlation[2] == pytest.approx(1, abs=0.05)
    assert result.heading_correlation[2:].max() < 0.2
    assert result.leg_correlation[[0, 1, 3]].max() < 0.2
    assert (np.diff(result.variance_share) < 0).all()
    assert result.variance_share.sum() == pytest.approx(1)
    assert result.components.shape == (400, 4)
    np.testing.assert_allclose(result.components.T @ result.components, np.diag(
        np.square(result.components).sum(0)), atol=1e-6)  # fmt: skip


def test_constant_embeddings() -> None:
    result = analyse_embedding(np.ones((400, 5)), turned(ANGLES), count=2)
    assert (result.heading_correlation == 0).all()
    assert (result.variance_share == 0).all()


def test_picture() -> None:
    random = np.random.default_rng(0)
    poses = turned(ANGLES)
    result = analyse_embedding(random.normal(size=(400, 8)), poses, count=2)
    picture = embedding_picture({"poses": result, "images": result}, "test")
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert picture.std() > 10


@pytest.mark.parametrize(
    ("rows", "count", "message"),
    [
        (np.ones((3, 5)), 2, r"embeddings must have shape \[N, D\] with N = 400 poses"),
        (np.ones((400, 5)), 6, r"count must lie in 1\.\.5, got 6"),
        (np.full((400, 5), np.nan), 2, "embeddings and poses_mm must be finite"),
    ],
)
def test_wrong_arguments(rows: np.ndarray, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        analyse_embedding(rows, turned(ANGLES), count=count)
    with pytest.raises(ValueError, match=r"poses_mm must have shape \[N, 17, 3\]"):
        body_heading(np.ones((2, 16, 3)))
