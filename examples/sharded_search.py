"""One PoseIndex over several processes: torchrun --nproc-per-node 2 examples/sharded_search.py

With GPUs and --backend nccl the results travel between them; the search itself runs on the CPUs.
"""

from __future__ import annotations

import argparse
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from dgpose_ext import ShardedPoseIndex

ROWS, DIM, JOINTS = 100_000, 256, 17  # of each rank


def main() -> None:
    """Every rank makes its rows and searches all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="gloo", choices=["gloo", "nccl"])
    parser.add_argument("--rows", type=int, default=ROWS, help="of each rank")
    arguments = parser.parse_args()
    dist.init_process_group(arguments.backend, timeout=timedelta(seconds=60))
    rank = dist.get_rank()
    if arguments.backend == "nccl":
        torch.cuda.set_device(rank % torch.cuda.device_count())

    # Real ones: the rows rank::world_size of a file, or PoseIndex.load(f"poses_{rank}.dgx").
    generator = torch.Generator().manual_seed(rank)
    weights = torch.randn(16, DIM, generator=torch.Generator().manual_seed(99))
    rows = (torch.randn(arguments.rows, 16, generator=generator) @ weights).relu()
    poses = torch.randn(arguments.rows, JOINTS, 3, generator=generator) * 200
    index = ShardedPoseIndex.build(rows, poses=poses, storage="int8", timeout=60)

    # The same queries on every rank; a server would broadcast them from rank 0.
    queries = (torch.randn(64, 16, generator=torch.Generator().manual_seed(1)) @ weights).relu()
    index.search(queries, 500)
    start = time.perf_counter()
    scores, ids = index.search(queries, 500)
    seconds = time.perf_counter() - start
    mean = index.search_mean_pose(queries, 500)
    total = len(index)
    if rank == 0:
        print(f"{total:,} rows on {dist.get_world_size()} ranks, k=500: {len(queries)} queries")
        print(f"{1000 * seconds:.1f} ms; best of the first: {ids[0, 0]}, score {scores[0, 0]:.2f}")
        print(f"its mean pose begins at {[round(x) for x in mean[0, 0].tolist()]} mm")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
