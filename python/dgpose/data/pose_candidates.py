"""Candidate poses of retrieval: near-duplicates left out, and poses seen from all around."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["require_millimetres", "thin_poses", "with_headings"]

FloatArray = npt.NDArray[np.float64]

_SMALLEST_MM = 20.0


def require_millimetres(name: str, poses: Tensor) -> None:
    """ValueError where most poses [N, J, 3] (hip at 0) end before 20 mm from the hip: metres."""
    reach = poses.norm(dim=-1).amax(dim=-1)
    if len(reach) and float(reach.median()) < _SMALLEST_MM:
        raise ValueError(
            f"{name} must be in millimetres, got poses that reach {float(reach.median()):.3g} mm "
            "from the hip"
        )


def thin_poses(poses: Tensor, distance_mm: float = 10.0) -> Tensor:
    """Rows of poses that leave out near-duplicates: in order, a pose stays unless one that stayed
    before lies within a mean joint distance of `distance_mm`.

    The result is the same on each machine: distances are sums in float64 in one fixed order.

    Args:
        poses: [N, J, 3] mm, finite.
        distance_mm: not negative; 0 leaves out exact duplicates.

    Returns:
        Rows [M] int64, ascending.

    Raises:
        ValueError: another shape, a negative distance, or poses that are not finite.
    """
    if poses.dim() != 3 or poses.shape[1] == 0 or poses.shape[2] != 3:
        raise ValueError(f"poses must have shape [N, J, 3], got {list(poses.shape)}")
    if not distance_mm >= 0:
        raise ValueError(f"distance must not be negative, got {distance_mm}")
    if not bool(poses.isfinite().all()):
        raise ValueError("poses must be finite")
    points = poses.double().cpu().numpy()
    # The distance of mean points is at most the mean of distances, so that whoever is near lies in
    # the same cell of a grid of mean points or in one beside it. Joints of one side count negative
    # in a second grid of the same kind, which tells apart poses of equal means.
    cell = max(distance_mm, 1e-6) * (1 + 1e-9)
    signs = np.where(np.arange(points.shape[1]) % 2 == 0, 1.0, -1.0)
    means = np.concatenate((points.mean(1), (points * signs[:, None]).mean(1)), 1)
    cells = np.floor(means[:, :3] / cell).astype(np.int64)
    kept_in: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    around = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    kept = []
    for row, (x, y, z) in enumerate(cells.tolist()):
        near = [k for i, j, m in around for k in kept_in.get((x + i, y + j, z + m), ())]
        if near:
            rows = np.array(near)
            rows = rows[np.abs(means[rows] - means[row]).max(1) <= cell]
            if _mean_distances(points[rows], points[row]).min(initial=math.inf) <= distance_mm:
                continue
        kept_in[x, y, z].append(row)
        kept.append(row)
    return torch.tensor(kept, dtype=torch.int64)


def _mean_distances(poses: FloatArray, pose: FloatArray) -> FloatArray:
    """Of poses [M, J, 3] to one [J, 3]. Joint by joint: NumPy's sums over an axis, and the fused
    operations of products, differ between machines."""
    total = np.zeros(len(poses))
    for joint, point in enumerate(pose):
        x, y, z = (poses[:, joint] - point).T
        total += np.sqrt(x * x + y * y + z * z)
    return total / len(pose)


def with_headings(poses: Tensor, count: int = 24) -> Tensor:
    """Each pose turned about the vertical axis in equal steps all around.

    Args:
        poses: [N, J, 3], relative to the hip; x right, y DOWN, z forward.
        count: headings of a pose; the first is its own, the next have turned from z (away from
            the camera) towards x.

    Returns:
        [N count, J, 3]: all headings of the first pose, then of the second.

    Raises:
        ValueError: another shape, or a count below 1.
    """
    if poses.dim() != 3 or poses.shape[2] != 3:
        raise ValueError(f"poses must have shape [N, J, 3], got {list(poses.shape)}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    cosine, sine = (turn.to(poses)[None, :, None] for turn in (angle.cos(), angle.sin()))
    x, y, z = poses[:, None].unbind(-1)
    turned = torch.stack((cosine * x + sine * z, y.expand(-1, count, -1), cosine * z - sine * x), 3)
    return turned.flatten(0, 1)
