"""What no program passes: arithmetic, copying, and on GPUs the start of a kernel. Measured, not looked up.

Arithmetic is that of the faster unit, where a processor has two: vectors or tiles, or a GPU's tensor cores.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import torch
from fastgan.kernels import cpu

from bench.plan import Problem, Work

_SIDE = 4096  # of the matrices whose product stands for a GPU's peak
_PRODUCT = 2 * _SIDE**3
_TF32_PASSES = 3  # products of numbers rounded to TF32 for one as exact as float32
_FEWEST = 1_000_000  # flops at once
_TRIAL, _TRIES = 1_000_000_000, 4  # flops by which the fastest unit is found, and how often
_KERNELS = 64  # in one captured graph


@dataclass(frozen=True)
class Limit(Problem):
    """A limit of the machine.

    Attributes:
        span: bytes of memory that are gone over.
        dtype: that products are of.
    """

    span: int = 0
    dtype: str = "float32"

    @property
    def work(self) -> Work:
        """Of nothing: it is itself what others are held against."""
        return Work(unit="unit")


class Registers:
    """Fused multiply-adds of vectors in registers, on every thread. A unit is a flop.

    What the vectors hold is float32: half as many float64 numbers fit, and bfloat16 ones are widened.
    """

    def __init__(self, case: Limit) -> None:
        self.threads, self.call = case.threads, cpu.native().fma
        self.passes = 2 if case.dtype == "float64" else 1  # flops of the call for a flop

    def reset(self) -> None:
        """It has no state."""

    def run(self, units: int) -> int:
        return self.call(self.threads, self.passes * max(units, _FEWEST)) // self.passes


class Tiles(Registers):
    """Products on the tile unit (AMX), on every thread. A unit is a flop.

    A float32 product takes six of bfloat16 numbers there, as ``kernels/cpu`` makes it.
    """

    def __init__(self, case: Limit) -> None:
        native = cpu.native()
        if not native.tile_fma(1, 1):
            raise RuntimeError(f"the instruction set in use, {native.isa()}, has no tiles")
        if case.dtype == "float64":
            raise RuntimeError("tiles multiply no float64")
        self.threads, self.call = case.threads, native.tile_fma
        self.passes = native.tile_passes if case.dtype == "float32" else 1


class LargeProduct:
    """A large product on a GPU, float32 without TF32. A unit is a flop."""

    passes = 1
    precision = "highest"

    def __init__(self, case: Limit) -> None:
        self.a, self.b, self.c = (
            torch.randn(_SIDE, _SIDE, device=case.device).to(getattr(torch, case.dtype)) for _ in range(3)
        )

    def reset(self) -> None:
        """Operands never change."""

    def run(self, units: int) -> int:
        times, before = -(-units * self.passes // _PRODUCT), torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.precision)
        for _ in range(times):
            torch.mm(self.a, self.b, out=self.c)
        torch.set_float32_matmul_precision(before)
        if self.a.is_cuda:
            torch.cuda.synchronize()
        return max(1, times * _PRODUCT // self.passes)


class Tf32Products(LargeProduct):
    """Three large products in TF32 for one, as tf32x3 has it. A unit is a flop of the latter."""

    passes = _TF32_PASSES
    precision = "high"


class Arithmetic:
    """The fastest that products can be here: of the units above whichever is. A unit is a flop."""

    def __init__(self, case: Limit) -> None:
        if case.device == "cpu":
            kinds = [Registers, Tiles]
        else:
            kinds = [LargeProduct, *([Tf32Products] if case.dtype == "float32" else [])]
        units = []
        for kind in kinds:
            with contextlib.suppress(RuntimeError):  # it is not there
                units.append(kind(case))
        self.unit = min(units, key=_seconds_of_a_flop)

    def reset(self) -> None:
        """It has no state."""

    def run(self, units: int) -> int:
        return self.unit.run(units)


def _seconds_of_a_flop(unit: Registers | LargeProduct) -> float:
    """Return the best of some tries, each long enough that the start of its threads does not count."""
    tries = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        done = unit.run(_TRIAL)
        tries.append((time.perf_counter() - start) / done)
    return min(tries)


class Copy:
    """Half of ``span`` bytes copied to the other half: as many read as written. A unit is a byte."""

    def __init__(self, case: Limit) -> None:
        count = case.span // 2
        self.span, self.device = 2 * count, case.device
        self.source, self.target = (
            torch.ones(count, dtype=torch.uint8, device=case.device) for _ in range(2)
        )

    def reset(self) -> None:
        self.target[-1] = 0
        self.before = self.target._version

    def counted(self) -> int:
        """Return the bytes of as many copies as wrote to the target, if its end is there."""
        copies = (self.target._version - self.before) * int(self.target[-1])
        return copies * (self.source.nbytes + self.target.nbytes)

    def run(self, units: int) -> int:
        times = -(-units // self.span)
        for _ in range(times):
            self.target.copy_(self.source)
        if self.device != "cpu":
            torch.cuda.synchronize()
        return times * self.span


class Launches:
    """The smallest kernel, many times in a captured graph: the cheapest start. A unit is a kernel."""

    def __init__(self, case: Limit) -> None:
        if case.device == "cpu":
            raise RuntimeError("kernels are launched on GPUs only")
        x = torch.zeros(1, device=case.device)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for _ in range(_KERNELS):
                x.add_(1.0)

    def reset(self) -> None:
        """It has no state."""

    def run(self, units: int) -> int:
        times = -(-units // _KERNELS)
        for _ in range(times):
            self.graph.replay()
        torch.cuda.synchronize()
        return times * _KERNELS
