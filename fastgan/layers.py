"""Drop-in layers: the fused ops as modules, made, stored and printed as their counterparts in PyTorch.

==========================  =================================================  =====================
module                      in place of                                        ``state_dict`` keys
==========================  =================================================  =====================
:class:`LinearLeakyReLU`    ``nn.Linear`` and the ``nn.LeakyReLU`` after it    ``weight``, ``bias``
:class:`BCEWithLogitsLoss`  ``nn.BCEWithLogitsLoss``                           ``weight, pos_weight``
:class:`MLP`                ``nn.Sequential`` of Linear, LeakyReLU, ...        ``0.weight``, ...
==========================  =================================================  =====================
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral, Number

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan.errors import UserError
from fastgan.fusion import sequential
from fastgan.ops import bce_with_logits, linear_leaky_relu
from fastgan.ops.choice import check_impl
from fastgan.ops.dense import check_slope
from fastgan.ops.reference import check_reduction

# One node each, where torch.fx traces these layers.
torch.fx.wrap("linear_leaky_relu")
torch.fx.wrap("bce_with_logits")


class LinearLeakyReLU(nn.Linear):
    """``leaky_relu(x @ weight.T + bias)`` as one op: ``[..., in_features]`` to ``[..., out_features]``.

    Slope 0 is ReLU: 0 at -inf. ``torch.jit.script`` takes PyTorch's operators instead; ``torch.fx`` traces
    the op as one node.

    Args:
        in_features, out_features, bias, device, dtype: as of ``nn.Linear``.
        negative_slope: a number >= 0, by default that of ``nn.LeakyReLU``; 0 is ReLU.
        impl: as of :func:`fastgan.ops.linear_leaky_relu`.

    Raises:
        UserError: a slope below 0, an unknown ``impl``, or a number as the bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        negative_slope: float = 0.01,
        impl: str = "auto",
    ) -> None:
        _check_bias(bias)
        check_slope(negative_slope)
        check_impl(impl)
        super().__init__(in_features, out_features, bias, device, dtype)
        self.negative_slope, self.impl = negative_slope, impl

    def forward(self, input: Tensor) -> Tensor:
        """Return the activations, ``[..., out_features]``."""
        if not torch.jit.is_scripting():  # torch.jit.script takes the rest: PyTorch's operators
            return linear_leaky_relu(input, self.weight, self.bias, self.negative_slope, impl=self.impl)
        y = F.linear(input, self.weight, self.bias)
        return F.relu(y) if self.negative_slope == 0 else F.leaky_relu(y, float(self.negative_slope))

    def extra_repr(self) -> str:
        """Return the arguments as ``nn.Linear`` and ``nn.LeakyReLU`` print theirs."""
        return f"{super().extra_repr()}, negative_slope={self.negative_slope}"


class BCEWithLogitsLoss(nn.BCEWithLogitsLoss):
    """``nn.BCEWithLogitsLoss`` as one op, whose target may also be one number for all logits.

    Args:
        weight, size_average, reduce, reduction, pos_weight: as of ``nn.BCEWithLogitsLoss``.
        impl: as of :func:`fastgan.ops.bce_with_logits`.

    Raises:
        UserError: an unknown ``reduction`` or ``impl``.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        *,
        impl: str = "auto",
    ) -> None:
        check_impl(impl)
        super().__init__(weight, size_average, reduce, reduction, pos_weight)
        check_reduction(self.reduction)
        self.impl = impl

    def forward(self, input: Tensor, target: Tensor | float) -> Tensor:
        """Return the loss of logits of any shape: a scalar, or one per logit for ``reduction="none"``."""
        if not torch.jit.is_scripting():
            return bce_with_logits(
                input, target, self.weight, self.pos_weight, self.reduction, impl=self.impl
            )
        if not isinstance(target, Tensor):
            target = torch.full_like(input, target)
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )


class MLP(nn.Sequential):
    """Linear layers with LeakyReLU between them; the last one is left linear.

    Its children are those of the ``nn.Sequential`` that it replaces, so checkpoints of either load into the
    other; each Linear runs as one op with the LeakyReLU after it, hooks on either respected.

    Args:
        widths: of all activations, input first, such as ``(784, 512, 256, 1)``.
        bias, device, dtype: as of ``nn.Linear``.
        negative_slope: a number >= 0, by default that of ``nn.LeakyReLU``; 0 is ReLU.

    Raises:
        UserError: fewer than two widths, a slope below 0, or a number as the bias.
    """

    def __init__(
        self,
        widths: Sequence[int],
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        negative_slope: float = 0.01,
    ) -> None:
        whole = isinstance(widths, Sequence) and all(map(_is_width, widths))
        if not whole or len(widths) < 2:
            raise UserError("widths", widths, "at least two whole numbers, such as (784, 512, 256, 1)")
        _check_bias(bias)
        check_slope(negative_slope)
        modules: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            modules += [nn.Linear(inputs, outputs, bias, device, dtype), nn.LeakyReLU(negative_slope)]
        super().__init__(*modules[:-1])

    forward = sequential.forward

    def __getitem__(self, index: slice | int) -> nn.Module:
        """Return one child, or for a slice an ``nn.Sequential`` of some."""
        return nn.Sequential(*self)[index] if isinstance(index, slice) else super().__getitem__(index)


def _is_width(width: object) -> bool:
    return isinstance(width, Integral) and not isinstance(width, bool) and width >= 0


def _check_bias(bias: bool) -> None:
    if isinstance(bias, Number) and not isinstance(bias, bool):  # most likely meant as the slope
        raise UserError("bias", repr(bias), "True or False", "The slope has a name: negative_slope=0.2.")
