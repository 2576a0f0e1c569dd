"""The Triton search of the scoring ops, in the interpreter, with lists so short that they
overflow."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton_search_worker
from scoring_oracle import assert_same, best, distance_matrix, score_matrix
from triton_worker import python

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By name: values, indices, and how many queries were recovered and rows evaluated."""
    file = tmp_path_factory.mktemp("search") / "results.pt"
    python(str(ROOT / "tests/triton_search_worker.py"), str(file), interpret=True)
    results: dict[str, Any] = torch.load(file)
    return results


SEARCHES = triton_search_worker.calls()


@pytest.mark.parametrize("name", SEARCHES)
def test_search_is_the_defined_ranking(searched: dict[str, Any], name: str) -> None:
    call = SEARCHES[name]
    scores = score_matrix(call["queries"], call["candidates"])
    if "poses" in call:
        with np.errstate(all="ignore"):
            distances = distance_matrix(call["poses"], call["targets"])
            scores += call.get("margin_weight", 1.0) * distances
    values, indices, _ = searched[name]
    assert_same((values, indices), best(scores, call["k"]))


def test_search_evaluates_few_rows(searched: dict[str, Any]) -> None:
    """Of 2000: those that bfloat16 cannot tell from the 9 best of each query."""
    assert searched["shuffled"][2] == {"recovered": 0, "evaluated": pytest.approx(40, abs=10)}


def test_first_tiles_of_a_search_are_spread_over_all() -> None:
    from dgpose_ext.triton.scoring._search import _order

    for tiles in (*range(1, 300), 7813, 78125):
        same, step = _order(tiles)
        visited = [i * step % tiles for i in range(tiles)]
        assert same == tiles
        assert sorted(visited) == list(range(tiles))
        first = sorted(visited[:64])
        gaps = [b - a for a, b in zip(first, [*first[1:], first[0] + tiles], strict=True)]
        assert max(gaps) <= 6 * tiles / len(first)


def test_search_recovers_lists_that_overflow(searched: dict[str, Any]) -> None:
    for name in ("one row", "adversarial, all zeros", "margin with ties"):
        assert searched[name][2]["recovered"] > 0, name
