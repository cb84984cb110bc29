"""Generated rows in PyTorch: noise and a forward pass in inference mode, to the host. A unit is a row."""

from __future__ import annotations

import numpy as np
import torch

from bench.cases import ROWS_PER_CALL, SEED, Rows
from fastgan.models import Generator
from fastgan.state import State


class Eager:
    """PyTorch as it comes."""

    def __init__(self, case: Rows) -> None:
        self.case, self.generator = case, Generator(case.spec).to(case.device)
        self.generator.load_state_dict(State.initial(case.spec, SEED).part("generator"))
        self.reset()

    def reset(self) -> None:
        self.made = 0

    @torch.inference_mode()
    def run(self, units: int) -> int:
        calls = -(-units // ROWS_PER_CALL)
        for _ in range(calls):
            rows = self.generator(torch.randn(ROWS_PER_CALL, self.case.latent, device=self.case.device))
            self.made += len(rows.cpu())
        return calls * ROWS_PER_CALL

    def counted(self) -> int:
        """Return the rows that came."""
        return self.made

    @torch.inference_mode()
    def rows(self, z: np.ndarray) -> np.ndarray:
        return self.generator(torch.from_numpy(z).to(self.case.device)).cpu().numpy()
