"""``torch.ops.fastgan.linear_leaky_relu`` and its backward: kernels, shapes, derivatives of any order, vmap.

The backward op is an op of its own, whose derivatives are PyTorch's operators; so gradient penalties and
Hessians are as differentiable as with plain PyTorch.
"""

from __future__ import annotations

from functools import partial
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.errors import UserError
from fastgan.ops.backends import backend, pytorch
from fastgan.ops.kept import Kept
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
from fastgan.ops.reference import linear_leaky_relu_reference


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise a UserError unless shapes, dtypes and devices fit together."""
    if weight.dim() != 2:
        raise UserError("weight", f"shape {list(weight.shape)}", "[outputs, inputs]")
    outputs, inputs = weight.shape
    if x.dim() == 0 or x.shape[-1] != inputs:
        raise UserError("x", f"shape {list(x.shape)}", f"[..., {inputs}], for a weight {list(weight.shape)}")
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != outputs):
        raise UserError(
            "bias", f"shape {list(bias.shape)}", f"[{outputs}], for a weight {list(weight.shape)}"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and (tensor.dtype != x.dtype or tensor.device != x.device):
            got = f"{tensor.dtype} on {tensor.device}"
            raise UserError(name, got, f"{x.dtype} on {x.device}, as x", f"Use {name}.to(x).")


def _rows(tensor: Tensor) -> Tensor:
    """Return a tensor as a matrix, its leading dimensions in one."""
    if tensor.dim() == 2:
        return tensor
    return tensor.reshape(tensor.shape[:-1].numel(), tensor.shape[-1])


def _shaped(rows: Tensor, like: Tensor) -> Tensor:
    """Return a new matrix with the leading dimensions of another tensor.

    As no view: what autograd takes for one, of a function, nobody may change in place.
    """
    if like.dim() == 2:
        return rows
    return torch.ops.aten._unsafe_view(rows, (*like.shape[:-1], rows.shape[-1]))


# ---- kernels, and shapes only


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float, impl: str = "auto"
) -> Tensor:
    _check(x, weight, bias)
    y = backend(impl, x).dense_fwd(_rows(x), weight, bias, negative_slope)
    return _shaped(y, x)


def _forward_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float, impl: str = "auto"
) -> Tensor:
    _check(x, weight, bias)
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _backward(
    dy: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    y: Tensor,
    negative_slope: float,
    bias: bool,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    rows = None if x is None else _rows(x)
    dx, dweight, dbias = backend(impl, dy).dense_bwd(_rows(dy), rows, weight, _rows(y), negative_slope, bias)
    dx = dx if dx is None else _shaped(dx, dy)
    return tuple(dy.new_empty(0) if d is None else d for d in (dx, dweight, dbias))


def _backward_fake(
    dy: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    y: Tensor,
    negative_slope: float,
    bias: bool,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        dy.new_empty(0 if weight is None else (*dy.shape[:-1], weight.shape[1])),
        dy.new_empty(0 if x is None else (dy.shape[-1], x.shape[-1])),
        dy.new_empty(dy.shape[-1] if bias else 0),
    )


forward = define(
    "linear_leaky_relu(Tensor x, Tensor weight, Tensor? bias, float negative_slope, str impl='auto')"
    " -> Tensor",
    _forward,
    _forward_fake,
)
# What is not given (x, weight) or false (bias) is a gradient not asked for; an empty tensor stands for it.
backward = define(
    "linear_leaky_relu_backward(Tensor dy, Tensor? x, Tensor? weight, Tensor y, float negative_slope,"
    " bool bias, str impl='auto') -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


# ---- derivatives: with the mask m of y (1 or the slope) and g = m dy, the backward op is
#      dx = g W, dW = g^T x, db = sum_b g;  its own derivatives for ddx, ddW, ddb are
#      of dy: m (ddx W^T + x ddW^T + ddb)   of x: g ddW   of W: g^T ddx   of y: 0


class _LinearLeakyReLU(torch.autograd.Function):
    """The op for autograd and torch.func. Kept for the gradients is what those that are asked for read.

    Of the output a copy is kept, since whoever gets it may change it; compilers drop what copies they can.
    """

    @staticmethod
    def forward(x, weight, bias, negative_slope, impl):
        return forward(x, weight, bias, negative_slope, impl)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _save(ctx, inputs, output.clone())

    @staticmethod
    def backward(ctx, dy):
        if dy is None:
            return (None,) * 5
        x, weight, y = ctx.saved_tensors
        needs_bias = ctx.needs_input_grad[2]
        if needs_operators(dy):
            run = _backward_plain
        elif is_recorded():
            run = backward
        elif is_plain(dy) and _is_no_gradient(dy):
            run = _backward_of_zero
        elif is_plain(dy):
            run = partial(_kept_backward, getattr(ctx, "kept", None))
        else:
            run = _LinearLeakyReLUBackward.apply
        dx, dweight, dbias = run(dy, x, weight, y, ctx.slope, needs_bias, ctx.impl)
        wanted = (dx, weight is not None), (dweight, x is not None), (dbias, needs_bias)
        return *(gradient if is_wanted else None for gradient, is_wanted in wanted), None, None

    @staticmethod
    def vmap(info, in_dims, x, weight, bias, negative_slope, impl="auto"):
        if in_dims[1] is None and in_dims[2] is None:  # over x alone: more rows
            return _LinearLeakyReLU.apply(x.movedim(in_dims[0], 0), weight, bias, negative_slope, impl), 0
        return vectorize(linear_leaky_relu_reference, in_dims[:4], x, weight, bias, negative_slope)


def _save(ctx, inputs, output):
    x, weight, _, ctx.slope, ctx.impl = inputs
    needs_x, needs_weight, *_ = ctx.needs_input_grad
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None, output)


class _LinearLeakyReLUKept(_LinearLeakyReLU):
    """The same, which keeps the output itself: a :class:`Kept` then has to stand behind it."""

    setup_context = staticmethod(_save)


class _LinearLeakyReLUBackward(torch.autograd.Function):
    """The backward op likewise; its derivatives are PyTorch's operators, themselves differentiable."""

    @staticmethod
    def forward(dy, x, weight, y, negative_slope, bias, impl):
        return backward(dy, x, weight, y, negative_slope, bias, impl)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.slope, ctx.bias, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, ddx, ddweight, ddbias):
        dy, x, weight, y = ctx.saved_tensors
        needs_dy, needs_x, needs_weight, needs_y, *_ = ctx.needs_input_grad
        g = pytorch.masked(dy, y, ctx.slope)
        of_dy = of_x = of_weight = None
        if needs_x and ddweight is not None:
            of_x = g @ ddweight
        if needs_weight and ddx is not None:
            of_weight = _rows(g).t() @ _rows(ddx)
        if needs_dy:
            parts = []
            if weight is not None and ddx is not None:
                parts.append(F.linear(ddx, weight))
            if x is not None and ddweight is not None:
                parts.append(F.linear(x, ddweight))
            if ctx.bias and ddbias is not None:
                parts.append(ddbias.expand_as(dy))
            if parts:
                of_dy = pytorch.masked(sum(parts[1:], parts[0]), y, ctx.slope)
        # By this PyTorch, too, has a gradient, of zeros, for all that y depends on: optimizers step there.
        of_y = y.new_zeros(()).expand_as(y) if needs_y else None
        return of_dy, of_x, of_weight, of_y, None, None, None

    @staticmethod
    def vmap(info, in_dims, *args):
        return vectorize(_backward_plain, in_dims, *args)


