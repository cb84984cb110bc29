"""``linear_leaky_relu``: a dense layer and its activation in one op."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastgan.errors import UserError
from fastgan.ops import dense_op
from fastgan.ops.choice import RULES, Choice, check_impl, check_named
from fastgan.ops.library import cast
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
        impl: ``auto``, whose choice :func:`fastgan.ops.explain` explains; ``reference``, PyTorch's operators;
            ``cpu``, native code for float32; ``triton``, for float32, bfloat16 and float16 on CUDA devices.

    Returns:
        ``[..., O]``.

    Raises:
        UserError: a slope below 0 (the output's sign then no longer tells the input's), an unknown ``impl``,
            or one that was asked for by name and cannot run.
    """
    check_slope(negative_slope)
    if impl == "auto":
        impl = _choose(x, weight, bias).impl
    else:
        check_impl(impl)
        if impl != "reference":
            device = x.device.type
            if torch.is_autocast_enabled(device):
                dtype = torch.get_autocast_dtype(device)
                x, weight, bias = (cast(t, device, dtype) for t in (x, weight, bias))
            check_named(impl, x, weight, bias)
    if impl == "reference":
        return linear_leaky_relu_reference(x, weight, bias, negative_slope)
    return dense_op.linear_leaky_relu(x, weight, bias, negative_slope, impl)


_PYTORCH = Choice("reference", "PyTorch's product, the activation in place, is the fastest here")


def _choose(x: Tensor, weight: Tensor, bias: Tensor | None = None, negative_slope: float = 0.01) -> Choice:
    return _PYTORCH


RULES[linear_leaky_relu] = _choose
