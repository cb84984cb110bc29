"""What is measured: cases, contenders, and the rows of the table with their targets (issue 3)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from bench.protocol import STEPS, Recorded
from fastgan import noise
from fastgan.config import Config, preset
from fastgan.cost import estimate
from fastgan.data.schema import Data, Schema
from fastgan.models import ModelSpec

ROWS = 10_000  # of the training data
SEED = 0
EXPORT_EVERY = 100  # steps between a load and an export


@dataclass(frozen=True)
class Case:
    """One training problem; both networks have two hidden layers of the same width."""

    batch: int = 128
    recipe: str = "article"
    threads: int = 2
    hidden: int = 128
    latent: int = 100
    features: int = 784

    @cached_property
    def config(self) -> Config:
        """Return the options of fastgan for this case."""
        hidden = (self.hidden, self.hidden)
        options = dict(batch=self.batch, latent=self.latent, g_hidden=hidden, d_hidden=hidden)
        return Config(**preset(self.recipe) | options | dict(threads=self.threads, seed=SEED, fused=True))

    @cached_property
    def spec(self) -> ModelSpec:
        """Return the shapes of both networks."""
        return ModelSpec.of(self.config, self.features, 0)

    @property
    def flops(self) -> float:
        """Flops of the matrix products of one step; a multiply-add counts as two."""
        return estimate(self.config, self.spec, 0).flops

    @property
    def row_flops(self) -> float:
        """Flops of the matrix products of one generated row."""
        widths = self.spec.g_widths
        return 2.0 * sum(i * o for i, o in pairwise(widths))

    @cached_property
    def data(self) -> Data:
        """Random bytes: what fastgan trains from, converting them in the step."""
        random = np.random.default_rng(SEED)
        rows = random.integers(0, 256, (ROWS, self.features), dtype=np.uint8)
        return Data(rows, None, Schema("array", (self.features,), "uint8"), "random", "random bytes")

    @cached_property
    def floats(self) -> np.ndarray:
        """The same rows, converted beforehand, float32 in [0, 1]: what the peers train from."""
        return self.data.rows.astype(np.float32) * np.float32(1.0 / 255.0)

    def recorded(self) -> list[Recorded]:
        """Return the batches and the noise that fastgan draws in its first steps (article recipe)."""
        b = self.batch
        return [
            Recorded(
                self.floats[noise.epoch_index(SEED, s * b, b, ROWS)],
                noise.normal(SEED, noise.Stream.D_NOISE, s * b, b, self.latent),
                noise.normal(SEED, noise.Stream.G_NOISE, s * b, b, self.latent),
            )
            for s in range(STEPS)
        ]


@dataclass(frozen=True)
class Contender:
    """A peer at work on a case."""

    peer: str
    case: Case

    def __str__(self) -> str:
        c = self.case
        shape = "" if (c.hidden, c.features) == (128, 784) else f", hidden {c.hidden}, data {c.features}"
        return f"{self.peer}: batch {c.batch}{shape}, {c.recipe}, {c.threads} thread{'s' * (c.threads > 1)}"

    @property
    def work(self) -> float:
        """Flops in one unit (a step; a row; for the peak, one flop)."""
        if self.peer == "FMA peak":
            return 1.0
        return self.case.row_flops if "rows" in self.peer or "generator" in self.peer else self.case.flops


@dataclass(frozen=True)
class Row:
    """One line of the table: ``scale * seconds(top) / seconds(bottom)`` within ``[low, high]``."""

    title: str
    top: Contender
    bottom: Contender
    low: float | None = None
    high: float | None = None
    scale: float = 1.0
    percent: bool = False


@dataclass(frozen=True)
class Group:
    """Rows whose contenders are measured in turn, round by round."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)

    @property
    def contenders(self) -> list[Contender]:
        """All of them, each once, in the order of the rows."""
        return list(dict.fromkeys(c for row in self.rows for c in (row.bottom, row.top)))


