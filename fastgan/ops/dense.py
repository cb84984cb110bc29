"""``linear_leaky_relu``: a dense layer and its activation in one op."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastgan.errors import UserError
from fastgan.ops import dense_op
from fastgan.ops.choice import RULES, Choice, check_impl, check_named, why_not_native
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
    if not 0.0 <= negative_slope < math.inf:
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


# What auto takes on the CPU, from interleaved medians against plain PyTorch over batches 128 to 4096,
# inputs 8 to 1024 and outputs 32 to 4096, on 2 cores of an EPYC (Zen 3); `pytest bench/ --benchmark-only -k
# ops` prints the like. Native code saves passes over the outputs, and little else: MKL's products are as
# good. So it is taken for large outputs (4 MiB and more: 1.07 to 4 times as fast, forward and backward
# together), and for so few inputs that the products are memory passes themselves (1.5 to 2.3 times). A
# graph costs it 30 microseconds of Python.
_MANY_OUTPUTS = 1 << 20
_SOME_OUTPUTS = 1 << 17
_FEW_INPUTS = 16
_MOST_INPUTS = 512  # beyond it the products are all there is, and MKL's are as good

_SMALL = Choice("reference", "PyTorch's operators; outputs are too few for passes over them to matter")
_PRODUCT = Choice("reference", "PyTorch's operators; the product takes nearly all of the time")
_NARROW = Choice("reference", "PyTorch's operators; with few inputs the native code gains in backward only")
_NATIVE = Choice("cpu", "native code saves passes over the many outputs")
_BACKWARD = Choice("cpu", "with so few inputs native code is faster, forward and backward together")


def _choose(x: Tensor, weight: Tensor, bias: Tensor | None = None, negative_slope: float = 0.01) -> Choice:
    inputs = weight.shape[-1]
    outputs = x.numel() * weight.shape[0] // (inputs or 1)
    if outputs < _SOME_OUTPUTS and x.is_cpu:
        return _SMALL
    obstacle = why_not_native(x, weight, bias)
    if obstacle is not None:
        return obstacle
    if weight.dim() != 2 or x.shape[-1] != inputs:
        return _SMALL  # PyTorch's operators say what is wrong
    if inputs > _MOST_INPUTS:
        return _PRODUCT
    if inputs <= _FEW_INPUTS:
        graph = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
        return _BACKWARD if graph else _NARROW
    return _NATIVE if outputs >= _MANY_OUTPUTS else _SMALL


RULES[linear_leaky_relu] = _choose
