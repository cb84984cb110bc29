"""What the ops accept and what they refuse, and how."""

from __future__ import annotations

import math

import pytest
import torch

from fastgan.errors import UserError
from fastgan.ops import bce_with_logits, linear_leaky_relu

X, W, B = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)


@pytest.mark.parametrize("slope", [-0.1, math.nan, math.inf])
def test_slopes_below_zero_are_refused(slope):
    with pytest.raises(UserError, match=r"^negative_slope: got .* wanted a number >= 0"):
        linear_leaky_relu(X, W, B, slope)


@pytest.mark.parametrize(
    "call",
    [lambda impl: linear_leaky_relu(X, W, B, impl=impl), lambda impl: bce_with_logits(X, 1.0, impl=impl)],
)
def test_unknown_implementations_are_refused(call):
    with pytest.raises(UserError, match=r"^impl: got 'refrence'; wanted .* Did you mean 'reference'\?"):
        call("refrence")
