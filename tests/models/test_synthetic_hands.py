"""SyntheticHands: determinism, label geometry, anatomy of the surface, sensor, sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dgpose.data.cameras import CAMERAS, Camera, project
from dgpose.data.counter_rng import CounterRng
from dgpose.data.hand_kinematics import (
    perturb_fingers,
    sample_palm_joints,
    sample_viewpoint,
    scale_bones,
    to_palm_frame,
)
from dgpose.data.hand_surface import (
    EDGES,
    JOINT_RADIUS_MM,
    NODE_NAMES,
    hand_capsules,
    sample_surface,
)
from dgpose.data.rotations import apply_rotation, rotation_from_vector, vector_from_rotation
from dgpose.data.synthetic_hands import SyntheticHands, SyntheticHandsConfig
from dgpose_ext import depth_crop, find_hand_center

CLEAN = SyntheticHandsConfig(
    clean_share=1.0,
    held_object_chance=0.0,
    thin_occluder_chance=0.0,
    body_chance=0.0,
    neighbour_chance=0.0,
    plane_chance=0.0,
)


@pytest.fixture(scope="module")
def hands() -> SyntheticHands:
    return SyntheticHands(3, poses="kinematic", hand="both")


def test_a_sample_does_not_depend_on_its_batch(hands: SyntheticHands) -> None:
    whole = hands.batch(range(33))
    other = SyntheticHands(3, poses="kinematic", hand="both")
    order = [32, 4, 4, 0, 17]
    parts = [other.batch(order), *(other.batch([i]) for i in range(8))]
    picks = [order, *([i] for i in range(8))]
    for part, pick in zip(parts, picks, strict=True):
        for name, a, b in zip(whole._fields, whole, part, strict=True):
            assert torch.equal(a[pick], b), name


def test_a_sample_does_not_depend_on_the_thread_count(hands: SyntheticHands) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = hands.batch(range(9))
        torch.set_num_threads(2)
        two = hands.batch(range(9))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_seeds_splits_and_indices_differ() -> None:
    train = SyntheticHands(0, poses="kinematic")
    crops = [
        train.batch([0]).crop,
        train.batch([1]).crop,
        SyntheticHands(1, poses="kinematic").batch([0]).crop,
        SyntheticHands(0, poses="kinematic", split="val").batch([0]).crop,
    ]
    for i in range(len(crops)):
        for j in range(i):
            assert not torch.equal(crops[i], crops[j])


def test_shapes_types_and_ranges(hands: SyntheticHands) -> None:
    batch = hands.batch(range(64))
    assert batch.crop.shape == (64, 1, 128, 128)
    assert batch.crop.dtype == torch.float32
    assert batch.joints.shape == batch.joints_mm.shape == (64, 36, 3)
    assert batch.centers.shape == (64, 3)
    assert batch.camera.shape == (64, 4)
    assert batch.cube_mm.shape == (64,)
    assert batch.left.dtype == torch.bool
    assert float(batch.crop.min()) >= -1.0
    assert float(batch.crop.max()) == 1.0
    assert bool(((batch.cube_mm >= 269.9) & (batch.cube_mm <= 330.1)).all())
    assert 0.2 < float(batch.left.float().mean()) < 0.8
    # Nearly all joints lie in the crop, and every crop shows something.
    assert float((batch.joints.abs() < 1).all(dim=2).float().mean()) > 0.95
    assert float((batch.crop < 1).float().mean(dim=(1, 2, 3)).min()) > 0.02


def test_crop_coordinates_are_those_of_depth_crop() -> None:
    batch = SyntheticHands(5, poses="kinematic", hand="both").batch(range(32))
    for b in range(32):
        camera = Camera(*batch.camera[b].tolist())
        uvd = project(batch.joints_mm[b].double(), camera)
        centre, cube = batch.centers[b].double(), float(batch.cube_mm[b])
        half = cube / 2 * torch.tensor([camera.fx, camera.fy]) / centre[2]
        expected = (uvd - centre) / torch.cat([half, torch.tensor([cube / 2])])
        torch.testing.assert_close(batch.joints[b], expected.float(), rtol=0, atol=2e-5)


def test_crop_equals_depth_crop_of_the_rendered_frame() -> None:
    """Rendering into the crop is sampling the scene where depth_crop samples the whole frame."""
    data = SyntheticHands(11, poses="kinematic", config=CLEAN)
    camera = CAMERAS["nyu"]
    compared = 0
    for index in range(12):
        batch, frame = data.batch([index]), data.frame(index, camera=camera)
        if not np.array_equal(batch.joints_mm[0].numpy(), frame.joints_mm):
            continue  # the frame moved a hand that lay outside its view
        if not np.allclose(batch.camera[0].numpy(), camera):
            continue
        depth = torch.from_numpy(frame.depth.astype(np.float32))[None]
        crop = depth_crop(depth, batch.centers, camera, batch.cube_mm)
        hand = batch.crop < 1
        # Depth is rounded to 1 mm and pixels differ by half a pixel: silhouettes disagree a little.
        same = (crop - batch.crop).abs() * 150 < 4.0
        assert float(same[hand].float().mean()) > 0.9
        compared += 1
    assert compared >= 3


def test_labels_lie_inside_the_clean_surface() -> None:
    """Each joint is hit by its own ray, before the joint: the surface encloses the skeleton."""
    batch = SyntheticHands(7, poses="kinematic", hand="both", config=CLEAN).batch(range(48))
    a, c = batch.joints[..., :2], batch.joints[..., 2]
    pixel = ((a + 1) * 64).long()
    inside = ((pixel >= 0) & (pixel < 128)).all(dim=2) & (c.abs() < 0.9)
    frame = torch.arange(48)[:, None].expand_as(inside)[inside]
    x, y = pixel[inside].unbind(1)
    seen = batch.crop[frame, 0, y, x]
    assert float((seen < c[inside]).float().mean()) > 0.995


def test_left_hands_are_mirrored_right_hands() -> None:
    right = SyntheticHands(2, poses="kinematic", hand="right", config=CLEAN).batch(range(6))
    left = SyntheticHands(2, poses="kinematic", hand="left", config=CLEAN).batch(range(6))
    assert bool(left.left.all())
    assert not bool(right.left.any())
    mirrored = right.joints_mm * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(left.joints_mm, mirrored)
    # Fingers bend towards the palm. A right palm that faces the camera, fingers up (y), has its
    # thumb at the right (x) and looks along -z = y x x: fingers x (little to index) is its normal.
    for joints, side in ((right.joints_mm, 1.0), (left.joints_mm, -1.0)):
        fingers = joints[:, 17] - joints[:, 35]  # knuckle of the middle finger from the wrist
        across = joints[:, 23] - joints[:, 5]  # knuckle of the index from that of the little finger
        palm = torch.linalg.cross(fingers, across) * side
        bend = joints[:, 12] - joints[:, 17]  # tip of the middle finger from its knuckle
        assert float((torch.nn.functional.cosine_similarity(bend, palm)).mean()) > 0.2


def test_centres_found_agree_with_find_hand_center() -> None:
    """The fast search of the crops and the library's search lead to the same place."""
    config = replace(CLEAN, given_center_share=0.0, found_center_std_mm=0.0)
    data = SyntheticHands(13, poses="kinematic", config=config)
    camera = CAMERAS["nyu"]
    distances = []
    for index in range(8):
        batch = data.batch([index])
        if tuple(batch.camera[0].tolist()) != tuple(np.array(camera, np.float32).tolist()):
            continue
        joints = batch.joints_mm[0].numpy()
        uvd = project(joints, camera)
        if not ((uvd[:, 0] > 20) & (uvd[:, 0] < 620) & (uvd[:, 1] > 20) & (uvd[:, 1] < 460)).all():
            continue
        # The crop, put back into an empty frame, holds the hand as the camera would see it.
        frame = torch.zeros(480, 640)
        centre, cube = batch.centers[0].double(), float(batch.cube_mm[0])
        half = cube / 2 * torch.tensor(camera[:2], dtype=torch.float64) / centre[2]
        v, u = torch.meshgrid(torch.arange(480.0), torch.arange(640.0), indexing="ij")
        column = ((u - centre[0] + half[0]) * 64 / half[0]).floor().long()
        row = ((v - centre[1] + half[1]) * 64 / half[1]).floor().long()
        seen = (column >= 0) & (column < 128) & (row >= 0) & (row < 128)
        value = batch.crop[0, 0][row[seen], column[seen]]
        frame[seen] = torch.where(value < 1, value * cube / 2 + float(centre[2]), torch.zeros(()))
        found = find_hand_center(frame, camera)
        assert found is not None
        pixel_mm = found[2] / camera.fx
        delta = np.array(found) - centre.numpy()
        distances.append(float(np.linalg.norm(delta * [pixel_mm, pixel_mm, 1.0])))
    assert len(distances) >= 2
    assert float(np.median(distances)) < 15.0


