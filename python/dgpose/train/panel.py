"""Pictures for TensorBoard: skeletons drawn over depth crops."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dgpose.skeletons import Skeleton

_SCALE = 2


def skeleton_panel(
    crops: Tensor, predicted: Tensor, truth: Tensor, skeleton: Skeleton
) -> NDArray[np.uint8]:
    """Crops in one row: predicted skeletons as lines, true joints as white dots.

    Args:
        crops: [B, 1, S, S], -1 (near, bright) .. 1 (background, black).
        predicted: [B, J, 3] in crop coordinates.
        truth: [B, J, 3] in crop coordinates.
        skeleton: the J joints, their lines and colours.

    Returns:
        RGB picture [2 S, 2 S B, 3].
    """
    size = crops.shape[-1] * _SCALE
    tiles = []
    for crop, pose, joints in zip(crops[:, 0].float(), predicted, truth, strict=True):
        grey = ((1 - crop.clamp(-1, 1)) * 127.5).byte().numpy()
        tile = cv2.cvtColor(cv2.resize(grey, (size, size)), cv2.COLOR_GRAY2RGB)
        # Off-crop joints stay drawable: OpenCV clips lines, but not numbers beyond int32.
        points = ((pose[:, :2].float() + 1) * (size / 2)).clamp(-size, 2 * size).int().tolist()
        dots = ((joints[:, :2].float() + 1) * (size / 2)).clamp(-size, 2 * size).int().tolist()
        for (start, end), color in zip(skeleton.edges, skeleton.edge_colors, strict=True):
            cv2.line(tile, points[start], points[end], color, 1, cv2.LINE_AA)
        for dot in dots:
            cv2.circle(tile, dot, 1, (255, 255, 255), -1, cv2.LINE_AA)
        tiles.append(tile)
    return np.concatenate(tiles, axis=1).astype(np.uint8)
