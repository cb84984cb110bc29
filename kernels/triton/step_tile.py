"""What the kernels of a training step compute for a tile: a layer both ways, noise, rows of data.

A kernel says which tiles are a program's: one of a layer (``step_forward.py``, ``step_backward.py``), or all
of some rows, layer after layer (``step_rows.py``).

Shapes: R rows, B batch, I inputs, O outputs. All matrices are float32 with rows apart by a multiple of 4
elements, of at most 2**31 elements. ``PRECISION`` is that of products: ieee, tf32, tf32x3, or bf16, which
rounds operands and sums in float32. The clock is int64: seed, step, next step, and the step after
which learning rates decay.
"""

from __future__ import annotations

import triton
import triton.language as tl
from fastgan.kernels.triton.elementary import epoch_index, normal_tile, sigmoid, tanh

LEAKY, SIGMOID, TANH, LINEAR, MASKED = (tl.constexpr(i) for i in range(5))


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """Return ``total + a @ b``."""
    if PRECISION == "bf16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
    else:
        return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def load_tile(pointer, row, rows, stride, column, columns):
    """Load the elements [row, column] of a matrix [rows, columns], zeros outside of it."""
    mask = (row[:, None] < rows) & (column[None, :] < columns)
    return tl.load(pointer + row[:, None] * stride + column[None, :], mask=mask, other=0.0)


@triton.jit
def load_tile_t(pointer, row, rows, stride, column, columns):
    """Load the same, transposed: [column, row]."""
    mask = (row[None, :] < rows) & (column[:, None] < columns)
    return tl.load(pointer + row[None, :] * stride + column[:, None], mask=mask, other=0.0)


@triton.jit
def store_tile(pointer, values, row, rows, stride, column, columns):
    """Store the elements [row, column] that lie inside of a matrix [rows, columns]."""
    mask = (row[:, None] < rows) & (column[None, :] < columns)
    tl.store(pointer + row[:, None] * stride + column[None, :], values, mask=mask)


@triton.jit
def slopes(y, slope, ACTIVATION: tl.constexpr):
    """Return the derivative of an activation where its output is y."""
    if ACTIVATION == LEAKY:
        return tl.where(y > 0, 1.0, slope)
    elif ACTIVATION == SIGMOID:
        return y * (1.0 - y)
    elif ACTIVATION == TANH:
        return 1.0 - y * y
    else:
        return tl.full(y.shape, 1.0, tl.float32)


