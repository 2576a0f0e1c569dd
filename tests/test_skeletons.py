"""Skeletons: flips, limbs, and the ways from five orders to OpenPose-18, and from NYU-36 to 21."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dgpose.data.counter_rng import CounterRng
from dgpose.data.hand_kinematics import (
    FINGERS,
    forward_kinematics,
    hinge_points,
    sample_palm_joints,
    to_palm_frame,
)
from dgpose.data.nyu import load_poses
from dgpose.skeletons import (
    BODY_25,
    COCO17,
    DPIG_LIMBS,
    DPIG_PARTS,
    H36M17,
    ICVL16,
    LSP14,
    MEDIAPIPE21,
    MEDIAPIPE33,
    MPII16,
    MSRA21,
    NYU14,
    NYU36,
    OPENPOSE18,
    Skeleton,
    flip_keypoints,
    nyu36_to_21,
    to_openpose18,
)

BODIES = {OPENPOSE18: 18, COCO17: 17, BODY_25: 25, MEDIAPIPE33: 33, MPII16: 16, LSP14: 14}
BODIES |= {H36M17: 17}
HANDS = (NYU36, NYU14, ICVL16, MSRA21, MEDIAPIPE21)
SOURCES = (COCO17, BODY_25, MEDIAPIPE33, MPII16, LSP14, H36M17)
NO_FACE = {MPII16: (8, 9), LSP14: (12, 13), H36M17: (9, 10)}  # what the nose lies between
OWN_NECK = (BODY_25, LSP14)
FACE = [14, 15, 16, 17]

body = pytest.mark.parametrize("skeleton", BODIES, ids=lambda s: s.name)
source = pytest.mark.parametrize("skeleton", SOURCES, ids=lambda s: s.name)


@body
def test_joints_are_distinct_and_connected(skeleton: Skeleton) -> None:
    assert len(skeleton) == BODIES[skeleton] == len(set(skeleton.joints))
    assert len(set(map(frozenset, skeleton.edges))) == len(skeleton.edges)
    reached, more = set(), {0}
    if skeleton is MEDIAPIPE33:
        more |= {9, 11}  # face, mouth and body are separate in MediaPipe's drawing
    while more:
        reached |= more
        more = {j for e in skeleton.edges for j in e if set(e) & reached} - reached
    assert reached == set(range(len(skeleton)))
    assert len(skeleton.edge_colors) == len(skeleton.edges)
    assert len(skeleton.joint_colors) == len(skeleton)


@body
def test_flip_swaps_the_sides_and_maps_limbs_to_limbs(skeleton: Skeleton) -> None:
    flip = skeleton.flip
    assert [flip[j] for j in flip] == list(range(len(skeleton)))
    for joint, name in enumerate(skeleton.joints):
        sided = "left" in name or "right" in name
        assert (flip[joint] != joint) == sided
    edges = set(map(frozenset, skeleton.edges))
    mirrored = {frozenset(flip[j] for j in edge) for edge in edges}
    assert mirrored == edges


@pytest.mark.parametrize("skeleton", HANDS, ids=lambda s: s.name)
def test_a_hand_has_no_sides(skeleton: Skeleton) -> None:
    assert skeleton.flip == tuple(range(len(skeleton)))


@body
def test_flipping_twice_changes_nothing(skeleton: Skeleton) -> None:
    keypoints = torch.randint(
        0, 64, (3, len(skeleton), 3), generator=torch.Generator().manual_seed(0)
    ).double()
    once = flip_keypoints(keypoints, skeleton, 64)
    assert torch.equal(flip_keypoints(once, skeleton, 64), keypoints)
    assert torch.equal(once[..., 0], 63 - keypoints[:, list(skeleton.flip), 0])
    array = flip_keypoints(keypoints.numpy(), skeleton, 64)
    assert np.array_equal(array, once.numpy())


def test_dpig_limbs_and_parts() -> None:
    assert len(DPIG_LIMBS) == len(set(map(frozenset, DPIG_LIMBS))) == 23
    assert set(map(frozenset, OPENPOSE18.edges)) <= set(map(frozenset, DPIG_LIMBS))
    flip = OPENPOSE18.flip
    mirrored = [{flip[j] for j in part} for part in DPIG_PARTS]
    # Left arm <-> right arm, left leg <-> right leg, the rest onto itself.
    assert [mirrored.index(set(part)) for part in DPIG_PARTS] == [0, 1, 2, 4, 3, 6, 5]


@source
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_joints_keep_their_place(skeleton: Skeleton, kind: str) -> None:
    generator = np.random.default_rng(0)
    array = generator.uniform(0, 100, (2, len(skeleton), 3)).astype(np.float32)
    given = array if kind == "numpy" else torch.from_numpy(array)
    keypoints, visible = to_openpose18(given, skeleton)
    keypoints, visible = np.asarray(keypoints), np.asarray(visible)
    assert keypoints.shape == (2, 18, 3)
    assert keypoints.dtype == np.float32
    assert visible.dtype == bool
    for joint, name in enumerate(OPENPOSE18.joints):
        if name in skeleton.joints and (name, skeleton) != ("neck", H36M17):
            assert visible[:, joint].all()
            assert (keypoints[:, joint] == array[:, skeleton.joints.index(name)]).all()
    absent = FACE if skeleton in NO_FACE else []
    assert [j for j in range(18) if not visible[0, j]] == absent
    assert (keypoints[:, absent] == 0).all()
    left, right = (array[:, skeleton.joints.index(f"{s}_shoulder")] for s in ("left", "right"))
    if skeleton in (COCO17, MEDIAPIPE33, H36M17):
        np.testing.assert_allclose(keypoints[:, 1], (left + right) / 2)
    elif skeleton is MPII16:
        assert (keypoints[:, 1] == array[:, 7]).all()
    if skeleton in NO_FACE:
        low, high = NO_FACE[skeleton]
        np.testing.assert_allclose(keypoints[:, 0], (array[:, low] + array[:, high]) / 2)


@source
def test_invisible_joints_stay_invisible_and_take_the_neck_with_them(skeleton: Skeleton) -> None:
    keypoints = torch.full((len(skeleton), 2), 5.0)
    for joint, name in enumerate(skeleton.joints):
        visible = torch.ones(len(skeleton))
        visible[joint] = 0
        keypoints[joint] = float("nan")
        xy, seen = to_openpose18(keypoints, skeleton, visible)
        lost = {
            j
            for j, n in enumerate(OPENPOSE18.joints)
            if (n == name and (n, skeleton) != ("neck", H36M17))
            or (n == "neck" and name.endswith("_shoulder") and skeleton not in (MPII16, *OWN_NECK))
            or (n == "neck" and name == "thorax" and skeleton is MPII16)
            or (j in FACE and skeleton in NO_FACE)
            or (n == "nose" and joint in NO_FACE.get(skeleton, ()))
        }
        assert set((~seen).nonzero()[:, 0].tolist()) == lost
        assert (xy[~seen] == 0).all()
        assert (xy[seen] == 5).all()
        keypoints[joint] = 5.0


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"skeleton must be one of coco17, .*, got nyu14"):
        to_openpose18(np.zeros((14, 2)), NYU14)
    with pytest.raises(ValueError, match=r"shape \[..., 17, D\] .* got \[16, 2\]"):
        to_openpose18(np.zeros((16, 2)), COCO17)
    with pytest.raises(ValueError, match=r"visible must have shape \[17\], got \[1\]"):
        to_openpose18(np.zeros((17, 2)), COCO17, np.zeros(1))
    with pytest.raises(ValueError, match=r"shape \[..., 17, D\]"):
        flip_keypoints(np.zeros((17, 1)), COCO17, 64)


def test_neck_of_real_people(data_dir: Path) -> None:
    """OpenPose's own neck lies where the mean of its shoulders does."""
    annotation = np.load(data_dir / "body/keypoints18/market-annotation-train.npz")
    xy = annotation["xy"].astype(np.float64)
    seen = (xy >= 0).all(-1)
    rows = [OPENPOSE18.joints.index(name) for name in COCO17.joints]
    keypoints, visible = to_openpose18(xy[:, rows], COCO17, seen[:, rows])
    both = visible[:, 1] & seen[:, 1]
    assert both.sum() > 8000
    assert np.median(np.linalg.norm(keypoints[both, 1] - xy[both, 1], axis=-1)) < 1.5  # px
    others = [j for j in range(18) if j != 1]
    assert (visible[:, others] == seen[:, others]).all()
    assert (keypoints[:, others][visible[:, others]] == xy[:, others][seen[:, others]]).all()


