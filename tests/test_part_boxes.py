"""part_boxes against DPIG's arrays and its laws. What holds for every op: test_every_op.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgpose.data.dpig_parts import dpig_part_boxes
from dgpose.skeletons import DPIG_PARTS
from dgpose_ext import part_boxes
from dgpose_ext.testing.part_boxes import BODY_PARTS


def test_known_boxes() -> None:
    keypoints = torch.tensor([[[10.0, 20.0], [14.0, 12.0], [1.0, 30.0]]])
    boxes, present = part_boxes(
        keypoints, [(0, 1), (2,), (1, 2)], margin=2, lone_margin=5, size=(32, 16),
        visible=torch.tensor([[1, 1, 0]]),
    )  # fmt: skip
    assert boxes.tolist() == [[[8, 10, 15, 22], [0, 0, 1, 1], [9, 7, 15, 17]]]
    assert present.tolist() == [[True, False, True]]


def test_samples_use_the_parts_of_dpig() -> None:
    assert BODY_PARTS == DPIG_PARTS


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
def test_equals_dpig_on_real_people(data_dir: Path, dtype: torch.dtype) -> None:
    golden = np.load(data_dir / "body/dpig_golden/market_golden.npz")
    keypoints = torch.from_numpy(golden["xy"])
    visible = (keypoints >= 0).all(-1)
    assert not visible.all()
    boxes, present = dpig_part_boxes(keypoints.to(dtype), (128, 64), visible)
    y1, x1, y2, x2 = torch.from_numpy(golden["part_bbox37"])[:, :7].to(boxes.dtype).unbind(-1)
    assert torch.equal(present, torch.from_numpy(golden["part_vis37"])[:, :7] != 0)
    assert torch.equal(boxes, torch.stack([x1, y1, x2, y2], -1))


def test_preset_of_256x256() -> None:
    keypoints = torch.full((2, 18, 2), 128.0)
    visible = torch.zeros((2, 18))
    visible[:, [0, 1, 10]] = 1
    visible[0, 12] = 1  # a knee on the other side: a whole body
    boxes, present = dpig_part_boxes(keypoints, (256, 256), visible)
    # Head: nose raised by 10 or 25, margin 10 or 20; right leg: the ankle alone.
    assert boxes[0, 0].tolist() == [118, 108, 138, 138]
    assert boxes[1, 0].tolist() == [108, 83, 148, 148]
    assert boxes[0, 6].tolist() == [108, 108, 148, 148]
    assert boxes[1, 6].tolist() == [88, 88, 168, 168]
    assert present[0].tolist() == [True, False, True, False, False, True, True]
    with pytest.raises(ValueError, match=r"size must be \(128, 64\) or \(256, 256\)"):
        dpig_part_boxes(keypoints, (64, 64))
    with pytest.raises(ValueError, match=r"keypoints must have shape \[B, 18, 2\]"):
        dpig_part_boxes(keypoints[:, :17], (128, 64))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(-20, 20), st.floats(0, 9))
def test_moving_the_joints_moves_the_boxes(seed: int, step: int, margin: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.randint(40, 80, (3, 6, 2), generator=generator).double()
    parts = [(0, 1), (2, 3, 4), (5,)]
    here, there = (
        part_boxes(k, parts, margin=margin, lone_margin=3, size=(200, 200))[0]
        for k in (keypoints, keypoints + step)
    )
    torch.testing.assert_close(there, here + step)
