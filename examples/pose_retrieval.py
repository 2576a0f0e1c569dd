"""Retrieves poses from noisy ones: python examples/pose_retrieval.py

Poses are embedded by a two-layer network (here with random weights: inner products of such
embeddings already follow the likeness of poses), indexed, saved, mapped and searched.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from dgpose_ext import PoseIndex


def random_poses(count: int) -> Tensor:
    """Poses [count, 17, 3] in mm of a few factors, as those of people are."""
    factors = torch.randn(12, 51) * 60
    return (torch.randn(count, 12) @ factors).view(count, 17, 3)


def main() -> None:
    """Prints what was found."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(51, 512), torch.nn.ReLU(), torch.nn.Linear(512, 256), torch.nn.ReLU()
    )

    @torch.no_grad()
    def embed(poses: Tensor) -> Tensor:
        return torch.nn.functional.normalize(network(poses.flatten(1) / 200))

    poses = random_poses(50_000)
    index = PoseIndex(embed(poses), poses=poses)
    print(f"{index}: {index.memory_bytes / len(index):,.0f} bytes a row")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "poses.dgx"
        index.save(path)
        index = PoseIndex.load(path)  # mapped

        truth = poses[torch.randint(len(poses), (8,))]
        queries = embed(truth + 20 * torch.randn_like(truth))
        scores, ids = index.search(queries, k=10)
        nearest = (poses[ids[:, 0]] - truth).norm(dim=-1).mean(-1)
        mean = (index.search_mean_pose(queries, k=10) - truth).norm(dim=-1).mean(-1)
        for b in range(len(truth)):
            print(f"best id {int(ids[b, 0]):6d}, score {scores[b, 0]:.4f}:", end=" ")
            print(f"{nearest[b]:5.1f} mm from the truth, mean of 10: {mean[b]:5.1f} mm")
        print(f"{index.stats.survivors_per_query:.0f} of {len(index):,} rows got an exact score")


if __name__ == "__main__":
    main()