def test_sensor_effects_change_the_image_but_not_the_labels() -> None:
    clean = SyntheticHands(4, poses="kinematic", config=CLEAN).batch(range(16))
    noisy = SyntheticHands(4, poses="kinematic", config=replace(CLEAN, clean_share=0.0)).batch(
        range(16)
    )
    assert torch.equal(clean.joints, noisy.joints)
    both = (clean.crop < 1) & (noisy.crop < 1)
    error_mm = ((noisy.crop - clean.crop).abs() * 150)[both]
    assert 0.3 < float(error_mm.median()) < 5.0
    # Silhouettes are ragged and some pixels are lost, but the hand stays.
    changed = ((clean.crop < 1) != (noisy.crop < 1)).float().sum((1, 2, 3))
    assert bool((changed > 0).all())
    assert float(changed.sum() / (clean.crop < 1).sum()) < 0.35


def test_structured_light_depth_is_quantised() -> None:
    config = replace(CLEAN, clean_share=0.0, structured_light_share=1.0, noise_mm=(0.0, 0.0))
    frame = SyntheticHands(4, poses="kinematic", config=config).frame(1)
    hand = frame.depth[(frame.depth > 0) & (frame.depth < frame.joints_mm[:, 2].max() + 50)]
    steps = np.diff(np.unique(hand))
    assert np.median(steps) >= 1
    assert len(np.unique(hand)) < 0.9 * (hand.max() - hand.min())


