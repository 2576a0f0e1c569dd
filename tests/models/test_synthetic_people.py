"""Rendered people: reproducible, split cleanly, and labelled with what is in the image."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dgpose.data.body_kinematics import REFERENCE_BONES_MM, with_bone_lengths
from dgpose.data.counter_rng import CounterRng
from dgpose.data.people_appearance import PATTERNS, UNSEEN_PATTERNS, sample_outfits
from dgpose.data.people_backgrounds import sample_places
from dgpose.data.people_views import place_hips, sample_views
from dgpose.data.synthetic_people import (
    BODY_PARTS,
    PeopleBatch,
    SyntheticPeople,
    SyntheticPeopleConfig,
)
from dgpose.skeletons import H36M17, OPENPOSE18

JOINT = {name: i for i, name in enumerate(H36M17.joints)}
PLAIN = SyntheticPeopleConfig(
    occluder_chance=0.0, elevation_deg=(0.0, 0.0), roll_std_deg=0.0, off_axis=(0.0, 0.0)
)
SOURCE = Path(__file__).parents[2]


def t_pose() -> np.ndarray:
    """Someone who faces the camera with the arms stretched out: their left is at +x."""
    joints = np.zeros((17, 3))
    for side, sign in (("right", -1.0), ("left", 1.0)):
        joints[JOINT[f"{side}_hip"]] = sign * 80, 100, 0
        joints[JOINT[f"{side}_knee"]] = sign * 90, 520, 0
        joints[JOINT[f"{side}_ankle"]] = sign * 95, 930, 20
        joints[JOINT[f"{side}_shoulder"]] = sign * 180, -400, 0
        joints[JOINT[f"{side}_elbow"]] = sign * 470, -400, 0
        joints[JOINT[f"{side}_wrist"]] = sign * 720, -400, 0
    for name, y in (("spine", -180.0), ("thorax", -360.0), ("neck", -520.0), ("head", -660.0)):
        joints[JOINT[name]] = 0, y, 0
    return joints


def turned(joints: np.ndarray, degrees: float) -> np.ndarray:
    """About the vertical."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return joints @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T


@cache
def plain_people(size: int) -> SyntheticPeople:
    return SyntheticPeople(0, poses="kinematic", size=size, config=PLAIN)


def of_pose(*poses: np.ndarray, identity: int = 0, size: int = 64) -> PeopleBatch:
    return plain_people(size).posed(np.stack(poses), [identity] * len(poses), range(len(poses)))


@pytest.fixture(scope="module")
def batch() -> PeopleBatch:
    return SyntheticPeople(1, poses="kinematic", size=48).batch(range(40))


def assert_same(a: PeopleBatch, b: PeopleBatch) -> None:
    for name, x, y in zip(a._fields, a, b, strict=True):
        assert torch.equal(x, y), name


def test_a_sample_is_a_function_of_seed_and_index() -> None:
    people = SyntheticPeople(3, poses="kinematic", size=(40, 24))
    whole = people.batch(range(20))
    assert_same(PeopleBatch(*(x[7:8] for x in whole)), people.batch([7]))
    assert_same(PeopleBatch(*(x.flip(0) for x in whole)), people.batch(range(19, -1, -1)))
    again = SyntheticPeople(3, poses="kinematic", size=(40, 24)).batch([12, 3])
    assert_same(PeopleBatch(*(x[[12, 3]] for x in whole)), again)
    other = SyntheticPeople(4, poses="kinematic", size=(40, 24)).batch(range(20))
    assert not (other.image == whole.image).flatten(1).all(dim=1).any()


