"""Small Triton kernels for the tools' own tests: a product with everything a compiler does to one."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def product_kernel(
    a_ptr,  # [M, K]
    b_ptr,  # [K, N]
    c_ptr,  # [M, N], written
    M,
    N,
    K,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        k = start + tl.arange(0, BLOCK_K)
        a = tl.load(a_ptr + m[:, None] * K + k[None, :], mask=(m[:, None] < M) & (k[None, :] < K), other=0.0)
        b = tl.load(b_ptr + k[:, None] * N + n[None, :], mask=(k[:, None] < K) & (n[None, :] < N), other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    c = total.to(c_ptr.dtype.element_ty)
    tl.store(c_ptr + m[:, None] * N + n[None, :], c, mask=(m[:, None] < M) & (n[None, :] < N))


@triton.jit
def turn_through_memory_kernel(x_ptr, y_ptr, scratch_ptr, N: tl.constexpr):
    """y = x reversed, by way of global memory that other warps read after a barrier."""
    i = tl.arange(0, N)
    tl.store(scratch_ptr + i, tl.load(x_ptr + i))
    tl.debug_barrier()
    tl.store(y_ptr + i, tl.load(scratch_ptr + N - 1 - i))


def product(
    m: int,
    n: int,
    k: int,
    precision: str = "tf32x3",
    dtype: torch.dtype = torch.float32,
    stages: int = 3,
    warps: int = 4,
) -> float:
    """Launch the product on random numbers and return its largest error, as a share of the largest value."""
    random = torch.Generator().manual_seed(m + n + k)
    a, b = (torch.randn(s, generator=random).to(dtype) for s in ((m, k), (k, n)))
    c = torch.full((m, n), torch.nan)
    blocks = dict(BLOCK_M=32, BLOCK_N=32, BLOCK_K=32, STAGES=stages)
    grid = (triton.cdiv(m, 32), triton.cdiv(n, 32))
    product_kernel[grid](
        a, b, c, m, n, k, PRECISION=precision, **blocks, num_warps=warps, enable_fp_fusion=True
    )
    wanted = a.double() @ b.double()
    return float((c - wanted).abs().max() / wanted.abs().max())
