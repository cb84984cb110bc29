"""Forward kernels of a training step, layer by layer: on rows that are there, on noise, on data.

Shapes and dtypes: ``step_tile.py``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from fastgan.kernels.triton.step_tile import (
    LEAKY,
    activate,
    data_rows,
    forward_tile,
    load_tile_t,
    noise_tile,
    one_hot,
    product,
    real_tile,
    step_of,
    store_tile,
)


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
    forward_tile(x_ptr, weight_ptr, bias_ptr, mask_ptr, y_ptr, row, rows, o, I, O, stride_x, stride_mask,
                 stride_y, slope, ACTIVATION, PRECISION, BLOCK_I)  # fmt: skip


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
    """The generator's first layer on fresh noise, which is kept for the weight gradient."""
    columns = tl.cdiv(O, BLOCK_O)
    b = tl.program_id(0) // columns * BLOCK_B + tl.arange(0, BLOCK_B)
    first_columns = tl.program_id(0) % columns == 0
    o = tl.program_id(0) % columns * BLOCK_O + tl.arange(0, BLOCK_O)
    seed = tl.load(clock_ptr)
    step = step_of(clock_ptr, STARTS_STEP)
    noise_row = (step * per_step + which) * B + b
    label = None
    if labels_ptr is not None:
        row = data_rows(clock_ptr, step, d_steps, substep, B, b, size, low_bits, high_bits, STREAMED)
        label = tl.load(labels_ptr + row)
    total = tl.zeros((BLOCK_B, BLOCK_O), tl.float32)
    for start in tl.range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        z = noise_tile(seed, noise_stream, noise_row, label, start, LATENT, BLOCK_I)
        if first_columns:
            store_tile(z_ptr, z, b, B, stride_z, i, I)
        total = product(z, load_tile_t(weight_ptr, o, O, I, i, I), total, PRECISION)
    y = activate(total, bias_ptr, slope, o, O, ACTIVATION)
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
    picked = data_rows(clock_ptr, step, d_steps, substep, B, row % B, size, low_bits, high_bits, STREAMED)
    label = None
    if labels_ptr is not None:
        label = tl.load(labels_ptr + picked)
    total = tl.zeros((BLOCK_B, BLOCK_O), tl.float32)
    for start in tl.range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        feature = i[None, :] < FEATURES
        x = real_tile(data_ptr, picked, i[None, :], FEATURES, real[:, None], scale, shift)
        generated = (row[:, None] >= B) & (row[:, None] < rows) & feature
        fake = tl.load(x_ptr + row[:, None] * stride_x + i[None, :], mask=generated, other=0.0)
        x = one_hot(tl.where(real[:, None] & feature, x, fake), i[None, :], FEATURES, label)
        if first_columns:
            new = (row[:, None] < rows) & (i[None, :] < I) & (real[:, None] | (i[None, :] >= FEATURES))
            tl.store(x_ptr + row[:, None] * stride_x + i[None, :], x, mask=new)
        total = product(x, load_tile_t(weight_ptr, o, O, I, i, I), total, PRECISION)
    y = activate(total, bias_ptr, slope, o, O, LEAKY)
    store_tile(y_ptr, y, row, rows, stride_y, o, O)
