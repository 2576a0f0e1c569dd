"""The step of gradient descent, searched along the gradient."""

from __future__ import annotations

import math

import pytest

from dgpose.train.line_search import line_search


@pytest.mark.parametrize("start", [1e-7, 1e-3, 0.05, 100.0, 1e9])
def test_line_search_finds_the_best_step_of_its_grid(start: float) -> None:
    grid = [1e-7 * 10 ** (k / 2) for k in range(19)]
    assert grid[-1] == pytest.approx(1e2)

    def loss_at(step: float) -> float:
        tried.append(step)
        return (math.log10(step) + 2.4) ** 2

    tried: list[float] = []
    step = line_search(loss_at, start, 1e-7, 1e2)
    assert step == min(tuple(tried), key=loss_at)
    assert step == pytest.approx(min(grid, key=loss_at))


def test_line_search_tries_no_step_twice_and_stops_behind_the_valley() -> None:
    tried: list[float] = []

    def loss_at(step: float) -> float:
        tried.append(step)
        return abs(math.log10(step))

    assert line_search(loss_at, 1.0, 1e-7, 1e2) == pytest.approx(1)
    assert len(tried) == len(set(tried)) == 3


def test_line_search_leaves_steps_too_long_for_any_number() -> None:
    def loss_at(step: float) -> float:
        return math.nan if step > 2e-5 else 1 - step

    assert line_search(loss_at, 1.0, 1e-7, 1e2) == pytest.approx(1e-5)


def test_line_search_stays_between_its_bounds() -> None:
    assert line_search(lambda step: -step, 1.0, 1e-7, 1e2) == pytest.approx(1e2)
    assert line_search(lambda step: step, 1.0, 1e-7, 1e2) == 1e-7
