"""The parity contract of engines, as numbers: how far one strays from the reference in float64, beside how
far PyTorch itself strays in float32.

From one state, after 1 and 5 steps, the largest difference of a parameter is at most twice PyTorch's, plus
a few roundings; so are those of Adam's first and second moments, and that of every loss; accuracies and the
steps with a penalty are equal. Rounding decides
now and then on which side of zero the input of a LeakyReLU falls, which moves a gradient by a row's share, in
one engine and not in the other. So a case is its median over three states.

Beyond some 20 steps training is chaotic: longer runs can be compared by their statistics only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgan import noise
from fastgan.config import Config, preset
from fastgan.data.schema import Data, Schema
from fastgan.engines.protocol import METRICS, Engine
from fastgan.engines.reference import ReferenceEngine
from fastgan.spec import ModelSpec
from fastgan.state import State

STEPS = (1, 5)
SEEDS = (0, 1, 2, 3, 4)
FACTOR = 2.0
MOMENTS = ("exp_avg", "exp_avg_sq")
ROUNDINGS = 4.0  # the floor: so many float32 roundings of the largest value compared

_EPS = float(np.finfo(np.float32).eps)
_LOSSES = ("d_loss", "g_loss", "penalty")

#: What ``python -m fastgan.check`` compares: options, features of the data, and its dtype. The two recipes
#: are as they are shipped; the others have an epsilon that keeps Adam from turning roundings into steps.
CASES: dict[str, tuple[dict, int, str]] = {
    "default recipe": (preset("default"), 784, "uint8"),
    "article recipe": (preset("article"), 784, "uint8"),
    "conditional, tanh": (dict(condition=True, head="tanh", batch=48, eps=1e-6), 64, "uint8"),
    "minimax, smoothed, R1": (
        dict(loss="minimax", label_smoothing=0.1, r2=0.0, penalty_every=1, eps=1e-6),
        64,
        "uint8",
    ),
    "odd sizes": (
        dict(latent=13, g_hidden=(100, 33), d_hidden=(50, 17, 5), batch=37, eps=1e-6),
        51,
        "float32",
    ),
    "deep, 3 D steps": (
        dict(latent=7, g_hidden=(15, 16, 17, 18), d_hidden=(31,), d_steps=3, reuse_fakes=False, eps=1e-6),
        20,
        "float32",
    ),
    "one row": (dict(batch=1, g_hidden=(64,), d_hidden=(64,), head="linear", eps=1e-6), 30, "float32"),
    "2048 rows": (dict(batch=2048, latent=8, g_hidden=(48, 48), d_hidden=(48, 48), eps=1e-6), 100, "uint8"),
}


@dataclass(frozen=True)
class Trace:
    """What an engine did from a state: metrics of all steps, states after some of them."""

    metrics: np.ndarray
    states: tuple[State, ...]


@dataclass(frozen=True)
class Traces:
    """The same training by the reference in float64, in float32, and by the engine in question."""

    truth: Trace
    pytorch: Trace
    engine: Trace


@dataclass(frozen=True)
class Distance:
    """A distance of an engine from the truth, that of PyTorch, and the floor."""

    pytorch: float
    engine: float
    floor: float

    @property
    def share(self) -> float:
        """The distance as a share of what the contract allows."""
        allowed = FACTOR * self.pytorch + self.floor
        if not allowed:
            return 0.0 if self.engine == 0 else math.inf
        return self.engine / allowed


@dataclass(frozen=True)
class Row:
    """One line of the table: the median over states of a case after some steps, and what else was wrong."""

    steps: int
    parameters: Distance
    moments: tuple[Distance, Distance]
    loss: float
    wrong: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the contract holds; a NaN is a breach."""
        within = (d.share <= 1.0 for d in (self.parameters, *self.moments))
        return all(within) and not self.wrong


def trace(engine: Engine, state: State, steps: Sequence[int] = STEPS) -> Trace:
    """Run an engine from ``state`` and keep its state after each number of steps."""
    engine.load(state)
    metrics, states, done = [], [], 0
    for mark in steps:
        metrics.append(engine.run(mark - done))
        states.append(engine.export())
        done = mark
    return Trace(np.concatenate(metrics), tuple(states))


def traces(
    config: Config,
    data: Data,
    engine: Callable[[Config, Data], Engine],
    states: Sequence[State],
    steps: Sequence[int] = STEPS,
) -> list[Traces]:
    """Train from each state by the reference in float64 and float32 and by an engine."""
    double, single = (ReferenceEngine(config, data, dtype) for dtype in (torch.float64, torch.float32))
    mine = engine(config, data)
    return [Traces(*(trace(e, s, steps) for e in (double, single, mine))) for s in states]


