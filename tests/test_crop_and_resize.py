"""crop_and_resize against closed forms, and its laws.

What holds for every op stands in test_every_op.py.
"""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgpose_ext import crop_and_resize


def test_known_values() -> None:
    y = crop_and_resize(torch.tensor([[1.0, -2.0], [0.5, 0.0]]), 4.0)
    assert y.tolist() == [[4.0, -8.0], [2.0, 0.0]]


def test_gradient_is_the_factor() -> None:
    x = torch.zeros((2, 3), requires_grad=True)
    crop_and_resize(x, 4.0).sum().backward()
    assert x.grad is not None
    assert (x.grad == 4).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.floats(-4, 4), st.floats(-4, 4))
def test_factors_add(size: int, a: float, b: float) -> None:
    x = torch.linspace(-1, 1, size, dtype=torch.float64)[None]
    torch.testing.assert_close(
        crop_and_resize(x, a) + crop_and_resize(x, b), crop_and_resize(x, a + b)
    )
