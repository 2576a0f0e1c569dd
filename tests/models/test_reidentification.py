"""Market-1501's protocol: against a plain writing of it, by hand, and its rules one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dgpose.data.market1501 import DISTRACTOR, JUNK
from dgpose.metrics.reidentification import reidentify


def angles(*degrees: float) -> torch.Tensor:
    """Features whose similarity to that of 0 degrees falls with the angle."""
    radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([radians.cos(), radians.sin()], 1).float()


def by_the_book(query: Any, gallery: Any, qi: Any, gi: Any, qc: Any, gc: Any) -> tuple[Any, float]:
    """The released evaluation, image after image."""
    curve, precisions = np.zeros(50), []
    unit = gallery / np.maximum(np.linalg.norm(gallery, axis=1, keepdims=True), 1e-12)
    for q in range(len(query)):
        good = np.flatnonzero((gi == qi[q]) & (gc != qc[q]))
        junk = np.flatnonzero((gi == JUNK) | ((gi == qi[q]) & (gc == qc[q])))
        if not len(good):
            continue
        order = np.argsort(-(unit @ query[q]), kind="stable")
        area, recall, precision, hits, place = 0.0, 0.0, 1.0, 0, 0
        for row in order:
            if row in junk:
                continue
            if row in good:
                hits += 1
                if hits == 1:
                    curve[place:] += 1
            new = hits / len(good)
            area += (new - recall) * (precision + hits / (place + 1)) / 2
            recall, precision, place = new, hits / (place + 1), place + 1
        precisions.append(area)
    return curve / len(precisions), float(np.mean(precisions))


@pytest.mark.parametrize("seed", range(3))
def test_against_the_released_evaluation_written_out(seed: int) -> None:
    draw = np.random.default_rng(seed)
    qi, qc = draw.integers(1, 9, 150), draw.integers(1, 4, 150)  # more than are ranked at once
    gi, gc = draw.integers(-1, 12, 300), draw.integers(1, 4, 300)
    query, gallery = draw.normal(size=(150, 4)), draw.normal(size=(300, 4))
    arguments = (query, gallery, qi, gi, qc, gc)
    curve, precision = by_the_book(*arguments)
    found = reidentify(*map(torch.from_numpy, arguments))
    assert np.allclose(found.curve, curve, atol=1e-12)
    assert found.mean_average_precision == pytest.approx(precision, abs=1e-12)
    assert found.gallery == (gi != JUNK).sum()


def test_by_hand() -> None:
    """Right at the places 1 and 3 of the ranking: (1 + 1) / 2 and (1/2 + 2/3) / 2, of two."""
    found = reidentify(
        angles(0), angles(10, 20, 30, 40), torch.tensor([7]), torch.tensor([7, 8, 7, 9]),
        torch.tensor([1]), torch.tensor([2, 2, 3, 2]),
    )  # fmt: skip
    assert found.mean_average_precision == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert (found.rank(1), found.rank(10), found.queries) == (1, 1, 1)


def test_what_is_left_out_and_what_is_wrong() -> None:
    """Junk and the query's own camera do not count; a distractor in front of the hit does."""
    ids = torch.tensor([JUNK, 7, DISTRACTOR, 7])
    found = reidentify(
        angles(0), angles(0, 1, 2, 3), torch.tensor([7]), ids, torch.tensor([1]),
        torch.tensor([2, 1, 2, 2]),
    )  # fmt: skip
    assert (found.rank(1), found.rank(5)) == (0, 1)
    assert found.mean_average_precision == pytest.approx(1 / 4)
    assert found.gallery == 3


def test_equal_similarities_rank_by_place() -> None:
    def first(ids: list[int]) -> float:
        return reidentify(
            angles(0), angles(5, 5), torch.tensor([7]), torch.tensor(ids), torch.tensor([1]),
            torch.tensor([2, 2]),
        ).rank(1)  # fmt: skip

    assert (first([7, 8]), first([8, 7])) == (1, 0)


def test_queries_without_a_right_image_are_not_scored() -> None:
    found = reidentify(
        angles(0, 0), angles(1), torch.tensor([7, 8]), torch.tensor([7]), torch.tensor([1, 1]),
        torch.tensor([2]),
    )  # fmt: skip
    assert (found.queries, found.rank(1)) == (1, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query": angles(float("nan"))}, "query must be finite"),
        ({"gallery": torch.zeros(2, 3)}, r"got \[1, 2\] and \[2, 3\]"),
        ({"gallery_cameras": torch.tensor([2])}, r"gallery_cameras must have shape \[2\]"),
        ({"query_ids": torch.tensor([0])}, "query_ids must be at least 1, got 0"),
        ({"gallery_ids": torch.tensor([-1, -1])}, "from another camera, got none"),
    ],
)
def test_errors(change: dict[str, Any], said: str) -> None:
    given = {
        "query": angles(0), "gallery": angles(1, 2), "query_ids": torch.tensor([7]),
        "gallery_ids": torch.tensor([7, 8]), "query_cameras": torch.tensor([1]),
        "gallery_cameras": torch.tensor([2, 2]),
    }  # fmt: skip
    with pytest.raises(ValueError, match=said):
        reidentify(**(given | change))
