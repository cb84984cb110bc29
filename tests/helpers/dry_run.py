"""A dry run: a step on tensors of no device, every launch compiled and written down, nothing computed.

The tensors are PyTorch's "meta" ones, with a shape and no memory, which stand for those of a GPU.

What a captured step must be, and this shows: all its work is kernel launches on device tensors; the host
waits for nothing and brings nothing; and step k + 1 asks for exactly what step k asked for (the same kernels,
grids, numbers and memory), since a replay will. What it cannot show: what the kernels compute, whether a
capture succeeds, what the driver does, code that asks whether a tensor is on CUDA, and CUDA calls that go
past PyTorch and Triton.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from fastgan.graphs import Audit
from helpers.no_device import Launch, launches


class DryRun(contextlib.ExitStack):
    """Context manager in which launches are recorded, of tensors on the device ``meta``.

    Args:
        capability: compute capability that kernels are compiled for.

    Attributes:
        launches: of Triton kernels, in order.
    """

    def __init__(self, capability: int = 90) -> None:
        super().__init__()
        self.launches: list[Launch] = []
        self._capability, self._audit = capability, _Strict()

    def __enter__(self) -> DryRun:
        super().__enter__()
        self.enter_context(launches(self.launches.append, self._capability))
        self.enter_context(self._audit)
        return self

    @property
    def ops(self) -> list[str]:
        """PyTorch's operations, each of them a launch or more, or a wait."""
        return self._audit.ops

    @property
    def problems(self) -> list[str]:
        """What a graph could not hold: one sentence each."""
        found = [f"{launch.name}: {p}" for launch in self.launches for p in _host_tensors(launch)]
        return self._audit.problems + found

    def record(self) -> list[tuple]:
        """Return what was asked of the device since the last call, such that equal records replay alike."""
        done = [_asked(launch) for launch in self.launches] + [(op,) for op in self.ops]
        self.launches.clear()
        self.ops.clear()
        return done


class _Strict(Audit):
    """An audit that minds operations on the CPU, too: a graph would repeat what they once gave."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if isinstance(out, Tensor) and out.device.type == "cpu":
            self._note(func._schema.name, "runs on the cpu")
        return out


def _host_tensors(launch: Launch) -> list[str]:
    return [
        f"argument {name} is on {value.device}"
        for name, value in launch.arguments.items()
        if isinstance(value, Tensor) and value.device.type != "meta"
    ]


def _asked(launch: Launch) -> tuple:
    arguments = tuple((name, _identity(value)) for name, value in launch.arguments.items())
    constants = tuple((name, _identity(value)) for name, value in launch.constants.items())
    return launch.name, launch.kernel.hash, launch.grid, arguments, constants


def _identity(value: Any) -> Any:
    if isinstance(value, Tensor):
        return "memory", value.untyped_storage()._cdata, value.storage_offset(), value.dtype
    return str(value) if isinstance(value, torch.dtype) else value
