"""The training problem that steps and generated rows are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import numpy as np

from bench.plan import Problem, Work
from bench.protocol import STEPS, Recorded
from fastgan import noise
from fastgan.config import Config, preset
from fastgan.cost import estimate
from fastgan.data.schema import Data, Schema
from fastgan.spec import ModelSpec

SEED = 0
ROWS_PER_CALL = 4096  # generated, into the same memory again and again
_FLOAT = 4  # bytes


@cache
def _bytes(rows: int, features: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 256, (rows, features), dtype=np.uint8)


@cache
def _floats(rows: int, features: int) -> np.ndarray:
    return _bytes(rows, features).astype(np.float32) * np.float32(1.0 / 255.0)


@dataclass(frozen=True)
class Case(Problem):
    """A GAN on random data; both networks have two hidden layers of the same width."""

    batch: int = 128
    recipe: str = "article"
    hidden: int = 128
    latent: int = 100
    features: int = 784
    rows: int = 10_000  # of the data
    dtype: str = "uint8"  # of the data in memory, for fastgan; peers train from float32

    @cached_property
    def config(self) -> Config:
        """Return the options of fastgan for this case."""
        hidden = (self.hidden, self.hidden)
        options = dict(batch=self.batch, latent=self.latent, g_hidden=hidden, d_hidden=hidden)
        # On a GPU, tf32x3: as exact as the peers' float32, or parity would not let it be timed.
        gpu = dict(device="cuda", precision="tf32x3") if self.device == "cuda" else {}
        run = dict(threads=self.threads, seed=SEED, fused=True)
        return Config(**preset(self.recipe) | options | run | gpu)

    @cached_property
    def spec(self) -> ModelSpec:
        """Return the shapes of both networks."""
        return ModelSpec.of(self.config, self.features, 0)

    @property
    def work(self) -> Work:
        """Of a step. Bytes: weights and both moments, read and written; the data rows of the batch.

        Where the generator's step reuses the discriminator's noise, its forward pass is counted once.
        """
        parameters = sum(int(np.prod(shape)) for _, shape in self.spec.parameter_shapes())
        item = 1 if self.dtype == "uint8" else _FLOAT
        moved = 2 * 3 * _FLOAT * parameters + item * self.batch * self.features
        flops = estimate(self.config, self.spec, 0).flops
        if self.config.reuse_fakes:
            flops -= 2.0 * self.batch * sum(i * o for i, o in pairwise(self.spec.g_widths))
        return Work(flops, moved)

    @cached_property
    def data(self) -> Data:
        """Random bytes, or what they mean in float32: what fastgan trains from."""
        if self.dtype == "float32":
            return Data(self.floats, None, Schema("array", (self.features,), "float32"), "random", "random")
        return Data(
            _bytes(self.rows, self.features),
            None,
            Schema("array", (self.features,), "uint8"),
            "random",
            "random bytes",
        )

    @property
    def floats(self) -> np.ndarray:
        """The same rows in float32, [0, 1]: what the peers train from."""
        return _floats(self.rows, self.features)

    def recorded(self) -> list[Recorded]:
        """Return the batches and the noise that fastgan draws in its first steps (article recipe)."""
        b = self.batch
        return [
            Recorded(
                self.floats[noise.epoch_index(SEED, s * b, b, self.rows)],
                noise.normal(SEED, noise.Stream.D_NOISE, s * b, b, self.latent),
                noise.normal(SEED, noise.Stream.G_NOISE, s * b, b, self.latent),
            )
            for s in range(STEPS)
        ]


@dataclass(frozen=True)
class Rows(Case):
    """Rows that its generator makes, instead of steps."""

    @property
    def work(self) -> Work:
        """Of a row. Bytes: the row is written; weights stay in cache."""
        item = 1 if self.dtype == "uint8" else _FLOAT
        flops = 2.0 * sum(i * o for i, o in pairwise(self.spec.g_widths))
        return Work(flops, item * self.features, "row", span=item * self.features * ROWS_PER_CALL)

    def noise(self) -> np.ndarray:
        """Return the noise that fastgan draws for the rows of a call, float32 ``[ROWS_PER_CALL, latent]``."""
        return noise.normal(SEED, noise.Stream.SAMPLES, 0, ROWS_PER_CALL, self.latent)
