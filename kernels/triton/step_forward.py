"""Forward kernels of a training step: a layer on rows that are there, on noise, on data; and with a mask.

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
def _finish(total, bias_ptr, mask_ptr, stride_mask, slope, row, rows, o, O, ACTIVATION: tl.constexpr):
    """Add the bias and activate; or, MASKED, only multiply by the derivative at another matrix."""
    if ACTIVATION == MASKED:
        y = load_tile(mask_ptr, row, rows, stride_mask, o, O)
        return total * slopes(y, slope, LEAKY)
    else:
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
def step_layer_fwd_kernel(
    # pointers
    x_ptr,  # [R, I]
    weight_ptr,  # [O, I]
    bias_ptr,  # [O]
    mask_ptr,  # [R, O]: activations, if MASKED
    y_ptr,  # [R, O], written
    # sizes and strides
    rows,
    I,
    O,
    stride_x,
    stride_mask,
    stride_y,
    # meta-parameters
    slope,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """``y = act(x W^T + b)``; or, MASKED, ``(x W^T) act'(mask)``, as the penalty's derivative has it."""
    columns = tl.cdiv(O, BLOCK_O)
    row = tl.program_id(0) // columns * BLOCK_B + tl.arange(0, BLOCK_B)
    o = tl.program_id(0) % columns * BLOCK_O + tl.arange(0, BLOCK_O)
    total = tl.zeros((BLOCK_B, BLOCK_O), tl.float32)
    for start in tl.range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        x = load_tile(x_ptr, row, rows, stride_x, i, I)
        total = product(x, load_tile_t(weight_ptr, o, O, I, i, I), total, PRECISION)
    y = _finish(total, bias_ptr, mask_ptr, stride_mask, slope, row, rows, o, O, ACTIVATION)
    store_tile(y_ptr, y, row, rows, stride_y, o, O)


@triton.jit
def _data_rows(
    clock_ptr, step, d_steps, substep, batch, b, size, low_bits, high_bits, STREAMED: tl.constexpr
):  # fmt: skip
    """Return the data row at each position b of the batch of a discriminator step; STREAMED, rows are a ring
    in the order of the batches."""
    position = (step * d_steps + substep) * batch + b
    if STREAMED:
        return position % size
    return epoch_index(tl.load(clock_ptr), position, size, low_bits, high_bits)


@triton.jit
def step_noise_layer_fwd_kernel(
    # pointers
    clock_ptr,
    labels_ptr,  # [size] int32, or None without classes
    weight_ptr,  # [O, I]
    bias_ptr,  # [O]
    z_ptr,  # [B, I], written: noise, then the label, one-hot
    y_ptr,  # [B, O], written
    # sizes and strides
    B,
    LATENT,
    I,
    O,
    stride_z,
    stride_y,
    # where in the sequence of batches
    noise_stream,
    per_step,  # batches of noise of a step
    which,  # of these
    d_steps,
    substep,  # the discriminator step whose labels count
    size,  # data rows, or those of the ring
    low_bits,
    high_bits,
    # meta-parameters
    slope,
    STREAMED: tl.constexpr,
    STARTS_STEP: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """The generator's first layer on fresh noise, which is kept for the weight gradient.

    The first kernel of a step sets the clock's step to the next one: here all programs read the latter and
    none the former; in the last kernel of a step it is the other way round.
    """
    columns = tl.cdiv(O, BLOCK_O)
    b = tl.program_id(0) // columns * BLOCK_B + tl.arange(0, BLOCK_B)
    first_columns = tl.program_id(0) % columns == 0
    o = tl.program_id(0) % columns * BLOCK_O + tl.arange(0, BLOCK_O)
    seed = tl.load(clock_ptr)
    if STARTS_STEP:
        step = tl.load(clock_ptr + 2)
        if tl.program_id(0) == 0:
            tl.store(clock_ptr + 1, step)
    else:
        step = tl.load(clock_ptr + 1)
    noise_row = (step * per_step + which) * B + b
    if labels_ptr is not None:
        row = _data_rows(clock_ptr, step, d_steps, substep, B, b, size, low_bits, high_bits, STREAMED)
        label = tl.load(labels_ptr + row)
    total = tl.zeros((BLOCK_B, BLOCK_O), tl.float32)
    for start in tl.range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        z = normal_tile(seed, noise_stream, noise_row, start, BLOCK_I)
        z = tl.where(i[None, :] < LATENT, z, 0.0)
        if labels_ptr is not None:
            z = tl.where(i[None, :] == LATENT + label[:, None], 1.0, z)
        if first_columns:
            store_tile(z_ptr, z, b, B, stride_z, i, I)
        total = product(z, load_tile_t(weight_ptr, o, O, I, i, I), total, PRECISION)
    y = _finish(total, bias_ptr, None, 0, slope, b, B, o, O, ACTIVATION)
    store_tile(y_ptr, y, b, B, stride_y, o, O)


@triton.jit
def step_data_layer_fwd_kernel(
    # pointers
    clock_ptr,
    data_ptr,  # [size, FEATURES], uint8 or float32
    labels_ptr,  # [size] int32, or None without classes
    weight_ptr,  # [O, I]
    bias_ptr,  # [O]
    x_ptr,  # [2 B, I]: generated rows are there from row B on; the rest is written
    y_ptr,  # [2 B, O], written
    # sizes and strides
    B,
    FEATURES,
    I,
    O,
    stride_x,
    stride_y,
    # where in the sequence of batches
    d_steps,
    substep,
    size,
    low_bits,
    high_bits,
    # meta-parameters
    scale,
    shift,
    slope,
    STREAMED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """The discriminator's first layer on real rows, picked from the data here, and on generated ones.

    Real rows and labels are kept for the weight gradient and the generator's step.
    """
    columns = tl.cdiv(O, BLOCK_O)
    row = tl.program_id(0) // columns * BLOCK_B + tl.arange(0, BLOCK_B)
    first_columns = tl.program_id(0) % columns == 0
    o = tl.program_id(0) % columns * BLOCK_O + tl.arange(0, BLOCK_O)
    step = tl.load(clock_ptr + 1)
    rows = 2 * B
    real = row < B
    picked = _data_rows(clock_ptr, step, d_steps, substep, B, row % B, size, low_bits, high_bits, STREAMED)
    if labels_ptr is not None:
        label = tl.load(labels_ptr + picked)
    total = tl.zeros((BLOCK_B, BLOCK_O), tl.float32)
    for start in tl.range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        feature = i[None, :] < FEATURES
        at = picked[:, None] * FEATURES + i[None, :]
        x = tl.load(data_ptr + at, mask=real[:, None] & feature, other=0).to(tl.float32) * scale + shift
        generated = (row[:, None] >= B) & (row[:, None] < rows) & feature
        fake = tl.load(x_ptr + row[:, None] * stride_x + i[None, :], mask=generated, other=0.0)
        x = tl.where(real[:, None] & feature, x, fake)
        if labels_ptr is not None:
            x = tl.where(i[None, :] == FEATURES + label[:, None], 1.0, x)
        if first_columns:
            new = (row[:, None] < rows) & (i[None, :] < I) & (real[:, None] | (i[None, :] >= FEATURES))
            tl.store(x_ptr + row[:, None] * stride_x + i[None, :], x, mask=new)
        total = product(x, load_tile_t(weight_ptr, o, O, I, i, I), total, PRECISION)
    y = _finish(total, bias_ptr, None, 0, slope, row, rows, o, O, LEAKY)
    store_tile(y_ptr, y, row, rows, stride_y, o, O)
