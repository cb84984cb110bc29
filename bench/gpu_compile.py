"""Compiles Triton launches for GPUs that this machine does not have, and reads what came of it.

    with launches("sm_80") as compiled:
        linear_leaky_relu_fwd(x, weight, bias, y, 0.2, "tf32")
    compiled[0].resources, compiled[0].asm["ptx"]

Inside the block, launchers run as they are, on CPU or meta tensors; every kernel launch is specialised and
compiled as Triton's own launch would have it, by the ptxas and LLVM that come with Triton, and recorded
instead of run: outputs stay as they were. This shows what a kernel needs, not whether it is right or how
long it takes.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from fastgan.kernels.triton import launch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),  # A100
    "sm_90": GPUTarget("cuda", 90, 32),  # H100
    "sm_100": GPUTarget("cuda", 100, 32),  # B200; Triton compiles for sm_100a
    "gfx942": GPUTarget("hip", "gfx942", 64),  # MI300
}
SHARED_LIMIT = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
"""Bytes that one program can have."""

_TENSOR = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?((?:HMMA|HGMMA|UTC\w*MMA)[.\w]*)", re.M)


@dataclass(frozen=True)
class Resources:
    """What one program of a compiled kernel takes.

    Attributes:
        registers: of a thread; on gfx942, vector registers, accumulation registers included.
        stack: bytes of a thread in memory: spilled registers, or a slow path that calls a function.
        shared: bytes of shared memory.
        tensor: matrix instructions of the tensor cores by name, as often as they stand in the code.
    """

    registers: int
    stack: int
    shared: int
    tensor: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Launch:
    """One recorded launch: the kernel's name, its arguments as they came, and Triton's compiled kernel."""

    kernel: str
    target: str
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    options: dict[str, Any]
    compiled: Any

    @property
    def asm(self) -> dict[str, Any]:
        """Every stage of compilation: ``ttir``, ``ttgir``, ``llir``; ``ptx`` and ``cubin``, or ``amdgcn``."""
        return self.compiled.asm

    @property
    def resources(self) -> Resources:
        return _of_amdgcn(self.compiled) if self.target == "gfx942" else _of_cubin(self.compiled)


class _NoGpu:
    """Stands for Triton's driver of a device with this target: it can name it and nothing else.

    The architecture is also the device's number, since Triton keeps what it compiled by device.
    """

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int | str:
        return self._target.arch

    def get_current_stream(self, device: int | str | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def as_any_device_and_dtype() -> AbstractContextManager:
    """Let launchers take tensors of any device and dtype inside the block, as if all were interpreted."""
    return mock.patch.multiple(launch, INTERPRETED=True, INTERPRETS_BFLOAT16=True)


@contextmanager
def instead_of_launches(run: Callable[..., Any], target: GPUTarget) -> Iterator[None]:
    """Call ``run`` for every launch inside the block, with the kernel and as ``JITFunction.run`` is called.

    ``JITFunction.run`` with ``warmup=True`` then compiles for the target.
    """
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(JITFunction, "run", run))
        stack.enter_context(as_any_device_and_dtype())
        stack.enter_context(mock.patch.object(driver, "_active", _NoGpu(target)))
        hip = "some" if target.backend == "hip" else None
        stack.enter_context(mock.patch.object(torch.version, "hip", hip))  # launchers ask for it
        yield


@contextmanager
def launches(target: str) -> Iterator[list[Launch]]:
    """Compile every launch inside the block for a target and record it, instead of running it."""
    recorded: list[Launch] = []
    run = JITFunction.run

    def record(self, *args, grid, warmup, **options):
        compiled = run(self, *args, grid=grid, warmup=True, **options)
        recorded.append(Launch(self.fn.__name__, target, grid, args, options, compiled))
        return compiled

    with instead_of_launches(record, TARGETS[target]):
        yield recorded


def _of_cubin(compiled: Any) -> Resources:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        usage = _tool("cuobjdump", "--dump-resource-usage", path)
        code = _tool("nvdisasm", "-c", path)
    numbers = {name: int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL")}
    tensor = Counter(".".join(name.split(".")[:4]) for name in _TENSOR.findall(code))
    return Resources(
        numbers["REG"],
        numbers["STACK"] + numbers["LOCAL"],
        compiled.metadata.shared,
        dict(sorted(tensor.items())),
    )


def _of_amdgcn(compiled: Any) -> Resources:
    code = compiled.asm["amdgcn"]

    def number(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", code)[1])

    tensor = Counter(re.findall(r"^\s+(v_mfma_\w+)", code, re.M))
    return Resources(
        number("vgpr_count"),
        number("private_segment_fixed_size"),
        compiled.metadata.shared,
        dict(sorted(tensor.items())),
    )


def _tool(name: str, *arguments: object) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=True).stdout
