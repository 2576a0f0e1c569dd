"""The crops that int8 networks of hands are calibrated with."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpose.data.synthetic_hands import CUBE_MM, SyntheticHands
from dgpose.nn.hand_regressor import CROP_SIZE

_SEED = 77
"""Not the training's, nor that of any measurement."""

_BATCH = 64


def calibration_crops(
    count: int = 256, *, size: int = CROP_SIZE, cube_mm: float = CUBE_MM
) -> Tensor:
    """[count, 1, size, size] float32: rendered right hands as `SyntheticHands` draws them, always
    the same ones (kinematic poses, which need no data folder). More than 256 changed nothing that
    could be measured."""
    hands = SyntheticHands(_SEED, poses="kinematic", size=size, cube_mm=cube_mm)
    batches = [range(begin, min(begin + _BATCH, count)) for begin in range(0, count, _BATCH)]
    return torch.cat([hands.batch(indices).crop for indices in batches])
