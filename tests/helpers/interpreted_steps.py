"""Whole steps of the CUDA engine on the CPU, by Triton's interpreter, held to the parity contract."""

from __future__ import annotations

from dataclasses import replace

from fastgan import parity
from helpers.cases import BCE, CASES, make_data, setting

WHOLE = {
    **{name: CASES[name] for name in ("article", "default", "penalties between steps")},
    "conditional, tanh, smoothed minimax, 2 D steps": BCE
    | dict(condition=True, head="tanh", loss="minimax", label_smoothing=0.3, d_steps=2, reuse_fakes=False),
    "conditional, R1 every step": dict(condition=True, r2=0.0, penalty_every=1, ema=0.0),
    "several tiles, odd sizes": dict(latent=34, g_hidden=(33,), d_hidden=(35,), batch=34, features=33),
    "beyond a row-fused tile": dict(latent=129, g_hidden=(5,), d_hidden=(131, 3), batch=17, features=130),
    "float32 data, linear head": dict(head="linear", dtype="float32", features=13, rows=5),
    "width 1, batch 1": dict(batch=1, g_hidden=(1,), d_hidden=(1,), latent=1, features=1, r1=0.0),
}


DESIGNS = ("layered", "row-fused")


def engine_for(config, data, precision="ieee", design="layered"):
    from fastgan.engines.cuda import CudaEngine

    options = dict(fused=True, device="cuda", precision=precision, design=design)
    return CudaEngine(replace(config, **options), data, "cpu")


def small(case):
    data = {k: case[k] for k in ("rows", "features", "dtype") if k in case}
    return setting(make_data, {k: v for k, v in case.items() if k not in data}, **data)


def breaches(config, data, state, steps, design):
    """Return the rows of the parity table that break the contract."""
    found = parity.traces(config, data, lambda c, d: engine_for(c, d, design=design), [state], steps)
    return [row for row in parity.judge(config, found, steps) if not row.ok]
