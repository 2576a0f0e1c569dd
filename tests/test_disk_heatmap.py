"""disk_heatmap against DPIG's arrays and its laws. What holds for every op: test_every_op.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgpose_ext import disk_heatmap


@pytest.mark.parametrize(("radius", "pixels"), [(0, 1), (1, 5), (1.5, 9), (4, 49)])
def test_pixels_of_a_disk(radius: float, pixels: int) -> None:
    maps = disk_heatmap(torch.tensor([[[10.9, 20.2]]]), (41, 31), radius)
    assert maps.shape == (1, 1, 41, 31)
    assert maps.sum() == pixels
    y, x = maps[0, 0].nonzero().float().mean(0).tolist()
    assert (x, y) == (10, 20)  # truncated, not rounded


def test_negative_coordinates_are_cut_toward_zero() -> None:
    keypoints = torch.tensor([[[-0.9, 0.0], [-1.0, 0.0]]])
    assert disk_heatmap(keypoints, (1, 3), 0)[0, :, 0].tolist() == [[1, 0, 0], [0, 0, 0]]


def test_equals_dpig_on_real_people(data_dir: Path) -> None:
    golden = np.load(data_dir / "body/dpig_golden/market_golden.npz")
    keypoints = torch.from_numpy(golden["xy"])
    want = torch.from_numpy(np.unpackbits(golden["pose_disks_r4"], axis=-1))
    assert want.shape == (90, 18, 128, 64)
    visible = (keypoints >= 0).all(-1)
    assert not visible.all()
    got = disk_heatmap(keypoints, (128, 64), 4, visible=visible, dtype=torch.uint8)
    assert torch.equal(got, want)
    as_float = disk_heatmap(keypoints.float(), (128, 64), 4, visible=visible)
    assert torch.equal(2 * as_float - 1, 2 * want.float() - 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(-9, 40), st.integers(-9, 40), st.integers(0, 9), st.floats(0, 8))
def test_moving_the_keypoint_moves_its_map(x: int, y: int, step: int, radius: float) -> None:
    keypoints = torch.tensor([[[x + 10, y + 10], [x + 10 + step, y + 10]]])
    here, there = disk_heatmap(keypoints, (64, 64), radius)[0]
    assert torch.equal(here[:, : 64 - step], there[:, step:])
