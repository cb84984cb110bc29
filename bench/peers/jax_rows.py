"""Generated rows in JAX: noise and a forward pass, jitted, one call per block of rows. A unit is a row."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from bench.cases import ROWS_PER_CALL, SEED, Rows
from bench.peers.jax_scan import JaxScan, jax


class Jit:
    """The generator of the training peer."""

    def __init__(self, case: Rows) -> None:
        step = JaxScan(case)
        step.reset()
        shape, parameters = (ROWS_PER_CALL, case.latent), step.carry.g

        def rows(key: Any) -> Any:
            key, mine = jax.random.split(key)
            return key, step.generate(parameters, jax.random.normal(mine, shape))

        self.draw = jax.jit(rows)
        self.given = jax.jit(partial(step.generate, parameters))
        self.reset()

    def reset(self) -> None:
        self.key, self.made = jax.random.key(SEED, impl="rbg"), 0

    def run(self, units: int) -> int:
        calls = -(-units // ROWS_PER_CALL)
        for _ in range(calls):
            self.key, out = self.draw(self.key)
            self.made += len(jax.block_until_ready(out))
        return calls * ROWS_PER_CALL

    def counted(self) -> int:
        """Return the rows that came."""
        return self.made

    def rows(self, z: np.ndarray) -> np.ndarray:
        return np.asarray(self.given(z))
