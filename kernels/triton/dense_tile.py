"""What the three kernels of a dense layer do with a tile: number its elements, load, store, mask a gradient.

Matrices have any strides; OFFSET is the type of integers that hold any offset (``launch.offset_dtype``).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def block(index, SIZE: tl.constexpr):
    """Return the numbers of the rows or columns in the block with this index."""
    return index * SIZE + tl.arange(0, SIZE)


@triton.jit
def load(pointer, row, rows, stride_row, column, columns, stride_column, OFFSET: tl.constexpr):
    """Load the elements [row, column] of a [rows, columns] matrix, zeros outside of it."""
    return tl.load(
        pointer + row.to(OFFSET) * stride_row + column.to(OFFSET) * stride_column,
        mask=(row < rows) & (column < columns),
        other=0.0,
    )


@triton.jit
def store(pointer, values, row, rows, stride_row, column, columns, stride_column, OFFSET: tl.constexpr):
    """Store the elements [row, column] that lie inside of a [rows, columns] matrix, in its dtype."""
    tl.store(
        pointer + row.to(OFFSET) * stride_row + column.to(OFFSET) * stride_column,
        values.to(pointer.dtype.element_ty),
        mask=(row < rows) & (column < columns),
    )


@triton.jit
def before_activation(dy, y, slope, RELU: tl.constexpr):
    """Return the gradient before the activation, in float32. NaN in y: as PyTorch's two backward kernels."""
    dy, y = dy.to(tl.float32), y.to(tl.float32)
    return tl.where(y <= 0, 0.0, dy) if RELU else tl.where(y > 0, dy, dy * slope)
