"""Arithmetic that Triton's interpreter gets wrong or leaves out, mended: import this before kernels run.

- bfloat16: the interpreter keeps it as 16-bit integers, multiplies those as they are in ``tl.dot``, and
  truncates where a GPU rounds to nearest, ties to even.
- tf32: ``tl.dot`` with "tf32" and "tf32x3" is as exact as with "ieee". Here, as in the compiled code, tf32
  hands float32 to the tensor cores, which ignore all but 10 bits of the mantissa; tf32x3 rounds operands to
  these (``cvt.rna.tf32``) and adds the products with the rests.
- Triton 3.6 makes an int of an array with one dimension, which NumPy no longer allows.
- NumPy warns of infinities and NaN, which a GPU computes with in silence.

Sums of products are float32 sums of NumPy: another order than a tensor core's, and no worse.
"""

from __future__ import annotations

import numpy as np
import triton.language as tl
from fastgan.kernels.triton import launch
from triton.runtime import interpreter


def bfloat16_of(values: np.ndarray) -> np.ndarray:
    """Return the bits (uint16) of float32 values rounded to bfloat16, to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)  # a NaN stays one, whatever its payload
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16)


def float32_of(bits: np.ndarray) -> np.ndarray:
    """Return bfloat16 bits (uint16) as float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def cut_to_tf32(values: np.ndarray) -> np.ndarray:
    """Return float32 values as tensor cores read them as tf32: without the last 13 bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(np.isfinite(values), (bits & np.uint32(0xFFFFE000)).view(np.float32), values)


def round_to_tf32(values: np.ndarray) -> np.ndarray:
    """Return float32 values rounded to tf32: to nearest, ties away from zero, as ``cvt.rna.tf32`` does."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(values), rounded, values)


def product(a: np.ndarray, b: np.ndarray, precision: str) -> np.ndarray:
    """Return the float32 matrix product of float32 operands as ``tl.dot`` makes it with this precision."""
    if precision == "ieee":
        return np.matmul(a, b, dtype=np.float32)
    if precision == "tf32":
        return np.matmul(cut_to_tf32(a), cut_to_tf32(b), dtype=np.float32)
    large_a, large_b = round_to_tf32(a), round_to_tf32(b)
    small_a, small_b = cut_to_tf32(a - large_a), cut_to_tf32(b - large_b)
    return (small_a @ large_b + large_a @ small_b) + large_a @ large_b


def _create_dot(self, a, b, d, input_precision, *_):
    operands = [float32_of(h.data) if h.dtype.scalar == tl.bfloat16 else h.data for h in (a, b)]
    precision = str(input_precision).split(".")[-1].lower() if a.dtype.scalar == tl.float32 else "ieee"
    operands = [o.astype(np.float32) for o in operands]
    return interpreter.TensorHandle(product(*operands, precision) + d.data, d.dtype.scalar)


_cast = interpreter.InterpreterBuilder.cast_impl


def _cast_impl(self, src, dst_type):
    if src.dtype.scalar == tl.float32 and dst_type.scalar == tl.bfloat16:
        return interpreter.TensorHandle(bfloat16_of(src.data), tl.bfloat16)
    return _cast(self, src, dst_type)


_patch_lang_tensor = interpreter._patch_lang_tensor


def _patch_tensor(tensor, *scope):
    _patch_lang_tensor(tensor, *scope)
    tensor.__index__ = lambda self: self.handle.data.item()


np.seterr(all="ignore")
interpreter._patch_lang_tensor = _patch_tensor
interpreter.InterpreterBuilder.create_dot = _create_dot
interpreter.InterpreterBuilder.cast_impl = _cast_impl
launch.INTERPRETS_BFLOAT16 = True
