"""The ops by the Triton kernels: on CUDA tensors, or interpreted on any (TRITON_INTERPRET=1)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels import triton as kernels
from fastgan.ops.library import product_precision

kernels.triton_version()  # an import that fails says why


def _precision() -> str:
    """Return what float32 products may round to: PyTorch's own setting."""
    return "ieee" if product_precision("cuda") in ("none", "ieee") else "tf32"


def dense_fwd(x: Tensor, weight: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    """Return y (see the package)."""
    y = x.new_empty(x.shape[0], weight.shape[0])
    kernels.linear_leaky_relu_fwd(x, weight, bias, y, slope, _precision())
    return y


def dense_bwd(
    dy: Tensor, x: Tensor | None, weight: Tensor | None, y: Tensor, slope: float, bias: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return dx, dweight and dbias (see the package)."""
    dx = dweight = dbias = None
    if weight is not None:
        dx = dy.new_empty(dy.shape[0], weight.shape[1])
        kernels.linear_leaky_relu_bwd_input(dy, y, weight, dx, slope, _precision())
    if bias:
        dbias = dy.new_empty(dy.shape[1])
    if x is not None:
        dweight = dy.new_empty(dy.shape[1], x.shape[1])
        kernels.linear_leaky_relu_bwd_weight(dy, y, x, dweight, dbias, slope, _precision())
    elif bias:  # alone: a weight of no inputs
        kernels.linear_leaky_relu_bwd_weight(
            dy, y, dy.new_empty(dy.shape[0], 0), dy.new_empty(dy.shape[1], 0), dbias, slope, _precision()
        )
    return dx, dweight, dbias


def bce(
    logits: Tensor,
    target: Tensor | float,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss and its gradient (see the package)."""
    loss = logits.new_empty(logits.shape if reduction == "none" else ())
    dlogits = logits.new_empty(logits.shape, dtype=torch.float32) if gradient else None
    kernels.bce_with_logits_fwd_bwd(
        _matrix(logits),
        _matrix(target) if isinstance(target, Tensor) else target,
        *(None if t is None else _matrix(t.expand_as(logits)) for t in (weight, pos_weight)),
        _matrix(loss) if reduction == "none" else loss,
        None if dlogits is None else _matrix(dlogits),
        reduction=reduction,
    )
    return loss, dlogits


def _matrix(tensor: Tensor) -> Tensor:
    """Return ``[B, O]``, O being the last dimension."""
    if tensor.dim() == 0:
        return tensor.reshape(1, 1)
    return tensor.reshape(tensor.shape[:-1].numel(), tensor.shape[-1])