def test_sequence_moves_smoothly_and_keeps_its_hand() -> None:
    data = SyntheticHands(1, poses="kinematic", hand="both")
    frames = list(data.sequence(9, 14, (120, 160), Camera(147.0, 147.0, 80.0, 60.0), hold=6))
    again = list(data.sequence(9, 14, (120, 160), Camera(147.0, 147.0, 80.0, 60.0), hold=6))
    assert len(frames) == 14
    assert len({f.left for f in frames}) == 1
    for a, b in zip(frames, again, strict=True):
        np.testing.assert_array_equal(a.depth, b.depth)
    joints = np.stack([f.joints_mm for f in frames])
    bone = np.linalg.norm(joints[:, 0:30:2] - joints[:, 1:30:2], axis=2)
    np.testing.assert_allclose(bone, np.broadcast_to(bone[0], bone.shape), atol=0.01)
    step = np.linalg.norm(np.diff(joints, axis=0), axis=2).max()
    assert 0.0 < step < 150.0
    assert frames[0].depth.dtype == np.uint16
    assert frames[0].depth.shape == (120, 160)
    # The hand is where the label says, and nearer than the person and the wall.
    uvd = project(joints[0], frames[0].camera)
    u, v = np.rint(uvd[34, :2]).astype(int)
    assert abs(int(frames[0].depth[v, u]) - uvd[34, 2]) < 80.0


