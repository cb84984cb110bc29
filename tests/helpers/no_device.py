"""Triton's launches without a device: each one is compiled for real, and then handed to a function of ours.

``kernel[grid](...)`` asks Triton's active driver for the device, compiles for it, and launches. Here, the
driver only knows which GPU there could be (``bench.gpu_compile``), and the launch is a :class:`Launch`, to be
counted (the dry run) or simulated (``helpers.ptx.launch``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from bench.gpu_compile import instead_of_launches


@dataclass
class Launch:
    """One kernel launch.

    Attributes:
        name: of the kernel's Python function.
        kernel: what Triton compiled, with ``asm`` and ``metadata``.
        grid: programs.
        arguments: what the compiled kernel takes, by name and in its order: tensors and numbers.
        constants: all other arguments: meta-parameters, and values that were compiled in.
    """

    name: str
    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]


@contextmanager
def launches(act: Callable[[Launch], None], capability: int = 80) -> Iterator[None]:
    """Within the context, call ``act`` for every launch, compiled for this compute capability."""
    original = JITFunction.run

    def run(function: JITFunction, *args, grid, warmup, **options):
        values = inspect_arguments(function, args, options)
        stand_ins = {k: _pointer(v) for k, v in options.items()}
        kernel = original(function, *map(_pointer, args), grid=grid, warmup=True, **stand_ins)
        taken = {k: v for k, v in values.items() if kernel.src.signature[k] != "constexpr"}
        constants = {k: v for k, v in values.items() if k not in taken}
        size = grid(values) if callable(grid) else grid
        act(Launch(function.__name__, kernel, tuple(size), taken, constants))
        return kernel

    with instead_of_launches(run, GPUTarget("cuda", capability, 32)):
        yield


def inspect_arguments(function: JITFunction, args: tuple, options: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments by name, in the order of the signature."""
    named = {k: v for k, v in options.items() if k in function.signature.parameters}
    bound = function.signature.bind(*args, **named)
    bound.apply_defaults()
    return dict(bound.arguments)


class _Pointer:
    """What Triton's compiler asks of a tensor: its dtype, and whether its address is a multiple of 16."""

    def __init__(self, tensor: Tensor) -> None:
        self.dtype = tensor.dtype
        self._offset = tensor.storage_offset() * tensor.element_size()

    def data_ptr(self) -> int:
        return self._offset  # from the start of its memory, which is aligned


def _pointer(value: Any) -> Any:
    return _Pointer(value) if isinstance(value, Tensor) else value
