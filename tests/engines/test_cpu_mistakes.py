"""The comparison of the native engine with the reference can fail: one small mistake at a time."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.cases import CASES, later, setting
from helpers.parity import native

from fastgan import parity
from fastgan.engines.cpu import CpuEngine


def changed(**options):
    """The engine runs with other options than it should."""

    def mutate(config, data):
        config = dataclasses.replace(config)
        for name, value in options.items():
            object.__setattr__(config, name, value)  # unchecked
        return CpuEngine(config, data)

    mutate.__name__ = ", ".join(f"{k}={v}" for k, v in options.items())
    return mutate


def touched(name, touch, before=True):
    """Before or after each step of the engine, some tensors of its state become what they should not."""

    def mutate(config, data):
        engine = native(config, data)
        run = engine.run

        def one_by_one(steps):
            metrics = []
            for _ in range(steps):
                old = engine.export()
                if before:
                    state = engine.export()
                    touch(state.tensors, old.tensors)
                    engine.load(state)
                metrics.append(torch.from_numpy(run(1)))
                if not before:
                    state = engine.export()
                    touch(state.tensors, old.tensors)
                    engine.load(state)
            return torch.cat(metrics).numpy()

        engine.run = one_by_one
        return engine

    mutate.__name__ = name
    return mutate


def zero(key):
    return lambda new, old: new[key].zero_()


def keep(*keys):
    return lambda new, old: new.update({key: old[key] for key in keys})


def bias(layer):
    return [f"{kind}{layer}.bias" for kind in ("", "exp_avg.", "exp_avg_sq.")]


def shifted_rows(config, data):
    return native(config, dataclasses.replace(data, rows=data.rows[::-1].copy()))


def shifted_labels(config, data):
    return native(config, dataclasses.replace(data, labels=(data.labels + 1) % 3))


def other_seed(config, data):
    engine = native(config, data)
    load = engine.load
    engine.load = lambda state: load(dataclasses.replace(state, seed=state.seed + 1))
    return engine


def more(key):
    return lambda new, old: new[key].add_(1e-4)


FIRST, SECOND = "exp_avg.discriminator.layers.1.weight", "exp_avg_sq.generator.layers.0.weight"
MUTATIONS = [
    ("default", changed(slope=0.201)),
    ("article", changed(slope=0.201)),
    ("default", touched("stale first moment", keep(FIRST), before=False)),
    ("default", touched("stale second moment", keep(SECOND), before=False)),
    ("article", touched("stale second moment", keep(SECOND), before=False)),
    ("default", touched("first moment lost", zero(FIRST))),
    ("default", touched("second moment lost", zero(SECOND))),
    (
        "default",
        touched("no gradient of D's first bias", keep(*bias("discriminator.layers.0")), before=False),
    ),
    ("article", touched("no gradient of D's last bias", keep(*bias("discriminator.layers.2")), before=False)),
    (
        "default",  # with pairs, there is none; only the moment shows it
        touched("a gradient of D's last bias", more("exp_avg.discriminator.layers.2.bias"), before=False),
    ),
    ("default", touched("no gradient of G's last bias", keep(*bias("generator.layers.2")), before=False)),
    ("default", touched("stale average", keep("ema.layers.1.weight"), before=False)),
    ("article", changed(label_smoothing=1.0)),  # real rows have the target of generated ones
    ("smoothed", changed(label_smoothing=0.0)),
    ("smoothed", changed(label_smoothing=0.1001)),
    ("minimax", changed(loss="bce")),
    ("default", changed(loss="bce")),
    ("default", changed(r1=0.0)),
    ("default", changed(r2=2.99)),
    ("default", changed(penalty_every=3)),
    ("default", changed(reuse_fakes=False)),
    ("article", changed(reuse_fakes=True)),
    ("3 D steps, fresh fakes", changed(d_steps=2)),
    ("default", changed(d_schedule="constant")),
    ("default", changed(g_lr=0.010001)),
    ("default", changed(ema_warmup=11.0)),
    ("default", changed(ema=0.0)),
    ("default", changed(beta1=0.501)),
    ("default", changed(beta2=0.9991)),
    ("other Adam", changed(eps=2e-4)),
    ("tanh", changed(head="linear")),
    ("default", shifted_rows),
    ("conditional", shifted_labels),
    ("default", other_seed),
]


@pytest.mark.parametrize(("case", "mutate"), MUTATIONS, ids=[f"{c}: {m.__name__}" for c, m in MUTATIONS])
def test_a_mistake_breaks_the_contract(make_data, case, mutate):
    config, data = setting(make_data, CASES[case] | dict(steps=20))
    states = [later(config, data, step) for step in (7, 8, 12)]
    right, wrong = (
        parity.judge(config, parity.traces(config, data, engine, states)) for engine in (native, mutate)
    )
    assert all(row.ok for row in right)
    assert not all(row.ok for row in wrong)


@pytest.mark.parametrize("name", ["default recipe", "article recipe"])
@pytest.mark.parametrize(
    "mutate",
    [
        changed(slope=0.21),
        changed(loss="minimax"),
        touched("no bias", keep(*bias("generator.layers.1")), before=False),
        touched("stale moment", keep(FIRST), before=False),
    ],
)
def test_a_mistake_breaks_the_contract_of_the_recipes(name, mutate):
    config, data = parity.case(name)
    states = [later(config, data, step) for step in (7, 8, 12)]
    assert not all(r.ok for r in parity.judge(config, parity.traces(config, data, mutate, states)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_breaks_the_contract(make_data, bad):
    config, data = setting(make_data, {})
    states = [later(config, data, step) for step in (7, 8, 12)]

    def spoil(new, old):
        new["generator.layers.0.weight"][0, 0] = bad

    rows = parity.judge(config, parity.traces(config, data, touched("spoilt", spoil, before=False), states))
    assert not any(row.ok for row in rows)