def test_kinematic_hands_are_anatomical() -> None:
    joints = sample_palm_joints(CounterRng(0, np.arange(400)))
    assert np.isfinite(joints).all()
    bone = np.linalg.norm(joints[:, 0:30:2] - joints[:, 1:30:2], axis=2)
    np.testing.assert_allclose(bone, np.broadcast_to(bone[0], bone.shape), atol=1e-9)
    # The palm faces -z: tips of bent fingers go there, never far behind the back of the hand.
    tips = joints[:, [0, 6, 12, 18]]
    assert np.percentile(tips[..., 2], 1) > -130
    assert tips[..., 2].max() < 80
    reach = np.linalg.norm(tips, axis=2)
    assert reach.min() < 60
    assert reach.max() > 140


def test_palm_frame_round_trip() -> None:
    rng = CounterRng(2, np.arange(20))
    palm = sample_palm_joints(rng)
    rotation = sample_viewpoint(rng, 0.5)
    place = np.array([50.0, -20.0, 700.0])
    joints = apply_rotation(palm * 0.8, rotation[:, None]) + place
    back, turned, size = to_palm_frame(joints)
    np.testing.assert_allclose(turned, rotation, atol=2e-3)
    np.testing.assert_allclose(size, 0.8, rtol=2e-3)
    again = apply_rotation(back * size[:, None, None], turned[:, None]) + joints[:, 34:35]
    np.testing.assert_allclose(again, joints, atol=1e-9)


def test_rotation_vectors_round_trip() -> None:
    vectors = CounterRng(5, np.arange(40)).normal("v", 3, std=1.2)
    vectors[:2] = [[0.0, 0.0, 0.0], [np.pi, 0.0, 0.0]]
    for vector in vectors:
        matrix = rotation_from_vector(vector)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        again = rotation_from_vector(vector_from_rotation(matrix))
        np.testing.assert_allclose(again, matrix, atol=1e-9)


def test_finger_changes_keep_what_they_should() -> None:
    rng = CounterRng(8, np.arange(30))
    palm = sample_palm_joints(rng)
    bent = perturb_fingers(palm, rng, 8.0)
    np.testing.assert_array_equal(bent[:, 29:], palm[:, 29:])
    for j in range(0, 30, 2):
        before = np.linalg.norm(palm[:, j] - palm[:, j + 1], axis=1)
        np.testing.assert_allclose(np.linalg.norm(bent[:, j] - bent[:, j + 1], axis=1), before)
    assert np.abs(bent - palm).max() > 3.0
    ones = np.ones((30, 5, 5))
    np.testing.assert_allclose(scale_bones(palm, ones, np.ones((30, 3))), palm, atol=1e-12)
    longer = scale_bones(palm, 1.1 * ones, np.ones((30, 3)))
    np.testing.assert_allclose(
        np.linalg.norm(longer[:, 0] - longer[:, 1], axis=1),
        1.1 * np.linalg.norm(palm[:, 0] - palm[:, 1], axis=1),
    )
    np.testing.assert_array_equal(longer[:, 5], palm[:, 5])


def test_surface_follows_rotation_and_size() -> None:
    rng = CounterRng(6, np.arange(12))
    palm = sample_palm_joints(rng)
    eye = np.broadcast_to(np.eye(3), (12, 3, 3))
    shape = sample_surface(
        rng, eye, no_forearm=0.5, sleeve=0.5, radius_std=0.05, growth=np.zeros(12)
    )
    nodes, radii = hand_capsules(palm, shape)
    assert nodes.shape == (12, len(NODE_NAMES), 3)
    assert np.isfinite(nodes).all()
    assert int(EDGES.max()) < len(NODE_NAMES)
    assert len(EDGES) <= 80
    np.testing.assert_array_equal(nodes[:, :36], palm)
    turn = rotation_from_vector(np.array([0.3, -1.0, 0.7]))
    moved, moved_radii = hand_capsules(1.2 * (palm @ turn) + 5.0, shape)
    np.testing.assert_allclose(moved, 1.2 * (nodes @ turn) + 5.0, atol=1e-6)
    np.testing.assert_allclose(moved_radii, 1.2 * radii, rtol=1e-6)
    # Only forearm and sleeve may be absent.
    arm = [i for i, name in enumerate(NODE_NAMES) if name.startswith(("forearm", "sleeve"))]
    used = np.setdiff1d(np.unique(EDGES), arm)
    assert (radii[:, used] > 4.0).all()
    assert (radii[:, arm] == 0.0).any()
    assert (radii[:, arm] > 10.0).any()
    assert len(JOINT_RADIUS_MM) == 36


