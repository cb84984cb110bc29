"""Plain SGEMM of the shapes that a step and a generator need, as PyTorch has it (MKL on x86, cuBLAS on GPUs).

Nothing but the products: operands and results lie ready, no bias, no activation, no update.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bench.cases import SEED, Case
from bench.plan import Work

ROWS = 1024  # that the generator's products take at a time


def step_shapes(case: Case) -> list[tuple[int, int, int, str]]:
    """Return each product ``C[m, n] = A[m, k] B[k, n]`` of an article step, as m, k, n and what it is for.

    Stacked as is best: both noise batches in one generator pass, real and generated rows in one discriminator
    pass. ``forward`` has B transposed (nn.Linear's weight), ``weight`` A (the output's gradient).
    """
    b, g, d = case.batch, list(pairwise(case.spec.g_widths)), list(pairwise(case.spec.d_widths))
    out = [(2 * b, i, o, "forward") for i, o in g]
    out += [(2 * b, i, o, "forward") for i, o in d]  # discriminator step
    out += [(o, 2 * b, i, "weight") for i, o in d]
    out += [(2 * b, o, i, "input") for i, o in d[1:]]
    out += [(b, i, o, "forward") for i, o in d]  # generator step
    out += [(b, o, i, "input") for i, o in d]
    out += [(o, b, i, "weight") for i, o in g]
    out += [(b, o, i, "input") for i, o in g[1:]]
    return out


@dataclass(frozen=True)
class Products(Case):
    """The products of a step and nothing else."""

    @property
    def work(self) -> Work:
        """Of a step. Bytes: of each product both operands and the result."""
        shapes = step_shapes(self)
        moved = 4 * sum(m * k + k * n + m * n for m, k, n, _ in shapes)
        return Work(sum(2.0 * m * k * n for m, k, n, _ in shapes), moved)


class StepProducts:
    """All products of one step, one after the other. A unit is a step."""

    units = 1

    def __init__(self, case: Case) -> None:
        torch.manual_seed(SEED)
        self.device, self.flops = case.device, case.work.flops * self.units  # of all products
        self.products = [_operands(*shape, case.device) for shape in self.shapes(case)]

    def shapes(self, case: Case) -> list[tuple[int, int, int, str]]:
        return step_shapes(case)

    def reset(self) -> None:
        for _, _, c in self.products:
            c[-1, -1] = torch.nan
        self.before = [c._version for _, _, c in self.products]

    def counted(self) -> float:
        """Return the flops that results were written by, of whole ones only, over those of a unit."""
        if any(c[-1, -1].isnan() for _, _, c in self.products):
            return 0.0
        times = (c._version - before for (_, _, c), before in zip(self.products, self.before, strict=True))
        done = sum(n * 2.0 * c.numel() * len(b) for n, (_, b, c) in zip(times, self.products, strict=True))
        return done / self.flops * self.units

    def run(self, units: int) -> int:
        times = -(-units // self.units)
        with torch.inference_mode():
            for _ in range(times):
                for a, b, c in self.products:
                    torch.mm(a, b, out=c)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return times * self.units


class GeneratorProducts(StepProducts):
    """The products of a generator's forward pass. A unit is a row."""

    units = ROWS

    def shapes(self, case: Case) -> list[tuple[int, int, int, str]]:
        return [(ROWS, i, o, "forward") for i, o in pairwise(case.spec.g_widths)]


def _operands(m: int, k: int, n: int, kind: str, device: str) -> tuple[Tensor, Tensor, Tensor]:
    a = torch.randn(k, m).T if kind == "weight" else torch.randn(m, k)
    b = torch.randn(n, k).T if kind == "forward" else torch.randn(k, n)
    return a.to(device), b.to(device), torch.empty(m, n, device=device)
