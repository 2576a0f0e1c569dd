"""Searches of the scoring ops by Triton's interpreter, with small tiles and lists: many rounds.

python tests/triton_search_worker.py FILE       results of `calls` by torch.save, in a process of
its own with TRITON_INTERPRET=1
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

import dgpose_ext
from dgpose_ext.testing import Sample
from dgpose_ext.testing.inner_product_topk import adversarial_embeddings, random_embeddings
from dgpose_ext.testing.max_margin_topk import cancelling_scores, margin_call
from dgpose_ext.testing.topk_mean_pose import random_poses

#: A list holds 128 rows: after a round of two tiles of 64 come others of 6, 24 and so on.
SIZES = {
    "ROWS": 64, "QUERIES": 64, "DEPTH": 64, "LIST": 128, "LISTS": 64 * 128, "TILE": 64, "PAIRS": 64,
    "CODES": 4 * 64 * 64,
}  # fmt: skip


def calls() -> dict[str, Sample]:
    """Arguments of inner_product_topk, or where there are poses of max_margin_topk."""
    found = {
        f"adversarial, {name}": call | {"k": 7}
        for name, call in adversarial_embeddings(20, 300).items()
    }
    for name, k in (("gaussian", 1), ("duplicates", 30), ("near ties", 500)):
        found[f"k = {k}, {name}"] = adversarial_embeddings(20, 300)[name] | {"k": k}

    found["shuffled"] = random_embeddings(3, 2000, 40) | {"k": 9}
    few = random_embeddings(1, 420, 20)
    order = (few["candidates"] @ few["queries"][0]).argsort()
    found["ascending"] = few | {"candidates": few["candidates"][order], "k": 9}
    found["batch in parts"] = random_embeddings(66, 200, 9) | {"k": 5}

    wide = torch.randn((400, 90), generator=torch.Generator().manual_seed(0))
    found["columns"] = {"queries": wide[:3, :50], "candidates": wide[:, 30:80], "k": 9}
    found["transposed"] = {"queries": wide[:3, :50], "candidates": wide.T[:, :50], "k": 9}
    found["one row"] = {"queries": wide[:2], "candidates": wide[:1].expand(300, 90), "k": 9}
    for dim in (64, 65):  # read in place, and not
        for dtype in (torch.float16, torch.bfloat16):
            halves = random_embeddings(3, 400, dim)
            halves["candidates"][5::7] *= 1e-40
            halves = {name: t.to(dtype) for name, t in halves.items()}
            found[f"{dtype} of {dim} columns"] = halves | {"k": 7}

    for weight in (0.0, 1e-47, 0.05, 1.0, 1e300):
        margin = margin_call(torch.float32, 3, 300, 16, 4, k=6, margin_weight=weight)
        found[f"margin of weight {weight}"] = margin
    found["cancelling margin"] = cancelling_scores(2, 300)
    margin = margin_call(torch.float32, 3, 300, 16, 4)
    margin["poses"][::5, 1, 2] = torch.nan
    margin["poses"][1::50] = torch.inf
    margin["poses"][2::50] = 3e38
    found["margin not finite"] = margin | {"k": 30}
    duplicates = adversarial_embeddings(20, 600)["duplicates"]
    margin = {"poses": random_poses(3, 4).repeat(200, 1, 1), "targets": random_poses(3, 4, 1)}
    found["margin with ties"] = duplicates | margin | {"k": 5}
    return found


def run(file: str) -> None:
    from dgpose_ext.triton.scoring import _search

    torch.set_num_threads(1)
    for name, size in SIZES.items():
        assert isinstance(getattr(_search, name), int)
        setattr(_search, name, size)
    launch, seen = _search.launch, {}

    def watch(kernel: Any, programs: int, out: Tensor, *arguments: Any, **constants: Any) -> None:
        given = dict(zip(kernel.arg_names, arguments, strict=False))
        if kernel is _search.recover_kernel:
            seen["recovered"] += int((given["counts"] > given["capacity"]).sum())
        if kernel is _search.evaluate_kernel:
            seen["evaluated"] += int(given["counts"].sum())
        launch(kernel, programs, out, *arguments, **constants)

    _search.launch = watch
    results: dict[str, Any] = {}
    for name, call in calls().items():
        seen.update(recovered=0, evaluated=0)
        op = dgpose_ext.max_margin_topk if "poses" in call else dgpose_ext.inner_product_topk
        results[name] = *op(**call, backend="triton"), dict(seen)
    torch.save(results, file)


if __name__ == "__main__":
    run(*sys.argv[1:])
