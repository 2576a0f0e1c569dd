"""Hands in crops of any kind: what the network sees of them, and where its joints come out."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hand_oracle import CUBE_MM, crop_coordinates, oracle, palm_center
from torch import Tensor

import dgpose
from dgpose.data.cameras import CAMERAS, project
from dgpose.data.nyu import load_real_frames
from dgpose.data.synthetic_hands import HandFrame, SyntheticHands
from dgpose.inference import HandEstimator
from dgpose.inference.hand_crop import crop_view
from dgpose.skeletons import MEDIAPIPE21, NYU_SCORED14, nyu36_to_21
from dgpose_ext import depth_crop

NYU = CAMERAS["nyu"]
HALF = CUBE_MM / 2


@pytest.fixture(scope="module")
def frame() -> HandFrame:
    return SyntheticHands(5, poses="kinematic").frame(0)


@pytest.fixture(scope="module")
def crop(frame: HandFrame) -> Tensor:
    """[128, 128] around the palm, -1..1."""
    return cut(frame)


def cut(frame: HandFrame, size: int = 128) -> Tensor:
    center = torch.tensor([palm_center(frame)], dtype=torch.float64)
    image = torch.from_numpy(frame.depth)[None]
    return depth_crop(image, center, NYU, CUBE_MM, size)[0, 0]


def what_it_sees(crop: Any, hand: str = "right", **options: Any) -> Tensor:
    """The network's input [128, 128]."""
    seen: list[Tensor] = []

    def network(given: Tensor) -> Tensor:
        seen.append(given)
        return torch.zeros(1, 36, 3)

    HandEstimator(network, hand=hand, cube_mm=CUBE_MM, description={}).from_crop(crop, **options)
    assert len(seen) == 1
    return seen[0][0, 0]


# ---- what the network sees ----


