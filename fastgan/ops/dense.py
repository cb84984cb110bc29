"""``linear_leaky_relu``: a dense layer and its activation in one op."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn.functional import linear

from fastgan.errors import UserError
from fastgan.ops import dense_op
from fastgan.ops.choice import (
    RECORDED,
    RULES,
    TIMED,
    Choice,
    by_name,
    check_impl,
    check_named,
    check_tensors,
    processor,
    why_not_native,
)
from fastgan.ops.library import autocasts, cast, is_recorded, product_precision
from fastgan.ops.reference import SLOW_IN_PLACE, leaky_relu, linear_leaky_relu_reference


def check_slope(negative_slope: float) -> float:
    """Return the slope as a float; raise a UserError for one that the fused op cannot take."""
    try:
        slope = -1.0 if isinstance(negative_slope, str) else float(negative_slope)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # PyTorch's, of a tensor of several
        slope = -1.0
    if not 0.0 <= slope < inf:
        raise UserError(
            "negative_slope",
            repr(negative_slope),
            "a number >= 0: the backward pass tells the input's sign from the output's",
            "For other slopes use F.leaky_relu(F.linear(x, weight, bias), negative_slope).",
        )
    return slope


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
        ``[..., O]``. It may be changed in place, as after LeakyReLU: where the backward pass needs it, that
        computes it again, if x, weight and bias are what they were (else an error says so). Not so the result
        of a function that torch.compile has compiled with another ``impl`` than auto: autograd may raise. And
        a change by ``.data`` nobody can see: gradients are then wrong, as after ReLU.

    Raises:
        UserError: a slope below 0 (the output's sign then no longer tells the input's), what is no tensor, an
            unknown ``impl``, or one that was asked for by name and cannot run.
    """
    if type(negative_slope) is not float or not 0.0 <= negative_slope < inf:
        negative_slope = check_slope(negative_slope)
    if impl == "auto":
        # What _choose would say and the reference do, without the microsecond that both take, 30 where
        # a large op has left none of their code in the caches. A shape takes longer than three sizes.
        # Where operators are recorded it is not known yet, and a size compared is a size that is fixed.
        try:
            if is_dynamo_compiling():
                few = True
            elif bias is None:
                products = x.numel() * weight.shape[0]
                few = type(products) is not int or products < _MANY_OUTPUTS * weight.shape[-1]
            else:
                outputs = bias.numel()
                products = x.numel() * outputs
                few = (
                    type(products) is not int
                    or products < _FEW_PRODUCTS
                    or products * outputs < _MANY_OUTPUTS * weight.numel()
                )
        except (AttributeError, IndexError):
            _check(x, weight, bias)
            raise
        if few or x.dtype in SLOW_IN_PLACE:
            y = linear(x, weight, bias)
            return leaky_relu(y, negative_slope) if negative_slope else torch.relu(y)
        impl = _choose(x, weight, bias).impl
    else:
        check_impl(impl)
        _check(x, weight, bias)
        if impl != "reference":
            x, weight, bias = _named(impl, x, weight, bias)
    if impl == "reference":
        return linear_leaky_relu_reference(x, weight, bias, negative_slope)
    return dense_op.linear_leaky_relu(x, weight, bias, negative_slope, impl)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    check_tensors(x=x, weight=weight, bias=bias)
    if weight.dim() == 0:
        raise UserError("weight", "a tensor without dimensions", "[outputs, inputs]")


def _named(impl: str, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the tensors as autocast wants them, once it is sure that the implementation takes them."""
    device = tensors[0].device.type
    if autocasts(device):
        dtype = torch.get_autocast_dtype(device)
        tensors = tuple(cast(t, device, dtype) for t in tensors)
    check_named(impl, *tensors)
    return tensors


# What auto takes on the CPU comes from `python -m bench.ops_choice`, without and with `--impl cpu`. Native
# code saves passes over the outputs, and little else: MKL's products are as good or better, and a graph costs
# it 30 microseconds of Python. TIMED has the number of inputs up to which that pays, by processor.
_MANY_OUTPUTS = 1 << 20  # fewer stay in the caches, and some shapes then lose 10% and more
_MANY_ROWS = 512  # fewer, and putting the weight in the kernels' order takes 5% that is not won back
_LEAST_INPUTS = 2  # a single one has a faster weight gradient
_FEW_PRODUCTS = _MANY_OUTPUTS * _LEAST_INPUTS  # with fewer, outputs or inputs are fewer than that

_SMALL = Choice("reference", "PyTorch's operators; outputs are too few for passes over them to matter")
_PRODUCT = Choice("reference", "PyTorch's operators; the product takes nearly all of the time")
_FLAT = Choice("reference", "PyTorch's operators; rows are too few for a weight of so many outputs")
_BROADCAST = Choice("reference", "PyTorch's operators; the bias is not one number for each output")
_SINGLE = Choice("reference", "PyTorch's operators; with a single input they are faster in backward")
_ROUNDED = Choice(
    "reference", "PyTorch's operators; they may round products to bfloat16, and are then faster"
)
_NATIVE = Choice("cpu", "native code saves passes over the many outputs")


def _choose(x: Tensor, weight: Tensor, bias: Tensor | None) -> Choice:
    if is_recorded():
        return RECORDED
    inputs = weight.shape[-1]
    if x.numel() * weight.shape[0] < _MANY_OUTPUTS * inputs and x.is_cpu:
        return _SMALL
    obstacle = why_not_native(x, weight, bias)
    if obstacle is not None:
        return obstacle
    if weight.dim() != 2 or x.shape[-1] != inputs or not inputs:
        return _SMALL  # PyTorch's operators say what is wrong
    if bias is not None and bias.shape != weight.shape[:1]:
        return _BROADCAST
    if x.numel() < _MANY_ROWS * inputs:
        return _FLAT
    if inputs < _LEAST_INPUTS:
        return _SINGLE
    if inputs > TIMED[processor()].inputs:
        return _PRODUCT
    return _ROUNDED if product_precision("mkldnn") == "bf16" else _NATIVE


def _explain(
    impl: str, x: Tensor, weight: Tensor, bias: Tensor | None = None, negative_slope: float = 0.01
) -> Choice:
    check_slope(negative_slope)
    _check(x, weight, bias)
    if impl == "auto":
        return _choose(x, weight, bias)
    if impl != "reference":
        _named(impl, x, weight, bias)
    return by_name(impl)


RULES[linear_leaky_relu] = _explain
