"""Edits of 2D body poses: height, the length of limbs, and joints dragged to another place.

A pose is BODY14 in pixels, x right, y DOWN. It is edited as a tree in the image plane whose root is
the middle of the hips: the neck hangs on it, head and arms on the neck, the legs on their hips. A
length is what is seen of it, not the bone's in space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.skeletons import BODY14

__all__ = ["LIMBS", "drag_joint", "scale_height", "scale_limb"]


def _bones(*joints: str) -> list[int]:
    """Bones, each by the joint at its end."""
    return [BODY14.joints.index(joint) for joint in joints]


_SIDES = ("right", "left")
_ROOT = ("neck", "right_hip", "left_hip")
_PARENTS = {
    "nose": "neck",
    **{f"{side}_{joint}": parent for side in _SIDES for joint, parent in (
        ("shoulder", "neck"), ("elbow", f"{side}_shoulder"), ("wrist", f"{side}_elbow"),
        ("knee", f"{side}_hip"), ("ankle", f"{side}_knee"),
    )},
}  # fmt: skip

LIMBS: dict[str, list[int]] = {
    "head": _bones("nose"),
    "trunk": _bones("neck"),
    "shoulders": _bones("right_shoulder", "left_shoulder"),
    "hips": _bones("right_hip", "left_hip"),
    "arms": _bones("right_elbow", "right_wrist", "left_elbow", "left_wrist"),
    "legs": _bones("right_knee", "right_ankle", "left_knee", "left_ankle"),
    **{f"{side}_{limb}": _bones(*(f"{side}_{end}" for end in ends)) for side in _SIDES
       for limb, ends in {
           "arm": ("elbow", "wrist"), "upper_arm": ("elbow",), "forearm": ("wrist",),
           "leg": ("knee", "ankle"), "thigh": ("knee",), "shank": ("ankle",),
       }.items()},
}  # fmt: skip
"""What `scale_limb` can scale: the bones of each, by the joint at the bone's end."""


def _hanging() -> Tensor:
    """[14, 14]: 1 where the first joint is the second, or hangs on it."""
    hangs = torch.eye(len(BODY14))
    for number, joint in enumerate(BODY14.joints):
        above = joint
        while above in _PARENTS:
            above = _PARENTS[above]
            hangs[number, BODY14.joints.index(above)] = 1
    return hangs


_HANGS = _hanging()


def scale_height(pose_px: Tensor, factor: float, known: Tensor | None = None) -> Tensor:
    """A taller or shorter person in the same posture, standing in the same place.

    All is scaled about the point on the ground: as low as the lowest joint, below the middle of the
    ankles (of the lowest joint where no ankle is known). So the lowest foot keeps its height in the
    image, and a step gets as much longer as the person.

    Args:
        pose_px: [..., 14, 2].
        factor: of the height, above 0.
        known: [..., 14] bool; None: all. Joints that are not known are left as they are.

    Raises:
        ValueError: another shape, a factor that is not positive and finite, a known joint that is
            not finite, or a pose of which nothing is known.
        TypeError: poses that are not of floating point.
    """
    _require_factor(factor)
    known = _require_poses(pose_px, known)
    if not bool(known.any(-1).all()):
        raise ValueError("known must hold a joint of every pose, got a pose without")
    x, y = pose_px.unbind(-1)
    depth = y.where(known, -math.inf)
    lowest = depth.argmax(-1, keepdim=True)
    ankles = torch.zeros_like(known)
    ankles[..., _bones("right_ankle", "left_ankle")] = True
    ankles &= known
    middle = x.where(ankles, 0).sum(-1, keepdim=True) / ankles.sum(-1, keepdim=True).clamp(min=1)
    ground = torch.stack(
        [
            middle.where(ankles.any(-1, keepdim=True), x.gather(-1, lowest)),
            y.gather(-1, lowest),
        ],
        dim=-1,
    )
    return torch.where(known[..., None], ground + factor * (pose_px - ground), pose_px)


def scale_limb(pose_px: Tensor, limb: str, factor: float, known: Tensor | None = None) -> Tensor:
    """A limb longer or shorter, in the same direction; what hangs on it moves along.

    The middle of the hips stays where it is: longer legs end lower, a longer trunk lifts shoulders,
    arms and head.

    Args:
        pose_px: [..., 14, 2].
        limb: a key of `LIMBS`, such as "right_forearm", "legs" or "trunk".
        factor: of the length, above 0.
        known: [..., 14] bool; None: all. Of the limb's bones those are scaled whose both ends are
            known.

    Raises:
        ValueError: another limb, or a pose of which no bone of it is known; else as `scale_height`.
        TypeError: poses that are not of floating point.
    """
    if limb not in LIMBS:
        raise ValueError(f"limb must be one of {', '.join(LIMBS)}, got {limb!r}")
    _require_factor(factor)
    known = _require_poses(pose_px, known)
    bones, there = _bone_vectors(pose_px, known)
    scaled = torch.zeros_like(there)
    scaled[..., LIMBS[limb]] = True
    scaled &= there
    if not bool(scaled.any(-1).all()):
        raise ValueError(f"known must hold both ends of a bone of {limb} in every pose")
    moves = (factor - 1) * bones.where(scaled[..., None], 0)
    return torch.where(known[..., None], pose_px + _HANGS.to(pose_px) @ moves, pose_px)


