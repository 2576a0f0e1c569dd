"""Layers that exist for HandNet: plain torch modules, usable in any training loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AnchorRegression(nn.Module):
    """Turns per-cell predictions on a coarse grid into joints in crop coordinates.

    Every cell (x, y) of the [h, w] grid votes for every joint: its own centre (the anchor) plus a
    predicted offset, and a depth. The votes are averaged with a softmax over the cells, so that the
    result is differentiable and finer than the grid (A2J, Xiong et al., ICCV 2019, and integral
    regression, Sun et al., ECCV 2018)::

        w      = softmax over cells of logit
        anchor = (2 (x + 0.5) / w - 1, 2 (y + 0.5) / h - 1)
        a      = sum w * (anchor_x + 2 / w * da)
        b      = sum w * (anchor_y + 2 / h * db)
        c      = sum w * c_cell

    Args:
        joints: number of joints J, at least 1.

    Shape:
        input [B, 4J, h, w], channels in the order J logits, J da, J db, J c; offsets are in cells.
        output [B, J, 3] = (a, b, c): a to the right, b down, both -1..1 over the crop; c is depth
        in half cubes from the centre.

    Raises:
        ValueError: joints < 1, or an input that is not [B, 4J, h, w].
    """

    def __init__(self, joints: int) -> None:
        super().__init__()
        if joints < 1:
            raise ValueError(f"joints must be at least 1, got {joints}")
        self.joints = joints

    def forward(self, maps: Tensor) -> Tensor:
        if maps.dim() != 4 or maps.shape[1] != 4 * self.joints:
            raise ValueError(
                f"maps must have shape [B, {4 * self.joints}, h, w], got {list(maps.shape)}"
            )
        h, w = maps.shape[2], maps.shape[3]
        logits, da, db, depth = maps.flatten(2).chunk(4, dim=1)
        weights = torch.softmax(logits, dim=2)
        anchor_x = (torch.arange(w, dtype=maps.dtype, device=maps.device) + 0.5) * (2.0 / w) - 1.0
        anchor_y = (torch.arange(h, dtype=maps.dtype, device=maps.device) + 0.5) * (2.0 / h) - 1.0
        a = (weights * (anchor_x.repeat(h) + da * (2.0 / w))).sum(2)
        b = (weights * (anchor_y.repeat_interleave(w) + db * (2.0 / h))).sum(2)
        return torch.stack((a, b, (weights * depth).sum(2)), dim=2)

    def extra_repr(self) -> str:
        return f"joints={self.joints}"
