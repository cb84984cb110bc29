"""Small GANs that between them use every option, and states to start them from."""

from __future__ import annotations

import numpy as np
import torch

from fastgan.config import Config, preset
from fastgan.data.schema import Data, Schema
from fastgan.engines.reference import ReferenceEngine
from fastgan.state import State

STEPS = 5
SMALL = dict(latent=3, g_hidden=(5, 4), d_hidden=(6, 3), batch=6, steps=STEPS, g_lr=0.01, d_lr=0.02)
# With pairs, the discriminator's output bias has a gradient of zero, which rounding makes some 1e-17. Adam's
# usual epsilon of 1e-8 turns that into a visible step; this one does not.
SMALL |= dict(eps=1e-6)
BCE = dict(loss="bce", r1=0.0, r2=0.0)

CASES = {
    "default": {},
    "article": preset("article"),
    "minimax": BCE | dict(loss="minimax"),
    "smoothed": BCE | dict(label_smoothing=0.1),
    "smoothed minimax": BCE | dict(loss="minimax", label_smoothing=0.3, reuse_fakes=False),
    "R1 every step": BCE | dict(r1=2.0, penalty_every=1),
    "R2 every other step": dict(r1=0.0, r2=5.0, penalty_every=2),
    "penalties between steps": dict(r1=1.0, r2=2.0, penalty_every=3, d_steps=2),
    "3 D steps, fresh fakes": dict(d_steps=3, reuse_fakes=False),
    "3 D steps, reused fakes": BCE | dict(d_steps=3),
    "conditional": dict(condition=True),
    "conditional article": preset("article") | dict(condition=True),
    "conditional minimax, R1, 2 D steps": dict(
        condition=True, loss="minimax", r1=1.0, r2=0.0, d_steps=2, reuse_fakes=False
    ),
    "cosine G, constant D": dict(g_schedule="cosine", d_schedule="constant", decay_from=0.2, decay_to=0.3),
    "linear from the start to zero": dict(decay_from=0.0, decay_to=0.0),
    "no moving average": dict(ema=0.0),
    "moving average without warm-up": dict(ema=0.9, ema_warmup=1.0),
    "other Adam": dict(beta1=0.0, beta2=0.9, eps=1e-4),
    "tanh": dict(head="tanh"),
    "linear head": dict(head="linear"),
    "slope 0": dict(slope=0.0),
    "slope 1": dict(slope=1.0),
    "batch 1": dict(batch=1),
    "width 1": dict(g_hidden=(1,), d_hidden=(1,), latent=1),
    "deep": dict(g_hidden=(3, 4, 2, 3), d_hidden=(4,), slope=0.5),
}


def make_data(rows: int = 37, features: int = 9, *, dtype: str = "uint8", classes: int = 0) -> Data:
    """Return random rows, each different, the same every time."""
    random = np.random.default_rng(rows * 1000 + features)
    values = random.integers(0, 256, (rows, features)).astype(np.uint8)
    if dtype == "float32":
        values = (values / np.float32(255)).astype(np.float32)
    labels = np.arange(rows, dtype=np.int64) % classes if classes else None
    schema = Schema("array", (features,), dtype, tuple(f"class {i}" for i in range(classes)))
    return Data(values, labels, schema, "tiny", "a test")


def setting(make_data, case: dict, **data_options) -> tuple[Config, Data]:
    config = Config(**SMALL | dict(loss="rpgan") | case)
    return config, make_data(**dict(classes=3 if config.condition else 0) | data_options)


def engine_at(config, data, state: State, dtype=torch.float64) -> ReferenceEngine:
    engine = ReferenceEngine(config, data, dtype)
    engine.load(state)
    return engine


def initial(config, data, seed: int = 3) -> State:
    return State.initial(ReferenceEngine(config, data).spec, seed)


def later(config, data, step: int = 7) -> State:
    """A state as after some steps, with moments of a plausible size and an average that lags behind."""
    state, random = initial(config, data), torch.Generator().manual_seed(5)
    for name, value in state.tensors.items():
        r = torch.randn(value.shape, generator=random)
        if name.startswith("exp_avg."):
            state.tensors[name] = 0.1 * r
        elif name.startswith("exp_avg_sq."):
            state.tensors[name] = 0.01 * r * r + 1e-4
        elif name.startswith("ema."):
            state.tensors[name] = value + 0.1 * r
    state.step = step
    return state
