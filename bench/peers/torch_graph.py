"""The eager step captured in a CUDA graph: PyTorch's own answer to launch overhead. Needs a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.cases import Case
from bench.peers.torch_eager import Eager

_WARMUP = 3  # steps on a side stream before the capture, as PyTorch's notes on CUDA graphs want


class Graphed(Eager):
    """One graph of a whole step; batches and noise are drawn inside, by the captured generator."""

    def __init__(self, case: Case) -> None:
        if case.device != "cuda":
            raise RuntimeError("CUDA graphs need a GPU")
        super().__init__(case, fused=True, capturable=True)
        self.inputs = self.draw()
        self.reset()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARMUP):
                self._draw_and_step()
        torch.cuda.current_stream().wait_stream(side)
        self.drawn, self.given = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.drawn):
            self._draw_and_step()
        with torch.cuda.graph(self.given):
            self.losses = super().step(*self.inputs)

    def run(self, units: int) -> int:
        for _ in range(units):
            self.drawn.replay()
        self.finish()
        return units

    def step(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step on given inputs: the same capture without the drawing."""
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.given.replay()
        return self.losses

    def _draw_and_step(self) -> None:
        super().step(*self.draw())
