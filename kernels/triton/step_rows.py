"""Row-fused kernels of a training step: forward, loss and input gradients of some rows in one program.

But for weight gradients, nothing in a step mixes rows, or pairs of a real and a generated one. So a program
takes ROWS pairs through all layers, and a step is four launches: rows of the discriminator's step, its update
(``step_update_kernel``, which finds everything where the layered design leaves it), rows of the generator's
step, its update. Programs are few, and each reads all weights: that pays where launches cost more than
products do.

Between layers, activations go through the workspace, which stays in L2. A program reads no rows but those it
has written itself, so a barrier of its own threads is all the order that there has to be: each layer ends
with one.

Layers are those of the update's tables, the generator's first: the outputs of one are the inputs of the next,
and the generator's are the second half of the discriminator's inputs. Shapes and dtypes: ``step_tile.py``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from fastgan.kernels.triton.step_head import RPGAN, head_tile
from fastgan.kernels.triton.step_tile import (
    LEAKY,
    MASKED,
    backward_tile,
    data_rows,
    forward_tile,
    noise_tile,
    one_hot,
    penalty_tile,
    real_tile,
    step_of,
    store_tile,
)


@triton.jit
def _layer(p_ptr, layers_ptr, n, ALIGNED: tl.constexpr):
    """Return a layer's weights, biases, outputs and inputs; these are a multiple of ALIGNED."""
    at = layers_ptr + n * 9
    weight_ptr = p_ptr + tl.multiple_of(tl.load(at + 7), 4)
    bias_ptr = p_ptr + tl.multiple_of(tl.load(at + 8), 4)
    return weight_ptr, bias_ptr, tl.load(at + 1), tl.multiple_of(tl.load(at + 2), ALIGNED)


@triton.jit
def _gradients(workspace_ptr, layers_ptr, n, first_row):
    """Return where the gradients of a layer's outputs are, from a row on, and their stride."""
    at = layers_ptr + n * 9
    stride = tl.multiple_of(tl.load(at + 4), 4)
    return workspace_ptr + tl.multiple_of(tl.load(at + 3), 4) + first_row * stride, stride


@triton.jit
def _inputs(workspace_ptr, layers_ptr, n, first_row):
    """Return where a layer's inputs are, from a row on, and their stride."""
    at = layers_ptr + n * 9
    stride = tl.multiple_of(tl.load(at + 6), 4)
    return workspace_ptr + tl.multiple_of(tl.load(at + 5), 4) + first_row * stride, stride


