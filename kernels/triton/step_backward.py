"""Backward kernels of a training step: input gradients, penalties, and weight gradients with the update.

The penalty is ``R1/2 E |grad_x D(x)|^2 + R2/2 E |grad_x D(G(z))|^2``. Between the kinks of LeakyReLU, the
gradient of a logit by its row is a chain of masked products without second derivatives: e = s w, e' = (e W)
s', u = e' W1. So is the way back from u: r = (u W1^T) s', r' = (r W2^T) s. The weight gradients of both
chains together are ``e^T r``, the form of every weight gradient: they are further rows of the same products,
below the rows of the loss.
"""

from __future__ import annotations

import triton
import triton.language as tl
from fastgan.kernels.triton.schedule import update_rates
from fastgan.kernels.triton.step_tile import backward_tile, load_tile, load_tile_t, penalty_tile, product


@triton.jit
def step_layer_bwd_kernel(
    # pointers
    dy_ptr,  # [R, O]
    weight_ptr,  # [O, I]
    x_ptr,  # [distinct, I]: the layer's inputs, outputs of the activation below
    dx_ptr,  # [R, I], written
    # sizes and strides
    rows,
    distinct,  # rows of x; row r has the activations of row r % distinct
    I,
    O,
    columns_of_weight,  # of which the first I are used
    stride_dy,
    stride_x,
    stride_dx,
    # meta-parameters
    slope,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """``dx = (dy W) act'(x)``: gradients before the activation, of this layer and of the one below."""
    columns = tl.cdiv(I, BLOCK_I)
    row = tl.program_id(0) // columns * BLOCK_B + tl.arange(0, BLOCK_B)
    i = tl.program_id(0) % columns * BLOCK_I + tl.arange(0, BLOCK_I)
    backward_tile(dy_ptr, weight_ptr, x_ptr, dx_ptr, row, rows, row % distinct, distinct, i, I, O, stride_dy,
                  columns_of_weight, stride_x, stride_dx, slope, ACTIVATION, PRECISION, BLOCK_O)  # fmt: skip


@triton.jit
def step_penalty_kernel(
    # pointers
    e_ptr,  # [2 B, O]: gradients of the logits by the first layer, before its activation
    weight_ptr,  # [O, I]
    q_ptr,  # [2 B, I], written
    partial_ptr,  # [programs], written: sums of the penalty
    # sizes and strides
    B,
    FEATURES,
    I,
    O,
    stride_e,
    stride_q,
    # meta-parameters
    r1,
    r2,
    every,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """``u = e W``, the gradient of each logit by its row; the penalty, and its derivative by u: q."""
    columns = tl.cdiv(I, BLOCK_I)
    row = tl.program_id(0) // columns * BLOCK_B + tl.arange(0, BLOCK_B)
    i = tl.program_id(0) % columns * BLOCK_I + tl.arange(0, BLOCK_I)
    penalty = penalty_tile(e_ptr, weight_ptr, q_ptr, row, B, i, FEATURES, I, O, stride_e, stride_q, r1, r2,
                           every, PRECISION, BLOCK_O)  # fmt: skip
    tl.store(partial_ptr + tl.program_id(0), penalty)


@triton.jit
def _sum(pointer, count, stride, BLOCK: tl.constexpr):
    """Return the sum of ``count`` numbers, always in the same order."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, count, BLOCK):
        n = start + tl.arange(0, BLOCK)
        total += tl.load(pointer + n * stride, mask=n < count, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
def _adam(
    gradient, p_ptr, m_ptr, v_ptr, average_ptr, at, mask, step_size, correction, rate,
    keep1, add1, keep2, add2, eps, AVERAGE: tl.constexpr,
):  # fmt: skip
    """One Adam step (Kingma & Ba 2015, algorithm 1) of some parameters, and of their moving average."""
    m = tl.load(m_ptr + at, mask=mask, other=0.0) * keep1 + gradient * add1
    v = tl.load(v_ptr + at, mask=mask, other=0.0) * keep2 + gradient * gradient * add2
    p = tl.load(p_ptr + at, mask=mask, other=0.0) - step_size * m / (tl.sqrt_rn(v) * correction + eps)
    if AVERAGE:
        average = tl.load(average_ptr + at, mask=mask, other=0.0)
    # Several warps may hold copies of a few numbers, biases: none may store before all have loaded.
    tl.debug_barrier()
    tl.store(m_ptr + at, m, mask=mask)
    tl.store(v_ptr + at, v, mask=mask)
    tl.store(p_ptr + at, p, mask=mask)
    if AVERAGE:
        tl.store(average_ptr + at, average + rate * (p - average), mask=mask)


FIELDS = 9
"""Of a row of the table of layers: first program, O, I, offset and stride of dy, of x, offsets of W and b."""


@triton.jit
def step_update_kernel(
    # pointers
    clock_ptr,
    workspace_ptr,
    layers_ptr,  # [LAYERS, FIELDS] int32
    schedule_ptr,  # schedule.SCHEDULE
    p_ptr,  # parameters, updated; likewise the moments and the average
    m_ptr,
    v_ptr,
    average_ptr,
    partial_ptr,  # [head_programs, 4], of the head
    penalty_ptr,  # [penalty_programs]
    metrics_ptr,  # [SLOTS, 6], of which a row is written
    # sizes
    rows,  # of every product: B, or for the discriminator 2 B, and with penalties 4 B
    B,
    head_programs,
    penalty_programs,
    updates,  # of this network in a step
    which,  # of these
    # meta-parameters
    keep1,
    add1,
    keep2,
    add2,
    eps,
    LAYERS: tl.constexpr,
    SLOTS: tl.constexpr,
    COSINE: tl.constexpr,
    TRAINS_G: tl.constexpr,
    AVERAGE: tl.constexpr,
    RECORD: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Weight and bias gradients of all layers of one network, their Adam step, and the step's statistics.

    A gradient lives in registers only. The generator's update is the last kernel of a step: it moves on the
    clock's next step.
    """
    pid = tl.program_id(0)
    layer = 0
    for n in tl.static_range(1, LAYERS):
        layer += (pid >= tl.load(layers_ptr + n * 9)).to(tl.int32)
    row_ptr = layers_ptr + layer * 9
    q = pid - tl.load(row_ptr)
    O = tl.load(row_ptr + 1)
    I = tl.load(row_ptr + 2)
    # offsets and strides are multiples of 4 elements
    dy_ptr = workspace_ptr + tl.multiple_of(tl.load(row_ptr + 3), 4)
    stride_dy = tl.multiple_of(tl.load(row_ptr + 4), 4)
    x_ptr = workspace_ptr + tl.multiple_of(tl.load(row_ptr + 5), 4)
    stride_x = tl.multiple_of(tl.load(row_ptr + 6), 4)
    weight_at = tl.load(row_ptr + 7)
    bias_at = tl.load(row_ptr + 8)

    columns = tl.cdiv(I, BLOCK_I)
    o = q // columns * BLOCK_O + tl.arange(0, BLOCK_O)
    i = q % columns * BLOCK_I + tl.arange(0, BLOCK_I)
    total = tl.zeros((BLOCK_O, BLOCK_I), tl.float32)
    for start in tl.range(0, rows, BLOCK_B):
        b = start + tl.arange(0, BLOCK_B)
        dy_t = load_tile_t(dy_ptr, b, rows, stride_dy, o, O)
        total = product(dy_t, load_tile(x_ptr, b, rows, stride_x, i, I), total, PRECISION)

    step = tl.load(clock_ptr + 1)
    step_size, correction, rate = update_rates(
        clock_ptr, schedule_ptr, step, updates, which, TRAINS_G, COSINE
    )
    at = weight_at + o[:, None] * I + i[None, :]
    mask = (o[:, None] < O) & (i[None, :] < I)
    _adam(total, p_ptr, m_ptr, v_ptr, average_ptr, at, mask, step_size, correction, rate,
          keep1, add1, keep2, add2, eps, AVERAGE)  # fmt: skip
    if q % columns == 0:
        # Of a pair of rows, real and generated, the gradients often cancel: first add those, then the pairs.
        lanes = tl.zeros((BLOCK_O, BLOCK_B), tl.float32)
        for start in tl.range(0, B, BLOCK_B):
            b = start + tl.arange(0, BLOCK_B)
            dy_t = load_tile_t(dy_ptr, b, B, stride_dy, o, O)
            if not TRAINS_G:
                dy_t += load_tile_t(dy_ptr + B * stride_dy, b, B, stride_dy, o, O)
            lanes += dy_t
        _adam(tl.sum(lanes, axis=1), p_ptr, m_ptr, v_ptr, average_ptr, bias_at + o, o < O, step_size,
              correction, rate, keep1, add1, keep2, add2, eps, AVERAGE)  # fmt: skip

    if pid == 0:
        if TRAINS_G:
            tl.store(clock_ptr + 2, step + 1)
        if RECORD:
            metrics = metrics_ptr + step % SLOTS * 6
            loss = _sum(partial_ptr, head_programs, 4, 128) / B
            if TRAINS_G:
                tl.store(metrics + 1, loss)
            else:
                tl.store(metrics, loss)
                if penalty_ptr is not None:
                    tl.store(metrics + 2, _sum(penalty_ptr, penalty_programs, 1, 128))
                else:
                    tl.store(metrics + 2, float("nan"))
                for n in tl.static_range(1, 4):
                    tl.store(metrics + 2 + n, _sum(partial_ptr + n, head_programs, 4, 128) / B)
