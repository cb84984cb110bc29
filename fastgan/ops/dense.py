"""``linear_leaky_relu``: a dense layer and its activation in one op."""

from __future__ import annotations

import math

from torch import Tensor

from fastgan.errors import UserError
from fastgan.ops.choice import check_impl
from fastgan.ops.reference import linear_leaky_relu_reference


def check_slope(negative_slope: float) -> None:
    """Raise a UserError for a slope that the fused op cannot take."""
    if not 0.0 <= negative_slope < math.inf:
        raise UserError(
            "negative_slope",
            negative_slope,
            "a number >= 0: the backward pass tells the input's sign from the output's",
            "For other slopes use F.leaky_relu(F.linear(x, weight, bias), negative_slope).",
        )


def linear_leaky_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    negative_slope: float = 0.01,
    *,
    impl: str = "auto",
) -> Tensor:
    """Return ``F.leaky_relu(F.linear(x, weight, bias), negative_slope)``.

    Args:
        x: ``[..., I]``.
        weight: ``[O, I]``, as of ``nn.Linear``.
        bias: ``[O]`` or None.
        negative_slope: a number >= 0; 0 is ReLU.
        impl: ``auto`` or ``reference``, both plain PyTorch; ``cpu`` and ``triton`` are refused so far.

    Returns:
        ``[..., O]``.

    Raises:
        UserError: a slope below 0 (the output's sign then no longer tells the input's), an unknown ``impl``,
            or one that was asked for by name and cannot run.
    """
    check_slope(negative_slope)
    check_impl(impl)
    return linear_leaky_relu_reference(x, weight, bias, negative_slope)