@triton.jit
def _pairs(B, ROWS: tl.constexpr):
    """Return this program's rows of B real and B generated ones; 2 B where there are no more."""
    n = tl.arange(0, 2 * ROWS)
    b = tl.program_id(0) * ROWS + n % ROWS
    return tl.where(b < B, n // ROWS * B + b, 2 * B)


@triton.jit
def _forward(
    p_ptr, workspace_ptr, layers_ptr, n, x_first, y_first, row, rows, slope, ACTIVATION: tl.constexpr,
    ALIGNED: tl.constexpr, PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Take rows through a layer, counted from ``x_first`` and ``y_first``; MASKED, by the first outputs."""
    weight_ptr, bias_ptr, O, I = _layer(p_ptr, layers_ptr, n, ALIGNED)
    x_ptr, stride_x = _inputs(workspace_ptr, layers_ptr, n, x_first)
    y_ptr, stride_y = _inputs(workspace_ptr, layers_ptr, n + 1, y_first)
    mask_ptr, _ = _inputs(workspace_ptr, layers_ptr, n + 1, 0)
    for start in tl.range(0, O, BLOCK_N):
        o = start + tl.arange(0, BLOCK_N)
        forward_tile(x_ptr, weight_ptr, bias_ptr, mask_ptr, y_ptr, row, rows, o, I, O, stride_x, stride_y,
                     stride_y, slope, ACTIVATION, PRECISION, BLOCK_K)  # fmt: skip
    tl.debug_barrier()


@triton.jit
def _backward(
    p_ptr, workspace_ptr, layers_ptr, n, dy_first, x_first, dx_first, row, rows, columns, slope,
    ACTIVATION: tl.constexpr, ALIGNED: tl.constexpr, PRECISION: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Take gradients of rows, counted from three first ones, back through a layer to its first inputs."""
    weight_ptr, _, O, I = _layer(p_ptr, layers_ptr, n, ALIGNED)
    dy_ptr, stride_dy = _gradients(workspace_ptr, layers_ptr, n, dy_first)
    x_ptr, stride_x = _inputs(workspace_ptr, layers_ptr, n, x_first)
    dx_ptr, stride_dx = _gradients(workspace_ptr, layers_ptr, n - 1, dx_first)
    for start in tl.range(0, columns, BLOCK_N):
        i = start + tl.arange(0, BLOCK_N)
        backward_tile(dy_ptr, weight_ptr, x_ptr, dx_ptr, row, rows, row, rows, i, columns, O,
                      stride_dy, I, stride_x, stride_dx, slope, ACTIVATION, PRECISION, BLOCK_K)  # fmt: skip
    tl.debug_barrier()


@triton.jit
def _generate(
    p_ptr, workspace_ptr, layers_ptr, seed, noise_stream, first_noise_row, label, b, B, LATENT, slope,
    G_LAYERS: tl.constexpr, HEAD: tl.constexpr, ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Draw noise and run the generator."""
    _, _, _, I = _layer(p_ptr, layers_ptr, 0, ALIGNED)
    z_ptr, stride_z = _inputs(workspace_ptr, layers_ptr, 0, 0)
    for start in tl.range(0, I, BLOCK_N):
        z = noise_tile(seed, noise_stream, first_noise_row + b, label, start, LATENT, BLOCK_N)
        store_tile(z_ptr, z, b, B, stride_z, start + tl.arange(0, BLOCK_N), I)
    tl.debug_barrier()
    for n in tl.range(0, G_LAYERS - 1):
        _forward(p_ptr, workspace_ptr, layers_ptr, n, 0, 0, b, B, slope, LEAKY, ALIGNED, PRECISION, BLOCK_N,
                 BLOCK_K)  # fmt: skip
    _forward(p_ptr, workspace_ptr, layers_ptr, G_LAYERS - 1, 0, B, b, B, slope, HEAD, ALIGNED, PRECISION,
             BLOCK_N, BLOCK_K)  # fmt: skip


@triton.jit
def _head(
    p_ptr, workspace_ptr, layers_ptr, n, partial_ptr, b, B, target, slope, LOSS: tl.constexpr,
    TRAINS_G: tl.constexpr, PENALTY: tl.constexpr, ALIGNED: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The last layer of pairs of rows, their losses, and the gradients that begin there."""
    weight_ptr, bias_ptr, _, I = _layer(p_ptr, layers_ptr, n, ALIGNED)
    h_ptr, stride_h = _inputs(workspace_ptr, layers_ptr, n, 0)
    dlogit_ptr, stride_dlogit = _gradients(workspace_ptr, layers_ptr, n, 0)
    dh_ptr, stride_dh = _gradients(workspace_ptr, layers_ptr, n - 1, 0)
    head_tile(h_ptr, weight_ptr, bias_ptr, dlogit_ptr, dh_ptr, partial_ptr + tl.program_id(0) * 4, b, B, I,
              stride_h, stride_dlogit, stride_dh, target, slope, LOSS, TRAINS_G, PENALTY,
              BLOCK_K)  # fmt: skip
    tl.debug_barrier()


@triton.jit
def step_d_rows_kernel(
    # pointers
    clock_ptr,
    data_ptr,  # [size, FEATURES], uint8 or float32
    labels_ptr,  # [size] int32, or None without classes
    p_ptr,  # parameters
    workspace_ptr,
    layers_ptr,  # [G_LAYERS + D_LAYERS, step_backward.FIELDS] int32
    partial_ptr,  # [programs, step_head.PARTIALS], written
    penalty_ptr,  # [programs], written: sums of the penalty
    # sizes
    B,
    LATENT,
    FEATURES,
    # where in the sequence of batches
    substep,  # of d_steps
    d_steps,
    size,  # data rows, or those of the ring
    low_bits,
    high_bits,
    # meta-parameters
    noise_stream,
    scale,
    shift,
    target,  # of real rows
    slope,
    r1,
    r2,
    every,
    STREAMED: tl.constexpr,
    STARTS_STEP: tl.constexpr,
    LOSS: tl.constexpr,
    PENALTY: tl.constexpr,
    HEAD: tl.constexpr,  # the generator's last activation
    G_LAYERS: tl.constexpr,
    D_LAYERS: tl.constexpr,
    ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Rows of a discriminator step: generated, picked, forward, loss, back; and the same for the penalty."""
    b = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    step = step_of(clock_ptr, STARTS_STEP)
    picked = data_rows(clock_ptr, step, d_steps, substep, B, b, size, low_bits, high_bits, STREAMED)
    label = None
    if labels_ptr is not None:
        label = tl.load(labels_ptr + picked)
    _generate(p_ptr, workspace_ptr, layers_ptr, tl.load(clock_ptr), noise_stream,
              (step * d_steps + substep) * B, label, b, B, LATENT, slope, G_LAYERS, HEAD, ALIGNED, PRECISION,
              BLOCK_N, BLOCK_K)  # fmt: skip

    _, _, _, I = _layer(p_ptr, layers_ptr, G_LAYERS, ALIGNED)
    real_ptr, stride_x = _inputs(workspace_ptr, layers_ptr, G_LAYERS, 0)
    fake_ptr, _ = _inputs(workspace_ptr, layers_ptr, G_LAYERS, B)
    for start in tl.range(0, I, BLOCK_N):
        i = start + tl.arange(0, BLOCK_N)
        x = real_tile(data_ptr, picked, i[None, :], FEATURES, (b < B)[:, None], scale, shift)
        x = one_hot(x, i[None, :], FEATURES, label)
        store_tile(real_ptr, x, b, B, stride_x, i, I)
        if labels_ptr is not None:
            mask = (b < B)[:, None] & ((i >= FEATURES) & (i < I))[None, :]
            tl.store(fake_ptr + b[:, None] * stride_x + i[None, :], x, mask=mask)
    tl.debug_barrier()

    row = _pairs(B, ROWS)
    last: tl.constexpr = G_LAYERS + D_LAYERS - 1
    for n in tl.range(G_LAYERS, last):
        _forward(p_ptr, workspace_ptr, layers_ptr, n, 0, 0, row, 2 * B, slope, LEAKY, ALIGNED, PRECISION,
                 BLOCK_N, BLOCK_K)  # fmt: skip
    _head(p_ptr, workspace_ptr, layers_ptr, last, partial_ptr, b, B, target, slope, LOSS, False, PENALTY,
          ALIGNED, BLOCK_K)  # fmt: skip
    for n in tl.range(last - 1, G_LAYERS, -1):
        _, _, _, columns = _layer(p_ptr, layers_ptr, n, ALIGNED)
        for first in tl.range(0, 4 * B if PENALTY else 2 * B, 2 * B):
            _backward(p_ptr, workspace_ptr, layers_ptr, n, first, 0, first, row, 2 * B, columns, slope, LEAKY,
                      ALIGNED, PRECISION, BLOCK_N, BLOCK_K)  # fmt: skip
    if PENALTY:
        weight_ptr, _, O, _ = _layer(p_ptr, layers_ptr, G_LAYERS, ALIGNED)
        e_ptr, stride_e = _gradients(workspace_ptr, layers_ptr, G_LAYERS, 2 * B)
        q_ptr, _ = _inputs(workspace_ptr, layers_ptr, G_LAYERS, 2 * B)
        penalty = 0.0
        for start in tl.range(0, I, BLOCK_N):
            i = start + tl.arange(0, BLOCK_N)
            penalty += penalty_tile(e_ptr, weight_ptr, q_ptr, row, B, i, FEATURES, I, O, stride_e, stride_x,
                                    r1, r2, every, PRECISION, BLOCK_K)  # fmt: skip
        tl.store(penalty_ptr + tl.program_id(0), penalty)
        tl.debug_barrier()
        for n in tl.range(G_LAYERS, last):
            _forward(p_ptr, workspace_ptr, layers_ptr, n, 2 * B, 2 * B, row, 2 * B, slope, MASKED, ALIGNED,
                     PRECISION, BLOCK_N, BLOCK_K)  # fmt: skip


@triton.jit
def step_g_rows_kernel(
    # pointers
    clock_ptr,
    labels_ptr,  # [size] int32, or None without classes
    p_ptr,  # parameters
    workspace_ptr,
    layers_ptr,  # [G_LAYERS + D_LAYERS, step_backward.FIELDS] int32
    partial_ptr,  # [programs, step_head.PARTIALS], of which the losses are written
    # sizes
    B,
    LATENT,
    FEATURES,
    # where in the sequence of batches
    substep,  # the discriminator step whose labels count
    d_steps,
    size,  # data rows, or those of the ring
    low_bits,
    high_bits,
    # meta-parameters
    noise_stream,
    slope,
    STREAMED: tl.constexpr,
    GENERATES: tl.constexpr,  # or else rows are those of the last discriminator step
    LOSS: tl.constexpr,
    HEAD: tl.constexpr,
    G_LAYERS: tl.constexpr,
    D_LAYERS: tl.constexpr,
    ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Rows of a generator step: generated, forward, loss, and back through both networks."""
    b = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    if GENERATES:
        step = step_of(clock_ptr, False)
        label = None
        if labels_ptr is not None:
            picked = data_rows(clock_ptr, step, d_steps, substep, B, b, size, low_bits, high_bits, STREAMED)
            label = tl.load(labels_ptr + picked)
        _generate(p_ptr, workspace_ptr, layers_ptr, tl.load(clock_ptr), noise_stream, step * B, label, b, B,
                  LATENT, slope, G_LAYERS, HEAD, ALIGNED, PRECISION, BLOCK_N, BLOCK_K)  # fmt: skip

    last: tl.constexpr = G_LAYERS + D_LAYERS - 1
    for n in tl.range(G_LAYERS, last):
        if LOSS == RPGAN:  # real rows count only in pairs
            _forward(p_ptr, workspace_ptr, layers_ptr, n, 0, 0, _pairs(B, ROWS), 2 * B, slope, LEAKY,
                     ALIGNED, PRECISION, BLOCK_N, BLOCK_K)  # fmt: skip
        else:
            _forward(p_ptr, workspace_ptr, layers_ptr, n, B, B, b, B, slope, LEAKY, ALIGNED, PRECISION,
                     BLOCK_N, BLOCK_K)  # fmt: skip
    _head(p_ptr, workspace_ptr, layers_ptr, last, partial_ptr, b, B, 1.0, slope, LOSS, True, False, ALIGNED,
          BLOCK_K)  # fmt: skip
    for n in tl.range(last - 1, G_LAYERS, -1):
        _, _, _, columns = _layer(p_ptr, layers_ptr, n, ALIGNED)
        _backward(p_ptr, workspace_ptr, layers_ptr, n, B, B, B, b, B, columns, slope, LEAKY, ALIGNED,
                  PRECISION, BLOCK_N, BLOCK_K)  # fmt: skip
    _backward(p_ptr, workspace_ptr, layers_ptr, G_LAYERS, B, B, 0, b, B, FEATURES, slope, HEAD, ALIGNED,
              PRECISION, BLOCK_N, BLOCK_K)  # fmt: skip
    for n in tl.range(G_LAYERS - 1, 0, -1):
        _, _, _, columns = _layer(p_ptr, layers_ptr, n, ALIGNED)
        _backward(p_ptr, workspace_ptr, layers_ptr, n, 0, 0, 0, b, B, columns, slope, LEAKY, ALIGNED,
                  PRECISION, BLOCK_N, BLOCK_K)  # fmt: skip
