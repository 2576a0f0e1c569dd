"""HandEstimator: geometry, checked input, and no pose where there is no hand."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_oracle import CUBE_MM, crop_coordinates, oracle, palm_center
from torch import Tensor

import dgpose
from dgpose.data.cameras import CAMERAS, project
from dgpose.data.depth_io import open_source
from dgpose.data.nyu import CENTER_JOINT, load_real_frames
from dgpose.data.synthetic_hands import HandFrame, SyntheticHands
from dgpose.inference import HandEstimator
from dgpose.metrics.hand_residual import rendered_residual
from dgpose.nn.hand_regressor import HandRegressor, HandRegressorConfig, save_weights
from dgpose_ext import _loader, find_hand_center

NYU = CAMERAS["nyu"]
ENGINES = ["torch", pytest.param("native", marks=pytest.mark.skipif(
    _loader.core is None, reason="the compiled core is missing"))]  # fmt: skip


@pytest.fixture(scope="module")
def frame() -> HandFrame:
    """A rendered hand with its palm in view."""
    return SyntheticHands(5, poses="kinematic").frame(0)


@pytest.fixture(scope="module")
def left_frame() -> HandFrame:
    return SyntheticHands(5, poses="kinematic", hand="left").frame(0)


@pytest.fixture(scope="module")
def random_model() -> HandRegressor:
    torch.manual_seed(0)
    return HandRegressor()


@pytest.fixture(scope="module")
def perfect(frame: HandFrame) -> HandEstimator:
    return oracle(crop_coordinates(frame.joints_mm, palm_center(frame), NYU))


# ---- geometry ----


@pytest.mark.parametrize("hand", ["right", "left"])
def test_joints_come_back_in_mm_and_pixels(
    hand: str, frame: HandFrame, left_frame: HandFrame
) -> None:
    scene = frame if hand == "right" else left_frame
    center = palm_center(scene)
    estimator = oracle(crop_coordinates(scene.joints_mm, center, NYU), hand)
    pose = estimator(scene.depth, NYU, center)
    assert pose.found, pose.reason
    np.testing.assert_allclose(pose.joints_mm, scene.joints_mm, atol=0.01)
    np.testing.assert_allclose(pose.joints_px, project(scene.joints_mm, NYU)[:, :2], atol=0.01)
    assert pose.center == center
    assert pose.joints_mm.dtype == pose.joints_px.dtype == np.float32
    assert 0 < pose.confidence <= 1
    assert pose.reason == ""


def test_left_hand_is_seen_as_a_right_one(left_frame: HandFrame) -> None:
    seen = []

    def network(crop: torch.Tensor) -> torch.Tensor:
        seen.append(crop)
        return torch.zeros(1, 36, 3)

    center = palm_center(left_frame)
    for hand in ("left", "right"):
        HandEstimator(network, hand=hand, cube_mm=CUBE_MM, description={})(
            left_frame.depth, NYU, center
        )
    assert torch.equal(seen[0], seen[1].flip(-1))


@pytest.mark.parametrize(("look_again", "off_mm", "looks"), [
    (None, 30, 1), (False, 30, 1), (True, 30, 2), (True, 5, 1),
])  # fmt: skip
def test_a_given_center_may_be_looked_at_again(
    look_again: bool | None, off_mm: float, looks: int, frame: HandFrame
) -> None:
    """The network sees the palm `off_mm` to the right of the middle, whatever the crop."""
    seen = []

    def network(crop: torch.Tensor) -> torch.Tensor:
        seen.append(crop)
        joints = torch.zeros(1, 36, 3)
        joints[0, CENTER_JOINT, 0] = off_mm / (CUBE_MM / 2)
        return joints

    estimator = HandEstimator(network, hand="right", cube_mm=CUBE_MM, description={})
    u, v, mm = palm_center(frame)
    pose = estimator(frame.depth, NYU, (u, v, mm), look_again=look_again)
    assert len(seen) == looks
    assert pose.center is not None
    moved_mm = (pose.center[0] - u) * mm / NYU.fx
    assert moved_mm == pytest.approx(off_mm if looks == 2 else 0, abs=0.01)


def test_center_is_found_without_help(frame: HandFrame, perfect: HandEstimator) -> None:
    pose = perfect(frame.depth, NYU)
    assert pose.center is not None
    palm = palm_center(frame)
    assert math.dist(pose.center[:2], palm[:2]) < 0.5 * CUBE_MM * NYU.fx / palm[2]
    assert set(pose.timings) == {"center", "crop+network", "check", "total"}
    parts = [pose.timings[name] for name in ("center", "crop+network", "check")]
    assert all(part > 0 for part in parts)
    assert pose.timings["total"] == pytest.approx(sum(parts))


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_run_the_same_network(
    engine: Any, random_model: HandRegressor, frame: HandFrame
) -> None:
    estimator = HandEstimator.from_module(random_model, engine=engine)
    crop = torch.rand(1, 1, 128, 128) * 2 - 1
    with torch.no_grad():
        expected = random_model.eval()(crop)
    torch.testing.assert_close(estimator.regress(crop), expected, atol=1e-4, rtol=0)
    info = estimator.info()
    assert (info["engine"], info["precision"], info["hand"]) == (engine, "float32", "right")
    assert info["device"] == "cpu"
    assert info["parameters"] == random_model.parameter_count()
    assert estimator(frame.depth, NYU).center is not None


@pytest.mark.parametrize(
    "same",
    [
        lambda d: d.astype(np.float32),
        lambda d: d.astype(">u2"),
        lambda d: np.asfortranarray(d),
        lambda d: np.repeat(d, 2, axis=1)[:, ::2],
        lambda d: torch.from_numpy(d),
        lambda d: torch.from_numpy(d.astype(np.float32)).requires_grad_(),
        lambda d: np.where(d == 0, np.nan, d).astype(np.float32),
        lambda d: np.where(d == 0, np.inf, d).astype(np.float32),
        lambda d: np.where(d == 0, -5, d).astype(np.float32),
    ],
)
def test_every_way_to_hand_over_the_same_depth(
    same: Callable[[Any], Any], frame: HandFrame, perfect: HandEstimator
) -> None:
    expected = perfect(frame.depth, NYU, palm_center(frame))
    pose = perfect(same(frame.depth), NYU, palm_center(frame))
    np.testing.assert_array_equal(pose.joints_mm, expected.joints_mm)
    assert pose.confidence == expected.confidence


def test_depth_in_metres(frame: HandFrame, perfect: HandEstimator) -> None:
    metres = frame.depth.astype(np.float32) / 1000
    pose = perfect(metres, NYU, palm_center(frame), unit="m")
    assert pose.found, pose.reason
    np.testing.assert_allclose(pose.joints_mm, frame.joints_mm, atol=0.01)


def test_the_image_is_left_as_it_is(frame: HandFrame, perfect: HandEstimator) -> None:
    metres = frame.depth.astype(np.float32) / 1000
    before = metres.copy()
    perfect(metres, NYU, unit="m")
    np.testing.assert_array_equal(metres, before)
    frozen = frame.depth.copy()
    frozen.flags.writeable = False
    assert perfect(frozen, NYU, palm_center(frame)).found


def test_camera_names_and_numbers_mean_the_same(frame: HandFrame, perfect: HandEstimator) -> None:
    center = palm_center(frame)
    named = perfect(frame.depth, "nyu", center)
    numbers = perfect(frame.depth, (588.03, 587.07, 320, 240), list(center))
    np.testing.assert_array_equal(named.joints_mm, numbers.joints_mm)


# ---- input that is refused ----

GOOD = np.full((48, 64), 700, np.uint16)


@pytest.mark.parametrize(
    ("depth", "kind", "words"),
    [
        (GOOD.astype(np.float64), TypeError, "float32, got float64"),
        (GOOD.astype(np.uint8), TypeError, "8-bit"),
        (GOOD.astype(np.int32), TypeError, "got int32"),
        (GOOD > 0, TypeError, "got bool"),
        (GOOD.astype(np.complex64), TypeError, "got complex64"),
        (GOOD.astype(str), TypeError, "got <U"),
        (torch.zeros(4, 4, dtype=torch.float16), TypeError, "got float16"),
        (GOOD.tolist(), TypeError, "got list"),
        (None, TypeError, "got NoneType"),
        (GOOD[None], ValueError, r"\[H, W\].* got \[1, 48, 64\]"),
        (GOOD[:, :, None].repeat(3, 2), ValueError, r"got \[48, 64, 3\]"),
        (GOOD[:0], ValueError, r"got \[0, 64\]"),
        (np.uint16(3), TypeError, "got uint16"),
    ],
)
def test_wrong_depth(perfect: HandEstimator, depth: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        perfect(depth, NYU)


@pytest.mark.parametrize(
    "camera",
    [
        (0, 0, 0, 0),
        (588, 0, 320, 240),
        (-588, 588, 320, 240),
        (math.nan, 588, 320, 240),
        (588, 588, math.inf, 240),
        (588, 588, 320),
        "kinect9",
        "588,588",
    ],
)
def test_wrong_camera(perfect: HandEstimator, camera: Any) -> None:
    with pytest.raises(ValueError, match="camera must"):
        perfect(GOOD, camera)


@pytest.mark.parametrize(
    "center",
    [(320, 240), (320, 240, 0), (320, 240, -700), (math.nan, 240, 700), (1, 2, 3, 4), "abc", 5],
)
def test_wrong_center(perfect: HandEstimator, center: Any) -> None:
    with pytest.raises(ValueError, match="center must be"):
        perfect(GOOD, NYU, center)


def test_wrong_unit(perfect: HandEstimator) -> None:
    with pytest.raises(ValueError, match="unit must be one of mm, m, got 'cm'"):
        perfect(GOOD, NYU, unit="cm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="uint16 depth must be in millimetres"):
        perfect(GOOD, NYU, unit="m")
    metres = GOOD.astype(np.float32) / 1000
    with pytest.raises(ValueError, match="pass unit='m'"):
        perfect(metres, NYU)
    with pytest.raises(ValueError, match="pass unit='mm'"):
        perfect(GOOD.astype(np.float32), NYU, unit="m")
    sparse = np.zeros((480, 640), np.float32)
    sparse[101:103, 201:230] = 0.7  # off the coarse grid that is looked at first
    with pytest.raises(ValueError, match="pass unit='m'"):
        perfect(sparse, NYU)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"model": "no_such_model"}, ValueError, "shipped model"),
        ({"model": "no/such/file.safetensors"}, FileNotFoundError, "no such file"),
        ({"hand": "both"}, ValueError, "hand must be one of right, left"),
        ({"engine": "gpu"}, ValueError, "engine must be one of auto, native, torch"),
        ({"precision": "int4"}, ValueError, "precision must be one of float32, bfloat16, int8"),
        (
            {"precision": "int8", "engine": "torch"},
            ValueError,
            "must be float32 for engine 'torch'",
        ),
        ({"cube_mm": 0.0}, ValueError, "cube_mm must be positive"),
        ({"cube_mm": math.nan}, ValueError, "cube_mm must be positive"),
    ],
)
def test_load_refuses(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        HandEstimator.load(**arguments)


def test_load_reads_a_weight_file(tmp_path: Path, random_model: HandRegressor) -> None:
    path = tmp_path / "mine.safetensors"
    save_weights(random_model, path)
    assert HandEstimator.load(path, engine="torch").info()["model"] == str(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        HandEstimator.load(path)


def test_other_joints_are_refused() -> None:
    with pytest.raises(ValueError, match="36 joints of nyu36, got 21"):
        HandEstimator.from_module(HandRegressor(HandRegressorConfig(joints=21)))


# ---- no hand, no pose ----


def _assert_not_found(pose: dgpose.HandPose, words: str = "") -> None:
    assert not pose.found
    assert words in pose.reason
    assert pose.reason
    assert np.isnan(pose.joints_mm).all()
    assert np.isnan(pose.joints_px).all()


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        (np.zeros((480, 640), np.uint16), "no depth"),
        (np.full((480, 640), np.nan, np.float32), "no depth"),
        (np.full((480, 640), np.inf, np.float32), "no depth"),
        (np.full((480, 640), -1, np.float32), "no depth"),
        (np.full((480, 640), 2500, np.uint16), "no object"),
        (np.zeros((1, 1), np.uint16), "no depth"),
        (np.full((480, 640), 700, np.uint16), ""),
    ],
)
def test_images_without_a_hand(perfect: HandEstimator, depth: Any, words: str) -> None:
    _assert_not_found(perfect(depth, NYU), words)


def test_nothing_around_the_given_center(perfect: HandEstimator, frame: HandFrame) -> None:
    u, v, mm = palm_center(frame)
    for center in ((u, v, mm + 5000), (u + 5000, v, mm), (-1e30, v, mm), (u, v, 1e-20)):
        _assert_not_found(perfect(frame.depth, NYU, center), "next to nothing in the cube")


def test_a_pose_beside_the_hand_is_refused(frame: HandFrame) -> None:
    center = palm_center(frame)
    coords = crop_coordinates(frame.joints_mm, center, NYU)
    for shift in ([0.6, 0, 0], [0, -0.6, 0], [0, 0, -0.4]):
        _assert_not_found(oracle(coords + np.float32(shift))(frame.depth, NYU, center))


def test_a_pose_of_wrong_proportions_is_refused(frame: HandFrame) -> None:
    center = palm_center(frame)
    coords = crop_coordinates(frame.joints_mm, center, NYU)
    squashed = coords.copy()
    squashed[:30] = coords[:30] * 0.1 + coords[34] * 0.9
    for wrong in (coords * np.float32(0.2), squashed):
        _assert_not_found(oracle(wrong)(frame.depth, NYU, center))


def test_a_smaller_cube_announces_a_smaller_hand(frame: HandFrame) -> None:
    """Everything at half the size and distance looks the same; only the cube says what it is."""
    u, v, mm = palm_center(frame)
    coords = crop_coordinates(frame.joints_mm, (u, v, mm), NYU)
    child = (frame.depth // 2).astype(np.uint16)
    estimators = [
        HandEstimator(oracle(coords).regress, hand="right", cube_mm=cube, description={})
        for cube in (CUBE_MM / 2, CUBE_MM)
    ]
    half = estimators[0](child, NYU, (u, v, mm / 2))
    assert half.found, half.reason
    np.testing.assert_allclose(half.joints_mm, frame.joints_mm / 2, atol=0.01)
    _assert_not_found(estimators[1](child, NYU, (u, v, mm / 2)))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_joints_that_are_no_numbers_are_refused(frame: HandFrame, value: float) -> None:
    coords = np.full((36, 3), value, np.float32)
    with np.errstate(all="ignore"):
        _assert_not_found(oracle(coords)(frame.depth, NYU, palm_center(frame)))


def test_an_untrained_network_gives_no_pose(random_model: HandRegressor) -> None:
    estimator = HandEstimator.from_module(random_model)
    hands = SyntheticHands(6, poses="kinematic")
    for index in range(4):
        scene = hands.frame(index)
        _assert_not_found(estimator(scene.depth, scene.camera))


# ---- the residual ----


def test_rendered_residual_is_small_only_where_the_hand_is(frame: HandFrame) -> None:
    there = rendered_residual(frame.joints_mm, frame.depth, NYU)
    assert there.median_abs_mm < 6
    assert there.inside > 0.8
    beside = rendered_residual(frame.joints_mm + np.float32([60, 0, 0]), frame.depth, NYU)
    assert beside.inside < 0.7 * there.inside
    behind = rendered_residual(frame.joints_mm + np.float32([0, 0, 40]), frame.depth, NYU)
    assert 25 < behind.median_mm < 55


def test_rendered_residual_of_a_left_hand(left_frame: HandFrame) -> None:
    right = rendered_residual(left_frame.joints_mm, left_frame.depth, NYU)
    left = rendered_residual(left_frame.joints_mm, left_frame.depth, NYU, left=True)
    assert left.inside > right.inside
    assert left.median_abs_mm < 6


def test_rendered_residual_without_anything_to_compare(frame: HandFrame) -> None:
    nothing = rendered_residual(frame.joints_mm, np.zeros((480, 640), np.uint16), NYU)
    assert math.isnan(nothing.median_abs_mm)
    assert nothing.inside == 0
    with pytest.raises(ValueError, match=r"joints_mm must be finite \[36, 3\]"):
        rendered_residual(np.full((36, 3), np.nan), frame.depth, NYU)


# ---- the package, real frames ----


def test_importing_dgpose_loads_nothing_heavy() -> None:
    code = "import sys, dgpose; print(sorted({'torch', 'cv2', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dgpose.nothing


def test_real_frames_run(data_dir: Path, random_model: HandRegressor) -> None:
    estimator = HandEstimator.from_module(random_model)
    (msra,) = open_source(data_dir / "hand" / "msra" / "depth_real")
    shot = msra.load()
    assert estimator(shot.depth, shot.camera or "msra").center is not None
    for real in load_real_frames(data_dir):
        assert estimator(real.depth, real.camera, real.given_center).center == real.given_center


def test_from_module_leaves_the_module_alone(random_model: HandRegressor) -> None:
    random_model.train()
    HandEstimator.from_module(random_model, engine="torch")
    assert random_model.training


def test_a_found_centre_moves_to_the_palm(random_model: HandRegressor, frame: HandFrame) -> None:
    calls = 0

    def network(crop: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        joints = torch.zeros(1, 36, 3)
        joints[0, CENTER_JOINT, 0] = 0.2 if calls == 1 else 0.0  # 30 mm to the right, at first
        return joints

    estimator = HandEstimator.from_module(random_model)
    estimator._network = network
    calls = 0
    found = find_hand_center(torch.from_numpy(frame.depth), NYU)
    assert found is not None
    pose = estimator(frame.depth, NYU)
    assert calls == 2
    moved = (found[0] + 0.2 * 150 * NYU.fx / found[2], found[1], found[2])
    assert pose.center == pytest.approx(moved, abs=1e-3)
    # A given centre is taken as it is.
    calls = 0
    assert estimator(frame.depth, NYU, found).center == found
    assert calls == 1
