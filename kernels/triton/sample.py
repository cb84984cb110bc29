"""Rows of a trained generator, by their numbers: noise, then layers, the last of which writes what is stored.

    noise    z[r] = (normals of row number index[r], one-hot label[r])
    layer    y = act(x W^T + bias), as float32, or as the bytes that ``fastgan.data.schema`` decodes it to

A row has the same bits in whatever company: tiles have one size, whatever the launch has to do, a result is a
sum in one order, and no program sees what another one does. For the same reason products are float32
("ieee"), whatever PyTorch is allowed to round its own to. Bytes are made in the last layer, so the widest
matrix of all, rows of floats, never reaches memory.

Shapes: R rows, I inputs, O outputs. Matrices are contiguous and have fewer than 2**31 elements.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from fastgan.kernels.triton.launch import LARGEST_SIZE, check_device
from fastgan.kernels.triton.step_tile import (
    activate,
    load_tile,
    load_tile_t,
    noise_tile,
    product,
    store_tile,
)
from fastgan.kernels.triton.tiles import TILES, Tile
from torch import Tensor

from fastgan.errors import UserError

ACTIVATIONS = {"leaky": 0, "sigmoid": 1, "tanh": 2, "linear": 3}  # of step_tile
NOISE_TILE, LAYER_TILE = Tile(32, 64, 0), TILES["ieee"][1]


@triton.jit
def round_to_byte(x):
    """Return x rounded to the nearest of 0 to 255, half to even, as float32; 0 for NaN."""
    x = tl.where(x > 0.0, x, 0.0)
    x = tl.where(x < 255.0, x, 255.0)
    # Above 2**23, numbers of float32 are whole ones: the sum is rounded, and the difference is exact.
    return (x + 12582912.0) - 12582912.0


@triton.jit(do_not_specialize=["rows"])
def sample_noise_kernel(
    # pointers
    index_ptr,  # [R] int64: numbers of the rows
    labels_ptr,  # [R] int64, or None without classes
    seed_ptr,  # [1] int64
    z_ptr,  # [R, I], written: noise, then the label, one-hot
    # sizes
    rows,
    LATENT,
    I,
    stream,
    # meta-parameters
    BLOCK_R: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """The generator's inputs for rows of any numbers."""
    columns = tl.cdiv(I, BLOCK_I)
    r = tl.program_id(0) // columns * BLOCK_R + tl.arange(0, BLOCK_R)
    start = tl.program_id(0) % columns * BLOCK_I
    number = tl.load(index_ptr + r, mask=r < rows, other=0)
    label = None
    if labels_ptr is not None:
        label = tl.load(labels_ptr + r, mask=r < rows, other=0)
    z = noise_tile(tl.load(seed_ptr), stream, number, label, start, LATENT, BLOCK_I)
    store_tile(z_ptr, z, r, rows, I, start + tl.arange(0, BLOCK_I), I)


@triton.jit(do_not_specialize=["rows"])
def sample_layer_kernel(
    # pointers
    x_ptr,  # [R, I]
    weight_ptr,  # [O, I]
    bias_ptr,  # [O]
    y_ptr,  # [R, O], written: float32, or uint8
    # sizes
    rows,
    I,
    O,
    # meta-parameters
    slope,
    shift,  # bytes are (y - shift) * factor, rounded
    factor,
    ACTIVATION: tl.constexpr,
    BYTES: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """``y = act(x W^T + b)``, as it is or as BYTES."""
    columns = tl.cdiv(O, BLOCK_O)
    r = tl.program_id(0) // columns * BLOCK_R + tl.arange(0, BLOCK_R)
    o = tl.program_id(0) % columns * BLOCK_O + tl.arange(0, BLOCK_O)
    total = tl.zeros((BLOCK_R, BLOCK_O), tl.float32)
    for start in tl.range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        x = load_tile(x_ptr, r, rows, I, i, I)
        total = product(x, load_tile_t(weight_ptr, o, O, I, i, I), total, "ieee")
    y = activate(total, bias_ptr, slope, o, O, ACTIVATION)
    if BYTES:
        store_tile(y_ptr, round_to_byte((y - shift) * factor).to(tl.int32).to(tl.uint8), r, rows, O, o, O)
    else:
        store_tile(y_ptr, y, r, rows, O, o, O)


def sample_noise(
    index: Tensor, labels: Tensor | None, seed: Tensor, z: Tensor, latent: int, stream: int
) -> None:
    """Write the inputs of the generator for some rows to z.

    Args:
        index: [R] int64, numbers of the rows, from 0.
        labels: [R] int64, from 0; None without classes.
        seed: [1] int64.
        z: [R, I] float32, I = latent and the number of classes; every element is written.
        latent: columns of noise.
        stream: of ``fastgan.noise``.

    Raises:
        UserError: a tensor that is not as above.
    """
    rows, inputs = z.shape
    _check("z", z, (rows, inputs), torch.float32, z)
    _check("index", index, (rows,), torch.int64, z)
    _check("seed", seed, (1,), torch.int64, z)
    if labels is not None:
        _check("labels", labels, (rows,), torch.int64, z)
    if rows:
        tile = NOISE_TILE
        with torch.cuda.device_of(z):
            sample_noise_kernel[tile.grid(rows, inputs)](
                index, labels, seed, z, rows, latent, inputs, stream,
                BLOCK_R=tile.m, BLOCK_I=tile.n, **tile.options,
            )  # fmt: skip


def sample_layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    y: Tensor,
    activation: str,
    slope: float = 0.0,
    affine: tuple[float, float] = (1.0, 0.0),
) -> None:
    """Write a layer's outputs to y.

    Args:
        x: [R, I] float32.
        weight: [O, I] float32.
        bias: [O] float32.
        y: [R, O] float32, or uint8 for the bytes that ``Schema.decode`` has; every element is written.
        activation: leaky, sigmoid, tanh or linear.
        slope: of the negative side of ``leaky``.
        affine: scale and shift from bytes to outputs, as of ``Schema.affine``.

    Raises:
        UserError: a tensor that is not as above.
    """
    (rows, inputs), outputs = x.shape, weight.shape[0]
    _check("x", x, (rows, inputs), torch.float32, x)
    _check("weight", weight, (outputs, inputs), torch.float32, x)
    _check("bias", bias, (outputs,), torch.float32, x)
    _check("y", y, (rows, outputs), torch.uint8 if y.dtype == torch.uint8 else torch.float32, x)
    if rows:
        tile, (scale, shift) = LAYER_TILE, affine
        with torch.cuda.device_of(x):
            sample_layer_kernel[tile.grid(rows, outputs)](
                x, weight, bias, y, rows, inputs, outputs, slope, shift, 1.0 / scale,
                ACTIVATION=ACTIVATIONS[activation], BYTES=y.dtype == torch.uint8,
                BLOCK_R=tile.m, BLOCK_O=tile.n, BLOCK_I=tile.k, **tile.options,
            )  # fmt: skip


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> None:
    if tensor.shape != shape or tensor.dtype != dtype or not tensor.is_contiguous():
        raise UserError(name, f"{tensor.dtype} {list(tensor.shape)}", f"contiguous {dtype} {list(shape)}")
    if tensor.device != like.device:
        raise UserError(name, f"a tensor on {tensor.device}", f"one on {like.device}")
    if tensor.numel() > LARGEST_SIZE:
        raise UserError(name, f"{tensor.numel()} elements", f"at most {LARGEST_SIZE}")
    check_device(tensor)