def judge(config: Config, found: Sequence[Traces], steps: Sequence[int] = STEPS) -> list[Row]:
    """Return what the contract says, one row for each number of steps."""
    rows = []
    for i, done in enumerate(steps):
        distances, losses, wrong = ([], [], []), [], []
        for t in found:
            states = [x.states[i] for x in (t.truth, t.pytorch, t.engine)]
            distances[0].append(distance(*(compared(config, s) for s in states)))
            for some, moment in zip(distances[1:], MOMENTS, strict=True):
                some.append(distance(*(s.part(moment) for s in states)))
            metrics = [x.metrics[:done] for x in (t.truth, t.pytorch, t.engine)]
            losses.append(max(_loss_distances(metrics[0], metrics[2])))
            wrong.append(tuple(wrong_metrics(*metrics)))
        parameters, *moments = (
            _middle(some, lambda d: math.inf if math.isnan(d.share) else d.share) for some in distances
        )
        loss = _middle(losses, lambda x: math.inf if math.isnan(x) else x)
        rows.append(Row(done, parameters, tuple(moments), loss, _middle(wrong, len)))
    return rows


def compared(config: Config, state: State) -> dict[str, Tensor]:
    """Return the parameters and the average, which the contract is about, besides the moments.

    With pairs, no loss depends on the discriminator's output bias: its gradient is zero, of which float32
    makes some 1e-9, and Adam a whole step. That would be PyTorch's largest difference and hide all others.
    What the gradient was is in the moments, unscaled, and there this bias is compared as all others are.
    """
    without = f"discriminator.layers.{len(config.d_hidden)}.bias" if config.loss == "rpgan" else ""
    kinds = ("generator.", "discriminator.", "ema.")
    return {k: v for k, v in state.tensors.items() if k.startswith(kinds) and k != without}


def distance(
    truth: Mapping[str, Tensor], pytorch: Mapping[str, Tensor], engine: Mapping[str, Tensor]
) -> Distance:
    """Return the largest absolute differences from ``truth``, over all its tensors."""
    largest = max(v.abs().max().item() for v in truth.values())
    return Distance(largest_difference(pytorch, truth), largest_difference(engine, truth), _floor(largest))


def largest_difference(got: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> float:
    """Return the largest absolute difference over all tensors of ``truth``; NaN if there is one."""
    return max(
        ((got[k].double() - v.double()).abs().max().item() for k, v in truth.items()),
        key=lambda x: math.inf if math.isnan(x) else x,
    )


def wrong_metrics(truth: np.ndarray, pytorch: np.ndarray, engine: np.ndarray) -> list[str]:
    """Return a line for every column of metrics that breaks the contract."""
    lines = []
    distances = (_loss_distances(truth, x) for x in (pytorch, engine))
    for name, plain, mine in zip(_LOSSES, *distances, strict=True):
        wanted = truth[:, METRICS.index(name)]
        allowed = FACTOR * plain + _floor(np.nanmax(np.abs(wanted), initial=1.0))
        if not mine <= allowed:
            lines.append(f"{name}: {engine[:, METRICS.index(name)]}, wanted {wanted}, within {allowed:.1e}")
    for i, name in enumerate(METRICS):
        if name not in _LOSSES and not _within(truth[:, i], pytorch[:, i], engine[:, i]):
            lines.append(f"{name}: {engine[:, i]}, wanted {truth[:, i]}")
    return lines


def case(name: str, labels: int = 5, rows: int = 300) -> tuple[Config, Data]:
    """Return the options of one of ``CASES`` and random rows for it."""
    options, features, dtype = CASES[name]
    config = Config(**options)
    values = noise.words(0, noise.Stream.SAMPLES, 0, rows, features) >> 24
    if dtype == "float32":
        values = (values / np.float32(255)).astype(np.float32)
    schema = Schema("array", (features,), dtype, tuple(f"class {i}" for i in range(labels)))
    return config, Data(values.astype(dtype), np.arange(rows) % labels, schema, "random", "random rows")


def table(engine: Callable[[Config, Data], Engine]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of every case of ``CASES`` by its name."""
    for name in CASES:
        config, data = case(name)
        spec = ModelSpec.of(config, data.schema.features, len(data.schema.classes))
        states = [State.initial(spec, seed) for seed in SEEDS]
        for row in judge(config, traces(config, data, engine, states)):
            yield name, row


def _loss_distances(truth: np.ndarray, got: np.ndarray) -> list[float]:
    """Return the largest difference of each loss; NaN where a penalty is missing or should be."""
    out = []
    for i in (METRICS.index(name) for name in _LOSSES):
        wanted, mine = truth[:, i].astype(np.float64), got[:, i].astype(np.float64)
        here = ~np.isnan(wanted)
        same = np.array_equal(here, ~np.isnan(mine))
        out.append(np.abs(mine - wanted)[here].max(initial=0.0) if same else math.nan)
    return out


def _within(truth: np.ndarray, pytorch: np.ndarray, engine: np.ndarray) -> bool:
    """Whether shares of rows are equal; a row that rounding decides may differ where PyTorch's does, too."""
    return bool(np.abs(engine - truth).sum() <= FACTOR * np.abs(pytorch - truth).sum())


def _floor(largest: float) -> float:
    return ROUNDINGS * _EPS * largest


def _middle(values: Sequence, key: Callable):
    return sorted(values, key=key)[len(values) // 2]
