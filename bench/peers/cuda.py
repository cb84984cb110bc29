"""fastgan's CUDA engine, where this version has one."""

from __future__ import annotations

from importlib import import_module

from bench.cases import SEED, Case
from bench.peers import native
from bench.peers.native import Step
from fastgan.state import State


class CudaStep(Step):
    """Many steps in one call; what it returns are losses, so the GPU has finished by then."""

    def __init__(self, case: Case) -> None:
        try:
            engine = import_module("fastgan.engines.cuda").CudaEngine
        except ModuleNotFoundError:
            raise RuntimeError("this version of fastgan has no CUDA engine") from None
        self.engine = engine(case.config, case.data)
        self.state, self.cycle = State.initial(case.spec, SEED), case.config.penalty_every


class Rows(native.Rows):
    """Generated rows: made on a GPU, and brought to the host."""
