"""Poses and embeddings for the scoring benchmarks: real poses where there are some.

DGPOSE_DATA/mocap/cmu_h36m17.npz: 40,293 poses of 17 joints (CMU motion capture), turned to several
headings; without it, random poses. Embedded by a two-layer ReLU network of width 1024 with
fixed random weights, until there are trained ones; queries are embeddings of noisy poses.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"
_FILE = Path(os.environ.get("DGPOSE_DATA", _DEFAULT)) / "mocap" / "cmu_h36m17.npz"

JOINTS = 17
#: What the figures stand on; goes into the note of every case.
SOURCE = "real poses (CMU)" if _FILE.is_file() else "random poses"


def poses(count: int) -> Tensor:
    """[N, 17, 3] mm around the root, y up: all real poses in heading 0, then in the next one."""
    if _FILE.is_file():
        rest = torch.from_numpy(np.load(_FILE)["pos"]).float()
    else:
        generator = torch.Generator().manual_seed(0)
        rest = torch.randn((40_293, 12), generator=generator)
        rest = (rest @ torch.randn((12, JOINTS * 3), generator=generator) * 100).view(-1, JOINTS, 3)
    turned = []
    for heading in range(-(-count // len(rest))):
        cos, sin = math.cos(heading * 2.4), math.sin(heading * 2.4)  # the golden angle
        turn = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        turned.append(rest @ turn.T)
    return torch.cat(turned)[:count].contiguous()


def embed(values: Tensor, dim: int) -> Tensor:
    """Embeddings [N, D] of poses [N, 17, 3]: not negative, half of the values 0."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randn((JOINTS * 3, 1024), generator=generator) / 400
    second = torch.randn((1024, dim), generator=generator) / 32
    return torch.cat([(p.flatten(1) @ first).relu() @ second for p in values.split(8192)]).relu()


def noisy(values: Tensor, batch: int) -> Tensor:
    """[B, 17, 3]: some of the poses, every joint moved by 30 mm or so."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(0, len(values), (batch,), generator=generator)
    return values[rows] + 30 * torch.randn((batch, JOINTS, 3), generator=generator)


def search_call(batch: int, count: int, dim: int) -> dict[str, Tensor]:
    """queries [B, D] and candidates [N, D]."""
    rest = poses(count)
    return {"queries": embed(noisy(rest, batch), dim), "candidates": embed(rest, dim)}


def margin_call(batch: int, count: int, dim: int) -> dict[str, Tensor]:
    """The same with poses [N, 17, 3] and, for every query, the pose that it was made from."""
    rest = poses(count)
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(0, len(rest), (batch,), generator=generator)  # those of `noisy`
    return search_call(batch, count, dim) | {"poses": rest, "targets": rest[rows]}
