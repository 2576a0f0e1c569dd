"""body_mask against DPIG's arrays and its laws. What holds for every op: test_every_op.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgpose.skeletons import DPIG_LIMBS
from dgpose_ext import body_mask, disk_heatmap
from dgpose_ext.testing.body_mask import PERSON_LIMBS, people


@pytest.mark.parametrize("radius", [4, 7])
@pytest.mark.parametrize("backend", [None, "reference"])
def test_equals_dpig_on_real_people(data_dir: Path, radius: int, backend: str | None) -> None:
    golden = np.load(data_dir / "body/dpig_golden/market_golden.npz")
    keypoints = torch.from_numpy(golden["xy"])
    want = torch.from_numpy(np.unpackbits(golden[f"pose_mask_r{radius}"], axis=-1))[:, None]
    assert want.shape == (90, 1, 128, 64)
    visible = (keypoints >= 0).all(-1)
    assert not visible.all()
    got = body_mask(
        keypoints, DPIG_LIMBS, (128, 64), radius,
        visible=visible, dtype=torch.uint8, backend=backend,
    )  # fmt: skip
    assert torch.equal(got, want)


def test_samples_use_the_limbs_of_dpig() -> None:
    assert PERSON_LIMBS == DPIG_LIMBS


def test_every_market_person_gets_the_reference_mask(data_dir: Path) -> None:
    annotation = np.load(data_dir / "body/keypoints18/market-annotation-train.npz")
    keypoints = torch.from_numpy(annotation["xy"])
    visible = (keypoints >= 0).all(-1)
    assert len(keypoints) == 12936
    got, want = (
        body_mask(k, DPIG_LIMBS, (128, 64), 7, visible=v, dtype=torch.uint8, backend=backend)
        for k, v, backend in (
            (keypoints, visible, None),
            (keypoints[::40], visible[::40], "reference"),
        )
    )
    assert torch.equal(got[::40], want)
    assert (got.flatten(1).any(1) == visible.sum(1).gt(1)).float().mean() > 0.99


def test_a_limb_of_no_length_is_a_closed_disk() -> None:
    keypoints = torch.tensor([[[20.0, 20.0]]])
    mask = body_mask(keypoints, [(0, 0)], (41, 41), 4)
    disk = disk_heatmap(keypoints, (41, 41), 4)
    assert (mask >= disk).all()
    assert torch.equal(mask[0, 0], mask[0, 0].T)
    assert torch.equal(mask, mask.flip(-1))


def test_invisible_joints_take_their_limbs_away() -> None:
    call = people(1)
    visible = torch.zeros((1, 18))
    visible[0, :2] = 1
    assert torch.equal(
        body_mask(**call, visible=visible),
        body_mask(**(call | {"limbs": [(1, 0)]})),
    )
    visible[0, 0] = 0
    assert body_mask(**call, visible=visible).sum() == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 60), st.integers(0, 30))
def test_moving_the_body_moves_its_mask(seed: int, right: int, down: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.randint(20, 60, (1, 4, 2), generator=generator)
    limbs = [(0, 1), (1, 2), (2, 3)]
    here = body_mask(keypoints, limbs, (140, 150), 4.5)
    there = body_mask(keypoints + torch.tensor([right, down]), limbs, (140, 150), 4.5)
    assert torch.equal(here[..., : 140 - down, : 150 - right], there[..., down:, right:])