def _backward_plain(dy, x, weight, y, negative_slope, bias, impl="auto"):
    return _backward(dy, x, weight, y, negative_slope, bias, "reference")


def _is_no_gradient(dy):
    """Return whether a gradient is an expanded zero, as the backward op's own derivative gives its y.

    Not where the gradients will be differentiated: a zero has a history then, and they have one.
    """
    if torch.is_grad_enabled() or not dy.is_cpu or any(dy.stride()) or not dy.numel():
        return False
    return not dy[(0,) * dy.dim()].item()


def _backward_of_zero(dy, x, weight, y, negative_slope, bias, impl):
    """Return what the backward op does, without products: NaN where zeros meet what is not finite."""
    dx = None if weight is None else (weight * 0).sum(0).expand(*dy.shape[:-1], -1).contiguous()
    dweight = None if x is None else (_rows(x) * 0).sum(0).expand(dy.shape[-1], -1).contiguous()
    return dx, dweight, dy.new_zeros(dy.shape[-1])


differentiate("linear_leaky_relu", _LinearLeakyReLU)
differentiate("linear_leaky_relu_backward", _LinearLeakyReLUBackward)
autocast("linear_leaky_relu", torch.get_autocast_dtype)


def linear_leaky_relu(x: Tensor, weight: Tensor, bias: Tensor | None, slope: float, impl: str) -> Tensor:
    """Run the op: by the dispatcher where that is recorded, for torch.func by its function, else directly."""
    if is_recorded():
        return forward(x, weight, bias, slope, impl)
    if not is_plain(x):
        return _LinearLeakyReLU.apply(x, weight, bias, slope, impl)
    y = _eager(x, weight, bias, slope, impl)
    if y.requires_grad:
        kept = Kept(lambda *tensors: _eager(*tensors, slope, impl), x=x, weight=weight, bias=bias)
        if not kept.hold(y.grad_fn._raw_saved_tensors[2]):
            return y.clone()
        y.grad_fn.kept = ref(kept)  # which lives as long as what is saved, not as long as the graph
    return y


def _kept_backward(kept, dy, x, weight, y, *rest):
    """Run the backward op on plain tensors; for a second derivative it saves the output, too."""
    gradients = _eager_backward(dy, x, weight, y, *rest)
    node, kept = gradients[0].grad_fn, kept and kept()
    if kept is None or node is None or kept.hold(node._raw_saved_tensors[3]):
        return gradients
    return _eager_backward(dy, x, weight, y.clone(), *rest)


_eager = eager(_LinearLeakyReLUKept, _forward)
_eager_backward = eager(_LinearLeakyReLUBackward, _backward)
