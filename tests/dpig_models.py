"""Tiny untrained DPIG models, that say of themselves that they are trained."""

from __future__ import annotations

from typing import Any

import torch

from dgpose.models.dpig import DPIG, TRAINABLE, DPIGConfig

__all__ = ["tiny_dpig"]


def tiny_dpig(seed: int = 0, trained: Any = TRAINABLE, **changes: Any) -> DPIG:
    """128x64, in eval mode; of 256x256 without a background."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "channels": (4, 4, 4, 4),
        "crop": 8,
        "part_code": 4,
        "background_code": 8,
        "placed_channels": 4,
        "bottleneck": 8,
        "bottleneck_channels": 4,
        "pose_code": 8,
        "pose_width": 16,
        "pose_blocks": 1,
        "mapper_width": 32,
        "background_mapper_width": 32,
        "mapper_blocks": 1,
    }
    model = DPIG(DPIGConfig.small(**sizes | changes)).eval()
    model.trained = frozenset(trained)
    return model