# ---- from NYU-36 to 21 joints ----


def hands(count: int = 500) -> np.ndarray[Any, np.dtype[np.float64]]:
    return sample_palm_joints(CounterRng(17, np.arange(count)))


def hinge_errors(palm_joints: Any) -> dict[str, float]:
    """Mean distance in mm of each converted hinge from where the kinematic hand has it."""
    converted = nyu36_to_21(palm_joints, MSRA21)
    true = hinge_points(palm_joints)
    errors = {}
    for number, finger in enumerate(FINGERS):
        root = MSRA21.joints.index(f"{finger}_mcp")
        distance = np.linalg.norm(converted[:, root : root + 3] - true[:, number], axis=-1)
        for part, mm in zip(("mcp", "pip", "dip"), np.nanmean(distance, axis=0), strict=True):
            errors[f"{finger}_{part}"] = float(mm)
    return errors


def test_the_hinges_stay_where_they_are_as_a_finger_bends() -> None:
    direction = np.tile(np.array([0.1, 1.0, 0.2]), (9, 5, 1))
    axis = np.tile(np.array([-1.0, 0.1, 0.0]), (9, 5, 1))
    bend = np.full((9, 5, 2), 0.6)
    bend[:, :, 0] = np.linspace(0.4, 1.6, 9)[:, None]
    hinges = hinge_points(forward_kinematics(direction, axis, bend))
    assert (
        np.ptp(hinges[:, :, :2], axis=0).max() < 1e-9
    )  # the middle bone turns, the hinge does not
    assert np.ptp(hinges[:, :, 2], axis=0).max() > 10
    straight = hinge_points(forward_kinematics(direction, axis, np.zeros_like(bend)))
    assert np.isnan(straight[:, :, 1:]).all()