@triton.jit
def _times_weight(
    x_ptr, row, rows, stride_x, weight_ptr, stride_weight, k_end, n, n_end,
    TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Return ``x W`` for rows of x and columns n; TRANSPOSED, ``x W^T``, whose columns are rows of W."""
    total = tl.zeros((row.shape[0], n.shape[0]), tl.float32)
    for start in tl.range(0, k_end, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = load_tile(x_ptr, row, rows, stride_x, k, k_end)
        if TRANSPOSED:
            weight = load_tile_t(weight_ptr, n, n_end, stride_weight, k, k_end)
        else:
            weight = load_tile(weight_ptr, k, k_end, stride_weight, n, n_end)
        total = product(x, weight, total, PRECISION)
    return total


@triton.jit
def activate(total, bias_ptr, slope, o, O, ACTIVATION: tl.constexpr):
    """Add the bias and activate."""
    total += tl.load(bias_ptr + o, mask=o < O, other=0.0)[None, :]
    if ACTIVATION == LEAKY:
        return tl.where(total > 0, total, total * slope)
    elif ACTIVATION == SIGMOID:
        return sigmoid(total)
    elif ACTIVATION == TANH:
        return tanh(total)
    else:
        return total


@triton.jit
def forward_tile(
    x_ptr,  # [R, I]
    weight_ptr,  # [O, I]
    bias_ptr,  # [O]
    mask_ptr,  # [R, O]: activations, if MASKED
    y_ptr,  # [R, O], of which a tile is written
    row,
    rows,
    o,
    I,
    O,
    stride_x,
    stride_mask,
    stride_y,
    slope,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """``y = act(x W^T + b)``; or, MASKED, ``(x W^T) act'(mask)``, as the penalty's derivative has it."""
    y = _times_weight(x_ptr, row, rows, stride_x, weight_ptr, I, I, o, O, True, PRECISION, BLOCK_I)
    if ACTIVATION == MASKED:
        y *= slopes(load_tile(mask_ptr, row, rows, stride_mask, o, O), slope, LEAKY)
    else:
        y = activate(y, bias_ptr, slope, o, O, ACTIVATION)
    store_tile(y_ptr, y, row, rows, stride_y, o, O)


@triton.jit
def backward_tile(
    dy_ptr,  # [R, O]
    weight_ptr,  # [O, stride_weight], of which the first I columns are used
    x_ptr,  # [distinct, I]: the layer's inputs, outputs of the activation below
    dx_ptr,  # [R, I], of which a tile is written
    row,
    rows,
    row_of_x,  # whose activations each row has
    distinct,
    i,
    I,
    O,
    stride_dy,
    stride_weight,
    stride_x,
    stride_dx,
    slope,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """``dx = (dy W) act'(x)``: gradients before the activation, of this layer and of the one below."""
    dx = _times_weight(
        dy_ptr, row, rows, stride_dy, weight_ptr, stride_weight, O, i, I, False, PRECISION, BLOCK_O
    )
    dx *= slopes(load_tile(x_ptr, row_of_x, distinct, stride_x, i, I), slope, ACTIVATION)
    store_tile(dx_ptr, dx, row, rows, stride_dx, i, I)


@triton.jit
def penalty_tile(
    e_ptr,  # [2 B, O]: gradients of the logits by the first layer, before its activation
    weight_ptr,  # [O, I]
    q_ptr,  # [2 B, I], of which a tile is written
    row,
    B,
    i,
    FEATURES,
    I,
    O,
    stride_e,
    stride_q,
    r1,
    r2,
    every,
    PRECISION: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """``u = e W``, the gradient of each logit by its row, and the penalty's derivative by u: q.

    Return the sum of the penalty over the tile.

    Labels are no part of the row that gradients are taken by, so their columns of q are zero.
    """
    u = _times_weight(e_ptr, row, 2 * B, stride_e, weight_ptr, I, O, i, FEATURES, False, PRECISION, BLOCK_O)
    weight = tl.where(row < B, r1, r2) / B
    store_tile(q_ptr, u * (weight * every)[:, None], row, 2 * B, stride_q, i, I)
    per_row = tl.sum(u * u, axis=1) * (0.5 * weight)
    return tl.sum(tl.where(row < 2 * B, per_row, 0.0), axis=0)


@triton.jit
def step_of(clock_ptr, STARTS_STEP: tl.constexpr):
    """Return the step.

    The first kernel of a step sets the clock's step to the next one: there all programs read the latter and
    none the former; in the last kernel of a step it is the other way round.
    """
    if STARTS_STEP:
        step = tl.load(clock_ptr + 2)
        if tl.program_id(0) == 0:
            tl.store(clock_ptr + 1, step)
    else:
        step = tl.load(clock_ptr + 1)
    return step


@triton.jit
def data_rows(
    clock_ptr, step, d_steps, substep, batch, b, size, low_bits, high_bits, STREAMED: tl.constexpr
):  # fmt: skip
    """Return the data row at each position b of the batch of a discriminator step; STREAMED, rows are a ring
    in the order of the batches."""
    position = (step * d_steps + substep) * batch + b
    if STREAMED:
        return position % size
    return epoch_index(tl.load(clock_ptr), position, size, low_bits, high_bits)


@triton.jit
def noise_tile(seed, noise_stream, noise_row, label, start, LATENT, BLOCK_I: tl.constexpr):
    """Return columns of the generator's inputs: noise, then the label, if any, one-hot."""
    i = start + tl.arange(0, BLOCK_I)[None, :]
    z = normal_tile(seed, noise_stream, noise_row, start, BLOCK_I)
    return one_hot(tl.where(i < LATENT, z, 0.0), i, LATENT, label)


@triton.jit
def one_hot(x, i, first, label):
    """Put labels [R], unless they are None, into a tile of columns i [1, I]: in those from ``first`` on."""
    if label is not None:
        x = tl.where(i == first + label[:, None], 1.0, x)
    return x


@triton.jit
def real_tile(data_ptr, picked, i, FEATURES, mask, scale, shift):
    """Return columns i [1, I] of the picked rows of data, scaled, where the mask holds; elsewhere zeros."""
    mask = mask & (i < FEATURES)
    x = tl.load(data_ptr + picked[:, None] * FEATURES + i, mask=mask, other=0)
    return tl.where(mask, x.to(tl.float32) * scale + shift, 0.0)
