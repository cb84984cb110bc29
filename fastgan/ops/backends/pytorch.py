"""The ops by PyTorch's operators, for what the fused kernels do not take."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops.reference import bce_with_logits_reference, linear_leaky_relu_reference

dense_fwd = linear_leaky_relu_reference


def masked(dy: Tensor, y: Tensor, slope: float) -> Tensor:
    """Return the gradient before the activation, from the activation's output y; differentiable in dy."""
    if slope == 0:
        return torch.ops.aten.threshold_backward(dy, y, 0)
    return torch.ops.aten.leaky_relu_backward(dy, y, slope, True)


def dense_bwd(
    dy: Tensor, x: Tensor | None, weight: Tensor | None, y: Tensor, slope: float, bias: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return dx, dweight and dbias (see the package)."""
    g = masked(dy, y, slope)
    return (
        None if weight is None else g @ weight,
        None if x is None else g.t() @ x,
        g.sum(0) if bias else None,
    )


def bce(
    logits: Tensor,
    target: Tensor | float,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss and its gradient (see the package)."""
    loss = bce_with_logits_reference(logits, target, weight, pos_weight, reduction)
    if not gradient:
        return loss, None
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return loss, bce_gradient(logits, target, weight, pos_weight, reduction).contiguous()


def bce_gradient(
    logits: Tensor, target: Tensor | float, weight: Tensor | None, pos_weight: Tensor | None, reduction: str
) -> Tensor:
    """Return the gradient of the loss with respect to the logits; for ``none`` that of each loss."""
    positive = target if pos_weight is None else target * pos_weight
    # (1 - t) sigmoid(l) - p t (1 - sigmoid(l)), without the difference of sigmoids near 1
    gradient = (1 - target) * torch.sigmoid(logits) - positive * torch.sigmoid(-logits)
    return _scaled(gradient, weight, reduction)


def bce_curvature(
    logits: Tensor, target: Tensor | float, weight: Tensor | None, pos_weight: Tensor | None, reduction: str
) -> Tensor:
    """Return the second derivative of the loss with respect to each logit."""
    positive = target if pos_weight is None else target * pos_weight
    curvature = torch.sigmoid(logits) * torch.sigmoid(-logits) * (1 - target + positive)
    return _scaled(curvature, weight, reduction)


def _scaled(value: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if weight is not None:
        value = value * weight
    return value / max(value.numel(), 1) if reduction == "mean" else value