def drag_joint(
    pose_px: Tensor,
    joint: str,
    to_px: Tensor | npt.NDArray[Any] | Sequence[float],
    known: Tensor | None = None,
) -> Tensor:
    """A joint moved to another place.

    A wrist or ankle takes its limb along: elbow or knee bends, to the side to which it bends now,
    so that both bones keep their lengths (two-bone inverse kinematics in the image plane), and
    shoulder or hip stay. Out of reach it comes as near as the limb allows. Any other joint moves
    with what hangs on it, unturned; so does a wrist or ankle whose limb is not known.

    Args:
        pose_px: [..., 14, 2].
        joint: its name in BODY14.
        to_px: [..., 2] pixels, one place for all poses or one each.
        known: [..., 14] bool; None: all.

    Raises:
        ValueError: another joint, one that is not known in every pose, a place that is not finite;
            else as `scale_height`.
        TypeError: poses that are not of floating point.
    """
    if joint not in BODY14.joints:
        raise ValueError(f"joint must be one of {', '.join(BODY14.joints)}, got {joint!r}")
    known = _require_poses(pose_px, known)
    end = BODY14.joints.index(joint)
    if not bool(known[..., end].all()):
        raise ValueError(f"known must hold {joint} in every pose")
    target = torch.as_tensor(to_px, dtype=pose_px.dtype, device=pose_px.device)
    if target.shape[-1:] != (2,) or not bool(target.isfinite().all()):
        raise ValueError(f"to_px must be finite pixels of shape [..., 2], got {to_px}")
    moved = (
        pose_px + _HANGS[:, end, None].to(pose_px) * (target - pose_px[..., end, :])[..., None, :]
    )
    moved = torch.where(known[..., None], moved, pose_px)
    if not joint.endswith(("_wrist", "_ankle")):
        return moved
    middle = BODY14.joints.index(_PARENTS[joint])
    top = BODY14.joints.index(_PARENTS[_PARENTS[joint]])
    bent = pose_px.clone()
    bent[..., [middle, end], :] = _two_bones(pose_px[..., [top, middle, end], :], target)
    whole = known[..., [top, middle]].all(-1)[..., None, None]
    return torch.where(whole, bent, moved)


def _two_bones(chain: Tensor, target: Tensor) -> Tensor:
    """Where middle and end [..., 2, 2] of a chain [..., 3, 2] go, for the end to reach a target."""
    top, middle, end = chain.unbind(-2)
    first, second = ((b - a).norm(dim=-1, keepdim=True) for a, b in ((top, middle), (middle, end)))
    wanted = target - top
    distance = wanted.norm(dim=-1, keepdim=True)
    # A target on the shoulder itself says nothing about the direction: the limb's own is kept.
    toward = torch.where(distance > 1e-6, wanted, end - top)
    toward = toward / toward.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    reach = distance.maximum((first - second).abs()).minimum(first + second)
    cosine = (first**2 + reach**2 - second**2) / (2 * first * reach).clamp(min=1e-6)
    cosine = cosine.clamp(-1, 1)
    sine = (1 - cosine**2).sqrt()
    across = torch.stack([-toward[..., 1], toward[..., 0]], dim=-1)
    old, elbow = end - top, middle - top
    left = old[..., :1] * elbow[..., 1:] - old[..., 1:] * elbow[..., :1] >= 0
    side = torch.where(left, sine, -sine)
    return torch.stack([top + first * (cosine * toward + side * across), top + reach * toward], -2)


def _bone_vectors(pose_px: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Of each joint the bone that ends there [..., 14, 2], and whether both of its ends are known
    [..., 14]. The middle of the hips is known where both hips are."""
    hips = _bones("right_hip", "left_hip")
    parents = [BODY14.joints.index(_PARENTS.get(joint, joint)) for joint in BODY14.joints]
    start, there = pose_px[..., parents, :].clone(), known[..., parents].clone()
    root = _bones(*_ROOT)
    start[..., root, :] = pose_px[..., hips, :].mean(-2, keepdim=True)
    there[..., root] = known[..., hips].all(-1, keepdim=True)
    return pose_px - start, there & known


def _require_factor(factor: float) -> None:
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"factor must be positive and finite, got {factor}")


def _require_poses(pose_px: Tensor, known: Tensor | None) -> Tensor:
    """Which joints are known [..., 14], of poses that are poses."""
    if not pose_px.is_floating_point():
        raise TypeError(f"pose_px must be of floating point, got {pose_px.dtype}")
    if pose_px.dim() < 2 or tuple(pose_px.shape[-2:]) != (len(BODY14), 2):
        raise ValueError(f"pose_px must have shape [..., 14, 2], got {list(pose_px.shape)}")
    if known is None:
        known = torch.ones(pose_px.shape[:-1], dtype=torch.bool, device=pose_px.device)
    if known.shape != pose_px.shape[:-1] or known.dtype != torch.bool:
        raise ValueError(
            f"known must be bool of shape {list(pose_px.shape[:-1])}, got {known.dtype} of shape "
            f"{list(known.shape)}"
        )
    if not bool((pose_px.isfinite().all(-1) | ~known).all()):
        raise ValueError("pose_px must be finite where known, got NaN or Inf")
    return known
