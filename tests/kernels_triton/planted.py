"""Small kernels, each with the bug of its name, for the sanitizer to find."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def right(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n) * 2, mask=i < n)


@triton.jit
def load_past_the_end(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i) * 2, mask=i < n)


@triton.jit
def load_before_the_start(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i - 1, mask=i < n) * 2, mask=i < n)


@triton.jit
def store_past_the_end(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n) * 2, mask=i < n + 1)


@triton.jit
def blocks_that_overlap(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * (BLOCK - 1) + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n) * 2, mask=i < n)


@triton.jit
def an_element_stored_twice(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i // 2 * 2, tl.load(x_ptr + i, mask=i < n) * 2, mask=i < n)


@triton.jit
def loads_from_a_neighbour(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(y_ptr + i + BLOCK, mask=i + BLOCK < n, other=0.0), mask=i < n)


@triton.jit
def loads_what_a_neighbour_stored(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(y_ptr + i - BLOCK, mask=(i >= BLOCK) & (i < n), other=0.0), mask=i < n)


@triton.jit
def stores_to_its_input(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(x_ptr + i, x, mask=i < n)
    tl.store(y_ptr + i, x * 2, mask=i < n)


@triton.jit
def forgets_the_last_element(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n) * 2, mask=i < n - 1)


@triton.jit
def adds_with_atomics(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(y_ptr + i, x, mask=i < n)
    tl.atomic_add(y_ptr, tl.sum(x))


@triton.jit
def rows_right(x_ptr, y_ptr, rows, stride, BLOCK: tl.constexpr):
    row = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row.to(tl.int64) * stride, mask=row < rows)
    tl.store(y_ptr + row, x, mask=row < rows)


@triton.jit
def rows_with_32_bit_offsets(x_ptr, y_ptr, rows, stride, BLOCK: tl.constexpr):
    row = tl.arange(0, BLOCK)
    tl.store(y_ptr + row, tl.load(x_ptr + row * stride, mask=row < rows), mask=row < rows)
