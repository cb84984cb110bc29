"""What every launcher makes sure of before a kernel gets bare pointers: a wrong shape is a memory error."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from fastgan.errors import UserError

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
PRECISIONS = ("ieee", "tf32", "tf32x3")
LARGEST_SIZE = 2**31 - 1024
"""Of one dimension of a matrix: row and column numbers, the last tile's too, are 32-bit in the kernels."""


@triton.jit
def _probe_kernel():
    pass


INTERPRETED = not isinstance(_probe_kernel, JITFunction)
"""Whether Triton was first imported with TRITON_INTERPRET=1."""

INTERPRETS_BFLOAT16 = False
"""Whether the interpreter computes in bfloat16. Triton's own multiplies its bits as integers, in silence; who
has mended that sets this (tests/helpers/interpreter_mends.py)."""


def check_device(tensor: Tensor) -> None:
    """Raise a UserError for a tensor that a kernel cannot reach, or not compute with."""
    if tensor.device.type != "cuda" and not INTERPRETED:
        raise UserError(
            "the Triton kernels",
            f"tensors on {tensor.device}",
            "tensors on a CUDA or ROCm device",
            "To interpret the kernels on a CPU, start Python with TRITON_INTERPRET=1.",
        )
    check_dtype(tensor.dtype)


def check_dtype(dtype: torch.dtype) -> None:
    """Raise a UserError for a dtype of operands that comes out wrong where kernels are interpreted."""
    if INTERPRETED and dtype == torch.bfloat16 and not INTERPRETS_BFLOAT16:
        raise UserError(
            "the Triton kernels",
            "bfloat16 under TRITON_INTERPRET=1",
            "float32 or float16",
            "Triton's interpreter takes bfloat16 for integers.",
        )


def check(name: str, tensor: Tensor, shape: tuple[int, ...], like: Tensor, same_dtype: bool = False) -> None:
    """Raise a UserError unless a tensor has this shape, a dtype of ``FLOATS``, and the device of ``like``.

    Args:
        name: of the tensor, as the launcher's caller knows it.
        tensor: what came.
        shape: what is wanted.
        like: the tensor whose device it must share, and its dtype, too, if ``same_dtype``.
        same_dtype: whether a dtype of its own is refused.
    """
    if tensor.shape != shape:
        raise UserError(name, f"the shape {list(tensor.shape)}", f"{list(shape)}")
    dtypes = (like.dtype,) if same_dtype and like.dtype in FLOATS else FLOATS
    if tensor.dtype not in dtypes:
        raise UserError(name, tensor.dtype, " or ".join(map(str, dtypes)))
    if tensor.device != like.device:
        raise UserError(name, f"a tensor on {tensor.device}", f"one on {like.device}")


def check_sizes(**sizes: int) -> None:
    """Raise a UserError for a dimension whose numbers do not fit 32 bits."""
    for name, size in sizes.items():
        if size > LARGEST_SIZE:
            raise UserError(name, size, f"at most {LARGEST_SIZE} (elements of a tensor may be more)")


def dot_precision(operand: Tensor, precision: str) -> str:
    """Return what ``tl.dot`` is told: a word for other dtypes would only compile the same kernel again."""
    if precision not in PRECISIONS:
        raise UserError("precision", repr(precision), "one of " + ", ".join(PRECISIONS))
    if operand.dtype != torch.float32:
        return "ieee"
    if precision == "tf32x3" and torch.version.hip:
        raise UserError("precision", repr(precision), "ieee or tf32: ROCm's compiler has no tf32x3")
    return precision


def offset_dtype(*tensors: Tensor | None) -> tl.dtype:
    """Return the integers that hold every element's offset: ``tl.int32``, or ``tl.int64`` where need be."""
    for t in tensors:
        if t is not None and sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) >= 2**31:
            return tl.int64
    return tl.int32
