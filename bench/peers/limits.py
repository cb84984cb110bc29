"""What no program passes: arithmetic, copying, and on GPUs the start of a kernel. Measured, not looked up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from fastgan.kernels import cpu

from bench.plan import Problem, Work

_SIDE = 4096  # of the matrices whose product stands for a GPU's peak
_PRODUCT = 2 * _SIDE**3
_FEWEST = 1_000_000  # flops at once
_KERNELS = 64  # in one captured graph


@dataclass(frozen=True)
class Limit(Problem):
    """A limit of the machine; ``span`` is the memory that is gone over, in bytes."""

    span: int = 0

    @property
    def work(self) -> Work:
        """Of nothing: it is itself what others are held against."""
        return Work(unit="unit")


class Arithmetic:
    """Fused multiply-adds in registers, on every thread; on a GPU a large float32 product (TF32 off).

    A unit is a flop.
    """

    def __init__(self, case: Limit) -> None:
        self.threads, self.device = case.threads, case.device
        if case.device == "cpu":
            self.fma = cpu.native().fma
        else:
            self.a, self.b, self.c = (torch.randn(_SIDE, _SIDE, device=case.device) for _ in range(3))

    def reset(self) -> None:
        """It has no state."""

    def run(self, units: int) -> int:
        if self.device == "cpu":
            return self.fma(self.threads, max(units, _FEWEST))
        times = -(-units // _PRODUCT)
        for _ in range(times):
            torch.mm(self.a, self.b, out=self.c)
        torch.cuda.synchronize()
        return times * _PRODUCT


class Copy:
    """Half of ``span`` bytes copied to the other half: as many read as written. A unit is a byte."""

    def __init__(self, case: Limit) -> None:
        count = case.span // 2
        self.span, self.device = 2 * count, case.device
        self.source, self.target = (
            torch.zeros(count, dtype=torch.uint8, device=case.device) for _ in range(2)
        )

    def reset(self) -> None:
        """It has no state."""

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
