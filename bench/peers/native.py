"""fastgan's native engine and its sampler."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

import fastgan
from bench.cases import ROWS_PER_CALL, SEED, Case
from bench.protocol import Recorded, Replayed
from fastgan.engines.cpu import CpuEngine
from fastgan.sampler import Sampler
from fastgan.state import State
from fastgan.trained import Provenance, TrainedGenerator

EXPORT_EVERY = 100  # steps between a load and an export
WAITING = "waiting, calls"
PARTS = {  # of a profile, by what the engine's operations do
    "forward": "forward products",
    "backward": "gradients of inputs",
    "head backward": "gradients of inputs",
    "weight gradient + Adam": "weight gradients + Adam",
    "vector gradient + Adam": "biases, last weights",
    "index": "data rows",
    "gather": "data rows",
    "labels": "data rows",
    "noise": "noise",
    "transpose": "transpositions",
    "logits": "logits, losses",
    "logits backward": "logits, losses",
    "loss": "logits, losses",
    "penalty": "penalties",
}


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
        self.take(units)
        return units

    def counted(self) -> int:
        """Return the step that the state is at."""
        return self.engine.export().step

    def replay(self, steps: list[Recorded]) -> Replayed:
        """Take as many steps. Noise and batches are drawn, not given: they are what was recorded."""
        self.reset()
        losses = self.take(len(steps))[:, :2].astype(np.float64)
        tensors = self.engine.export().tensors
        return Replayed(losses, {k: tensors[k].numpy() for k, _ in self.engine.spec.parameter_shapes()})

    def take(self, steps: int) -> np.ndarray:
        """Take so many steps in the calls that are timed; return their losses."""
        return self.engine.run(steps)

    def profile(self, units: int) -> list[dict[str, Any]]:
        """Return the parts of a step; what threads wait for each other is one of them."""
        threads, start = self.engine.threads, time.perf_counter()
        spent = self.engine.profile(units)
        wall = time.perf_counter() - start
        parts = {name: dict(part=name, seconds=0.0, flops=0.0) for name in (*PARTS.values(), WAITING)}
        for _, what, _, _, seconds, flops in spent:
            part = parts[PARTS[what]]
            part["seconds"] += seconds / threads / units
            part["flops"] += flops / units
        parts[WAITING]["seconds"] = wall / units - sum(p["seconds"] for p in parts.values())
        return [part for part in parts.values() if part["seconds"] > 0.0]


class Products(Step):
    """The step's products with their epilogues (activation, mask, Adam), timed one by one inside it."""

    def run(self, units: int) -> int:
        spent = self.engine.profile(units)
        self.taken = sum(seconds for *_, seconds, flops in spent if flops) / self.engine.threads
        return units


class OneStepCalls(Step):
    """A call per step, as a trainer that looks at every step would make."""

    def take(self, steps: int) -> np.ndarray:
        return np.concatenate([self.engine.run(1) for _ in range(steps)])


class LoadAndExport(Step):
    """A state loaded and exported around every ``EXPORT_EVERY`` steps."""

    def run(self, units: int) -> int:
        units = -(-units // EXPORT_EVERY) * EXPORT_EVERY
        self.take(units)
        return units

    def take(self, steps: int) -> np.ndarray:
        state, losses = self.engine.export(), []
        for begin in range(0, steps, EXPORT_EVERY):
            self.engine.load(state)
            losses.append(self.engine.run(min(EXPORT_EVERY, steps - begin)))
            state = self.engine.export()
        return np.concatenate(losses)


class Rows:
    """Generated rows: in the data's own type, or float32 as the generator gives them."""

    def __init__(self, case: Case) -> None:
        schema = replace(case.data.schema, dtype=case.dtype)
        average = State.initial(case.spec, SEED).part("ema")
        origin = Provenance(fastgan.__version__, 0, {}, case.data.name, len(case.data), "")
        generator = TrainedGenerator.of_state(
            case.spec, schema, (1,) * case.spec.classes, SEED, average, origin
        )
        self.sampler = Sampler(generator, engine="cpu", threads=case.threads, device=case.device)
        self.out = np.empty((ROWS_PER_CALL, case.features), case.dtype)
        self.reset()

    def reset(self) -> None:
        self.made = 0
        self.out[-1] = 0  # which no generated row is

    def run(self, units: int) -> int:
        calls = -(-units // ROWS_PER_CALL)
        for i in range(calls):
            self.made += len(self.sampler.rows(i * ROWS_PER_CALL, ROWS_PER_CALL, out=self.out))
        return calls * ROWS_PER_CALL

    def counted(self) -> int:
        """Return the rows that came, if the last of a call is there."""
        return self.made if self.out[-1].any() else 0

    def rows(self, z: np.ndarray) -> np.ndarray:
        """Return the rows of a call's noise, which is drawn, not given: it is what was recorded."""
        return self.sampler.rows(0, len(z), out=self.out)
