"""The ops by the native code: float32 on the CPU, with PyTorch's own number of threads."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from fastgan.kernels import cpu

_native = cpu.native()  # raises where there is none
_REDUCTIONS = ("none", "mean", "sum")  # in the order of the native module


def _share_threads() -> None:
    """Let the native code use PyTorch's own OpenMP threads, if it has such.

    They spin for a while after each of PyTorch's operators; other threads would have to share processors with
    them.
    """
    try:
        library = ctypes.CDLL(str(next(Path(torch.__file__).parent.glob("lib/libtorch_cpu.*"))))
        functions = library.GOMP_parallel, library.omp_get_thread_num
    except (StopIteration, OSError, AttributeError):  # linked otherwise, or another OpenMP: a pool of its own
        return
    _native.use_openmp(*(ctypes.cast(f, ctypes.c_void_p).value for f in functions))


_share_threads()


def _address(tensor: Tensor | None) -> tuple[int, int, int] | None:
    """Return where a tensor lies, its row stride, and how many elements lie in memory from there on."""
    if tensor is None:
        return None
    room = tensor.untyped_storage().nbytes() // 4 - tensor.storage_offset()
    return tensor.data_ptr(), tensor.stride(0) if tensor.dim() == 2 else 0, room


def _by_rows(tensor: Tensor) -> Tensor:
    """Return a matrix whose rows lie contiguous in memory and apart, as a copy if need be."""
    columns = tensor.shape[1]
    if (columns > 1 and tensor.stride(1) != 1) or (tensor.shape[0] > 1 and tensor.stride(0) < columns):
        return tensor.contiguous()
    return tensor


def dense_fwd(x: Tensor, weight: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    """Return y (see the package)."""
    x, weight, bias = _by_rows(x), _by_rows(weight), None if bias is None else bias.contiguous()
    (batch, inputs), outputs = x.shape, weight.shape[0]
    y = x.new_empty(batch, outputs)
    _native.dense_forward(
        batch,
        inputs,
        outputs,
        _address(x),
        _address(weight),
        _address(bias),
        slope,
        _address(y),
        torch.get_num_threads(),
    )
    return y


def dense_bwd(
    dy: Tensor, x: Tensor | None, weight: Tensor | None, y: Tensor, slope: float, bias: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return dx, dweight and dbias (see the package)."""
    dy, y = _by_rows(dy), _by_rows(y)
    batch, outputs = dy.shape
    inputs = 0
    dx = dweight = None
    if weight is not None:
        weight, inputs = _by_rows(weight), weight.shape[1]
        dx = dy.new_empty(batch, inputs)
    if x is not None:
        x, inputs = _by_rows(x), x.shape[1]
        dweight = dy.new_empty(outputs, inputs)
    dbias = dy.new_empty(outputs) if bias else None
    _native.dense_backward(
        batch,
        inputs,
        outputs,
        _address(dy),
        _address(x),
        _address(weight),
        _address(y),
        slope,
        _address(dx),
        _address(dweight),
        _address(dbias),
        torch.get_num_threads(),
    )
    return dx, dweight, dbias


def bce(
    logits: Tensor,
    target: Tensor | float,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss and its gradient (see the package)."""
    logits = logits.contiguous()
    target, value = (target.contiguous(), 0.0) if isinstance(target, Tensor) else (None, target)
    weight, pos_weight = (
        None if t is None else t.expand_as(logits).contiguous() for t in (weight, pos_weight)
    )
    loss = logits.new_empty(logits.shape if reduction == "none" else ())
    dlogits = torch.empty_like(logits) if gradient else None
    _native.bce(
        logits.numel(),
        _address(logits),
        _address(target),
        value,
        _address(weight),
        _address(pos_weight),
        _REDUCTIONS.index(reduction),
        _address(loss),
        _address(dlogits),
        torch.get_num_threads(),
    )
    return loss, dlogits
