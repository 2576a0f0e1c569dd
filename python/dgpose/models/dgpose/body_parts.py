"""Parts of a body: where they lie in an image, their codes pooled there, and placed elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgpose.models.dgpose.config import DGPoseConfig
from dgpose.skeletons import BODY14
from dgpose_ext import limb_heatmap

__all__ = ["PART_NAMES", "PartMaps", "place_codes", "pool_features"]

Point = dict[str, float]


def _between(start: str, end: str, share: float) -> Point:
    """The point at this share of the way between two joints; beyond them below 0 and above 1."""
    return {start: 1 - share, end: share}


def _side(side: str) -> dict[str, tuple[Point, Point]]:
    shoulder, elbow, wrist = f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist"
    hip, knee, ankle = f"{side}_hip", f"{side}_knee", f"{side}_ankle"
    waist = _between(shoulder, hip, 0.5)
    return {
        f"{side}_chest": ({shoulder: 1.0}, waist),
        f"{side}_belly": (waist, {hip: 1.0}),
        f"{side}_upper_arm": ({shoulder: 1.0}, {elbow: 1.0}),
        f"{side}_forearm": ({elbow: 1.0}, {wrist: 1.0}),
        f"{side}_hand": ({wrist: 1.0}, _between(elbow, wrist, 1.35)),
        f"{side}_thigh": ({hip: 1.0}, {knee: 1.0}),
        f"{side}_shin": ({knee: 1.0}, {ankle: 1.0}),
        f"{side}_foot": ({ankle: 1.0}, _between(knee, ankle, 1.2)),
    }


def _hips_and(joint: str, share: float) -> Point:
    """The point between a joint and the middle of the hips."""
    return {joint: 1 - share, "left_hip": share / 2, "right_hip": share / 2}


_PARTS: dict[str, tuple[Point, Point]] = {
    "face": ({"neck": 0.4, "nose": 0.6}, {"nose": 1.0}),
    "skull": (_between("neck", "nose", 1.4), _between("neck", "nose", 1.8)),
    "chest": ({"neck": 1.0}, _hips_and("neck", 0.5)),
    "belly": (_hips_and("neck", 0.5), _hips_and("neck", 1.0)),
    **_side("right"),
    **_side("left"),
}
PART_NAMES = tuple(_PARTS)
"""The parts that have codes of their own: each is a segment between two points of the body."""


class PartMaps(nn.Module):
    """Shares of the parts in each cell of a grid of S/2 cells a side.

    Shape:
        pose_px [B, 14, 2] in pixels of the crop, known [B, 14] (bool; None: all) ->
        [B, P, S/2, S/2] from 0 to 1, whose sum over the parts is at most 1: the rest is the
        background's. Parts that need a joint which is not known are nowhere. Gradients flow to
        pose_px.
    """

    _BACKGROUND = 0.2  # as near as a part must be to have as much of a cell as the background

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__()
        self.grid = config.image_size // 2
        self.sigma = config.part_sigma / 2
        rows = [point for segment in _PARTS.values() for point in segment]
        weights = torch.tensor([[row.get(joint, 0.0) for joint in BODY14.joints] for row in rows])
        self.weights: Tensor
        self.register_buffer("weights", weights, persistent=False)
        self.segments = [(2 * part, 2 * part + 1) for part in range(len(_PARTS))]

    def forward(self, pose_px: Tensor, known: Tensor | None = None) -> Tensor:
        # Cells are 2x2 pixels: the centre of the first lies at pixel (0.5, 0.5).
        cells = (pose_px.float() - 0.5) / 2
        visible = None
        if known is not None:
            cells = cells.where(known[..., None], 0)
            visible = ~((self.weights != 0) & ~known[:, None]).any(2)
        with torch.autocast(cells.device.type, enabled=False):  # 8 bits are half a cell
            points = torch.einsum("pj,bjc->bpc", self.weights, cells)
        near = limb_heatmap(
            points, self.segments, (self.grid, self.grid), self.sigma, visible=visible
        )
        shares: Tensor = near / (near.sum(1, keepdim=True) + self._BACKGROUND)
        return shares


def pool_features(features: Tensor, shares: Tensor) -> Tensor:
    """Means of features [B, C, h, w] under each part's share [B, P, h, w]: [B, P, C]; 0 for a part
    that is nowhere."""
    weights = shares / (shares.sum((2, 3), keepdim=True) + 1e-3)
    return torch.einsum("bchw,bphw->bpc", features.float(), weights)


def place_codes(codes: Tensor, shares: Tensor) -> Tensor:
    """Codes [B, P, E] of parts, each where its part is [B, P, h, w]: [B, E, h, w]."""
    return torch.einsum("bpe,bphw->behw", codes.float(), shares)
