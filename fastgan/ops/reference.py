"""The ops in plain PyTorch: what the fused ones are held against, and what runs where they do not pay."""

from __future__ import annotations

from functools import partial
from math import isfinite
from numbers import Real
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_compiling

from fastgan.errors import UserError, nearest
from fastgan.ops.choice import check_tensors
from fastgan.ops.kept import Kept
from fastgan.ops.library import is_plain, is_recorded

# What F.leaky_relu calls, without its 0.4 microseconds of Python.
leaky_relu, leaky_relu_ = torch._C._nn.leaky_relu, torch._C._nn.leaky_relu_
# What F.binary_cross_entropy_with_logits calls when its arguments are right, without a microsecond of Python.
_bce, _REDUCTIONS = torch.binary_cross_entropy_with_logits, {"none": 0, "mean": 1, "sum": 2}
_IN_PLACE_FROM = 1 << 19  # elements: from there on the memory that is not touched is worth more
_ANYWHERE = 65504.0  # the greatest number that every floating-point dtype has, float16's
SLOW_IN_PLACE = (torch.bfloat16, torch.float16)  # on a Sapphire Rapids up to 14% of the op in bfloat16


def linear_leaky_relu_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    negative_slope: float = 0.01,
    *,
    upcast: torch.dtype | None = None,
) -> Tensor:
    """Return ``leaky_relu(x @ weight.T + bias)``, in place unless the product is small or of 16 bits.

    Neither operator needs the values in between for its gradient: autograd then keeps one tensor instead of
    two. Where it keeps nothing, or the product is small, the bookkeeping of a write costs more than it saves.
    What is returned may be changed in place, as ever after LeakyReLU (see ``fastgan.ops.kept``).

    Args:
        x: ``[..., I]``.
        weight: ``[O, I]``.
        bias: ``[O]`` or None.
        negative_slope: a number >= 0; 0 is ReLU, also of what is infinite.
        upcast: compute and return in this dtype, such as ``torch.float64``; None for that of the inputs.

    Returns:
        ``[..., O]``.
    """
    if upcast is not None:
        x, weight, bias = _cast(upcast, x, weight, bias)
    y = F.linear(x, weight, bias)
    # Of other than two dimensions F.linear returns a view: autograd copies when it is written, and one made
    # without gradients refuses to be changed with them. Compilers decide for themselves what is in place.
    if (
        y.dtype in SLOW_IN_PLACE
        or y.dim() != 2
        or (y.requires_grad and (is_compiling() or y.numel() < _IN_PLACE_FROM or not is_plain(y)))
    ):
        return leaky_relu(y, negative_slope) if negative_slope else torch.relu(y)
    if not negative_slope:
        return torch.relu_(y)
    y = leaky_relu_(y, negative_slope)
    if y.requires_grad:
        kept = Kept(lambda *of: leaky_relu(F.linear(*of), negative_slope), x=x, weight=weight, bias=bias)
        if not kept.hold(y.grad_fn._raw_saved_result):
            return y.clone()
        y.grad_fn.register_hook(partial(_hold_again, ref(kept), negative_slope))
    return y


def _hold_again(
    kept: ref[Kept], slope: float, gradients: tuple[Tensor | None], dys: tuple[Tensor | None]
) -> tuple[Tensor] | None:
    """After the backward pass of LeakyReLU: answer for the output that a second derivative has saved, too."""
    (gradient,), (dy,) = gradients, dys
    if is_recorded() or gradient is None or not is_plain(gradient):
        return None
    node = gradient.grad_fn
    if node is None or kept().hold(node._raw_saved_self):
        return None
    return (torch.ops.aten.leaky_relu_backward(dy, node._saved_self.clone(), slope, True),)


def bce_with_logits_reference(
    logits: Tensor,
    target: Tensor | float,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
    *,
    upcast: torch.dtype | None = None,
) -> Tensor:
    """Return ``F.binary_cross_entropy_with_logits``, whose target may also be one number for all logits.

    Args:
        logits: any shape.
        target: a tensor of that shape, or a number.
        weight, pos_weight: tensors that broadcast against the logits, or None.
        reduction: ``mean``, ``sum`` or ``none``.
        upcast: compute and return in this dtype, such as ``torch.float64``; None for that of the inputs.

    Returns:
        A scalar, or for ``none`` a tensor of the logits' shape.

    Raises:
        UserError: an unknown reduction, a target of another kind, or a weight that is no tensor.
    """
    if weight is not None or pos_weight is not None:
        check_tensors(weight=weight, pos_weight=pos_weight)
    target = check_target(target, logits)
    if not isinstance(target, Tensor):
        target = torch.full_like(logits, target)
    if upcast is not None:
        logits, target, weight, pos_weight = _cast(upcast, logits, target, weight, pos_weight)
    if reduction in _REDUCTIONS and target.shape == logits.shape:
        return _bce(logits, target, weight, pos_weight, _REDUCTIONS[reduction])
    check_reduction(reduction)
    return F.binary_cross_entropy_with_logits(  # says what is wrong
        logits, target, weight, reduction=reduction, pos_weight=pos_weight
    )


def check_target(target: Tensor | float, logits: Tensor) -> Tensor | float:
    """Return a target, a number as a float, which the logits' dtype has to hold, as with PyTorch's operator.

    Raises:
        UserError: what is neither a tensor nor such a number.
    """
    if isinstance(target, (Tensor, torch.SymFloat, torch.SymInt)):
        return target
    try:
        if not isinstance(target, Real):
            got = repr(target)
        elif _fits(number := float(target), logits.dtype):
            return number
        else:
            got = f"{number:g} for logits in {logits.dtype}"
    except OverflowError:
        got = f"a whole number of {target.bit_length()} bits"
    raise UserError("target", got, "a tensor of the logits' shape, or a number")


def _fits(number: float, dtype: torch.dtype) -> bool:
    if is_compiling() or -_ANYWHERE <= number <= _ANYWHERE or not isfinite(number):
        return True
    return not dtype.is_floating_point or abs(number) <= torch.finfo(dtype).max


def check_reduction(reduction: str) -> None:
    """Raise a UserError for an unknown reduction."""
    if reduction not in _REDUCTIONS:
        hint = nearest(str(reduction), _REDUCTIONS)
        raise UserError("reduction", repr(reduction), "one of " + ", ".join(_REDUCTIONS), hint)


def _cast(dtype: torch.dtype, *tensors: Tensor | None) -> tuple:
    return tuple(None if t is None else t.to(dtype) for t in tensors)
