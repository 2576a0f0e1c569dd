"""Poses of bodies: kinematic ones within anatomy, captured ones right way round and split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dgpose.data.body_kinematics import (
    BONE_PARENTS,
    REFERENCE_BONES_MM,
    sample_body_poses,
    with_bone_lengths,
)
from dgpose.data.body_poses import SPLIT_KINDS, SPLITS, BodyPoses
from dgpose.data.counter_rng import CounterRng
from dgpose.skeletons import H36M17

JOINT = {name: i for i, name in enumerate(H36M17.joints)}


@pytest.fixture(scope="module")
def cmu(data_dir: Path) -> BodyPoses:
    return BodyPoses.load(data_dir)


def lengths(joints: np.ndarray) -> np.ndarray:
    return np.linalg.norm(joints[:, 1:] - joints[:, list(BONE_PARENTS)], axis=-1)


def forward_of_knees(joints: np.ndarray, side: str) -> np.ndarray:
    """How far the knee lies before the line from hip to ankle, mm; NaN where it is straight."""
    hip, knee, ankle = (joints[:, JOINT[f"{side}_{n}"]] for n in ("hip", "knee", "ankle"))
    left = joints[:, JOINT["left_hip"]] - joints[:, JOINT["right_hip"]]
    up = joints[:, JOINT["spine"]] - 0.5 * (
        joints[:, JOINT["left_hip"]] + joints[:, JOINT["right_hip"]]
    )
    # With y down and z forward, front is left x up.
    front = np.cross(left, up)
    front /= np.linalg.norm(front, axis=1, keepdims=True)
    shank, thigh = ankle - knee, knee - hip
    bend = np.linalg.norm(np.cross(thigh, shank), axis=1) / (
        np.linalg.norm(thigh, axis=1) * np.linalg.norm(shank, axis=1)
    )
    line = 0.5 * (hip + ankle)
    return np.where(bend > 0.35, ((knee - line) * front).sum(axis=1), np.nan)


def test_kinematic_poses_have_the_reference_bones_and_bend_as_bodies_do() -> None:
    poses = sample_body_poses(CounterRng(0, np.arange(2000)))
    assert_allclose(lengths(poses), np.broadcast_to(REFERENCE_BONES_MM, (2000, 16)), rtol=1e-9)
    assert (poses[:, 0] == 0).all()
    for side, sign in (("right", -1.0), ("left", 1.0)):
        forward = forward_of_knees(poses, side)
        assert np.nanmin(forward) > 0
        assert np.isfinite(forward).mean() > 0.2
        assert (sign * poses[:, JOINT[f"{side}_shoulder"], 0]).min() > 50
        # Upright: y points down.
        assert poses[:, JOINT[f"{side}_shoulder"], 1].max() < 0
        upper = poses[:, JOINT[f"{side}_elbow"]] - poses[:, JOINT[f"{side}_shoulder"]]
        lower = poses[:, JOINT[f"{side}_wrist"]] - poses[:, JOINT[f"{side}_elbow"]]
        cosine = (upper * lower).sum(axis=1) / (295.0 * 255.0)
        assert cosine.min() > np.cos(np.radians(140))
    # Both sides alike.
    mirrored = poses[:, list(H36M17.flip)] * np.array([-1.0, 1.0, 1.0])
    assert_allclose(mirrored.mean(axis=0), poses.mean(axis=0), atol=15)


def test_a_sample_is_a_function_of_its_index() -> None:
    whole = sample_body_poses(CounterRng(7, np.arange(50)))
    assert (sample_body_poses(CounterRng(7, [31])) == whole[31]).all()


def test_bone_lengths_are_exchanged_and_directions_kept() -> None:
    poses = sample_body_poses(CounterRng(1, np.arange(5)))
    wanted = REFERENCE_BONES_MM * np.linspace(0.8, 1.2, 5)[:, None]
    moved = with_bone_lengths(poses, wanted)
    assert_allclose(lengths(moved), wanted)
    assert_allclose(with_bone_lengths(moved, REFERENCE_BONES_MM), poses, atol=1e-9)


def test_captured_bodies_are_upright_and_not_mirrored(cmu: BodyPoses) -> None:
    poses = cmu.positions[::7].astype(np.float64)
    assert cmu.positions.shape == (40293, 17, 3)
    assert cmu.positions.dtype == np.float32
    assert (poses[:, 0] == 0).all()
    assert (poses[:, JOINT["head"], 1] < 0).mean() > 0.95
    assert (poses[:, JOINT["left_ankle"], 1] > 0).mean() > 0.95
    for side in ("right", "left"):
        forward = forward_of_knees(poses, side)
        assert np.isfinite(forward).mean() > 0.2
        assert (forward[np.isfinite(forward)] > 0).mean() > 0.97
    assert_allclose(
        lengths(poses), np.broadcast_to(REFERENCE_BONES_MM, (len(poses), 16)), rtol=1e-3
    )


def test_the_bones_of_the_file_can_be_kept(cmu: BodyPoses, data_dir: Path) -> None:
    own = BodyPoses.load(data_dir, reference_bones=False)
    with np.load(data_dir / "mocap/cmu_h36m17.npz") as file:
        y_up = file["pos"][::500].astype(np.float32)
    assert (own.positions[::500] == y_up * np.float32([1, -1, -1])).all()
    again = with_bone_lengths(own.positions[::500], REFERENCE_BONES_MM)
    assert_allclose(again, cmu.positions[::500], atol=0.1)


@pytest.mark.parametrize("split_by", SPLIT_KINDS)
def test_splits_hold_whole_sequences_or_actions(cmu: BodyPoses, split_by: str) -> None:
    rows = [cmu.rows(split, split_by) for split in SPLITS]
    assert sorted(np.concatenate(rows)) == list(range(len(cmu.positions)))
    of_row = cmu.sequence if split_by == "sequence" else cmu.action
    groups = [set(of_row[r]) for r in rows]
    assert not (groups[0] & groups[1])
    assert not (groups[0] & groups[2])
    assert not (groups[1] & groups[2])
    assert min(map(len, rows)) > 4000
    if split_by == "sequence":  # nothing is tested that no take was trained on
        actions = [set(cmu.action[r]) for r in rows]
        assert actions[1] <= actions[0]
        assert actions[2] <= actions[0]
        assert "washwindow" in {cmu.action_names[a] for a in actions[0]}
    names = [cmu.sequence_names[s].split("/")[1] for s in range(len(cmu.sequence_names))]
    assert {cmu.action_names[a] for a in cmu.action} == set(names)


def test_bad_files_and_words_are_named(cmu: BodyPoses, data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data_dir must hold mocap/cmu_h36m17\.npz, got"):
        BodyPoses.load(tmp_path)
    path = tmp_path / "mocap/cmu_h36m17.npz"
    path.parent.mkdir()
    np.savez(path, pos=np.zeros((2, 17, 3)))
    with pytest.raises(ValueError, match="must hold 'seq', which is not there"):
        BodyPoses.load(tmp_path)
    np.savez(
        path,
        pos=np.zeros((2, 16, 3)),
        seq=np.zeros(2, np.int32),
        seq_names=np.array(["a/walk/1.txt"]),
    )
    with pytest.raises(ValueError, match=r"of shape \[N, 17, 3\], got \(2, 16, 3\)"):
        BodyPoses.load(tmp_path)
    with np.load(data_dir / "mocap/cmu_h36m17.npz") as file:
        few = {name: file[name][::100] for name in ("pos", "seq")}
        good = few | {"seq_names": file["seq_names"]}
    for name, value, message in (
        ("pos", np.full(good["pos"].shape, np.nan, np.float16), "pos must be finite"),
        ("seq", good["seq"] + 99, "seq must be rows of the"),
        ("seq_names", np.char.add("x", good["seq_names"]), "seq_names must hold test/basketball"),
    ):
        np.savez(path, **good | {name: value})
        with pytest.raises(ValueError, match=message):
            BodyPoses.load(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cmu_h36m17\.npz: not a whole NPZ file"):
        BodyPoses.load(tmp_path)
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'dev'"):
        cmu.rows("dev")
    with pytest.raises(ValueError, match="split_by must be one of sequence, action, got 'subject'"):
        cmu.rows("train", "subject")
