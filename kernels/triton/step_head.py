"""The discriminator's last layer, the loss, and the gradient of the layer below: one kernel for row pairs.

Losses are those of ``fastgan/engines/reference.py``. The gradient of the last layer is one number a row, so
that of the layer below needs no product: it is that number times the last weight, masked.
"""

from __future__ import annotations

import triton
import triton.language as tl
from fastgan.kernels.triton.elementary import sigmoid, softplus
from fastgan.kernels.triton.step_tile import LEAKY, load_tile, slopes, store_tile

RPGAN, BCE, MINIMAX = (tl.constexpr(i) for i in range(3))
PARTIALS = 4
"""Sums of each program: loss, then how many real logits are above 0, generated below 0, pairs in order."""


@triton.jit
def _logits(h_ptr, row, rows, stride, weight_ptr, bias_ptr, I, BLOCK_B: tl.constexpr, BLOCK_I: tl.constexpr):
    total = tl.zeros((BLOCK_B, BLOCK_I), tl.float32)
    for start in tl.range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        weight = tl.load(weight_ptr + i, mask=i < I, other=0.0)
        total += load_tile(h_ptr, row, rows, stride, i, I) * weight[None, :]
    return tl.sum(total, axis=1) + tl.load(bias_ptr)


@triton.jit
def head_tile(
    h_ptr,  # [2 B, I]: activations of real rows, then of generated ones
    weight_ptr,  # [I]
    bias_ptr,  # [1]
    dlogit_ptr,  # [2 B or 4 B, 1], of which some rows are written
    dh_ptr,  # [2 B or 4 B, I], likewise
    sums_ptr,  # [PARTIALS], written
    b,  # pairs of rows
    B,
    I,
    stride_h,
    stride_dlogit,
    stride_dh,
    target,  # of real rows
    slope,
    LOSS: tl.constexpr,
    TRAINS_G: tl.constexpr,
    PENALTY: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Logits, losses, gradients. For the generator, real rows count only if they are paired.

    With PENALTY, rows from 2 B on begin the gradient of the logit by the row: 1, and the masked weight.
    """
    BLOCK_B: tl.constexpr = b.shape[0]
    here = b < B
    h_fake_ptr = h_ptr + B * stride_h
    fake = _logits(h_fake_ptr, b, B, stride_h, weight_ptr, bias_ptr, I, BLOCK_B, BLOCK_I)
    real = tl.zeros((BLOCK_B,), tl.float32)
    if LOSS == RPGAN or not TRAINS_G:
        real = _logits(h_ptr, b, B, stride_h, weight_ptr, bias_ptr, I, BLOCK_B, BLOCK_I)
    inverse = 1.0 / B
    g_real = tl.zeros((BLOCK_B,), tl.float32)
    if TRAINS_G:
        if LOSS == RPGAN:
            loss = softplus(real - fake)
            g_fake = -sigmoid(real - fake)
        elif LOSS == BCE:
            loss = softplus(-fake)
            g_fake = -sigmoid(-fake)
        else:
            loss = -softplus(fake)
            g_fake = -sigmoid(fake)
    else:
        if LOSS == RPGAN:
            loss = softplus(fake - real)
            g_fake = sigmoid(fake - real)
            g_real = -g_fake
        else:
            loss = softplus(real) - target * real + softplus(fake)
            g_fake = sigmoid(fake)
            g_real = sigmoid(real) - target
    g_fake = g_fake * inverse
    g_real = g_real * inverse
    tl.store(sums_ptr, tl.sum(tl.where(here, loss, 0.0), axis=0))
    tl.store(dlogit_ptr + (B + b) * stride_dlogit, g_fake, mask=here)
    if not TRAINS_G:
        tl.store(sums_ptr + 1, tl.sum((here & (real > 0)).to(tl.float32), axis=0))
        tl.store(sums_ptr + 2, tl.sum((here & (fake < 0)).to(tl.float32), axis=0))
        tl.store(sums_ptr + 3, tl.sum((here & (real > fake)).to(tl.float32), axis=0))
        tl.store(dlogit_ptr + b * stride_dlogit, g_real, mask=here)
        if PENALTY:
            ones = tl.full((BLOCK_B,), 1.0, tl.float32)
            tl.store(dlogit_ptr + (2 * B + b) * stride_dlogit, ones, mask=here)
            tl.store(dlogit_ptr + (3 * B + b) * stride_dlogit, ones, mask=here)
    for start in tl.range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        weight = tl.load(weight_ptr + i, mask=i < I, other=0.0)[None, :]
        begun = weight * slopes(load_tile(h_fake_ptr, b, B, stride_h, i, I), slope, LEAKY)
        store_tile(dh_ptr + B * stride_dh, g_fake[:, None] * begun, b, B, stride_dh, i, I)
        if PENALTY:
            store_tile(dh_ptr + 3 * B * stride_dh, begun, b, B, stride_dh, i, I)
        if not TRAINS_G:
            begun = weight * slopes(load_tile(h_ptr, b, B, stride_h, i, I), slope, LEAKY)
            store_tile(dh_ptr, g_real[:, None] * begun, b, B, stride_dh, i, I)
            if PENALTY:
                store_tile(dh_ptr + 2 * B * stride_dh, begun, b, B, stride_dh, i, I)


@triton.jit
def step_head_kernel(
    # pointers
    h_ptr,  # [2 B, I]: activations of real rows, then of generated ones
    weight_ptr,  # [I]
    bias_ptr,  # [1]
    dlogit_ptr,  # [2 B or 4 B, 1], written
    dh_ptr,  # [2 B or 4 B, I], written
    partial_ptr,  # [programs, PARTIALS], written
    # sizes and strides
    B,
    I,
    stride_h,
    stride_dlogit,
    stride_dh,
    # meta-parameters
    target,  # of real rows
    slope,
    LOSS: tl.constexpr,
    TRAINS_G: tl.constexpr,
    PENALTY: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """The head of all pairs of rows."""
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    head_tile(h_ptr, weight_ptr, bias_ptr, dlogit_ptr, dh_ptr, partial_ptr + tl.program_id(0) * 4, b, B, I,
              stride_h, stride_dlogit, stride_dh, target, slope, LOSS, TRAINS_G, PENALTY,
              BLOCK_I)  # fmt: skip
