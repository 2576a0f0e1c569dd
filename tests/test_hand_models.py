"""The shipped hand model, from rendered images to joints, and on things that are no hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgpose.data.cameras import CAMERAS
from dgpose.data.depth_sources import synthetic_frames
from dgpose.data.nyu import load_real_frames
from dgpose.data.other_objects import OBJECT_KINDS, object_depth
from dgpose.data.synthetic_hands import SyntheticHands
from dgpose.inference import HandEstimator
from dgpose.inference.hand_run import estimate, summarise
from dgpose.skeletons import NYU_SCORED14
from dgpose_ext import why_no_core


@pytest.fixture(scope="module")
def estimator() -> HandEstimator:
    return HandEstimator.load()


def test_rendered_sequence(estimator: HandEstimator) -> None:
    """Hands in motion, found by themselves: the figures of `dgpose demo`, with some room."""
    summary = summarise([estimate(estimator, item) for item in synthetic_frames(2, 60)])
    assert summary["frames"]["found"] >= 57
    assert summary["mean_error_mm"] < 20


def test_left_hand_is_as_good_as_a_right_one() -> None:
    estimator = HandEstimator.load(hand="left")
    frames = synthetic_frames(2, 30, hand="left")
    summary = summarise([estimate(estimator, item) for item in frames])
    assert summary["frames"]["found"] >= 28
    assert summary["mean_error_mm"] < 20


@pytest.mark.parametrize("found_by_itself", [False, True])
def test_real_frames(found_by_itself: bool, estimator: HandEstimator, data_dir: Path) -> None:
    """The target on the three real NYU frames; they test the model, and never choose it."""
    scored = list(NYU_SCORED14)
    errors = []
    for frame in load_real_frames(data_dir):
        center = None if found_by_itself else frame.given_center
        pose = estimator(frame.depth, frame.camera, center)
        assert pose.found
        distance = np.linalg.norm(pose.joints_mm[scored] - frame.joints_mm[scored], axis=1)
        errors.append(distance.mean())
    assert np.mean(errors) < 13


@pytest.mark.skipif(bool(why_no_core()), reason="lower precisions need the compiled core")
@pytest.mark.parametrize(("precision", "moved_mm"), [("bfloat16", 0.8), ("int8", 1.5)])
def test_lower_precisions(estimator: HandEstimator, precision: Any, moved_mm: float) -> None:
    """Joints move little; by how much, and what it does to the error, is in the documentation."""
    lower = HandEstimator.load(precision=precision)
    assert lower.info()["precision"] == precision
    batch = SyntheticHands(31, poses="kinematic", split="test").batch(range(100))
    half_cube = batch.cube_mm[:, None, None] / 2
    moved = (lower.regress(batch.crop) - estimator.regress(batch.crop)) * half_cube
    assert 0 < float(moved.norm(dim=2).mean()) < moved_mm


@pytest.mark.parametrize("kind", OBJECT_KINDS)
def test_other_objects_are_refused(kind: str, estimator: HandEstimator) -> None:
    poses = [estimator(object_depth(kind, 7, index), CAMERAS["nyu"]) for index in range(12)]
    refused = [pose for pose in poses if not pose.found]
    assert len(refused) >= 9  # the share over many is in the documentation
    for pose in refused:
        assert pose.reason
        assert np.isnan(pose.joints_mm).all()


@pytest.mark.skipif(bool(why_no_core()), reason=why_no_core())
def test_engines_agree_to_a_hundredth_of_a_millimetre() -> None:
    torch_estimator = HandEstimator.load(engine="torch")
    native = HandEstimator.load(engine="native")
    assert HandEstimator.load().info()["engine"] == "native"
    for item in synthetic_frames(4, 3):
        assert item.depth is not None
        assert item.camera is not None
        one, other = (e(item.depth, item.camera) for e in (torch_estimator, native))
        assert one.found
        np.testing.assert_allclose(one.joints_mm, other.joints_mm, atol=0.01)


def test_the_weight_file_is_small() -> None:
    import dgpose

    path = Path(dgpose.__file__).parent / "weights" / "hand_accurate.safetensors"
    assert path.stat().st_size < 2e6
