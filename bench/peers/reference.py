"""The reference in float64: what every peer's parity is measured against. It is not timed."""

from __future__ import annotations

import numpy as np
import torch

from bench.cases import SEED, Case, Rows
from bench.protocol import Recorded, Replayed
from fastgan.engines.reference import ReferenceEngine
from fastgan.models import Generator
from fastgan.state import State


class Reference:
    """Plain PyTorch in float64; draws the recorded noise and batches itself."""

    def __init__(self, case: Case) -> None:
        self.engine = ReferenceEngine(case.config, case.data, torch.float64)
        self.state = State.initial(case.spec, SEED)

    def reset(self) -> None:
        self.engine.load(self.state)

    def run(self, units: int) -> int:
        self.engine.run(units)
        return units

    def replay(self, steps: list[Recorded]) -> Replayed:
        self.reset()
        losses = self.engine.run(len(steps))[:, :2].astype(np.float64)
        tensors = self.engine.export().tensors
        return Replayed(losses, {k: tensors[k].numpy() for k, _ in self.engine.spec.parameter_shapes()})


class Generated:
    """The initial generator in plain PyTorch."""

    def __init__(self, case: Rows) -> None:
        self.generator = Generator(case.spec).double()
        self.generator.load_state_dict(State.initial(case.spec, SEED).part("generator"))

    @torch.inference_mode()
    def rows(self, z: np.ndarray) -> np.ndarray:
        return self.generator(torch.from_numpy(z).double()).numpy()
