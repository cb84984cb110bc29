"""The ops in plain PyTorch: what the fused ones are held against, and what runs where those cannot."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def linear_leaky_relu_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    negative_slope: float = 0.01,
    *,
    upcast: torch.dtype | None = None,
) -> Tensor:
    """Return ``leaky_relu(x @ weight.T + bias)``.

    Args:
        x: ``[..., I]``.
        weight: ``[O, I]``.
        bias: ``[O]`` or None.
        negative_slope: any number; only the fused op wants it to be >= 0.
        upcast: compute and return in this dtype, such as ``torch.float64``; None for that of the inputs.

    Returns:
        ``[..., O]``.
    """
    if upcast is not None:
        x, weight, bias = _cast(upcast, x, weight, bias)
    return F.leaky_relu(F.linear(x, weight, bias), negative_slope)


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
    """
    if not isinstance(target, Tensor):
        target = torch.full_like(logits, target)
    if upcast is not None:
        logits, target, weight, pos_weight = _cast(upcast, logits, target, weight, pos_weight)
    return F.binary_cross_entropy_with_logits(
        logits, target, weight, reduction=reduction, pos_weight=pos_weight
    )


def _cast(dtype: torch.dtype, *tensors: Tensor | None) -> tuple:
    return tuple(None if t is None else t.to(dtype) for t in tensors)
