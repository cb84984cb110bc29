"""fastgan's native engine, its sampler, and the processor's multiply-add peak."""

from __future__ import annotations

import numpy as np
from fastgan.kernels import cpu

from bench.cases import EXPORT_EVERY, SEED, Case
from bench.protocol import Recorded, Replayed
from fastgan.engines.cpu import CpuEngine, native_spec
from fastgan.noise import Stream
from fastgan.state import State

ROWS_IN_FLIGHT = 256  # of the sampler, per thread
ROWS_PER_CALL = 4096


class Step:
    """Many steps in one call."""

    def __init__(self, case: Case) -> None:
        self.engine = CpuEngine(case.config, case.data)
        self.state = State.initial(case.spec, SEED)
        self.cycle = case.config.penalty_every  # whole cycles, so that penalties count in full

    def reset(self) -> None:
        self.engine.load(self.state)

    def run(self, units: int) -> int:
        units = -(-units // self.cycle) * self.cycle
        self.engine.run(units)
        return units

    def replay(self, steps: list[Recorded]) -> Replayed:
        """Take as many steps. Noise and batches are drawn, not given: they are what was recorded."""
        self.reset()
        losses = self.engine.run(len(steps))[:, :2].astype(np.float64)
        tensors = self.engine.export().tensors
        return Replayed(losses, {k: tensors[k].numpy() for k, _ in self.engine.spec.parameter_shapes()})


class OneStepCalls(Step):
    """A call per step, as a trainer that looks at every step would make."""

    def run(self, units: int) -> int:
        for _ in range(units):
            self.engine.run(1)
        return units


class LoadAndExport(Step):
    """A state loaded and exported around every ``EXPORT_EVERY`` steps."""

    def run(self, units: int) -> int:
        times = -(-units // EXPORT_EVERY)
        state = self.state
        for _ in range(times):
            self.engine.load(state)
            self.engine.run(EXPORT_EVERY)
            state = self.engine.export()
        return times * EXPORT_EVERY


class RowsUint8:
    """Generated rows, in the data's own type."""

    dtype: type = np.uint8

    def __init__(self, case: Case) -> None:
        self.sampler = cpu.native().Sampler(native_spec(case.spec, ROWS_IN_FLIGHT), case.threads)
        generator = State.initial(case.spec, SEED).part("generator")
        for i in range(len(generator) // 2):
            parts = (generator[f"layers.{i}.{kind}"].contiguous().numpy() for kind in ("weight", "bias"))
            self.sampler.set(i, *parts)
        self.out = np.empty((ROWS_PER_CALL, case.features), self.dtype)
        self.affine = case.data.schema.affine(case.spec.head) if self.dtype is np.uint8 else (1.0, 0.0)

    def reset(self) -> None:
        """Nothing is kept between two calls."""

    def run(self, units: int) -> int:
        calls = -(-units // ROWS_PER_CALL)
        for i in range(calls):
            self.sampler.rows(SEED, int(Stream.SAMPLES), i * ROWS_PER_CALL, None, self.out, *self.affine)
        return calls * ROWS_PER_CALL


class RowsFloat32(RowsUint8):
    """Generated rows as the generator gives them."""

    dtype = np.float32


class FmaPeak:
    """Fused multiply-adds in registers, on every thread: what no product can pass. A unit is a flop."""

    def __init__(self, case: Case) -> None:
        native = cpu.native()
        if not hasattr(native, "fma"):
            raise RuntimeError("this build of the native module has no `fma`: install fastgan again")
        self.fma, self.threads = native.fma, case.threads

    def reset(self) -> None:
        """It has no state."""

    def run(self, units: int) -> int:
        return self.fma(self.threads, units)
