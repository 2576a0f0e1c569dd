"""Edits of 2D poses: what moves, what stays, what keeps its length."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dgpose.data.pose_edits import LIMBS, drag_joint, scale_height, scale_limb
from dgpose.skeletons import BODY14

JOINT = {name: number for number, name in enumerate(BODY14.joints)}


def poses(count: int = 3, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return 20 + 88 * torch.rand(count, 14, 2, generator=random)


def rows(*joints: str) -> list[int]:
    return [JOINT[joint] for joint in joints]


def lengths(pose: Tensor, *chain: str) -> Tensor:
    return torch.stack([(pose[..., b, :] - pose[..., a, :]).norm(dim=-1)
                        for a, b in pairwise(rows(*chain))], -1)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.3, 3))
def test_a_taller_person_has_the_same_shape_and_the_same_ground(seed: int, factor: float) -> None:
    pose = poses(seed=seed)
    taller = scale_height(pose, factor)
    apart, before = torch.cdist(taller, taller), torch.cdist(pose, pose)
    torch.testing.assert_close(apart, factor * before, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(taller[..., 1].amax(-1), pose[..., 1].amax(-1))
    ankles = rows("right_ankle", "left_ankle")
    middle = [p[:, ankles, 0].mean(-1) for p in (pose, taller)]
    torch.testing.assert_close(middle[1], middle[0], atol=1e-3, rtol=1e-4)


def test_the_ground_without_ankles_is_below_the_lowest_joint() -> None:
    pose = poses(1)
    known = torch.ones(1, 14, dtype=torch.bool)
    known[:, rows("right_ankle", "left_ankle")] = False
    pose[0, rows("right_ankle", "left_ankle")] = torch.nan
    taller = scale_height(pose, 2, known)
    lowest = int(pose[0, :, 1].where(known[0], -1).argmax())
    torch.testing.assert_close(taller[0, lowest], pose[0, lowest])
    assert taller[0].isnan().equal(pose[0].isnan())


@pytest.mark.parametrize("limb", LIMBS)
def test_a_limb_alone_changes_its_length(limb: str) -> None:
    """Every bone has the length it had, times the factor where it is the limb's."""
    pose = poses()
    longer = scale_limb(pose, limb, 1.5)

    def bones(p: Tensor) -> Tensor:
        middle = p[:, rows("right_hip", "left_hip")].mean(1)
        starts = {"neck": middle, "right_hip": middle, "left_hip": middle}
        above = {"nose": "neck", "elbow": "shoulder", "wrist": "elbow", "knee": "hip",
                 "ankle": "knee"}  # fmt: skip
        ends = []
        for joint in BODY14.joints:
            side, _, part = joint.rpartition("_")
            if joint in starts:
                start = starts[joint]
            elif part == "shoulder":
                start = p[:, JOINT["neck"]]
            else:
                start = p[:, JOINT[f"{side}_{above[part]}" if side else above[part]]]
            ends.append(p[:, JOINT[joint]] - start)
        return torch.stack(ends, 1)

    factors = torch.ones(14)
    factors[LIMBS[limb]] = 1.5
    torch.testing.assert_close(bones(longer), bones(pose) * factors[:, None])


def test_a_longer_limb_takes_what_hangs_on_it_along() -> None:
    pose = poses()
    moved = scale_limb(pose, "left_upper_arm", 2) - pose
    bone = pose[:, JOINT["left_elbow"]] - pose[:, JOINT["left_shoulder"]]
    for joint in BODY14.joints:
        along = joint in ("left_elbow", "left_wrist")
        torch.testing.assert_close(moved[:, JOINT[joint]], bone if along else 0 * bone)


def test_a_bone_whose_end_is_not_known_is_not_scaled() -> None:
    pose, known = poses(2), torch.ones(2, 14, dtype=torch.bool)
    known[1, JOINT["right_knee"]] = False
    longer = scale_limb(pose, "legs", 2, known)
    leg = rows("right_hip", "right_knee", "right_ankle")
    assert longer[1, leg].equal(pose[1, leg])
    assert not longer[0, leg].equal(pose[0, leg])
    with pytest.raises(ValueError, match="both ends of a bone of right_leg in every pose"):
        scale_limb(pose, "right_leg", 2, known)


CHAINS = {
    "right_wrist": ("right_shoulder", "right_elbow", "right_wrist"),
    "left_ankle": ("left_hip", "left_knee", "left_ankle"),
}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(CHAINS)), st.floats(-50, 180),
       st.floats(-50, 180))  # fmt: skip