def test_counter_rng_addresses_and_distributions() -> None:
    rng = CounterRng(1, np.arange(20_000))
    u, n = rng.uniform("u"), rng.normal("n", 2)
    assert abs(float(u.mean()) - 0.5) < 0.01
    assert u.min() >= 0.0
    assert u.max() < 1.0
    assert abs(float(n.mean())) < 0.02
    assert abs(float(n.std()) - 1.0) < 0.02
    assert abs(float(np.corrcoef(n[:, 0], n[:, 1])[0, 1])) < 0.03
    assert abs(float(np.corrcoef(u[:-1], u[1:])[0, 1])) < 0.03
    np.testing.assert_array_equal(CounterRng(1, [7, 3]).uniform("u"), u[[7, 3]])
    assert not np.array_equal(rng.uniform("v"), u)
    assert not np.array_equal(CounterRng(2, np.arange(20_000)).uniform("u"), u)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"poses must be one of .*, got .real."):
        SyntheticHands(poses="real")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="split must be one of"):
        SyntheticHands(split="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hand must be one of"):
        SyntheticHands(hand="third")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"size must lie in 16\.\.512, got 8"):
        SyntheticHands(poses="kinematic", size=8)
    with pytest.raises(ValueError, match="cube_mm must be positive"):
        SyntheticHands(poses="kinematic", cube_mm=float("nan"))
    data = SyntheticHands(poses="kinematic")
    with pytest.raises(ValueError, match="indices must be non-negative, got -1"):
        data.batch([-1])
    with pytest.raises(ValueError, match=r"indices must have shape \[B\]"):
        data.batch(np.zeros((2, 2), dtype=np.int64))
    with pytest.raises(TypeError, match="indices must be integers"):
        data.batch(np.array([0.5]))
    with pytest.raises(ValueError, match="length and hold must be at least 1"):
        data.sequence(0, 0)
    with pytest.raises(ValueError, match="size must be"):
        data.frame(0, (0, 640))
    assert data.batch([]).crop.shape == (0, 1, 128, 128)


def test_nyu_poses_need_their_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DGPOSE_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="needs data_dir"):
        SyntheticHands(poses="nyu")
    with pytest.raises(FileNotFoundError):
        SyntheticHands(poses="nyu", data_dir=tmp_path)
    assert SyntheticHands(poses="auto").poses == "kinematic"
    assert SyntheticHands(poses="auto", data_dir=tmp_path).poses == "kinematic"


def test_nyu_splits_keep_neighbours_apart(data_dir: Path) -> None:
    sets = {
        split: SyntheticHands(poses="nyu", data_dir=data_dir, split=split)
        for split in ("train", "val", "test")
    }
    assert SyntheticHands(data_dir=data_dir).poses == "mixed"
    rows = {name: data.pose_rows for name, data in sets.items()}
    for held in ("val", "test"):
        assert len(rows[held]) > 400
        gap = np.abs(rows["train"][:, None].astype(int) - rows[held][None].astype(int)).min()
        assert gap >= 20
    assert len(rows["train"]) > 5000
    one = SyntheticHands(poses="nyu", data_dir=data_dir, actors=(1,))
    assert one.pose_rows.min() >= 2440
    with pytest.raises(ValueError, match="actors must name actors"):
        SyntheticHands(poses="nyu", data_dir=data_dir, actors=(5,))


def test_nyu_batches_are_deterministic(data_dir: Path) -> None:
    data = SyntheticHands(1, poses="mixed", data_dir=data_dir, hand="both")
    whole, part = data.batch(range(24)), data.batch([5, 23, 5])
    for name, a, b in zip(whole._fields, whole, part, strict=True):
        assert torch.equal(a[[5, 23, 5]], b), name
    assert bool(torch.isfinite(whole.joints).all())
