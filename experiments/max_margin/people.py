"""What the max-margin experiments learn from and are tested on: people rendered in CMU poses.

Motions, persons, outfits, textures and backgrounds of the test part are all unseen. Candidates are
the training part's poses, thinned at 10 mm, in 24 headings. The poses were obtained from
mocap.cs.cmu.edu; that database was created with funding from NSF EIA-0196217.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dgpose.data.pose_pool import PosePool
from dgpose.data.pose_sources import candidate_poses, labelled_pool, read_poses
from dgpose.metrics.pose_retrieval import nearest_candidates

SIZE = 64
FRAMES = {"train": 20_000, "val": 500, "test": 2_000}
THIN_MM, HEADINGS = 10.0, 24


@dataclass(frozen=True, eq=False)
class People:
    """Pools of crops, candidate poses [N, 17, 3], and the rows of the candidates that lie nearest
    to the poses of the test pool."""

    train: PosePool
    val: PosePool
    test: PosePool
    candidates: Tensor
    nearest: Tensor


def rendered_people(data: Path, split_by: str, folder: Path) -> People:
    """All of it for one kind of split; pools are rendered once, and kept in `folder`."""
    pools = {}
    for split, frames in FRAMES.items():
        path = folder / f"{split_by}_{split}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            labelled_pool(
                "people", data, SIZE, frames=frames, split=split, split_by=split_by, every=1, seed=0
            ).save(path)  # fmt: skip
        pools[split] = PosePool.load(path)
    poses, name = read_poses("cmu", data, split="train", split_by=split_by, every=1)
    candidates = candidate_poses(poses, name, thin_mm=THIN_MM, headings=HEADINGS).poses_mm
    kept = folder / f"{split_by}_nearest.pt"
    if not kept.exists():
        torch.save(nearest_candidates(pools["test"].poses, candidates), kept)
    return People(**pools, candidates=candidates, nearest=torch.load(kept, weights_only=True))