PEER_TARGETS = {  # batch: (JAX, eager, both compiled forms)
    32: (2.0, 4.5, 4.5, 4.5),
    128: (1.5, 2.4, 2.4, 2.4),
    512: (1.4, 1.9, 1.9, 1.9),
}
PEERS = {
    "jax": "JAX jit + lax.scan",
    "eager": "torch eager, Adam(fused=True)",
    "compile": "torch.compile",
    "compile whole": "torch.compile, one graph",
}


def groups(batches: list[int], threads: int) -> list[Group]:
    """Return the whole table. A batch that issue 3 does not name is measured without targets."""
    base = Case(threads=threads)
    return [
        *(_peers(replace(base, batch=b)) for b in batches),
        *(_recipe(replace(base, batch=b)) for b in batches),
        _limits(base),
        _odd(base),
        *(_width(replace(base, hidden=w)) for w in (256, 512)),
        *([_threads(base)] if threads == 2 else []),
        _generate(base),
        _calls(base),
    ]


def _peers(case: Case) -> Group:
    fastgan = Contender("fastgan", case)
    targets = PEER_TARGETS.get(case.batch, (None,) * len(PEERS))
    rows = [
        Row(f"{title} / fastgan", Contender(peer, case), fastgan, low=target)
        for (peer, title), target in zip(PEERS.items(), targets, strict=True)
    ]
    return Group("peers", f"time of peers / time of fastgan, batch {case.batch}", rows)


def _recipe(case: Case) -> Group:
    default, article = (Contender("fastgan", replace(case, recipe=r)) for r in ("default", "article"))
    row = Row("default recipe / article recipe", default, article, high=1.3)
    return Group("recipe", f"time of recipes, batch {case.batch}", [row])


def _limits(case: Case) -> Group:
    fastgan, alone = Contender("fastgan", case), Contender("fastgan", replace(case, threads=1))
    peak, peak_alone = (Contender("FMA peak", c.case) for c in (fastgan, alone))
    share = dict(scale=case.flops, percent=True)
    rows = [
        Row("plain SGEMM of its shapes / whole step", Contender("SGEMM of the step", case), fastgan, 1.0),
        Row("step's share of the FMA peak", peak, fastgan, 0.8, **share),
        Row("step's share of the FMA peak, 1 thread", peak_alone, alone, **share),
    ]
    return Group(
        "limits", f"limits of the machine, batch {case.batch}", rows if case.threads > 1 else rows[:2]
    )


def _odd(base: Case) -> Group:
    odd = Contender("fastgan", replace(base, hidden=100, batch=100, features=50))
    even = Contender("fastgan", replace(base, hidden=96, batch=96, features=48, latent=96))
    row = Row("GFLOP/s of odd / round", even, odd, 0.75, scale=odd.work / even.work, percent=True)
    return Group("odd", "odd shapes (hidden 100, batch 100, data 50) against round ones (96, 96, 48)", [row])


def _width(case: Case) -> Group:
    row = Row(f"{PEERS['jax']} / fastgan", Contender("jax", case), Contender("fastgan", case), 1.3)
    return Group("widths", f"hidden width {case.hidden}, batch {case.batch}", [row])


def _threads(case: Case) -> Group:
    one, two = (Contender("fastgan", replace(case, threads=n)) for n in (1, 2))
    return Group("threads", "threads", [Row("time of 1 thread / 2 threads", one, two, 1.8, 2.0)])


def _generate(case: Case) -> Group:
    limit = Contender("SGEMM of the generator", case)
    rows = []
    for dtype in ("uint8", "float32"):
        fastgan = Contender(f"fastgan rows, {dtype}", case)
        rows.append(Row(f"speed of {dtype} rows / plain SGEMM", limit, fastgan, 0.85, percent=True))
    return Group("generate", "generation of rows", rows)


def _calls(case: Case) -> Group:
    long = Contender("fastgan", case)
    rounds = f"load + {EXPORT_EVERY} steps + export"
    rows = [
        Row("a call per step / one long call", Contender("fastgan, a call per step", case), long, high=1.1),
        Row(f"{rounds} / the steps alone", Contender(f"fastgan, {rounds}", case), long, high=1.1),
    ]
    return Group("calls", f"overhead of calls, batch {case.batch}", rows)
