"""``bce_with_logits``: the loss of the logits, with a tensor or a number as the target."""

from __future__ import annotations

from torch import Tensor

from fastgan.ops.choice import check_impl
from fastgan.ops.reference import bce_with_logits_reference


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
        impl: ``auto`` or ``reference``, both plain PyTorch; ``cpu`` and ``triton`` are refused so far.

    Returns:
        A scalar, or for ``none`` a tensor of the logits' shape.

    Raises:
        UserError: an unknown ``impl``, or one that was asked for by name and cannot run.
    """
    check_impl(impl)
    return bce_with_logits_reference(logits, target, weight, pos_weight, reduction)
