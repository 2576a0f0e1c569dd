"""The step of gradient descent, searched along the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["line_search"]

_FACTOR = math.sqrt(10)


def line_search(
    loss_at: Callable[[float], float], start: float, lowest: float, highest: float
) -> float:
    """A step of a grid of half decades at which the loss is lower than at both neighbours.

    Goes from `start` to the better side for as long as the loss falls. A loss that is not finite
    counts as larger than any other.

    Args:
        loss_at: the loss after a step of this length.
        start: where to begin, such as the step of the last batch; moved between the bounds.
        lowest, highest: bounds of the step, 0 < lowest <= highest.

    Returns:
        The step with the lowest loss of all that were tried, the shortest of equals.
    """
    last = math.floor(math.log(highest / lowest, _FACTOR) + 1e-9)
    first = min(max(round(math.log(max(start, lowest) / lowest, _FACTOR)), 0), last)
    tried: dict[int, float] = {}

    def loss(place: int) -> float:
        if place not in tried:
            value = loss_at(lowest * _FACTOR**place)
            tried[place] = value if math.isfinite(value) else math.inf
        return tried[place]

    best = first
    for direction in (-1, 1):
        # Shorter steps first, and at equal losses, too: where a step is too long for any number.
        while 0 <= best + direction <= last and (
            loss(best + direction) < loss(best) or (direction < 0 and math.isinf(loss(best)))
        ):
            best += direction
    return lowest * _FACTOR**best
