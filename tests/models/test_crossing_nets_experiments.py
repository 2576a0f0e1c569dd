"""What the experiments on Crossing Nets' generative side measure."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dgpose.data.hand_pool import HandPool
from dgpose.data.rotations import apply_rotation, rotation_from_vector
from dgpose.data.synthetic_hands import SyntheticHands
from dgpose.inference.hand_refinement import RefineConfig
from dgpose.models.crossing_nets import (
    CrossingNets,
    CrossingNetsConfig,
    JointWeights,
    save_crossing_nets,
)
from experiments.crossing_nets.grid_models import grid_models, groups_of
from experiments.crossing_nets.refinement import measure
from experiments.crossing_nets.smoothness import STEPS, along_walks, measures
from experiments.crossing_nets.viewpoint import angle_to_nearest_view, by_view, turned
from experiments.report import mean_std

TINY = CrossingNetsConfig(image_size=32, channels=4, hidden=10)


def poses(count: int = 5) -> np.ndarray:
    return SyntheticHands(0, poses="kinematic", size=32).batch(range(count)).joints_mm.numpy()


def rolled(joints_mm: np.ndarray, degrees: float) -> np.ndarray:
    rotation = rotation_from_vector(np.array([0.0, 0.0, math.radians(degrees)]))
    return apply_rotation(joints_mm, rotation)


def test_turned_poses_are_the_same_hands_seen_from_elsewhere() -> None:
    before = poses().astype(np.float64)
    after = turned(before, 40.0)
    np.testing.assert_allclose(after[:, 34], before[:, 34], atol=1e-9)
    distances = (np.linalg.norm(p[:, :, None] - p[:, None], axis=-1) for p in (before, after))
    np.testing.assert_allclose(*distances, atol=1e-6)
    np.testing.assert_allclose(turned(before, 0.0), before, atol=1e-9)


@pytest.mark.parametrize(("degrees", "expected"), [(0, 0), (20, 0), (-30, 0), (50, 20), (180, 150)])
def test_rolls_of_training_are_training_views(degrees: float, expected: float) -> None:
    known = torch.from_numpy(poses())
    seen = torch.from_numpy(rolled(poses()[:1], degrees))
    np.testing.assert_allclose(angle_to_nearest_view(seen, known[:1]), expected, atol=0.1)


def test_a_turn_out_of_the_image_is_an_angle_to_the_view() -> None:
    """Rolls only take away from it: of an orthogonal axis, nothing."""
    known = poses()
    for place in range(len(known)):
        one = known[place : place + 1].astype(np.float64)
        angle = angle_to_nearest_view(torch.from_numpy(turned(one, 40.0)), torch.from_numpy(one))
        np.testing.assert_allclose(angle, 40.0, atol=0.1)
    nearest = angle_to_nearest_view(torch.from_numpy(known), torch.from_numpy(known))
    np.testing.assert_allclose(nearest, 0, atol=0.1)


def test_errors_by_view() -> None:
    angles = np.concatenate([np.full(30, 7.0), np.full(29, 25.0), np.full(40, 170.0)])
    means = by_view(np.where(angles > 100, 9.0, 3.0), angles)
    assert means == [None, 3.0, None, None, None, None, None, 9.0]


def test_steps_of_walks() -> None:
    steps = torch.tensor([[1.0, 1.0, 4.0], [2.0, 2.0, 2.0]])
    assert measures(steps) == {"mean": 2.0, "largest": 3.0, "ratio": 1.5}
    torch.manual_seed(0)
    joints = torch.randn(2, 3, 36, 3)
    found = along_walks(CrossingNets(TINY).eval(), *joints)
    assert {name.split("_")[0] for name in found} == {"decoder", "seen", "depth"}
    assert 0 < found["seen_ends"] <= (STEPS - 1) * found["seen_mean"] + 1e-3
    nothing = JointWeights(reconstruction=0, smoothness=0, adversarial=0, feature_matching=0)
    config = CrossingNetsConfig(image_size=32, channels=4, hidden=10, weights=nothing)
    found = along_walks(CrossingNets(config).eval(), *joints)
    assert {name.split("_")[0] for name in found} == {"decoder"}


def test_models_of_the_grid(tmp_path: Path) -> None:
    nets = CrossingNets(TINY)
    for name, split, seed in (("a", "block", 0), ("b", "block", 1), ("c", "actor", 0)):
        (tmp_path / name).mkdir()
        save_crossing_nets(nets, tmp_path / name / "weights.safetensors")
        facts = {"split_by": split, "fraction": 0.02, "variant": "full", "seed": seed}
        (tmp_path / f"{name}.json").write_text(json.dumps(facts))
    models = grid_models(tmp_path, "block")
    assert [model.seed for model in models] == [0, 1]
    results = [{"fraction": m.fraction, "variant": m.variant} for m in models]
    assert groups_of(results) == {(0.02, "full"): results}
    with pytest.raises(SystemExit, match="no model of the split by actor"):
        grid_models(tmp_path / "a", "actor")
    assert mean_std([1.0, 3.0]) == "2.0 ± 1.4"
    assert mean_std([None, None]) == "-"


def test_refinement_from_true_latents_starts_at_the_bottleneck() -> None:
    torch.manual_seed(0)
    nets = CrossingNets(TINY).eval()
    joints = torch.randn(4, 36, 3)
    pool = HandPool(torch.rand(4, 1, 32, 32), joints, torch.ones(4, dtype=torch.bool))
    with torch.no_grad():
        true = nets.latent_of(joints)
        scored = [0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32]
        away = (nets.joints_of(true) - joints)[:, scored].norm(dim=-1).mean() * 50
    found = measure(nets, pool, RefineConfig(steps=1), true)
    assert found["before_mm"] == pytest.approx(float(away), rel=1e-5)
