"""From one image to its pose: `python -m experiments.max_margin.latency WEIGHTS`.

WEIGHTS is a model of `variants train`. Times, in one process, of the image network and of the
search for the 500 best poses, over about 40 thousand and a million candidates with trained
embeddings, in each storage; and how many rows the certificate left to score exactly. Writes
experiments/results/max_margin_latency.json and prints the table.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import seconds_of_calls
from dgpose.data.pose_sources import candidate_poses, read_poses
from dgpose.inference.pose_retriever import PoseRetriever
from dgpose.models.max_margin import load_model
from experiments.report import print_header, save_results, table_row

from .people import THIN_MM, command_line, rendered_people

HEADINGS = {"40 thousand": 8, "a million": 192}
K, QUERIES = 500, 64


def main() -> None:
    """The command line."""
    parser = command_line(__doc__, threads=2)
    parser.add_argument("weights", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.weights)
    images = rendered_people(args.data, "sequence", args.out / "people").test.images[:QUERIES]
    poses, name = read_poses("cmu", args.data, split="train", split_by="sequence", every=1)
    rows: list[dict[str, Any]] = []
    for headings in HEADINGS.values():
        candidates = candidate_poses(poses, name, thin_mm=THIN_MM, headings=headings).poses_mm
        for storage in ("int8", "bfloat16", "float32"):
            retriever = PoseRetriever.build(model, candidates, storage=storage)
            rows.append(_times(retriever, images, storage))
            print(rows[-1], flush=True)
            del retriever
    save_results("max_margin_latency", {"threads": args.threads, "k": K, "rows": rows})
    print_header(["candidates", "storage", "network, ms", "search, ms", "scored exactly", "share"])
    for row in rows:
        share = row["search_ms"] / (row["search_ms"] + row["network_ms"])
        print(
            table_row(
                [
                    f"{row['candidates']:,}",
                    row["storage"],
                    f"{row['network_ms']:.2f}",
                    f"{row['search_ms']:.2f}",
                    f"{row['survivors']:,.0f}",
                    f"{100 * share:.0f} %",
                ]
            )
        )


def _times(retriever: PoseRetriever, images: torch.Tensor, storage: str) -> dict[str, Any]:
    queries = retriever.model.embed_images(images)
    turn = iter(range(10**9))

    def network() -> None:
        i = next(turn) % QUERIES
        retriever.model.embed_images(images[i : i + 1])

    def search() -> None:
        i = next(turn) % QUERIES
        retriever.index.search_mean_pose(queries[i : i + 1], K)

    times = [statistics.median(seconds_of_calls(work)) for work in (network, search)]
    survivors = retriever.index.stats.survivors_per_query
    return {
        "candidates": len(retriever.index),
        "storage": storage,
        "network_ms": 1e3 * times[0],
        "search_ms": 1e3 * times[1],
        "survivors": survivors,
    }


if __name__ == "__main__":
    main()
