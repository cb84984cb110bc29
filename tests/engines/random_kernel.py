"""Kernels that do nothing but store what ``elementary.py`` and ``schedule.py`` of the kernels compute."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from fastgan.kernels.triton import elementary, schedule
from torch import Tensor

ROWS, COLUMNS = 64, 32


@triton.jit
def _random_kernel(
    clock_ptr,
    normal_ptr,
    index_ptr,
    stream,
    first,
    size,
    low_bits,
    high_bits,
    R: tl.constexpr,
    C: tl.constexpr,
):
    seed = tl.load(clock_ptr)
    r = tl.arange(0, R)
    row = (first + r).to(tl.int64)
    at = normal_ptr + r[:, None] * C + tl.arange(0, C)[None, :]
    tl.store(at, elementary.normal_tile(seed, stream, row, 0, C))
    tl.store(index_ptr + r, elementary.epoch_index(seed, row, size, low_bits, high_bits))


@triton.jit
def _functions_kernel(x_ptr, softplus_ptr, sigmoid_ptr, tanh_ptr, expm1_ptr, N: tl.constexpr):
    n = tl.arange(0, N)
    x = tl.load(x_ptr + n)
    tl.store(softplus_ptr + n, elementary.softplus(x))
    tl.store(sigmoid_ptr + n, elementary.sigmoid(x))
    tl.store(tanh_ptr + n, elementary.tanh(x))
    tl.store(expm1_ptr + n, elementary.expm1(-tl.abs(x)))


@triton.jit
def _rates_kernel(
    clock_ptr, schedule_ptr, steps_ptr, out_ptr, updates, which, TRAINS_G: tl.constexpr, COSINE: tl.constexpr
):
    n = tl.program_id(0)
    step = tl.load(steps_ptr + n)
    found = schedule.update_rates(clock_ptr, schedule_ptr, step, updates, which, TRAINS_G, COSINE)
    for i in tl.static_range(3):
        tl.store(out_ptr + n * 3 + i, found[i])


def run(seed: int, stream: int, first: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return normals ``[ROWS, COLUMNS]`` and the data rows at ``ROWS`` positions."""
    normals, index = torch.empty(ROWS, COLUMNS), torch.empty(ROWS, dtype=torch.int64)
    bits = max(4, (size - 1).bit_length())
    halves = bits // 2, bits - bits // 2
    _random_kernel[(1,)](
        torch.tensor([seed]), normals, index, stream, first, size, *halves, R=ROWS, C=COLUMNS,
        num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return normals.numpy(), index.numpy()


def functions(x: Tensor) -> list[Tensor]:
    """Return softplus, sigmoid and tanh of a power of two of numbers, and expm1 of minus their size."""
    out = [torch.empty_like(x) for _ in range(4)]
    _functions_kernel[(1,)](x, *out, N=len(x), num_warps=4, enable_fp_fusion=True)
    return out


def rates(
    clock: Tensor, schedule: Tensor, steps: Tensor, updates: int, which: int, trains_g: bool, cosine: bool
) -> np.ndarray:
    """Return what ``update_rates`` returns for each step: ``[steps, 3]``."""
    out = torch.full((len(steps), 3), torch.nan)
    _rates_kernel[(len(steps),)](
        clock, schedule, steps, out, updates, which, TRAINS_G=trains_g, COSINE=cosine,
        num_warps=1, enable_fp_fusion=True,
    )  # fmt: skip
    return out.numpy()