def test_21_joints_lie_on_the_hinges_of_the_kinematic_hand() -> None:
    errors = hinge_errors(hands())
    assert errors.pop("thumb_mcp") < 1e-9  # its root is an NYU point
    assert max(errors.values()) < 3  # NYU's points lie up to 14 mm beside the hinges


def test_21_joints_lie_on_the_hinges_of_real_hands(data_dir: Path) -> None:
    palm, _, _ = to_palm_frame(load_poses(data_dir).xyz_mm.astype(np.float64))
    errors = hinge_errors(palm)
    knuckles = {name: mm for name, mm in errors.items() if name.endswith("_mcp")}
    assert max(knuckles.values()) < 8  # a real palm bends, the kinematic one does not
    assert max(mm for name, mm in errors.items() if name not in knuckles) < 3


def test_both_orders_are_the_same_joints() -> None:
    joints = hands(4)
    msra, mediapipe = nyu36_to_21(joints, MSRA21), nyu36_to_21(joints, MEDIAPIPE21)
    assert MEDIAPIPE21.joints[:5] == ("wrist", "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip")
    order = [0, *range(17, 21), *range(1, 17)]
    assert np.array_equal(mediapipe, msra[:, order])
    for mine, theirs in enumerate(order):
        if "thumb" not in MEDIAPIPE21.joints[mine]:
            assert MEDIAPIPE21.joints[mine] == MSRA21.joints[theirs]
    tips = [MEDIAPIPE21.joints.index(f"{finger}_tip") for finger in FINGERS]
    assert np.array_equal(mediapipe[:, tips], joints[:, 0:30:6])
    assert np.array_equal(mediapipe[:, 0], joints[:, 35])


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_conversion_moves_with_the_hand(kind: str) -> None:
    joints = hands(3).reshape(3, 1, 36, 3)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]  # mirrors, too
    moved = 0.3 * joints @ turn + np.array([100.0, -50.0, 700.0])
    given: Any = moved if kind == "numpy" else torch.from_numpy(moved)
    found = nyu36_to_21(given)
    assert type(found) is type(given)
    assert found.shape == (3, 1, 21, 3)
    assert found.dtype == given.dtype
    want = 0.3 * nyu36_to_21(joints) @ turn + np.array([100.0, -50.0, 700.0])
    np.testing.assert_allclose(np.asarray(found), want, atol=1e-9)
    single = given.astype(np.float32) if kind == "numpy" else given.float()
    assert nyu36_to_21(single).dtype == single.dtype
    flat = given[..., :2]
    np.testing.assert_array_equal(np.asarray(nyu36_to_21(flat)), np.asarray(found)[..., :2])


def test_a_lost_joint_takes_only_its_neighbours_along() -> None:
    joints = hands(1)[0]
    joints[18] = np.nan  # the index finger's tip
    lost = np.isnan(nyu36_to_21(joints)).all(axis=1)
    assert [MEDIAPIPE21.joints[j] for j in np.flatnonzero(lost)] == ["index_dip", "index_tip"]


def test_what_nyu36_to_21_refuses() -> None:
    with pytest.raises(ValueError, match="skeleton must be one of msra21, mediapipe21, got icvl16"):
        nyu36_to_21(np.zeros((36, 3)), ICVL16)
    with pytest.raises(ValueError, match=r"joints must have shape \[..., 36, D\] .* got \[21, 3\]"):
        nyu36_to_21(np.zeros((21, 3)))
    wholes: list[Any] = [np.zeros((36, 3), np.int64), torch.zeros(36, 3, dtype=torch.int32)]
    for whole in wholes:
        with pytest.raises(TypeError, match=r"joints must be of floating point, got .*int"):
            nyu36_to_21(whole)
