"""What the scoring ops check alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dgpose_ext._validate import (
    require_device,
    require_dtype,
    require_integer,
    require_shape,
    require_tensor,
)

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

#: The backends whose search reads float16 and bfloat16 candidates as they are.
_READ_HALVES = ("cuda", "triton")


def require_embeddings(queries: Tensor, candidates: Tensor) -> None:
    """TypeError or ValueError unless they are queries [B, D] and candidates [N, D]."""
    require_dtype("queries", require_tensor("queries", queries), DTYPES)
    require_shape("queries", queries, "[B, D]")
    require_rows("candidates", candidates, "[N, D]", queries, D=queries.shape[1])


def require_rows(name: str, value: Tensor, notation: str, queries: Tensor, **known: int) -> None:
    """TypeError or ValueError unless it is a float tensor of this shape beside the queries."""
    require_dtype(name, require_tensor(name, value), DTYPES)
    require_shape(name, value, notation, **known)
    require_device(name, value, "queries", queries)


def require_poses(poses: Tensor, queries: Tensor, candidates: Tensor) -> int:
    """J of poses [N, J, 3], or TypeError or ValueError."""
    require_rows("poses", poses, "[N, J, 3]", queries, N=candidates.shape[0])
    return poses.shape[1]


def require_margin(
    poses: Tensor, targets: Tensor, margin_weight: float, queries: Tensor, candidates: Tensor
) -> None:
    """TypeError or ValueError unless these are the poses, targets and weight of a margin."""
    joints = require_poses(poses, queries, candidates)
    if joints == 0:
        raise ValueError(f"poses must have at least one joint, got {list(poses.shape)}")
    require_rows("targets", targets, "[B, J, 3]", queries, B=queries.shape[0], J=joints)
    if not 0 <= margin_weight < math.inf:
        raise ValueError(f"margin_weight must be finite and not negative, got {margin_weight}")


def require_k(k: int) -> None:
    """TypeError or ValueError unless k is an integer of at least 1."""
    require_integer("k", k)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")


def search_rows(candidates: Tensor, backend: str) -> Tensor:
    """The candidates in the dtype that the search of a backend reads: float32 or, there, halves."""
    halves = candidates.dtype in (torch.float16, torch.bfloat16)
    return candidates if halves and backend in _READ_HALVES else candidates.float()
