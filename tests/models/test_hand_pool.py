"""Pools of hand crops: rendered ones, those of a data set on disk, shares of labels, rotation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dgpose.data.cameras import CAMERAS
from dgpose.data.hand_datasets import HandSet, _Label
from dgpose.data.hand_pool import (
    HandPool,
    dataset_pool,
    pose_split,
    rendered_pool,
    roll_crops,
    roll_joints,
    stretch_to_nearest_pixel,
    synthetic_pool,
)
from dgpose.data.nyu import NyuPoses
from dgpose.data.synthetic_hands import SyntheticHands, SyntheticHandsConfig
from dgpose_ext import depth_crop


def poses() -> NyuPoses:
    row = np.arange(8252, dtype=np.int32)
    none = np.zeros((len(row), 36, 3), np.float32)
    return NyuPoses(none, none, row, (row >= 2440).astype(np.int8))


def test_blocks_are_sixty_rows_apart() -> None:
    train, val, test = (
        poses().row[pose_split(poses(), "block", s)] for s in ("train", "val", "test")
    )
    assert not set(train) & (set(val) | set(test))
    assert not set(val) & set(test)
    for held_out in (val, test):
        assert np.abs(train[:, None] - held_out[None]).min() > 60
    assert len(train) > 0.5 * 8252
    assert len(test) > 0.15 * 8252
    assert len(val) > 0.08 * 8252
    assert np.abs(val[:, None] - test[None]).min() > 60


def test_actors_are_apart() -> None:
    all_poses = poses()
    splits = {s: pose_split(all_poses, "actor", s) for s in ("train", "val", "test")}
    assert set(all_poses.actor[splits["test"]]) == {0}
    assert set(all_poses.actor[splits["train"] | splits["val"]]) == {1}
    rows = all_poses.row
    assert rows[splits["val"]].min() - rows[splits["train"]].max() > 60


def test_posed_hands_are_where_they_were_put() -> None:
    frames = SyntheticHands(3, poses="kinematic", size=64, cube_mm=250.0)
    drawn = frames.batch([5, 9])
    again = frames.posed(drawn.joints_mm.numpy(), [5, 9])
    torch.testing.assert_close(again.joints_mm, drawn.joints_mm, atol=1e-3, rtol=0)
    assert (again.crop == drawn.crop).float().mean() > 0.98
    with pytest.raises(ValueError, match=r"joints_mm must have shape \[2, 36, 3\]"):
        frames.posed(drawn.joints_mm[:1].numpy(), [5, 9])
    with pytest.raises(ValueError, match="joints_mm must be finite, and z positive"):
        frames.posed(-drawn.joints_mm.numpy(), [5, 9])


def test_nearest_pixel_of_a_cube_crop_is_depth_crops_own() -> None:
    depth = torch.full((1, 120, 160), 2000.0)
    depth[0, 40:70, 60:90] = (
        600 + torch.rand(30, 30, generator=torch.Generator().manual_seed(0)) * 60
    )
    center, camera = torch.tensor([[75.0, 55.0, 640.0]]), CAMERAS["icvl"]
    cube = depth_crop(depth, center, camera, 250.0, 64)
    expected = depth_crop(depth, center, camera, 250.0, 64, normalize="nearest_pixel")
    torch.testing.assert_close(stretch_to_nearest_pixel(cube), expected, atol=1e-5, rtol=0)
    empty = torch.ones(1, 1, 8, 8)
    assert torch.equal(stretch_to_nearest_pixel(empty), empty)


def test_rotation_turns_crop_and_joints_alike() -> None:
    """A near spot right of the middle comes to lie above it after a quarter turn."""
    depth = torch.ones(1, 1, 33, 33)
    depth[0, 0, 16, 26] = -0.5
    joints = torch.tensor([[[2.0, 0.0, -1.0]]])
    quarter = torch.tensor([math.pi / 2])
    turned, moved = roll_crops(depth, quarter), roll_joints(joints, quarter)
    assert turned[0, 0, 6, 16] == -0.5
    assert (turned != 1).sum() == 1
    torch.testing.assert_close(moved, torch.tensor([[[0.0, 2.0, -1.0]]]), atol=1e-6, rtol=0)
    assert torch.equal(roll_crops(depth, torch.zeros(1)), depth)
    assert torch.equal(roll_joints(joints, torch.zeros(1)), joints)


def test_labelled_fraction() -> None:
    pool = HandPool(torch.zeros(100, 1, 8, 8), torch.zeros(100, 2, 3), torch.arange(100) < 60)
    few = pool.with_labelled_fraction(0.05, seed=1)
    assert few.describe() == {"frames": 100, "labelled": 3}
    assert not few.labelled[60:].any()
    assert not torch.equal(few.labelled, pool.with_labelled_fraction(0.05, seed=2).labelled)
    assert int(pool.with_labelled_fraction(1e-9, seed=0).labelled.sum()) == 1
    for wrong in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"labelled fraction must lie in \(0, 1\]"):
            pool.with_labelled_fraction(wrong, seed=0)


class Images(HandSet):
    """Images with a hand in the middle, and empty ones."""

    name, joints, camera = "test", 2, CAMERAS["icvl"]

    def __init__(self, names: list[str], centers: list[list[float]] | None = None) -> None:
        joints = np.array([[0, 0, 500], [20, -10, 510]], np.float32)
        labels = [_Label(name, joints, joints, 0, 300.0) for name in names]
        rows = None if centers is None else np.array(centers, np.float32)
        super().__init__(Path("folder"), [], labels, rows)

    def _read(self, path: Path) -> np.ndarray:
        depth = np.zeros((240, 320), np.uint16)
        if path.name == "hand":
            depth[80:160, 120:200] = 500
        return depth


NOWHERE = [np.nan] * 3
MIDDLE = torch.tensor([[0.0, 0.0, 0.0], [0.4, -0.2, 0.2]])


def test_pool_of_a_data_set() -> None:
    centers = [[160.0, 120.0, 500.0], NOWHERE, NOWHERE]
    seen = []
    pool = dataset_pool(
        Images(["hand", "hand", "empty"], centers),
        size=32,
        progress=lambda done, all: seen.append((done, all)),
    )
    assert len(pool) == 2
    assert bool(pool.labelled.all())
    assert seen[-1] == (3, 3)
    torch.testing.assert_close(pool.joints[0], MIDDLE, atol=1e-4, rtol=0)
    torch.testing.assert_close(pool.joints[1], MIDDLE, atol=0.1, rtol=0)
    assert pool.centers_mm is not None
    torch.testing.assert_close(pool.centers_mm[0], torch.tensor([0.0, 0.0, 500.0]))
    assert pool.depth.min() == -1
    assert pool.depth.max() == 1
    with pytest.raises(ValueError, match="folder: no hand was found in any of the 1 images"):
        dataset_pool(Images(["empty"]))


def test_pool_of_every_frame_looks_where_the_hand_was() -> None:
    """Off the middle: an empty image alone could not tell."""
    aside = [[150.0, 120.0, 500.0], NOWHERE, NOWHERE]
    pool = dataset_pool(Images(["hand", "empty", "hand"], aside), size=32, every_frame=True)
    assert len(pool) == 3
    assert torch.equal(pool.joints[1], pool.joints[0])
    assert bool((pool.depth[1] == 1).all())
    torch.testing.assert_close(pool.joints[2], MIDDLE, atol=0.1, rtol=0)
    with pytest.raises(ValueError, match=r"no hand was found in the first image, empty: give a"):
        dataset_pool(Images(["empty", "hand"]), every_frame=True)


def test_rendered_pool_shows_its_joints(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgpose.data.hand_pool.pose_split", lambda poses, by, split: poses.row < 90)
    pool = rendered_pool(data_dir, "test", size=64, normalize="cube")
    assert pool.depth.shape[1:] == (1, 64, 64)
    assert len(pool) == len(pool.joints) > 5
    # Most joints lie on, or a finger's radius behind, what is seen at their place.
    pixel = (
        ((pool.joints[..., :2] * torch.tensor([1.0, -1.0]) * 50 / 125 + 1) * 32).long().clamp(0, 63)
    )
    rows = torch.arange(len(pool))[:, None]
    seen = pool.depth[rows, 0, pixel[..., 1], pixel[..., 0]].float() * 125
    behind = pool.joints[..., 2] * 50 - seen
    assert 0 < behind.median() < 25
    again = rendered_pool(data_dir, "test", size=64, normalize="cube")
    assert torch.equal(again.depth, pool.depth)
    assert torch.equal(again.joints, pool.joints)


def test_pool_of_synthetic_hands() -> None:
    frames = SyntheticHands(
        1, poses="kinematic", size=32, cube_mm=300.0, config=SyntheticHandsConfig(cube_std=0.0)
    )
    pool = synthetic_pool(frames, 5)
    batch = frames.batch(range(5))
    assert torch.equal(pool.depth, batch.crop.half())
    # Crop coordinates and metric ones agree at the depth of the centre.
    z = pool.joints[..., 2] * 50 / 150
    torch.testing.assert_close(z, batch.joints[..., 2], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match=r"frames must have cube_std 0, got 0\.05"):
        synthetic_pool(SyntheticHands(poses="kinematic"), 5)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        synthetic_pool(frames, 0)


def test_renders_of_one_pose_differ(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgpose.data.hand_pool.pose_split", lambda poses, by, split: poses.row < 65)
    once = rendered_pool(data_dir, size=32)
    twice = rendered_pool(data_dir, size=32, renders=2)
    assert len(twice) == 2 * len(once)
    assert torch.equal(twice.depth[: len(once)], once.depth)
    assert not torch.equal(twice.depth[len(once) :], once.depth)
    with pytest.raises(ValueError, match="renders must be at least 1, got 0"):
        rendered_pool(data_dir, renders=0)
