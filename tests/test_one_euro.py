"""The One-Euro filter against the paper's algorithm, and what it is for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dgpose.inference.one_euro import OneEuroConfig, OneEuroFilter

HZ = 30.0


def paper(values: list[float], times: list[float], config: OneEuroConfig) -> list[float]:
    """Algorithm 1 of the paper, one number at a time."""

    def alpha(cutoff: float, period: float) -> float:
        return 1 / (1 + 1 / (2 * math.pi * cutoff) / period)

    out, speed = [values[0]], 0.0
    for k in range(1, len(values)):
        period = times[k] - times[k - 1]
        a = alpha(config.d_cutoff_hz, period)
        speed = a * (values[k] - out[-1]) / period + (1 - a) * speed
        a = alpha(config.min_cutoff_hz + config.beta * abs(speed), period)
        out.append(a * values[k] + (1 - a) * out[-1])
    return out


def run(points: Any, config: OneEuroConfig) -> np.ndarray[Any, Any]:
    smooth = OneEuroFilter(config)
    return np.stack([smooth(p, k / HZ) for k, p in enumerate(points)])


def test_one_number_as_in_the_paper() -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.1, 50)).tolist()
    values = np.cumsum(rng.normal(0, 5, 50)).tolist()
    config = OneEuroConfig(min_cutoff_hz=1.7, beta=0.03, d_cutoff_hz=0.8)
    smooth = OneEuroFilter(config)
    got = [smooth(np.array([v]), t).item() for v, t in zip(values, times, strict=True)]
    np.testing.assert_allclose(got, paper(values, times, config), rtol=1e-12)
    assert not np.allclose(got, values, rtol=1e-3)


def test_turned_axes_give_the_turned_result() -> None:
    rng = np.random.default_rng(1)
    points = np.cumsum(rng.normal(0, 4, (40, 36, 3)), axis=0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    config = OneEuroConfig()
    np.testing.assert_allclose(run(points @ turn, config), run(points, config) @ turn, atol=1e-9)


def test_points_do_not_mix() -> None:
    points = np.zeros((20, 2, 3))
    points[:, 1, 0] = np.arange(20) * 10
    smooth = run(points, OneEuroConfig())
    assert not smooth[:, 0].any()
    assert smooth[-1, 1, 0] > 100


def test_less_jitter_at_rest_and_little_lag_in_motion() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 2, (300, 1, 3))
    config = OneEuroConfig()
    rest = run(noise, config)[60:]
    assert rest.std() < 0.6 * noise.std()
    moving = noise + np.arange(300)[:, None, None] * np.array([500 / HZ, 0, 0])  # 500 mm/s
    lag = (moving - run(moving, config))[60:, 0, 0].mean()
    assert 0 < lag < 6
    slow = (moving - run(moving, OneEuroConfig(beta=0.0)))[60:, 0, 0].mean()
    assert slow > 40  # what the speed's part saves


def test_reset_forgets() -> None:
    smooth = OneEuroFilter()
    smooth(np.zeros((1, 3)), 0.0)
    smooth.reset()
    np.testing.assert_array_equal(smooth(np.full((2, 3), 7.0), 0.0), 7.0)


def test_what_is_given_is_not_changed() -> None:
    smooth = OneEuroFilter()
    first, second = np.zeros((1, 3)), np.ones((1, 3))
    smooth(first, 0.0)[:] = 5
    smooth(second, 1.0)
    assert not first.any()
    assert second.all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_cutoff_hz": 0.0}, "min_cutoff_hz must be positive, got 0"),
        ({"d_cutoff_hz": -1.0}, "d_cutoff_hz must be positive, got -1"),
        ({"min_cutoff_hz": math.nan}, "min_cutoff_hz must be positive, got nan"),
        ({"beta": -0.1}, "beta must be at least 0, got -0.1"),
        ({"beta": math.inf}, "beta must be at least 0, got inf"),
    ],
)
def test_wrong_parameters(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        OneEuroConfig(**settings)


def test_wrong_points_and_times_change_nothing() -> None:
    smooth, untouched = OneEuroFilter(), OneEuroFilter()
    for one in (smooth, untouched):
        one(np.zeros((2, 3)), 1.0)
    with pytest.raises(ValueError, match=r"shape \[2, 3\] as before, got \[3, 3\]"):
        smooth(np.zeros((3, 3)), 2.0)
    with pytest.raises(ValueError, match="points must be finite"):
        smooth(np.full((2, 3), np.nan), 2.0)
    for time_s, words in ((1.0, r"later than 1\.0"), (0.5, "later than"), (math.nan, "finite")):
        with pytest.raises(ValueError, match=f"time_s must be {words}"):
            smooth(np.ones((2, 3)), time_s)
    np.testing.assert_array_equal(smooth(np.ones((2, 3)), 2.0), untouched(np.ones((2, 3)), 2.0))
