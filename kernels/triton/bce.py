"""Binary cross entropy with logits: the loss and its gradient in one pass over the logits.

    loss     = weight ((1 - t) softplus(l) + pos_weight t softplus(-l))
    gradient = weight ((1 - t) sigmoid(l)  - pos_weight t sigmoid(-l))

for a logit l with target t. Both sides of the sigmoid and of the softplus come from one exp(-|l|), which
cannot overflow, and neither side is one minus the other: the gradient keeps its digits where the answer is
right already, which PyTorch's ``sigmoid(l) - t`` rounds away. All arithmetic is float32.

Sums run in a fixed order: every program adds its stretch of blocks, and where there are several programs, a
second launch adds their sums. No atomics, the same bits every time.

Shapes: B batch, O outputs; logits are [B, O], and so is all that goes with them. Any strides (zero for
expanded weights). A tensor may span more than 2**31 elements.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from fastgan.kernels.triton.launch import check, check_device
from torch import Tensor

from fastgan.errors import UserError

BLOCK = 1024
BLOCKS_ALONE = 8
"""A single program takes up to so many blocks: the logits of a batch of 8192 need one launch, not two."""
MOST_PROGRAMS = 512
"""Their sums are a single block of the second launch."""

OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
REDUCTIONS = ("none", "mean", "sum")


@triton.jit
def _bce_with_logits_fwd_bwd_kernel(
    # pointers
    logits_ptr,  # [B, O]
    target_ptr,  # [B, O], or None: target_value for all
    weight_ptr,  # [B, O] or None
    pos_weight_ptr,  # [B, O] or None
    loss_ptr,  # [B, O], or [programs] sums if REDUCE; written
    dlogits_ptr,  # [B, O], written, or None
    # sizes
    B,
    O,
    blocks_per_program,
    # strides
    stride_logits_b,
    stride_logits_o,
    stride_target_b,
    stride_target_o,
    stride_weight_b,
    stride_weight_o,
    stride_pos_weight_b,
    stride_pos_weight_o,
    stride_loss_b,
    stride_loss_o,
    stride_dlogits_b,
    stride_dlogits_o,
    # meta-parameters
    target_value,
    divisor,
    REDUCE: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    total = tl.zeros((BLOCK,), tl.float32)
    first = tl.program_id(0).to(INDEX) * blocks_per_program
    for step in tl.range(blocks_per_program):
        n = (first + step) * BLOCK + tl.arange(0, BLOCK)
        # 64-bit divisions are many times slower: INDEX is 32-bit wherever the numbers fit.
        b, o = n // O, n % O
        inside = b < B
        b, o = b.to(tl.int64), o.to(tl.int64)
        logit = _load(logits_ptr, b, stride_logits_b, o, stride_logits_o, inside)
        if target_ptr is None:
            positive = target_value
        else:
            positive = _load(target_ptr, b, stride_target_b, o, stride_target_o, inside)
        negative = 1.0 - positive
        if pos_weight_ptr is not None:
            positive *= _load(pos_weight_ptr, b, stride_pos_weight_b, o, stride_pos_weight_o, inside)

        small = tl.exp(-tl.abs(logit))
        rest = _log1p(small)
        loss = negative * (tl.maximum(logit, 0.0) + rest) + positive * (tl.maximum(-logit, 0.0) + rest)
        near, far = 1.0 / (1.0 + small), small / (1.0 + small)
        sigmoid, one_minus_sigmoid = tl.where(logit >= 0, near, far), tl.where(logit >= 0, far, near)
        gradient = negative * sigmoid - positive * one_minus_sigmoid
        if weight_ptr is not None:
            weight = _load(weight_ptr, b, stride_weight_b, o, stride_weight_o, inside)
            loss *= weight
            gradient *= weight

        if REDUCE:
            total += tl.where(inside, loss, 0.0)
        else:
            loss = loss.to(loss_ptr.dtype.element_ty)
            tl.store(loss_ptr + b * stride_loss_b + o * stride_loss_o, loss, mask=inside)
        if dlogits_ptr is not None:
            gradient = (gradient / divisor).to(dlogits_ptr.dtype.element_ty)
            tl.store(dlogits_ptr + b * stride_dlogits_b + o * stride_dlogits_o, gradient, mask=inside)
    if REDUCE:
        tl.store(loss_ptr + tl.program_id(0), (tl.sum(total) / divisor).to(loss_ptr.dtype.element_ty))


@triton.jit
def _sum_fwd_kernel(
    # pointers
    x_ptr,  # [programs]
    y_ptr,  # [], written
    # sizes
    programs,
    # meta-parameters
    BLOCK: tl.constexpr,
):
    n = tl.arange(0, BLOCK)
    total = tl.sum(tl.load(x_ptr + n, mask=n < programs, other=0.0))
    tl.store(y_ptr, total.to(y_ptr.dtype.element_ty))


@triton.jit
def _load(pointer, b, stride_b, o, stride_o, inside):
    """Load a block of a [B, O] matrix as float32, zeros outside of it."""
    return tl.load(pointer + b * stride_b + o * stride_o, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _log1p(x):
    """Return log(1 + x) for x in [0, 1], with a relative error of a few units in the last place.

    log(1 + x) = 2 artanh(s) with s = x / (2 + x) <= 1/3; eight terms of its series leave 2e-9. The GPU's
    logarithm has an absolute error near 1: tl.log(1 + x) would lose the digits of every small x.
    """
    s = x / (2.0 + x)
    q = s * s
    series = 1.0 / 13.0 + q * (1.0 / 15.0)
    series = 1.0 / 9.0 + q * (1.0 / 11.0 + q * series)
    series = 1.0 / 5.0 + q * (1.0 / 7.0 + q * series)
    return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * series))


def bce_with_logits_partials(count: int) -> int:
    """Return how many float32 partial sums a reduction of so many logits needs; 0 for a single program."""
    blocks = triton.cdiv(count, BLOCK)
    return 0 if blocks <= BLOCKS_ALONE else min(blocks, MOST_PROGRAMS)


def bce_with_logits_fwd_bwd(
    logits: Tensor,
    target: Tensor | float,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    loss: Tensor,
    dlogits: Tensor | None,
    partials: Tensor | None = None,
    reduction: str = "mean",
) -> None:
    """Write the loss and, unless dlogits is None, its gradient with respect to the logits.

    Args:
        logits: [B, O], float32, bfloat16 or float16, any strides.
        target: [B, O], or one number for all.
        weight: [B, O] (expanded, if need be) or None.
        pos_weight: [B, O] (expanded, if need be) or None.
        loss: [B, O] for the reduction "none", otherwise one element; written.
        dlogits: [B, O], the gradient of the reduced loss (of each loss, for "none"), written; or None. For
            float16 logits and many rows, ask for float32 or for "sum": 1 / count times a small gradient
            is below what float16 can hold.
        partials: [bce_with_logits_partials(B * O)] float32, overwritten; None to have it allocated.
        reduction: "none", "mean" or "sum". The mean of zero logits is NaN, as in PyTorch.

    Tensors may differ in dtype: each is converted to float32, and results from it.

    Raises:
        UserError: a tensor or a reduction that is not as above.
    """
    if reduction not in REDUCTIONS:
        raise UserError("reduction", repr(reduction), "one of " + ", ".join(REDUCTIONS))
    count, reduce, shape = logits.numel(), reduction != "none", tuple(logits.shape)
    if len(shape) != 2:
        raise UserError("logits", f"the shape {list(shape)}", "two dimensions")
    check("logits", logits, shape, logits)
    target_tensor = target if isinstance(target, Tensor) else None
    matrices = {"target": target_tensor, "weight": weight, "pos_weight": pos_weight, "dlogits": dlogits}
    for name, tensor in matrices.items():
        if tensor is not None:
            check(name, tensor, shape, logits)
    one_element = tuple(loss.shape) if loss.numel() == 1 else ()
    check("loss", loss, one_element if reduce else shape, logits)
    check_device(logits)
    programs = 1
    if reduce and (needed := bce_with_logits_partials(count)):
        programs = needed
        if partials is None:
            partials = torch.empty(needed, dtype=torch.float32, device=logits.device)
        check("partials", partials, (needed,), logits)
    if count == 0:
        if reduce:
            loss.fill_(float("nan") if reduction == "mean" else 0.0)
        return
    blocks = triton.cdiv(count, BLOCK)
    if not reduce:
        programs = blocks
    blocks_per_program = triton.cdiv(blocks, programs)
    sums = partials if reduce and programs > 1 else loss
    tensors = [logits, target_tensor, weight, pos_weight, sums, dlogits]
    strided = [t for t in tensors if t is not None and not (reduce and t is sums)]
    if all(t.is_contiguous() for t in strided):
        # One column: the kernel, compiled for O = 1, has no division to find row and column by.
        (batch, outputs), flat = (count, 1), True
    else:
        (batch, outputs), flat = shape, False
    strides = [
        (0, 0) if t is None or (reduce and t is sums) else (1, 1) if flat else t.stride() for t in tensors
    ]
    with torch.cuda.device_of(logits):
        _bce_with_logits_fwd_bwd_kernel[(programs,)](
            *tensors,
            batch,
            outputs,
            blocks_per_program,
            *(stride for pair in strides for stride in pair),
            0.0 if target_tensor is not None else float(target),
            float(count) if reduction == "mean" else 1.0,
            REDUCE=reduce,
            INDEX=tl.int32 if programs * blocks_per_program * BLOCK < 2**31 else tl.int64,
            BLOCK=BLOCK,
            **OPTIONS,
        )
        if sums is not loss:
            _sum_fwd_kernel[(1,)](sums, loss, programs, BLOCK=MOST_PROGRAMS, **OPTIONS)
