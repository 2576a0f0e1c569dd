"""CrossingNetsEstimator: its geometry for every joint order, its engines, its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dgpose
from dgpose.data.cameras import CAMERAS, project
from dgpose.data.synthetic_hands import HandFrame, SyntheticHands
from dgpose.inference import CrossingNetsEstimator
from dgpose.models.crossing_nets import CrossingNets, CrossingNetsConfig, save_crossing_nets
from dgpose.skeletons import ICVL16, MEDIAPIPE21, MSRA21, NYU36, Skeleton, nyu36_to_21
from dgpose_ext import depth_crop, why_no_core

NYU = CAMERAS["nyu"]
SMALL = CrossingNetsConfig.strong(image_size=32, channels=4, hidden=10, metric=8)


def small_nets(**changes: Any) -> CrossingNets:
    torch.manual_seed(0)
    nets = CrossingNets(replace(SMALL, **changes))
    with torch.no_grad():
        for norm in nets.modules():
            if isinstance(norm, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                norm.bias.normal_(std=0.3)
                assert norm.running_mean is not None
                norm.running_mean.normal_(std=0.3)
    return nets.eval()


def scene(hand: Any = "right") -> HandFrame:
    """A rendered hand with its palm in view."""
    return SyntheticHands(5, poses="kinematic", hand=hand).frame(0)


def joints_of(frame: HandFrame, skeleton: Skeleton) -> Any:
    if skeleton is NYU36:
        return frame.joints_mm
    if skeleton is MSRA21:
        return nyu36_to_21(frame.joints_mm, MSRA21)
    return frame.joints_mm[[34, *(5 * k + j for k in range(5) for j in (0, 2, 4))]]


def palm_center(frame: HandFrame) -> tuple[float, float, float]:
    u, v, mm = project(frame.joints_mm[34].astype(float), NYU).tolist()
    return u, v, mm


def oracle(
    frame: HandFrame, skeleton: Skeleton, hand: Any = "right", cube_mm: float = 250.0
) -> CrossingNetsEstimator:
    """An estimator that knows the joints of this frame, seen around the palm."""
    relative = (joints_of(frame, skeleton) - frame.joints_mm[34]) * (250.0 / cube_mm) / 50
    answer = torch.from_numpy(np.ascontiguousarray(relative, np.float32))[None]
    if hand == "left":
        answer = answer * torch.tensor([-1.0, 1.0, 1.0])
    nets = small_nets(joints=len(skeleton), origin_joint=0)
    return CrossingNetsEstimator(
        nets, lambda crop: answer.clone(), hand=hand, cube_mm=cube_mm, description={}
    )


# ---- geometry ----


@pytest.mark.parametrize("hand", ["right", "left"])
@pytest.mark.parametrize("skeleton", [NYU36, MSRA21, ICVL16], ids=lambda s: s.name)
def test_joints_come_back_in_mm_and_pixels(skeleton: Skeleton, hand: str) -> None:
    frame = scene(hand)
    for cube_mm in (250.0, 300.0):
        estimator = oracle(frame, skeleton, hand, cube_mm)
        pose = estimator(frame.depth, NYU, palm_center(frame))
        assert pose.found, pose.reason
        assert pose.skeleton == estimator.skeleton == skeleton
        truth = joints_of(frame, skeleton)
        np.testing.assert_allclose(pose.joints_mm, truth, atol=0.01)
        np.testing.assert_allclose(pose.joints_px, project(truth, NYU)[:, :2], atol=0.01)
        assert pose.joints_mm.dtype == pose.joints_px.dtype == np.float32
        assert 0 < pose.confidence <= 1


@pytest.mark.parametrize("skeleton", [NYU36, MSRA21, ICVL16], ids=lambda s: s.name)
def test_a_pose_beside_the_hand_is_refused(skeleton: Skeleton) -> None:
    frame = scene()
    u, v, mm = palm_center(frame)
    estimator = oracle(frame, skeleton)
    for place in ((u + 90, v, mm), (u, v + 90, mm), (u, v, mm - 60)):
        pose = estimator(frame.depth, NYU, place)
        assert not pose.found
        assert pose.reason
        assert np.isnan(pose.joints_mm).all()
        assert pose.joints_mm.shape == (len(skeleton), 3)
    pose = estimator(np.zeros((480, 640), np.uint16), NYU)
    assert (pose.found, pose.reason) == (False, "the image holds no depth")
    empty = estimator(frame.depth, NYU, (u, v, mm + 5000))
    assert "next to nothing" in empty.reason


def test_a_found_centre_moves_to_the_palm() -> None:
    """The networks of three orders say the same palm, 40 mm to the right of the middle."""
    frame = scene()
    centers = []
    for skeleton in (NYU36, MSRA21, ICVL16):
        answer = torch.tensor([40.0, 0, 0]).expand(1, len(skeleton), 3) / 50
        nets = small_nets(joints=len(skeleton), origin_joint=0)
        seen: list[Tensor] = []

        def network(crop: Tensor, answer: Tensor = answer, seen: Any = seen) -> Tensor:
            seen.append(crop)
            return answer

        estimator = CrossingNetsEstimator(
            nets, network, hand="right", cube_mm=250.0, description={}
        )
        pose = estimator(frame.depth, NYU, palm_center(frame), look_again=True)
        assert len(seen) == 2
        assert pose.center is not None
        centers.append(pose.center)
    u, _, mm = palm_center(frame)
    moved_mm = (np.array(centers)[:, 0] - u) * mm / NYU.fx
    np.testing.assert_allclose(moved_mm, 40, atol=0.01)


def test_poses_of_nyu_joints_come_in_other_orders() -> None:
    frame = scene()
    pose = oracle(frame, NYU36)(frame.depth, NYU, palm_center(frame))
    for skeleton in (MSRA21, MEDIAPIPE21):
        other = pose.in_skeleton(skeleton)
        assert (other.skeleton, other.found, other.center) == (skeleton, True, pose.center)
        np.testing.assert_allclose(
            other.joints_mm, nyu36_to_21(frame.joints_mm, skeleton), atol=0.01
        )
        np.testing.assert_allclose(other.joints_px, project(other.joints_mm, NYU)[:, :2], atol=1e-2)
    assert pose.in_skeleton(NYU36) is pose
    with pytest.raises(
        ValueError, match="one of nyu36, msra21, mediapipe21 for this model, got icvl"
    ):
        pose.in_skeleton(ICVL16)
    with pytest.raises(ValueError, match="joints must be one of msra21 for this model, got nyu36"):
        pose.in_skeleton(MSRA21).in_skeleton(NYU36)


@pytest.mark.parametrize("hand", ["right", "left"])
@pytest.mark.parametrize("normalize", ["cube", "nearest_pixel"])
def test_the_networks_see_what_they_were_trained_on(normalize: Any, hand: Any) -> None:
    frame = scene()
    seen: list[Tensor] = []

    def network(crop: Tensor) -> Tensor:
        seen.append(crop)
        return torch.zeros(1, 36, 3)

    nets = small_nets(normalize=normalize)
    estimator = CrossingNetsEstimator(nets, network, hand=hand, cube_mm=250.0, description={})
    estimator(frame.depth, NYU, palm_center(frame))
    place = torch.tensor([palm_center(frame)], dtype=torch.float64)
    image = torch.from_numpy(frame.depth)[None]
    want = depth_crop(image, place, NYU, 250.0, 32, normalize=normalize)
    if hand == "left":
        want = want.flip(-1)
    torch.testing.assert_close(seen[0], want, atol=1e-5, rtol=0)


# ---- crops and latents ----


@pytest.mark.parametrize("hand", ["right", "left"])
def test_crops(hand: str) -> None:
    frame = scene(hand)
    u, v, mm = palm_center(frame)
    place = torch.tensor([(u, v, mm)], dtype=torch.float64)
    crop = depth_crop(torch.from_numpy(frame.depth)[None], place, NYU, 250.0, 128)[0, 0]
    pose = oracle(frame, MSRA21, hand).from_crop(crop, center_mm=mm)
    assert pose.found
    assert pose.skeleton == MSRA21
    truth = joints_of(frame, MSRA21) - frame.joints_mm[34]
    np.testing.assert_allclose(pose.joints_mm, truth, atol=0.01)
    # Pixels as the crop's own camera sees them: it looks at its middle.
    focal = mm * 128 / 250
    want = 63.5 + focal * truth[:, :2] * np.array([1, -1]) / (truth[:, 2:] + mm)
    np.testing.assert_allclose(pose.joints_px, want, atol=0.01)


@pytest.mark.parametrize("hand", ["right", "left"])
def test_latent_is_that_of_the_posterior_head(hand: Any) -> None:
    nets = small_nets()
    estimator = CrossingNetsEstimator.from_module(nets, hand=hand)
    crop = SyntheticHands(3, poses="kinematic", size=32, cube_mm=250.0).batch([0]).crop
    latent = estimator.latent(crop[0, 0])
    seen = crop.flip(-1) if hand == "left" else crop
    with torch.no_grad():
        want = nets.posterior_of(seen).latent[0].numpy()
        joints = nets.joints_of(torch.from_numpy(latent)[None])
        torch.testing.assert_close(joints, estimator.regress(seen), atol=1e-4, rtol=0)
    assert latent.shape == (nets.config.latent,)
    np.testing.assert_allclose(latent, want, atol=1e-4)


# ---- engines and files ----


@pytest.mark.skipif(bool(why_no_core()), reason="the native engine needs the compiled core")
@pytest.mark.parametrize("changes", [{}, {"direct_head": True}, {"image_size": 64, "joints": 21}])
def test_engines_run_the_same_networks(changes: dict[str, Any]) -> None:
    nets = small_nets(origin_joint=0, **changes)
    size = nets.config.image_size
    crops = torch.rand(2, 1, size, size) * 2 - 1
    with torch.no_grad():
        want = nets.estimate(crops)
    for engine in ("native", "torch"):
        estimator = CrossingNetsEstimator.from_module(nets, engine=engine)  # type: ignore[arg-type]
        torch.testing.assert_close(estimator.regress(crops), want, atol=1e-3, rtol=1e-3)
        info = estimator.info()
        assert (info["engine"], info["joints"]) == (engine, f"{estimator.skeleton.name}")
        assert (info["cube_mm"], info["hand"], info["device"]) == (250.0, "right", "cpu")
        assert info["parameters"] == sum(p.numel() for p in nets.parameters())


@pytest.mark.skipif(bool(why_no_core()), reason="lower precisions need the compiled core")
def test_int8_is_calibrated_with_what_the_networks_see() -> None:
    nets = small_nets(normalize="nearest_pixel")
    exact = CrossingNetsEstimator.from_module(nets)
    coarse = CrossingNetsEstimator.from_module(nets, engine="native", precision="int8")
    crops = torch.rand(4, 1, 32, 32) * 2 - 1
    moved = (exact.regress(crops) - coarse.regress(crops)).abs().max()
    assert 0 < moved < 0.3 * exact.regress(crops).abs().max()


def test_poses_in_the_palms_frame_run_in_torch() -> None:
    nets = small_nets(palm_joints=(35, 23, 5))
    estimator = CrossingNetsEstimator.from_module(nets, engine="auto")
    assert estimator.info()["engine"] == "torch"
    crops = torch.rand(1, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(estimator.regress(crops), nets.estimate(crops))
    with pytest.raises(ValueError, match="palm_joints must be None"):
        CrossingNetsEstimator.from_module(nets, engine="native")


def test_load_takes_a_weight_file(tmp_path: Path) -> None:
    nets = small_nets()
    path = tmp_path / "mine.safetensors"
    save_crossing_nets(nets, path, dtype=torch.float32)
    estimator = dgpose.load(path, hand="left", engine="torch", cube_mm=200.0)
    assert isinstance(estimator, CrossingNetsEstimator)
    info = estimator.info()
    assert (info["model"], info["hand"], info["cube_mm"]) == (str(path), "left", 200.0)
    crops = torch.rand(1, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(estimator.regress(crops), nets.estimate(crops))
    pose = dgpose.hand_from_crop(np.full((40, 60), 700, np.uint16), model=path)
    assert pose.skeleton == NYU36
    with pytest.raises(ValueError, match="must be a hand_regressor file"):
        dgpose.HandEstimator.load(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hand": "both"}, "hand must be one of right, left"),
        ({"engine": "gpu"}, "engine must be one of auto, native, torch"),
        ({"cube_mm": -1.0}, "cube_mm must be positive, got -1"),
        ({"precision": "int8"}, "precision must be float32 for engine 'torch'"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CrossingNetsEstimator.from_module(small_nets(), **changes)


def test_networks_of_unknown_joints_are_refused() -> None:
    words = r"joints must be one of 36 \(nyu36\), 21 \(msra21\), 16 \(icvl16\), got 6"
    with pytest.raises(ValueError, match=words):
        CrossingNetsEstimator.from_module(small_nets(joints=6, origin_joint=0))
