"""Run Triton kernels on CPU tensors by simulating the PTX that was compiled for sm_80."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from helpers.no_device import Launch, launches
from helpers.ptx import arithmetic, conversions, traffic, warps  # noqa: F401  (they define instructions)
from helpers.ptx.machine import Machine
from helpers.ptx.memory import GlobalMemory
from helpers.ptx.parse import parse


@contextmanager
def simulated(change: Callable[[str], str] = lambda ptx: ptx) -> Iterator[list[Machine]]:
    """Within the context, ``kernel[grid](...)`` simulates the compiled kernel on its tensors' memory.

    Args:
        change: from the PTX to the PTX that runs, to plant mistakes of a compiler.

    Yields:
        The machines of all launches so far.
    """
    done: list[Machine] = []
    with launches(lambda launch: done.append(simulate(launch, change))):
        yield done


def simulate(launch: Launch, change: Callable[[str], str] = lambda ptx: ptx) -> Machine:
    """Run one launch. Tensors that share memory, such as views of one buffer, share it here, too."""
    memory, bases, values = GlobalMemory(), {}, []
    for value in launch.arguments.values():
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if storage.data_ptr() not in bases:
                flat = torch.empty(0, dtype=torch.uint8).set_(storage)
                bases[storage.data_ptr()] = memory.add(flat.numpy())
            value = bases[storage.data_ptr()] + value.storage_offset() * value.element_size()
        values.append(value)
    kernel = parse(change(launch.kernel.asm["ptx"]))
    values += [0] * (len(kernel.parameters) - len(values))  # scratch memory that no kernel of ours uses
    memory.load()
    machine = Machine(kernel, memory, launch.grid, values, launch.kernel.metadata.shared)
    machine.run()
    memory.write_back()
    return machine
