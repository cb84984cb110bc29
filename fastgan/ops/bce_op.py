"""``torch.ops.fastgan.bce_with_logits`` and its backward: kernels, shapes, derivatives of any order, vmap.

The forward op gives the loss and, if asked, its gradient with respect to the logits in the same pass, in
float32 at least (a mean over many logits underflows float16 before a loss scale can help); the backward op
multiplies it. Second derivatives come from the logits, by PyTorch's operators.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.errors import UserError
from fastgan.ops.backends import backend, pytorch
from fastgan.ops.library import (
    autocast,
    define,
    differentiate,
    eager,
    is_plain,
    is_recorded,
    needs_operators,
    vectorize,
)
from fastgan.ops.reference import check_reduction, check_target


def _check(
    logits: Tensor, target: Tensor | None, weight: Tensor | None, pos_weight: Tensor | None, reduction: str
) -> None:
    """Raise a UserError unless shapes and devices fit together."""
    check_reduction(reduction)
    shape = list(logits.shape)
    if target is not None and target.shape != logits.shape:
        raise UserError("target", f"shape {list(target.shape)}", f"the logits' shape, {shape}, or a number")
    for name, tensor in (("weight", weight), ("pos_weight", pos_weight)):
        if tensor is None:
            continue
        sizes = zip(reversed(tensor.shape), reversed(logits.shape), strict=False)
        if tensor.dim() > logits.dim() or any(a != 1 and a != b for a, b in sizes):
            raise UserError(
                name, f"shape {list(tensor.shape)}", f"one that broadcasts to the logits' {shape}"
            )
    for name, tensor in (("target", target), ("weight", weight), ("pos_weight", pos_weight)):
        if tensor is not None and tensor.device != logits.device:
            raise UserError(name, f"a tensor on {tensor.device}", f"one on {logits.device}, as the logits")


# ---- kernels, and shapes only. Without a target tensor, `value` is every row's target.


def _forward(logits, target, value, weight, pos_weight, reduction, gradient, impl="auto"):
    _check(logits, target, weight, pos_weight, reduction)
    if target is None:
        target = value
    loss, dlogits = backend(impl, logits).bce(logits, target, weight, pos_weight, reduction, gradient)
    if dlogits is None:
        dlogits = logits.new_empty(0, dtype=torch.promote_types(logits.dtype, torch.float32))
    return loss, dlogits


def _forward_fake(logits, target, value, weight, pos_weight, reduction, gradient, impl="auto"):
    _check(logits, target, weight, pos_weight, reduction)
    loss = logits.new_empty(logits.shape if reduction == "none" else ())
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return loss, logits.new_empty(logits.shape if gradient else 0, dtype=dtype)


def _backward(dloss, dlogits, logits, target, value, weight, pos_weight, reduction):
    return (dloss * dlogits).to(logits.dtype).contiguous()


def _backward_fake(dloss, dlogits, logits, target, value, weight, pos_weight, reduction):
    return logits.new_empty(logits.shape)


_ARGUMENTS = "Tensor logits, Tensor? target, float value, Tensor? weight, Tensor? pos_weight, str reduction"
forward = define(
    f"bce_with_logits({_ARGUMENTS}, bool gradient, str impl='auto') -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
# dlogits: the gradient that the forward op gave. What it was made of is there for its own derivative.
backward = define(
    f"bce_with_logits_backward(Tensor dloss, Tensor dlogits, {_ARGUMENTS}) -> Tensor",
    _backward,
    _backward_fake,
)


# ---- derivatives


class _BCEWithLogits(torch.autograd.Function):
    """The op for autograd and torch.func, differentiable in the logits."""

    @staticmethod
    def forward(logits, target, value, weight, pos_weight, reduction, gradient, impl):
        return forward(logits, target, value, weight, pos_weight, reduction, gradient, impl)

    @staticmethod
    def setup_context(ctx, inputs, output):
        logits, target, ctx.value, weight, pos_weight, ctx.reduction, ctx.has_gradient, ctx.impl = inputs
        for name, place in (("target", 1), ("weight", 3), ("pos_weight", 4)):
            if ctx.needs_input_grad[place]:
                raise UserError(
                    name, "a tensor that requires grad", "one that does not", "Use impl='reference'."
                )
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], logits, target, weight, pos_weight)

    @staticmethod
    def backward(ctx, dloss, _):
        if dloss is None:
            return (None,) * 8
        dlogits, logits, target, weight, pos_weight = ctx.saved_tensors
        operands = (logits, target, ctx.value, weight, pos_weight, ctx.reduction)
        if needs_operators(dloss):
            return _backward_plain(dloss, None, *operands), *(None,) * 7
        if not ctx.has_gradient:
            dlogits = forward(*(_detached(t) for t in operands), True, ctx.impl)[1]
        run = _eager_backward if is_plain(dloss) and is_plain(logits) else _BCEWithLogitsBackward.apply
        return run(dloss, dlogits, *operands), *(None,) * 7

    @staticmethod
    def vmap(info, in_dims, *args):
        return vectorize(_plain, in_dims, *args)


def _detached(value):
    return value.detach() if isinstance(value, Tensor) else value


def _plain(logits, target, value, weight, pos_weight, reduction, gradient, impl="auto"):
    return _forward(logits, target, value, weight, pos_weight, reduction, gradient, "reference")


class _BCEWithLogitsBackward(torch.autograd.Function):
    """The backward op likewise; its derivatives are PyTorch's operators, themselves differentiable."""

    @staticmethod
    def forward(dloss, dlogits, logits, target, value, weight, pos_weight, reduction):
        return backward(dloss, dlogits, logits, target, value, weight, pos_weight, reduction)

    @staticmethod
    def setup_context(ctx, inputs, output):
        dloss, _, logits, target, ctx.value, weight, pos_weight, ctx.reduction = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dloss, logits, target, weight, pos_weight)

    @staticmethod
    def backward(ctx, ddlogits):
        of_dloss = of_logits = None
        if ddlogits is not None:
            dloss, logits, target, weight, pos_weight = ctx.saved_tensors
            operands = ctx.value if target is None else target, weight, pos_weight, ctx.reduction
            if ctx.needs_input_grad[0]:
                # From the logits and not from dlogits, which has no history: a third derivative needs it.
                each = ddlogits * pytorch.bce_gradient(logits, *operands)
                of_dloss = each if ctx.reduction == "none" else each.sum()
            if ctx.needs_input_grad[2]:
                of_logits = ddlogits * dloss * pytorch.bce_curvature(logits, *operands)
        return of_dloss, None, of_logits, *(None,) * 5

    @staticmethod
    def vmap(info, in_dims, *args):
        return vectorize(_backward_plain, in_dims, *args)


def _backward_plain(dloss, dlogits, logits, target, value, weight, pos_weight, reduction):
    # From the logits, as above: below vmap there may be a level that differentiates again.
    return dloss * pytorch.bce_gradient(
        logits, value if target is None else target, weight, pos_weight, reduction
    )


differentiate("bce_with_logits", _BCEWithLogits)
differentiate("bce_with_logits_backward", _BCEWithLogitsBackward)
autocast("bce_with_logits", lambda device: torch.float32)


_eager = eager(_BCEWithLogits, _forward)
_eager_backward = eager(_BCEWithLogitsBackward, _backward)


def bce_with_logits(
    logits: Tensor,
    target: Tensor | float,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    impl: str,
) -> Tensor:
    """Run the op: by the dispatcher where that is recorded, for torch.func by its function, else directly."""
    if is_recorded():
        run = forward
    elif is_plain(logits):
        run = _eager
    else:
        run = _BCEWithLogits.apply
    target = check_target(target, logits)
    tensor, value = (target, 0.0) if isinstance(target, Tensor) else (None, target)
    gradient = logits.requires_grad and torch.is_grad_enabled()
    return run(logits, tensor, value, weight, pos_weight, reduction, gradient, impl)[0]