def test_another_process_draws_the_same_bits() -> None:
    code = (
        "import hashlib, torch\n"
        "from dgpose.data.synthetic_people import SyntheticPeople\n"
        "torch.set_num_threads(2)\n"
        "b = SyntheticPeople(5, poses='kinematic', size=32).batch([4, 900000, 2])\n"
        "print(hashlib.sha256(b''.join(x.numpy().tobytes() for x in b)).hexdigest())\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(SOURCE), str(SOURCE / "python")])}
    theirs = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    ours = SyntheticPeople(5, poses="kinematic", size=32).batch([4, 900000, 2])
    digest = hashlib.sha256(b"".join(x.numpy().tobytes() for x in ours)).hexdigest()
    assert theirs.stdout.strip() == digest


def test_shapes_types_and_ranges() -> None:
    made = SyntheticPeople(0, poses="kinematic", size=(33, 47)).batch([0, 1, 2])
    shapes = {name: tuple(x.shape[1:]) for name, x in made._asdict().items()}
    assert shapes == {
        "image": (3, 33, 47),
        "mask": (1, 33, 47),
        "parts": (33, 47),
        "joints_mm": (17, 3),
        "joints_px": (17, 2),
        "visible": (17,),
        "keypoints_px": (18, 2),
        "keypoint_visible": (18,),
        "identity": (),
        "outfit": (),
        "camera": (4,),
        "pose_row": (),
    }
    assert made.image.dtype == torch.float32
    assert made.parts.dtype == torch.int16
    assert float(made.image.min()) >= 0
    assert float(made.image.max()) <= 1
    assert made.image.std() > 0.02
    empty = SyntheticPeople(0, poses="kinematic", size=32).batch([])
    assert empty.image.shape == (0, 3, 32, 32)
    assert empty.visible.shape == (0, 17)


def test_joints_are_where_the_camera_sees_them(batch: PeopleBatch) -> None:
    fx, fy, cx, cy = batch.camera.double().T[:, :, None]
    x, y, z = batch.joints_mm.double().unbind(-1)
    assert z.min() > 500
    expected = torch.stack([cx + fx * x / z, cy + fy * y / z], dim=-1)
    assert_allclose(batch.joints_px, expected, atol=1e-3)
    # Limbs are the same points in both sets of keypoints.
    for name in ("right_wrist", "left_ankle", "left_shoulder"):
        a, b = JOINT[name], OPENPOSE18.joints.index(name)
        assert torch.equal(batch.joints_px[:, a], batch.keypoints_px[:, b])
        assert torch.equal(batch.visible[:, a], batch.keypoint_visible[:, b])


def test_the_mask_is_the_parts_and_holds_what_is_visible(batch: PeopleBatch) -> None:
    assert torch.equal(batch.mask[:, 0], batch.parts >= 0)
    assert int(batch.parts.min()) == -1
    assert int(batch.parts.max()) < len(BODY_PARTS)
    share = batch.mask.float().mean(dim=(1, 2, 3))
    assert 0.05 < share.median() < 0.5
    for px, visible in (
        (batch.joints_px, batch.visible),
        (batch.keypoints_px, batch.keypoint_visible),
    ):
        b, j = visible.nonzero().T
        x, y = px[b, j].round().long().T
        assert x.min() >= 0
        assert y.min() >= 0
        assert x.max() < 48
        assert y.max() < 48
        assert batch.mask[b, 0, y, x].all()
        assert 0.4 < visible.float().mean() < 0.98


def test_who_faces_the_camera_has_the_right_side_at_the_images_left() -> None:
    front, back = 0, 1
    made = of_pose(t_pose(), turned(t_pose(), 180))
    columns = torch.arange(64.0)
    for part in ("hand", "upper_arm", "thigh", "foot"):
        right, left = (
            [
                float((columns * (made.parts[b] == BODY_PARTS.index(f"{s}_{part}"))).sum())
                / float((made.parts[b] == BODY_PARTS.index(f"{s}_{part}")).sum())
                for b in (front, back)
            ]
            for s in ("right", "left")
        )
        assert right[front] < left[front], part
        assert right[back] > left[back], part
    wrists = made.joints_px[:, [JOINT["right_wrist"], JOINT["left_wrist"]], 0]
    assert wrists[front, 0] < wrists[front, 1]
    assert wrists[back, 0] > wrists[back, 1]
    eyes = made.keypoints_px[
        front, [OPENPOSE18.joints.index(f"{s}_eye") for s in ("right", "left")]
    ]
    assert eyes[0, 0] < eyes[1, 0]
    seen = dict(zip(OPENPOSE18.joints, made.keypoint_visible.T, strict=True))
    for name in ("nose", "right_eye", "left_eye"):
        assert seen[name].tolist() == [True, False], name
    # All that a body stretched out shows from the front and from behind.
    assert made.visible[:, [JOINT["right_wrist"], JOINT["left_knee"], JOINT["head"]]].all()


def test_feet_point_forward_and_the_head_is_up() -> None:
    made = of_pose(turned(t_pose(), 90))  # the right side to the camera, facing the image's left
    part = made.parts[0]
    toes = (part == BODY_PARTS.index("right_foot")).nonzero()[:, 1].float().mean()
    assert toes < made.joints_px[0, JOINT["right_ankle"], 0]
    nose = made.keypoints_px[0, OPENPOSE18.joints.index("nose")]
    assert nose[0] < made.joints_px[0, JOINT["head"], 0]
    assert nose[1] < 20


def test_what_is_hidden_is_not_visible() -> None:
    joints = t_pose()
    joints[JOINT["right_elbow"]] = -230, -130, 120
    joints[JOINT["right_wrist"]] = -20, -100, 230  # on the small of the back
    made = of_pose(joints, turned(joints, 180))
    assert made.visible[:, JOINT["right_wrist"]].tolist() == [False, True]
    # From the side, the far arm of someone whose arms hang.
    joints = t_pose()
    for side, sign in (("right", -1.0), ("left", 1.0)):
        joints[JOINT[f"{side}_elbow"]] = sign * 200, -110, 0
        joints[JOINT[f"{side}_wrist"]] = sign * 205, 130, 0
    made = of_pose(turned(joints, 90))
    assert made.visible[0, JOINT["right_elbow"]] != made.visible[0, JOINT["left_elbow"]]
    nearer = made.joints_mm[0, JOINT["right_elbow"], 2] < made.joints_mm[0, JOINT["left_elbow"], 2]
    assert made.visible[0, JOINT["right_elbow"]] == nearer


def test_something_in_front_hides_joints_and_is_no_part_of_the_mask() -> None:
    none = SyntheticPeople(2, poses="kinematic", size=32, config=PLAIN)
    always = replace(PLAIN, occluder_chance=1.0)
    some = SyntheticPeople(2, poses="kinematic", size=32, config=always)
    a, b = none.batch(range(30)), some.batch(range(30))
    assert torch.equal(a.joints_px, b.joints_px)
    assert (b.mask <= a.mask).all()
    assert b.mask.sum() < a.mask.sum()
    assert (b.visible <= a.visible).all()
    assert b.visible.sum() < a.visible.sum()


def test_posed_draws_the_pose_asked_for(batch: PeopleBatch) -> None:
    people = SyntheticPeople(1, poses="kinematic", size=48)
    again = people.posed(batch.joints_mm, batch.identity, range(40))
    assert_allclose(again.joints_mm, batch.joints_mm, atol=1e-3)
    assert torch.equal(again.outfit, batch.outfit)
    assert (again.parts == batch.parts).float().mean() > 0.999
    assert_allclose(again.image, batch.image, atol=0.05)
    # The pose of one on the body of another.
    other = (batch.identity + 1) % 2000
    moved = people.posed(batch.joints_mm, other, range(40))
    asked = batch.joints_mm - batch.joints_mm[:, :1]
    assert_allclose(moved.joints_mm - moved.joints_mm[:, :1], asked, atol=1e-2)
    own = with_bone_lengths(batch.joints_mm.numpy(), people.bone_lengths(other))
    fitted = people.posed(own, other, range(40)).joints_mm
    lengths = people.bone_lengths(other)[:, JOINT["right_knee"] - 1]
    thigh = (fitted[:, JOINT["right_knee"]] - fitted[:, JOINT["right_hip"]]).norm(dim=1)
    assert_allclose(thigh, lengths, atol=1e-2)


def test_a_person_looks_the_same_in_any_pose() -> None:
    def colors(identity: int, degrees: float) -> np.ndarray:
        made = of_pose(turned(t_pose(), degrees), identity=identity)
        inside = made.parts[0] == BODY_PARTS.index("torso")
        rgb = made.image[0, :, inside].mean(dim=1)
        return (rgb / rgb.sum()).numpy()

    apart = [np.abs(colors(i, 0) - colors(i + 1, 0)).sum() for i in range(0, 12, 2)]
    same = [np.abs(colors(i, 0) - colors(i, 40)).sum() for i in range(0, 12, 2)]
    assert np.median(same) < 0.3 * np.median(apart)


def test_splits_share_no_person_outfit_cloth_or_place() -> None:
    made = {
        split: SyntheticPeople(0, poses="kinematic", split=split, size=16)  # type: ignore[arg-type]
        for split in ("train", "val", "test")
    }
    drawn = {split: people.batch(range(200)) for split, people in made.items()}
    for name in ("identity", "outfit"):
        sets = [set(getattr(b, name).tolist()) for b in drawn.values()]
        assert sum(map(len, sets)) == len(set.union(*sets))
    train = drawn["train"]
    assert len(set(train.outfit.tolist())) < len(set(train.identity.tolist()))
    of = {}  # an identity wears one outfit
    for person, outfit in zip(train.identity.tolist(), train.outfit.tolist(), strict=True):
        assert of.setdefault(person, outfit) == outfit
    rng = CounterRng(0, np.arange(400))
    new = [PATTERNS.index(name) for name in UNSEEN_PATTERNS]
    assert not np.isin(sample_outfits(rng, unseen_patterns=False).cloth.pattern, new).any()
    assert np.isin(sample_outfits(rng, unseen_patterns=True).cloth.pattern, new).any()
    seen = set(sample_places(rng, unseen=False).surface.ravel())
    assert set(sample_places(rng, unseen=True).surface.ravel()) > seen
    tiles = [people._tiles.smooth for people in made.values()]
    assert not np.allclose(tiles[0], tiles[2])


def test_identities_differ_in_build_and_are_alike_on_both_sides() -> None:
    people = SyntheticPeople(0, poses="kinematic", size=32)
    bones = people.bone_lengths(people.identities)
    relative = bones / REFERENCE_BONES_MM
    assert_allclose(relative[:, :3], relative[:, 3:6])  # legs
    assert_allclose(relative[:, 10:13], relative[:, 13:])  # arms
    assert 0.04 < relative.mean(axis=1).std() < 0.09
    fixed = replace(PLAIN, size_std=0.0, bone_std=0.0)
    alike = SyntheticPeople(0, poses="kinematic", size=32, config=fixed).bone_lengths([0, 1, 2])
    assert_allclose(alike, np.broadcast_to(REFERENCE_BONES_MM, alike.shape))


def test_the_camera_stays_above_the_floor() -> None:
    config = SyntheticPeopleConfig(elevation_deg=(-25.0, -20.0), distance_mm=(6000.0, 7000.0))
    rng = CounterRng(0, np.arange(50))
    view = sample_views(rng, config)
    floor = np.full(50, 1000.0)
    hips = place_hips(rng, view, floor, config)
    height = (hips * view[:, 1]).sum(axis=1) + floor
    assert height.min() > 249.0


def test_works_without_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DGPOSE_DATA", raising=False)
    people = SyntheticPeople(0, size=32)
    assert people.poses == "kinematic"
    assert len(people.pose_rows) == 0
    assert (people.batch([0, 1]).pose_row == -1).all()
    with pytest.raises(FileNotFoundError, match="needs data_dir, the folder that holds mocap"):
        SyntheticPeople(0, poses="cmu")
    for poses in ("mixed", "auto"):  # a folder that is given must be right
        with pytest.raises(FileNotFoundError, match="data_dir must hold mocap/cmu_h36m17"):
            SyntheticPeople(0, poses=poses, data_dir=tmp_path)  # type: ignore[arg-type]
    monkeypatch.setenv("DGPOSE_DATA", str(tmp_path))  # the environment's need not be
    assert SyntheticPeople(0).poses == "kinematic"


def test_cmu_poses_are_drawn_from_their_split(data_dir: Path) -> None:
    made = {
        split: SyntheticPeople(
            0,
            poses="cmu",
            data_dir=data_dir,
            split=split,  # type: ignore[arg-type]
            size=16,
            config=PLAIN,
        )
        for split in ("train", "test")
    }
    rows = {split: set(p.batch(range(64)).pose_row.tolist()) for split, p in made.items()}
    for split, people in made.items():
        assert rows[split] <= set(people.pose_rows.tolist())
    assert not rows["train"] & set(made["test"].pose_rows.tolist())
    mixed = SyntheticPeople(0, poses="mixed", data_dir=data_dir, size=16).batch(range(64))
    assert 0.1 < (mixed.pose_row < 0).float().mean() < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"poses": "nyu"}, "poses must be one of auto, kinematic, cmu, mixed, got 'nyu'"),
        ({"split": "dev"}, "split must be one of train, val, test, got 'dev'"),
        ({"split_by": "actor"}, "split_by must be one of sequence, action, got 'actor'"),
        ({"size": 8}, r"size must be S or \(H, W\), 16 to 1024 each, got 8"),
        ({"size": (64, 2000)}, r"size must be S or \(H, W\)"),
        ({"size": (64,)}, r"size must be S or \(H, W\)"),
        ({"size": 64.5}, r"size must be S or \(H, W\)"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticPeople(0, **({"poses": "kinematic"} | options))  # type: ignore[arg-type]


def test_bad_samples_are_named() -> None:
    people = SyntheticPeople(0, poses="kinematic", size=32, split="val")
    pose = t_pose()[None]
    with pytest.raises(ValueError, match="indices must be non-negative, got -1"):
        people.batch([-1])
    with pytest.raises(TypeError, match="indices must be integers"):
        people.batch([0.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"joints_mm must have shape \[1, 17, 3\], got \[17, 3\]"):
        people.posed(pose[0], [2000], [0])
    with pytest.raises(ValueError, match="joints_mm must be finite"):
        people.posed(np.where(pose == 0, np.nan, pose), [2000], [0])
    with pytest.raises(ValueError, match=r"identities must lie in \[2000, 4000\).*, got 3"):
        people.posed(pose, [3], [0])
    with pytest.raises(ValueError, match=r"identities must have shape \[1\], got \[2\]"):
        people.posed(pose, [2000, 2001], [0])
    with pytest.raises(ValueError, match="identities must be integers"):
        people.posed(pose, [2000.5], [0])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identities": 0}, "identities must be at least 1, got 0"),
        ({"kinematic_share": 2.0}, r"kinematic_share must lie in \[0, 1\], got 2.0"),
        ({"distance_mm": (5000.0, 2500.0)}, "distance_mm must have 0 < low <= high, got 5000.0"),
        ({"margin": (0.0, 1.0)}, "margin must have 0 < low <= high, got 0.0 and 1.0"),
    ],
)
def test_what_cannot_vary_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticPeopleConfig(**options)
