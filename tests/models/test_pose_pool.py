"""Pools of person crops, and candidate poses: thinned, and seen from all around."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dgpose.data.pose_candidates import thin_poses, with_headings
from dgpose.data.pose_pool import PosePool, people_pool
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose_ext.tensor_file import write_tensor_file


def pool(count: int = 5) -> PosePool:
    generator = torch.Generator().manual_seed(1)
    return PosePool(
        torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator),
        torch.randn(count, 17, 3, generator=generator) * 300,
        torch.rand(count, 17, 2, generator=generator) * 16,
        torch.arange(count) % 2,
        ("walking", "running"),
        "noise",
    )


def test_file_gives_the_pool_back(tmp_path: Path) -> None:
    whole, few = pool(), PosePool(pool().images, pool().poses)
    for written in (whole, few):
        written.save(tmp_path / "pool.safetensors")
        read = PosePool.load(tmp_path / "pool.safetensors")
        for name in ("images", "poses", "joints_px", "actions"):
            before, after = getattr(written, name), getattr(read, name)
            assert (before is None and after is None) or torch.equal(before, after), name
        assert (read.action_names, read.source) == (written.action_names, written.source)


def test_subset() -> None:
    whole = pool()
    part = whole.subset(torch.tensor([3, 1]))
    assert torch.equal(part.images, whole.images[[3, 1]])
    assert torch.equal(part.poses, whole.poses[[3, 1]])
    assert part.actions is not None
    assert part.actions.tolist() == [1, 1]
    assert part.joints_px is not None
    assert len(part.joints_px) == len(part) == 2
    assert part.image_size == 16
    assert len(whole.subset(torch.tensor([True, False, False, False, True]))) == 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": torch.zeros(5, 3, 16, 8, dtype=torch.uint8)}, ValueError, "images must have"),
        ({"images": torch.zeros(5, 3, 16, 16)}, TypeError, "images must be uint8"),
        ({"poses": torch.zeros(4, 17, 3)}, ValueError, r"poses must have shape \[N, 17, 3\]"),
        ({"poses": torch.full((5, 17, 3), torch.nan)}, ValueError, "poses must be finite"),
        ({"joints_px": torch.zeros(5, 17, 3)}, ValueError, "joints_px must have shape"),
        ({"actions": torch.full((5,), 2)}, ValueError, "actions must be rows of the 2"),
        ({"actions": torch.zeros(5)}, TypeError, "actions must be int64"),
    ],
)
def test_refuses_what_does_not_fit(
    changes: dict[str, Tensor], error: type[Exception], message: str
) -> None:
    whole = pool()
    fields = {"images": whole.images, "poses": whole.poses, "actions": whole.actions}
    with pytest.raises(error, match=message):
        PosePool(**(fields | changes), action_names=whole.action_names)  # type: ignore[arg-type]


def test_refuses_files_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "pool.safetensors"
    tensors = {"images": pool().images, "faces": pool().poses}
    described = {"action_names": [], "source": ""}
    write_tensor_file(path, tensors, kind="pose_pool", version=1, metadata=described)
    with pytest.raises(ValueError, match="does not hold a pose pool"):
        PosePool.load(path)


def test_pool_of_rendered_people(data_dir: Path) -> None:
    """The samples of SyntheticPeople, their poses relative to the hip, their actions by name."""
    from dgpose.data.body_poses import BodyPoses

    bodies = BodyPoses.load(data_dir)
    people = SyntheticPeople(3, poses="mixed", data_dir=data_dir, size=32)
    done: list[tuple[int, int]] = []
    made = people_pool(people, 6, bodies=bodies, progress=lambda *counts: done.append(counts))
    batch = people.batch(range(6))
    assert torch.equal(made.images.float(), (batch.image * 255).round())
    torch.testing.assert_close(made.poses, (batch.joints_mm - batch.joints_mm[:, :1]))
    assert made.joints_px is not None
    assert torch.equal(made.joints_px, batch.joints_px)
    assert made.actions is not None
    for row, action in zip(batch.pose_row.tolist(), made.actions.tolist(), strict=True):
        name = "kinematic" if row < 0 else bodies.action_names[bodies.action[row]]
        assert made.action_names[action] == name
    assert done == [(6, 6)]


def test_pool_without_actions() -> None:
    made = people_pool(SyntheticPeople(0, poses="kinematic", size=16), 2)
    assert made.actions is None
    assert float(made.poses[:, 0].abs().max()) == 0
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        people_pool(SyntheticPeople(0, poses="kinematic", size=16), 0)


def walk(count: int, step_mm: float, seed: int) -> Tensor:
    """A motion: neighbours are near each other."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(count, 17, 3, generator=generator) * step_mm
    return steps.cumsum(0) + torch.randn(17, 3, generator=generator) * 300


def thin_by_loop(poses: Tensor, distance_mm: float) -> list[int]:
    kept: list[int] = []
    for row, pose in enumerate(poses.double()):
        near = [(pose - poses[k].double()).norm(dim=1).mean() <= distance_mm for k in kept]
        if not any(near):
            kept.append(row)
    return kept


@pytest.mark.parametrize("distance_mm", [0.0, 3.0, 10.0, 40.0])
def test_thinning_is_the_plain_loop(distance_mm: float) -> None:
    poses = torch.cat((walk(120, 2.0, 0), walk(60, 8.0, 1), walk(120, 2.0, 0)[::3]))
    kept = thin_poses(poses, distance_mm)
    assert kept.tolist() == thin_by_loop(poses, distance_mm)
    assert 0 < len(kept) < len(poses)


def test_thinning_of_none_and_of_what_does_not_fit() -> None:
    assert thin_poses(torch.zeros(0, 17, 3)).tolist() == []
    with pytest.raises(ValueError, match="distance must not be negative, got -1"):
        thin_poses(torch.zeros(1, 17, 3), -1.0)
    with pytest.raises(ValueError, match=r"poses must have shape \[N, J, 3\]"):
        thin_poses(torch.zeros(1, 17))
    with pytest.raises(ValueError, match="poses must be finite"):
        thin_poses(torch.full((1, 17, 3), torch.inf))


def test_headings_are_the_plain_loop() -> None:
    poses = walk(3, 50.0, 2).double()
    turned = with_headings(poses, 5)
    assert turned.shape == (15, 17, 3)
    for number, pose in enumerate(poses):
        for heading in range(5):
            angle = 2 * math.pi * heading / 5
            cosine, sine = math.cos(angle), math.sin(angle)
            matrix = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
            expected = pose.numpy() @ matrix.T
            np.testing.assert_allclose(turned[5 * number + heading], expected, atol=1e-9)
    assert torch.equal(turned[::5], poses)


def test_first_heading_goes_from_forward_to_the_right() -> None:
    forward = torch.tensor([[[0.0, 10.0, 100.0]]])
    quarter = with_headings(forward, 4)[1]
    torch.testing.assert_close(quarter, torch.tensor([[100.0, 10.0, 0.0]]), atol=1e-4, rtol=0)


def test_headings_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        with_headings(torch.zeros(1, 17, 3), 0)
    with pytest.raises(ValueError, match=r"poses must have shape \[N, J, 3\]"):
        with_headings(torch.zeros(17, 3))
