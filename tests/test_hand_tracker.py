"""HandTracker: it follows, notices a loss, finds again, and survives bad frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dgpose.data.cameras import CAMERAS, project
from dgpose.data.depth_sources import SourceFrame, synthetic_frames
from dgpose.data.nyu import CENTER_JOINT
from dgpose.inference import HandEstimator, HandPose, HandTracker, OneEuroConfig
from dgpose.skeletons import NYU_SCORED14

NYU = CAMERAS["nyu"]
BLANK = np.zeros((480, 640), np.uint16)
HZ = 30.0


def hand_at(x: float, confidence: float = 0.9) -> HandPose:
    """A found hand whose joints all lie at (x, 20, 700) mm."""
    joints = np.tile(np.array([x, 20, 700], np.float32), (36, 1))
    timings = {"center": 1.0, "crop+network": 2.0, "check": 3.0, "total": 6.0}
    pixels = project(joints, NYU)[:, :2]
    return HandPose(joints, pixels, (320.0, 240.0, 700.0), True, confidence, "", timings)


def no_hand() -> HandPose:
    nothing = np.full((36, 3), np.nan, np.float32)
    return replace(
        hand_at(0), joints_mm=nothing, joints_px=nothing[:, :2], found=False, reason="no hand"
    )


class Script:
    """An estimator that gives prepared answers, and remembers what it was asked."""

    def __init__(self, *answers: HandPose | Exception) -> None:
        self.answers = list(answers)
        self.centers: list[Sequence[float] | None] = []

    def __call__(
        self,
        depth: Any,
        camera: Any,
        center: Sequence[float] | None = None,
        *,
        unit: str = "mm",
        look_again: bool | None = None,
    ) -> HandPose:
        assert look_again is (None if center is None else True)
        self.centers.append(center)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def scripted(*answers: HandPose | Exception, **options: Any) -> tuple[HandTracker, Script]:
    script = Script(*answers)
    return HandTracker(script, **options), script  # type: ignore[arg-type]


def palm(x: float) -> Any:
    return pytest.approx(project(np.array([x, 20.0, 700.0]), NYU).tolist(), rel=1e-6)


def test_each_frame_is_searched_where_the_last_had_the_palm() -> None:
    tracker, script = scripted(hand_at(0), hand_at(30), hand_at(60))
    assert not tracker.tracking
    for _ in range(3):
        assert tracker(BLANK, NYU).found
        assert tracker.tracking
    assert script.centers == [None, palm(0), palm(30)]


def test_a_loss_is_searched_at_once_and_found_again() -> None:
    tracker, script = scripted(hand_at(0), no_hand(), hand_at(200), hand_at(210))
    tracker(BLANK, NYU)
    pose = tracker(BLANK, NYU)
    assert pose.found
    assert pose.joints_mm[0, 0] == 200
    assert pose.timings["total"] == 12  # both looks
    tracker(BLANK, NYU)
    assert script.centers == [None, palm(0), None, palm(200)]


def test_a_hand_that_is_gone_is_searched_until_it_is_back() -> None:
    tracker, script = scripted(hand_at(0), no_hand(), no_hand(), no_hand(), hand_at(5), hand_at(6))
    tracker(BLANK, NYU)
    for _ in range(2):
        pose = tracker(BLANK, NYU)
        assert not pose.found
        assert pose.reason == "no hand"
        assert not tracker.tracking
    assert tracker(BLANK, NYU).found
    assert tracker(BLANK, NYU).found
    assert script.centers == [None, palm(0), None, None, None, palm(5)]


def test_what_hardly_is_a_hand_is_given_up_for_one() -> None:
    dim, good = hand_at(0, 0.5), hand_at(300, 0.95)
    tracker, script = scripted(*[dim] * 31, good, hand_at(301))
    for _ in range(30):
        assert tracker(BLANK, NYU).joints_mm[0, 0] == 0
    assert None not in script.centers[1:]
    assert tracker(BLANK, NYU).joints_mm[0, 0] == 300
    tracker(BLANK, NYU)
    assert script.centers[-2:] == [None, palm(300)]


def test_another_hand_does_not_take_over() -> None:
    tracker, script = scripted(*[hand_at(0, 0.9)] * 31, hand_at(300, 0.99), hand_at(0, 0.9))
    for _ in range(32):
        assert tracker(BLANK, NYU).joints_mm[0, 0] == 0
    assert script.centers.count(None) == 2
    assert script.centers[-1] == palm(0)


def test_a_refused_frame_changes_nothing() -> None:
    bad = TypeError("depth must be of dtype uint16")
    tracker, script = scripted(hand_at(0), bad, hand_at(1))
    tracker(BLANK, NYU)
    with pytest.raises(TypeError, match="uint16"):
        tracker(BLANK, NYU)
    assert tracker.tracking
    tracker(BLANK, NYU)
    assert script.centers == [None, palm(0), palm(0)]


def test_another_size_is_refused_and_the_stream_goes_on() -> None:
    tracker, script = scripted(hand_at(0), hand_at(1), hand_at(2), hand_at(3))
    tracker(BLANK, NYU)
    with pytest.raises(ValueError, match=r"shape \[480, 640\] as the frames before, got \[240, 32"):
        tracker(BLANK[::2, ::2], NYU)
    tracker(BLANK, NYU)
    assert script.centers == [None, palm(0)]
    tracker(BLANK[::2, ::2], CAMERAS["icvl"])  # another camera may have another size
    tracker.reset()
    tracker(BLANK[::4, ::4], CAMERAS["icvl"])
    assert script.centers[-1] is None


def test_smoothing_is_off_unless_asked_for() -> None:
    tracker, _ = scripted(hand_at(0), hand_at(10))
    tracker(BLANK, NYU, 0.0)
    assert tracker.smoothing is None
    assert tracker(BLANK, NYU, 1 / HZ).joints_mm[0, 0] == 10


def test_smoothed_joints_and_their_pixels_agree() -> None:
    tracker, _ = scripted(hand_at(0), hand_at(10), smoothing=OneEuroConfig())
    tracker(BLANK, NYU, 0.0)
    pose = tracker(BLANK, NYU, 1 / HZ)
    assert 1 < pose.joints_mm[0, 0] < 9
    np.testing.assert_allclose(pose.joints_px, project(pose.joints_mm, NYU)[:, :2], atol=1e-3)
    assert pose.joints_mm.dtype == pose.joints_px.dtype == np.float32


@pytest.mark.parametrize("break_", ["loss", "reset", "time", "camera"])
def test_smoothing_does_not_reach_across_a_break(break_: str) -> None:
    answers = [hand_at(0), no_hand(), no_hand(), hand_at(10)]
    if break_ != "loss":
        del answers[1:3]
    tracker, _ = scripted(*answers, smoothing=OneEuroConfig())
    tracker(BLANK, NYU, 5.0)
    if break_ == "loss":
        assert not tracker(BLANK, NYU, 5.1).found
    elif break_ == "reset":
        tracker.reset()
    elif break_ == "camera":
        tracker.smoothing = OneEuroConfig()
    assert tracker(BLANK, NYU, 4.0 if break_ == "time" else 5.2).joints_mm[0, 0] == 10


# ---- with the shipped model, on rendered frames ----


@pytest.fixture(scope="module")
def estimator() -> HandEstimator:
    return HandEstimator.load()


@pytest.fixture(scope="module")
def frames() -> list[SourceFrame]:
    return list(synthetic_frames(3, 40))


def error_mm(pose: HandPose, frame: SourceFrame) -> float:
    assert frame.truth_mm is not None
    scored = list(NYU_SCORED14)
    return float(np.linalg.norm(pose.joints_mm[scored] - frame.truth_mm[scored], axis=1).mean())


def test_a_rendered_hand_is_followed(estimator: HandEstimator, frames: list[SourceFrame]) -> None:
    tracker = HandTracker(estimator)
    errors = []
    for frame in frames:
        pose = tracker(frame.depth, frame.camera)  # type: ignore[arg-type]
        assert pose.found, pose.reason
        errors.append(error_mm(pose, frame))
    assert np.mean(errors) < 15


def test_a_hand_that_jumps_is_found_in_the_same_frame(
    estimator: HandEstimator, frames: list[SourceFrame]
) -> None:
    tracker = HandTracker(estimator)
    tracker(frames[0].depth, NYU)  # type: ignore[arg-type]
    assert frames[0].depth is not None
    beside = np.full_like(frames[0].depth, 1500)
    beside[:, :400] = frames[0].depth[:, 240:]  # 240 pixels to the left
    pose = tracker(beside, NYU)
    assert pose.found, pose.reason
    assert frames[0].truth_mm is not None
    u = project(frames[0].truth_mm, NYU)[:, 0] - 240
    assert np.abs(pose.joints_px[:, 0] - u).mean() < 15


def test_bad_frames_in_the_middle(estimator: HandEstimator, frames: list[SourceFrame]) -> None:
    tracker = HandTracker(estimator)
    good = frames[0].depth
    assert good is not None
    assert tracker(good, NYU).found
    refused: list[tuple[Any, type[Exception]]] = [
        (np.zeros((0, 640), np.uint16), ValueError),
        (np.zeros((480, 640, 3), np.uint16), ValueError),
        (good[::2, ::2], ValueError),
        (good.astype(np.uint8), TypeError),
        (good.astype(np.int64), TypeError),
        (None, TypeError),
        ([[700] * 640] * 480, TypeError),
    ]
    for depth, kind in refused:
        with pytest.raises(kind, match="depth must"):
            tracker(depth, NYU)
        assert tracker.tracking
    for value in (np.nan, np.inf):
        pose = tracker(np.full((480, 640), value, np.float32), NYU)
        assert not pose.found
        assert pose.reason == "the image holds no depth"
        assert tracker(good.astype(np.float32), NYU).found
    assert tracker(torch.from_numpy(good), NYU).found


def test_something_nearer_does_not_draw_it_away(
    estimator: HandEstimator, frames: list[SourceFrame]
) -> None:
    tracker = HandTracker(estimator)
    first, second = frames[0].depth, frames[1].depth
    assert first is not None
    assert second is not None
    tracker(first, NYU)
    blocked = second.copy()
    blocked[40:160, 20:140] = 400  # a box before everything, where the search would look
    pose = tracker(blocked, NYU)
    assert pose.found, pose.reason
    assert error_mm(pose, frames[1]) < 25
    alone = estimator(blocked, NYU)
    assert not alone.found or error_mm(alone, frames[1]) > 100
    assert pose.center is not None
    u, v, _ = project(pose.joints_mm[CENTER_JOINT].astype(float), NYU).tolist()
    assert abs(pose.center[0] - u) < 60
    assert abs(pose.center[1] - v) < 60
