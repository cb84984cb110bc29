"""Dense layer with bias and leaky ReLU in one kernel each way, so that no pre-activation ever reaches memory.

    forward          y  = act(x W^T + bias)      act(a) = a if a > 0 else slope a
    input gradient   dx = g W                    g = dy if y > 0 else slope dy, made on the fly from saved y
    weight gradient  dW = g^T x,  db = sum_b g   in one pass over the batch

For slope >= 0, the sign of y is that of the pre-activation, so y alone gives the mask; slope 1 is a plain
dense layer, slope 0 is ReLU to the letter (-inf becomes 0, where 0 times -inf would be NaN). Sums are kept in
float32 and run in a fixed order: no atomics, the same bits every time. The weight gradient's sum over the
batch is not split over programs: that is a second launch and a workspace, worth it where few tiles meet a
long batch; which sizes those are has to be measured on a GPU first.

Shapes: B batch, I inputs, O outputs. Any strides (zero where something is expanded, but not where it is
written). A tensor may span more than 2**31 elements: row and column numbers are 32-bit, offsets 64-bit
where a tensor needs it (OFFSET), and 32-bit where none does, which saves a thread some 20 registers.
Programs are numbered along one grid dimension: the others end at 65,535.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from fastgan.kernels.triton.dense_tile import before_activation, block, load, store
from fastgan.kernels.triton.launch import check, check_device, check_sizes, dot_precision, offset_dtype
from fastgan.kernels.triton.tiles import tile_for
from torch import Tensor


@triton.jit
def _linear_leaky_relu_fwd_kernel(
    # pointers
    x_ptr,  # [B, I]
    weight_ptr,  # [O, I]
    bias_ptr,  # [O] or None
    y_ptr,  # [B, O], written
    # sizes
    B,
    I,
    O,
    # strides
    stride_x_b,
    stride_x_i,
    stride_weight_o,
    stride_weight_i,
    stride_bias_o,
    stride_y_b,
    stride_y_o,
    # meta-parameters
    slope,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    OFFSET: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    columns = tl.cdiv(O, BLOCK_O)
    b = block(tl.program_id(0) // columns, BLOCK_B)
    o = block(tl.program_id(0) % columns, BLOCK_O)
    total = tl.zeros((BLOCK_B, BLOCK_O), tl.float32)
    for step in tl.range(tl.cdiv(I, BLOCK_I)):
        i = block(step, BLOCK_I)
        x = load(x_ptr, b[:, None], B, stride_x_b, i[None, :], I, stride_x_i, OFFSET)
        weight_t = load(weight_ptr, i[:, None], I, stride_weight_i, o[None, :], O, stride_weight_o, OFFSET)
        total = tl.dot(x, weight_t, total, input_precision=PRECISION)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + o.to(OFFSET) * stride_bias_o, mask=o < O, other=0.0)
        total += bias.to(tl.float32)[None, :]
    y = tl.where(total <= 0, 0.0, total) if RELU else tl.where(total > 0, total, total * slope)
    store(y_ptr, y, b[:, None], B, stride_y_b, o[None, :], O, stride_y_o, OFFSET)


@triton.jit
def _linear_leaky_relu_bwd_input_kernel(
    # pointers
    dy_ptr,  # [B, O]
    y_ptr,  # [B, O]
    weight_ptr,  # [O, I]
    dx_ptr,  # [B, I], written
    # sizes
    B,
    I,
    O,
    # strides
    stride_dy_b,
    stride_dy_o,
    stride_y_b,
    stride_y_o,
    stride_weight_o,
    stride_weight_i,
    stride_dx_b,
    stride_dx_i,
    # meta-parameters
    slope,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    OFFSET: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    columns = tl.cdiv(I, BLOCK_I)
    b = block(tl.program_id(0) // columns, BLOCK_B)
    i = block(tl.program_id(0) % columns, BLOCK_I)
    total = tl.zeros((BLOCK_B, BLOCK_I), tl.float32)
    for step in tl.range(tl.cdiv(O, BLOCK_O)):
        o = block(step, BLOCK_O)
        dy = load(dy_ptr, b[:, None], B, stride_dy_b, o[None, :], O, stride_dy_o, OFFSET)
        y = load(y_ptr, b[:, None], B, stride_y_b, o[None, :], O, stride_y_o, OFFSET)
        weight = load(weight_ptr, o[:, None], O, stride_weight_o, i[None, :], I, stride_weight_i, OFFSET)
        gradient = before_activation(dy, y, slope, RELU).to(weight.dtype)
        total = tl.dot(gradient, weight, total, input_precision=PRECISION)
    store(dx_ptr, total, b[:, None], B, stride_dx_b, i[None, :], I, stride_dx_i, OFFSET)


@triton.jit
def _linear_leaky_relu_bwd_weight_kernel(
    # pointers
    dy_ptr,  # [B, O]
    y_ptr,  # [B, O]
    x_ptr,  # [B, I]
    dweight_ptr,  # [O, I], written
    dbias_ptr,  # [O], written, or None
    # sizes
    B,
    I,
    O,
    # strides
    stride_dy_b,
    stride_dy_o,
    stride_y_b,
    stride_y_o,
    stride_x_b,
    stride_x_i,
    stride_dweight_o,
    stride_dweight_i,
    stride_dbias_o,
    # meta-parameters
    slope,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    OFFSET: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    columns = tl.maximum(tl.cdiv(I, BLOCK_I), 1)  # one for the bias, with no inputs at all
    o = block(tl.program_id(0) // columns, BLOCK_O)
    i = block(tl.program_id(0) % columns, BLOCK_I)
    total = tl.zeros((BLOCK_O, BLOCK_I), tl.float32)
    # One sum per batch lane, folded once at the end: folded in the loop, threads would meet at every step.
    bias_lanes = tl.zeros((BLOCK_O, BLOCK_B), tl.float32)
    for step in tl.range(tl.cdiv(B, BLOCK_B)):
        b = block(step, BLOCK_B)
        dy_t = load(dy_ptr, o[:, None], O, stride_dy_o, b[None, :], B, stride_dy_b, OFFSET)
        y_t = load(y_ptr, o[:, None], O, stride_y_o, b[None, :], B, stride_y_b, OFFSET)
        x = load(x_ptr, b[:, None], B, stride_x_b, i[None, :], I, stride_x_i, OFFSET)
        gradient_t = before_activation(dy_t, y_t, slope, RELU)
        total = tl.dot(gradient_t.to(x.dtype), x, total, input_precision=PRECISION)
        if dbias_ptr is not None:
            bias_lanes += gradient_t
    store(dweight_ptr, total, o[:, None], O, stride_dweight_o, i[None, :], I, stride_dweight_i, OFFSET)
    # Every program of these outputs has the same sums; the first one writes them.
    if dbias_ptr is not None and tl.program_id(0) % columns == 0:
        dbias = tl.sum(bias_lanes, axis=1).to(dbias_ptr.dtype.element_ty)
        tl.store(dbias_ptr + o.to(OFFSET) * stride_dbias_o, dbias, mask=o < O)


def linear_leaky_relu_fwd(
    x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, slope: float, precision: str = "ieee"
) -> None:
    """Write ``leaky_relu(x @ weight.T + bias, slope)`` to y.

    Args:
        x: [B, I], float32, bfloat16 or float16; any sizes (zero included) and strides.
        weight: [O, I], of the same dtype.
        bias: [O], any of these dtypes, or None.
        y: [B, O], any of these dtypes; every element is written.
        slope: of the negative side, >= 0.
        precision: of float32 products, "ieee", "tf32" or "tf32x3"; without effect on other dtypes.

    Raises:
        UserError: a tensor or a precision that is not as above.
    """
    (batch, inputs), outputs = x.shape, weight.shape[0]
    check("x", x, (batch, inputs), x)
    check("weight", weight, (outputs, inputs), x, same_dtype=True)
    if bias is not None:
        check("bias", bias, (outputs,), x)
    check("y", y, (batch, outputs), x)
    tensors, sizes = (x, weight, bias, y), (batch, inputs, outputs)
    _launch(_linear_leaky_relu_fwd_kernel, tensors, sizes, slope, precision, "BOI", (batch, outputs))


def linear_leaky_relu_bwd_input(
    dy: Tensor, y: Tensor, weight: Tensor, dx: Tensor, slope: float, precision: str = "ieee"
) -> None:
    """Write the gradient of the inputs to dx.

    Args:
        dy: [B, O], gradient of the outputs; float32, bfloat16 or float16.
        y: [B, O], the outputs of the forward pass, of the same dtype.
        weight: [O, I], of the same dtype.
        dx: [B, I], any of these dtypes; every element is written.
        slope: as in the forward pass.
        precision: as in the forward pass.

    Raises:
        UserError: a tensor or a precision that is not as above.
    """
    (batch, outputs), inputs = dy.shape, weight.shape[1]
    check("dy", dy, (batch, outputs), dy)
    check("y", y, (batch, outputs), dy, same_dtype=True)
    check("weight", weight, (outputs, inputs), dy, same_dtype=True)
    check("dx", dx, (batch, inputs), dy)
    tensors, sizes = (dy, y, weight, dx), (batch, inputs, outputs)
    _launch(_linear_leaky_relu_bwd_input_kernel, tensors, sizes, slope, precision, "BIO", (batch, inputs))


def linear_leaky_relu_bwd_weight(
    dy: Tensor,
    y: Tensor,
    x: Tensor,
    dweight: Tensor,
    dbias: Tensor | None,
    slope: float,
    precision: str = "ieee",
) -> None:
    """Write the gradients of the weight and of the bias; both are zero for a batch of zero rows.

    Args:
        dy: [B, O], gradient of the outputs; float32, bfloat16 or float16.
        y: [B, O], the outputs of the forward pass, of the same dtype.
        x: [B, I], the inputs of the forward pass, of the same dtype.
        dweight: [O, I], any of these dtypes; every element is written.
        dbias: [O], any of these dtypes, or None; every element is written.
        slope: as in the forward pass.
        precision: as in the forward pass. The bias gradient is a float32 sum in any case.

    Raises:
        UserError: a tensor or a precision that is not as above.
    """
    (batch, outputs), inputs = dy.shape, x.shape[1]
    check("dy", dy, (batch, outputs), dy)
    check("y", y, (batch, outputs), dy, same_dtype=True)
    check("x", x, (batch, inputs), dy, same_dtype=True)
    check("dweight", dweight, (outputs, inputs), dy)
    if dbias is not None:
        check("dbias", dbias, (outputs,), dy)
    tensors, sizes = (dy, y, x, dweight, dbias), (batch, inputs, outputs)
    columns = inputs if dbias is None else max(inputs, 1)  # with no inputs, one is still needed for the bias
    _launch(_linear_leaky_relu_bwd_weight_kernel, tensors, sizes, slope, precision, "OIB", (outputs, columns))


def _launch(
    kernel: triton.JITFunction,
    tensors: tuple[Tensor | None, ...],
    sizes: tuple[int, int, int],
    slope: float,
    precision: str,
    order: str,
    shape: tuple[int, int],
) -> None:
    """Launch a kernel on matrices and vectors, in the order of its pointers.

    Args:
        kernel: one of the above.
        tensors: checked; the first one's dtype is that of the products.
        sizes: B, I, O.
        slope: as of the launchers.
        precision: likewise.
        order: of the sizes in the product: rows and columns of its result, then what is summed over.
        shape: of the result; where it is empty, nothing is launched.
    """
    operand = tensors[0]
    check_sizes(**dict(zip("BIO", sizes, strict=True)))
    check_device(operand)
    precision = dot_precision(operand, precision)
    if 0 in shape:
        return
    tile, offset = tile_for(operand.dtype, precision, *shape), offset_dtype(*tensors)
    strides = [stride for t in tensors for stride in ((0,) if t is None else t.stride())]
    blocks = {f"BLOCK_{name}": size for name, size in zip(order, (tile.m, tile.n, tile.k), strict=True)}
    with torch.cuda.device_of(operand):
        kernel[tile.grid(*shape)](
            *tensors,
            *sizes,
            *strides,
            float(slope),
            RELU=slope == 0,
            PRECISION=precision,
            OFFSET=offset,
            **blocks,
            **tile.options,
        )
