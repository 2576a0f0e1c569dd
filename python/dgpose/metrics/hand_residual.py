"""How well an estimated hand explains the depth image, where there is no label to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dgpose.data.cameras import Camera, parse_camera
from dgpose.data.hand_surface import EDGES, NODE_NAMES, SurfaceShape, hand_capsules
from dgpose_ext import capsule_depth

__all__ = ["Residual", "rendered_residual"]


@dataclass(frozen=True)
class Residual:
    """Rendered against observed depth inside the silhouette of an estimated hand.

    Attributes:
        median_abs_mm: median of |rendered - observed|, over the pixels where both are.
        median_mm: median of rendered - observed; positive: the estimate lies behind what is seen.
        inside: share of the silhouette's pixels with |rendered - observed| < `within_mm`; pixels
            where nothing is observed count as outside.
        pixels: pixels of the silhouette that lie in the image.
    """

    median_abs_mm: float
    median_mm: float
    inside: float
    pixels: int


def rendered_residual(
    joints_mm: npt.NDArray[Any],
    depth: npt.NDArray[Any],
    camera: str | Sequence[float],
    *,
    left: bool = False,
    within_mm: float = 30.0,
) -> Residual:
    """Render the mean hand's surface around the joints, and compare it with the image.

    The forearm is left out: the joints say nothing about it.

    Args:
        joints_mm: `[36, 3]` NYU joints, mm, x right, y UP, z forward.
        depth: `[H, W]` mm; 0, NaN and Inf = no depth.
        camera: of the image; a name or (fx, fy, cx, cy).
        left: whether the joints are of a left hand.
        within_mm: distance that counts as explained.

    Returns:
        The residual; its medians are NaN where no pixel has both depths.

    Raises:
        ValueError: shapes do not fit, joints that are not finite, or a camera of zeros.
    """
    joints = np.asarray(joints_mm, np.float64)
    image = np.asarray(depth, np.float32)
    if joints.shape != (36, 3) or not np.isfinite(joints).all():
        raise ValueError(f"joints_mm must be finite [36, 3], got {list(joints.shape)}")
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"depth must have shape [H, W], got {list(image.shape)}")
    rendered = _render(joints, parse_camera(camera), image.shape, left)
    silhouette = rendered > 0
    both = silhouette & (image > 0) & (image < np.inf)
    difference = (rendered - image)[both]
    pixels = int(silhouette.sum())
    if not difference.size:
        return Residual(np.nan, np.nan, 0.0, pixels)
    distance = np.abs(difference)
    return Residual(
        float(np.median(distance)),
        float(np.median(difference)),
        float((distance < within_mm).sum() / pixels),
        pixels,
    )


def _render(
    joints: npt.NDArray[np.float64], camera: Camera, size: tuple[int, ...], left: bool
) -> npt.NDArray[np.float32]:
    side = np.array([-1.0 if left else 1.0, 1.0, 1.0])
    nodes, radii = hand_capsules((joints * side)[None], _mean_shape())
    hand = [i for i, (a, b) in enumerate(EDGES) if not _is_arm(a) and not _is_arm(b)]
    rendered = capsule_depth(
        torch.from_numpy((nodes * side * [1, -1, 1]).astype(np.float32)),
        torch.from_numpy(EDGES[hand]),
        torch.from_numpy(radii.astype(np.float32)),
        camera,
        (size[0], size[1]),
    )[0]
    result: npt.NDArray[np.float32] = rendered[0].numpy()
    return result


def _is_arm(node: int) -> bool:
    return NODE_NAMES[node].startswith(("forearm", "sleeve"))


def _mean_shape() -> SurfaceShape:
    one, none = np.ones(1), np.zeros(1)
    return SurfaceShape(
        joint_radius=np.ones((1, 36)),
        palm_thickness=one,
        flesh=one,
        bulk=np.full(1, 0.7),
        web=np.full((1, 3), 0.45),
        thumb_web=np.full(1, 0.65),
        wrist_bend=np.zeros((1, 3)),
        forearm_length=none,
        forearm_width=one,
        forearm_radius=one,
        forearm_twist=none,
        sleeve_start=none,
        sleeve_radius=none,
        growth=none,
    )