def test_a_crop_of_the_networks_size_stays_as_it_is(crop: Tensor) -> None:
    torch.testing.assert_close(what_it_sees(crop), crop, atol=1e-6, rtol=0)
    torch.testing.assert_close(what_it_sees(crop.numpy()), crop, atol=1e-6, rtol=0)
    flipped = what_it_sees(crop, "left")
    torch.testing.assert_close(flipped, crop.flip(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [64, 96, 200, 512])
def test_other_sizes_are_resampled_to_nearest(frame: HandFrame, size: int) -> None:
    given = cut(frame, size)
    places = ((torch.arange(128) + 0.5) * size / 128).floor().long()
    want = given[places][:, places]
    torch.testing.assert_close(what_it_sees(given), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tall", [True, False])
def test_the_longer_side_shows_the_cube(crop: Tensor, tall: bool) -> None:
    given, want = crop[:, 32:96], torch.ones(128, 128)
    want[:, 32:96] = given
    if not tall:
        given, want = given.T, want.T
    torch.testing.assert_close(what_it_sees(given), want, atol=1e-6, rtol=0)


def test_a_crop_may_show_another_cube_than_the_network_sees(frame: HandFrame) -> None:
    center = torch.tensor([palm_center(frame)], dtype=torch.float64)
    image = torch.from_numpy(frame.depth)[None]
    wide = depth_crop(image, center, NYU, 2 * CUBE_MM, 256)[0, 0]
    seen = what_it_sees(wide, cube_mm=2 * CUBE_MM)
    torch.testing.assert_close(seen, cut(frame), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("same", "options"),
    [
        (lambda mm: mm, {}),
        (lambda mm: mm.astype(np.float32), {}),
        (lambda mm: mm.astype(np.float64), {}),
        (lambda mm: mm.astype(np.float32) / 1000, {"unit": "m"}),
        (lambda mm: np.where(mm == 0, np.nan, mm).astype(np.float32), {}),
        (lambda mm: np.where(mm == 0, 5, mm).astype(np.uint16), {"background": 5}),
        (lambda mm: torch.from_numpy(mm), {}),
        (lambda mm: torch.from_numpy(mm.astype(np.float32)).requires_grad_(), {}),
    ],
)
def test_a_box_of_a_frame_is_seen_as_in_the_frame(
    frame: HandFrame, same: Callable[[Any], Any], options: dict[str, Any]
) -> None:
    u, v, mm = palm_center(frame)
    column, row = round(u), round(v)
    box = frame.depth[row - 160 : row + 161, column - 160 : column + 161]
    center = torch.tensor([(column, row, mm)], dtype=torch.float64)
    want = depth_crop(torch.from_numpy(frame.depth)[None], center, NYU, CUBE_MM)[0, 0]
    before = np.array(box)
    given = same(box)
    seen = what_it_sees(given, center_mm=mm, focal_px=NYU[:2], **options)
    torch.testing.assert_close(seen, want, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(box, before)


def test_the_depth_of_the_centre_is_estimated(frame: HandFrame) -> None:
    u, v, mm = palm_center(frame)
    box = frame.depth[round(v) - 90 : round(v) + 90, round(u) - 90 : round(u) + 90]
    view = crop_view(box, CUBE_MM, focal_px=588.0)
    assert abs(view.center[2] - mm) < 40
    assert view.look_again
    assert view.center[:2] == (89.5, 89.5)
    assert not crop_view(box, CUBE_MM, center_mm=mm).look_again


# ---- where the joints come out ----


@pytest.mark.parametrize("hand", ["right", "left"])
def test_joints_in_pixels_and_millimetres(hand: str) -> None:
    scene = SyntheticHands(5, poses="kinematic", hand=hand).frame(0)  # type: ignore[arg-type]
    center = palm_center(scene)
    coords = crop_coordinates(scene.joints_mm, center, NYU)
    estimator = oracle(coords, hand)
    pose = estimator.from_crop(cut(scene, 256), center_mm=center[2])
    assert pose.found, pose.reason
    assert pose.center_mm == center[2]
    np.testing.assert_allclose(pose.joints_px, 127.5 + 128 * coords[:, :2], atol=0.01)
    # In the crop's own perspective: as if the camera looked at its middle.
    depth = center[2] + HALF * coords[:, 2]
    half = HALF * depth / center[2]
    want = np.stack([coords[:, 0] * half, -coords[:, 1] * half, HALF * coords[:, 2]], axis=1)
    np.testing.assert_allclose(pose.joints_mm, want, atol=0.02)

    u, v, mm = center
    box = scene.depth[round(v) - 160 : round(v) + 161, round(u) - 160 : round(u) + 161]
    boxed = estimator.from_crop(box, center_mm=mm, focal_px=NYU[:2])
    assert boxed.found
    offset = np.array([round(u) - 160, round(v) - 160])
    truth = project(scene.joints_mm, NYU)[:, :2]
    np.testing.assert_allclose(boxed.joints_px + offset, truth, atol=0.51)  # the middle is whole
    np.testing.assert_allclose(boxed.joints_mm, want, atol=0.5)


def test_joints_of_another_order(frame: HandFrame) -> None:
    center = palm_center(frame)
    estimator = oracle(crop_coordinates(frame.joints_mm, center, NYU))
    own = estimator.from_crop(cut(frame), center_mm=center[2])
    pose = estimator.from_crop(cut(frame), center_mm=center[2], skeleton=MEDIAPIPE21)
    assert (pose.skeleton, own.skeleton.name) == (MEDIAPIPE21, "nyu36")
    np.testing.assert_allclose(pose.joints_mm, nyu36_to_21(own.joints_mm), atol=1e-3)
    focal = center[2] * 128 / CUBE_MM
    depth = pose.joints_mm[:, 2] + center[2]
    u = 63.5 + focal * pose.joints_mm[:, 0] / depth
    v = 63.5 - focal * pose.joints_mm[:, 1] / depth
    np.testing.assert_allclose(pose.joints_px, np.stack([u, v], 1), atol=0.01)


def test_a_left_hand_is_the_mirrored_right_one() -> None:
    scene = SyntheticHands(5, poses="kinematic", hand="left").frame(0)
    left = dgpose.hand_from_crop(cut(scene), model="fast", hand="left", center_mm=700)
    right = dgpose.hand_from_crop(cut(scene).flip(1), model="fast", center_mm=700)
    assert left.found
    assert right.found
    mirrored = right.joints_mm * np.array([-1, 1, 1], np.float32)
    np.testing.assert_allclose(left.joints_mm, mirrored, atol=0.05)
    np.testing.assert_allclose(left.joints_px[:, 0], 127 - right.joints_px[:, 0], atol=0.05)
    truth = scene.joints_mm - scene.joints_mm[34]
    wrong = dgpose.hand_from_crop(cut(scene), model="fast", center_mm=700)
    errors = [
        np.linalg.norm(pose.joints_mm - pose.joints_mm[34] - truth, axis=1).mean()
        for pose in (left, wrong)
    ]
    assert errors[0] < 25
    assert not wrong.found or errors[1] > 1.3 * errors[0]


def test_real_crops(data_dir: Path) -> None:
    """The set's own 8-bit crops, given as any user would; the model is never chosen by them."""
    scored = list(NYU_SCORED14)
    for real in load_real_frames(data_dir):
        if real.row == 0:
            continue
        path = data_dir / f"hand/nyu/depth_real/crop300_test_index_{real.row}.png"
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        pose = dgpose.hand_from_crop(grey / 127.5 - 1, cube_mm=300, center_mm=real.given_center[2])
        assert pose.found
        relative = real.joints_mm - real.joints_mm[34]
        assert np.linalg.norm(pose.joints_mm - relative, axis=1)[scored].mean() < 20
        error_px = np.linalg.norm(pose.joints_px - real.uvd[:, :2], axis=1)[scored].mean()
        assert error_px < 8


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parent.parent / "examples" / "hand_from_crop.py"
    runpy.run_path(str(example), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:21]] == list(MEDIAPIPE21.joints)
    assert lines[21].startswith("little finger's tip: ")


@pytest.mark.parametrize("nothing", [
    np.zeros((40, 40), np.uint16), np.ones((40, 40), np.float32), np.zeros((40, 40), np.float32),
    np.full((40, 40), np.nan, np.float32),
])  # fmt: skip
def test_a_crop_without_depth_has_no_hand(nothing: Any, frame: HandFrame) -> None:
    pose = oracle(np.zeros((36, 3))).from_crop(nothing)
    assert not pose.found
    assert pose.reason
    assert np.isnan(pose.joints_mm).all()
    assert np.isnan(pose.joints_px).all()


# ---- what is refused ----

GOOD = np.full((30, 20), 700, np.uint16)


@pytest.mark.parametrize(
    ("given", "options", "kind", "words"),
    [
        (GOOD.astype(np.uint8), {}, TypeError, r"got uint8 \(8-bit grey .*crop / 127.5 - 1\)"),
        (GOOD.astype(np.int32), {}, TypeError, "uint16 .*or floating point, got int32"),
        (GOOD.tolist(), {}, TypeError, "NumPy array or a torch tensor, got list"),
        (GOOD[None], {}, ValueError, r"crop must have shape \[H, W\], .* got \[1, 30, 20\]"),
        (GOOD[:0], {}, ValueError, r"got \[0, 20\]"),
        (GOOD, {"unit": "m"}, ValueError, "uint16 crop must be in millimetres"),
        (GOOD, {"unit": "cm"}, ValueError, "unit must be one of mm, m, normalised, got 'cm'"),
        (GOOD / 1000, {}, ValueError, r"0\.\.1 \(0\.7\.\.0\.7\): pass unit='m' or unit='norm"),
        (GOOD / 101.0, {}, ValueError, "pass unit='m'"),
        (GOOD - 500.0, {}, ValueError, "8-bit grey that spans the cube, or unit='mm'"),
        (GOOD - 702.0, {}, ValueError, r"depths or values in -1\.\.1, got -2\.\.-2"),
        (GOOD / 100.0, {"unit": "normalised"}, ValueError, r"lie in -1\.\.1, got 7\.\.7"),
        (GOOD, {"skeleton": "mediapipe21"}, TypeError, "Skeleton, got 'mediapipe21'"),
        (GOOD, {"cube_mm": 0}, ValueError, "cube_mm must be positive, got 0"),
        (GOOD, {"center_mm": math.nan}, ValueError, "center_mm must be positive, got nan"),
        (GOOD, {"focal_px": -3}, ValueError, "focal_px must be one positive number"),
        (GOOD, {"focal_px": (1, 2, 3)}, ValueError, "focal_px must be one positive number"),
        (GOOD / 1000 - 1, {"focal_px": 500}, ValueError, "center_mm must be given where focal_px"),
    ],
)
def test_what_is_refused(
    given: Any, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        oracle(np.zeros((36, 3))).from_crop(given, **options)
