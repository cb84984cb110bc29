"""``bce_with_logits``: the loss of the logits, with a tensor or a number as the target."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from fastgan.errors import UserError
from fastgan.ops import bce_op
from fastgan.ops.choice import (
    RECORDED,
    RULES,
    Choice,
    by_name,
    check_impl,
    check_named,
    check_tensors,
    why_not_native,
)
from fastgan.ops.library import autocasts, cast, is_recorded
from fastgan.ops.reference import bce_with_logits_reference, check_reduction, check_target


def bce_with_logits(
    logits: Tensor,
    target: Tensor | float,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
    *,
    impl: str = "auto",
) -> Tensor:
    """Return the binary cross entropy of logits, as ``F.binary_cross_entropy_with_logits`` does.

    Args:
        logits: any shape.
        target: a tensor of the logits' shape, or one number for all of them, such as 1.0 for real rows.
        weight: of each loss: a tensor that broadcasts against the logits, or None.
        pos_weight: of the positive part: likewise.
        reduction: ``mean``, ``sum`` or ``none``.
        impl: ``auto``, whose choice :func:`fastgan.ops.explain` explains; ``reference``, PyTorch's operators;
            ``cpu``, native code for float32; ``triton``, for float32, bfloat16 and float16 on CUDA devices.
            The last two have derivatives with respect to the logits only.

    Returns:
        A scalar, or for ``none`` a tensor of the logits' shape. A logit of minus infinity whose target is 1
        has an infinite loss in native code, and NaN in PyTorch, which multiplies by 0.

    Raises:
        UserError: what is no tensor, an unknown ``reduction`` or ``impl``, or one that was asked for by name
            and cannot run.
    """
    if impl == "auto":
        # As _choose would say, a microsecond sooner. Where operators are recorded, a size is not known yet,
        # and one that is compared is one that is fixed.
        try:
            count = 0 if is_dynamo_compiling() else logits.numel()
        except AttributeError:
            check_tensors(logits=logits)
            raise
        if (
            type(count) is not int
            or count < _FEW
            or (count < _FEW_WITH_GRAPH and logits.requires_grad and torch.is_grad_enabled())
        ):
            return bce_with_logits_reference(logits, target, weight, pos_weight, reduction)
        impl = _choose(logits, target, weight, pos_weight).impl
    else:
        check_impl(impl)
        check_tensors(logits=logits, weight=weight, pos_weight=pos_weight)
        if impl != "reference":
            logits, target, weight, pos_weight = _named(impl, logits, target, weight, pos_weight)
    if impl == "reference":
        return bce_with_logits_reference(logits, target, weight, pos_weight, reduction)
    return bce_op.bce_with_logits(logits, target, weight, pos_weight, reduction, impl)


def _named(impl: str, *tensors: Tensor | float | None) -> tuple:
    """Return the tensors as autocast wants them, once it is sure that the implementation takes them."""
    device = tensors[0].device.type
    if autocasts(device):
        tensors = tuple(cast(t, device, torch.float32) for t in tensors)
    check_named(impl, *(t for t in tensors if isinstance(t, Tensor)))
    for name, tensor in zip(("target", "weight", "pos_weight"), tensors[1:], strict=True):
        if isinstance(tensor, Tensor) and tensor.requires_grad and torch.is_grad_enabled():
            got = f"{impl!r} with a {name} that requires grad"
            raise UserError("impl", got, "auto or reference", "Its derivatives are those of the logits.")
    return tensors


# From `python -m bench.ops_choice`, without and with `--impl cpu`: from these numbers on, native code was at
# least 1.2 times as fast on every processor of TIMED. A graph costs it 30 microseconds of Python.
_FEW = 1 << 14
_FEW_WITH_GRAPH = 1 << 16

_SMALL = Choice("reference", "PyTorch's operators; one pass instead of several pays for many logits only")
_WEIGHTED = Choice("reference", "PyTorch's operators; weights have not been measured")
_NATIVE = Choice("cpu", "one native pass instead of PyTorch's several")


def _choose(
    logits: Tensor, target: Tensor | float, weight: Tensor | None, pos_weight: Tensor | None
) -> Choice:
    if is_recorded():
        return RECORDED
    graph = logits.requires_grad and torch.is_grad_enabled()
    if logits.numel() < (_FEW_WITH_GRAPH if graph else _FEW) and logits.is_cpu:
        return _SMALL
    if weight is not None or pos_weight is not None:
        return _WEIGHTED
    given = target if isinstance(target, Tensor) else None
    if given is not None and (given.shape != logits.shape or given.requires_grad):
        return _WEIGHTED if given.requires_grad else _SMALL
    return why_not_native(logits, given) or _NATIVE


def _explain(
    impl: str,
    logits: Tensor,
    target: Tensor | float,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Choice:
    check_tensors(logits=logits, weight=weight, pos_weight=pos_weight)
    check_target(target, logits)
    check_reduction(reduction)
    if impl == "auto":
        return _choose(logits, target, weight, pos_weight)
    if impl != "reference":
        _named(impl, logits, target, weight, pos_weight)
    return by_name(impl)


RULES[bce_with_logits] = _explain