def test_dragging_bends_a_limb_and_keeps_its_bones(
    seed: int, joint: str, x: float, y: float
) -> None:
    pose = poses(seed=seed)
    dragged = drag_joint(pose, joint, (x, y))
    chain = CHAINS[joint]
    before, after = lengths(pose, *chain), lengths(dragged, *chain)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-4)
    others = [number for name, number in JOINT.items() if name not in chain[1:]]
    assert dragged[:, others].equal(pose[:, others])
    top = pose[:, JOINT[chain[0]]]
    wanted = (torch.tensor([x, y]) - top).norm(dim=-1)
    reach = wanted.clamp((before[:, 0] - before[:, 1]).abs(), before.sum(-1))
    got = (dragged[:, JOINT[joint]] - top).norm(dim=-1)
    torch.testing.assert_close(got, reach, atol=1e-2, rtol=1e-4)
    within = (wanted == reach)[:, None]
    landed = dragged[:, JOINT[joint]].where(within, torch.tensor([x, y]))
    torch.testing.assert_close(landed, torch.tensor([x, y]).expand(3, 2), atol=1e-2, rtol=1e-4)


def test_the_elbow_stays_on_its_side() -> None:
    pose = poses(64)
    top, middle, end = rows(*CHAINS["right_wrist"])

    def side(p: Tensor) -> Tensor:
        old, elbow = p[:, end] - p[:, top], p[:, middle] - p[:, top]
        return torch.sign(old[:, 0] * elbow[:, 1] - old[:, 1] * elbow[:, 0])

    # Halfway to the shoulder, so that no arm is stretched.
    target = (pose[:, end] + pose[:, top]) / 2
    dragged = drag_joint(pose, "right_wrist", target)
    bent = (dragged[:, end] - target).norm(dim=-1) < 1e-3
    assert int(bent.sum()) > 20
    assert side(dragged)[bent].equal(side(pose)[bent])


def test_dragging_to_where_it_is_changes_nothing() -> None:
    pose = poses(16)
    for joint in BODY14.joints:
        same = drag_joint(pose, joint, pose[:, JOINT[joint]])
        torch.testing.assert_close(same, pose, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("joint", "along"),
    [("right_elbow", ("right_wrist",)), ("neck", ("nose", "right_shoulder", "right_elbow",
      "right_wrist", "left_shoulder", "left_elbow", "left_wrist")), ("nose", ())],
)  # fmt: skip
def test_other_joints_move_with_what_hangs_on_them(joint: str, along: tuple[str, ...]) -> None:
    pose = poses()
    moved = drag_joint(pose, joint, (40, 50)) - pose
    step = torch.tensor([40.0, 50.0]) - pose[:, JOINT[joint]]
    for name, number in JOINT.items():
        goes = name == joint or name in along
        torch.testing.assert_close(moved[:, number], step if goes else 0 * step)


def test_a_wrist_without_an_elbow_moves_alone() -> None:
    pose, known = poses(1), torch.ones(1, 14, dtype=torch.bool)
    known[0, JOINT["right_elbow"]] = False
    pose[0, JOINT["right_elbow"]] = torch.inf
    dragged = drag_joint(pose, "right_wrist", (5, 6), known)
    assert dragged[0, JOINT["right_wrist"]].tolist() == [5, 6]
    others = [n for n in range(14) if n != JOINT["right_wrist"]]
    assert dragged[0, others].equal(pose[0, others])


def test_degenerate_limbs_stay_finite() -> None:
    pose = torch.zeros(1, 14, 2)
    for edited in (
        drag_joint(pose, "right_wrist", (3, 4)),
        drag_joint(pose, "right_wrist", (0, 0)),
        scale_limb(pose, "arms", 2),
        scale_height(pose, 2),
    ):
        assert bool(edited.isfinite().all())


def test_what_is_refused() -> None:
    pose = poses()
    for factor in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"factor must be positive and finite, got {factor}"):
            scale_height(pose, factor)
    with pytest.raises(ValueError, match=r"limb must be one of head, trunk, .*, got 'tail'"):
        scale_limb(pose, "tail", 2)
    with pytest.raises(ValueError, match=r"joint must be one of nose, .*, got 'tail'"):
        drag_joint(pose, "tail", (0, 0))
    with pytest.raises(ValueError, match="to_px must be finite"):
        drag_joint(pose, "nose", (0, float("nan")))
    with pytest.raises(ValueError, match=r"\[..., 14, 2\], got \[3, 13, 2\]"):
        scale_height(pose[:, 1:], 2)
    with pytest.raises(TypeError, match=r"floating point, got torch\.int64"):
        scale_height(pose.long(), 2)
    with pytest.raises(
        ValueError, match=r"known must be bool of shape \[3, 14\], got torch\.float"
    ):
        scale_height(pose, 2, torch.ones(3, 14))
    with pytest.raises(ValueError, match="a joint of every pose"):
        scale_height(pose, 2, torch.zeros(3, 14, dtype=torch.bool))
    known = torch.ones(3, 14, dtype=torch.bool)
    known[1, 0] = False
    with pytest.raises(ValueError, match="known must hold nose in every pose"):
        drag_joint(pose, "nose", (0, 0), known)
    pose[0, 3, 1] = torch.nan
    with pytest.raises(ValueError, match="pose_px must be finite where known"):
        scale_limb(pose, "legs", 2)
