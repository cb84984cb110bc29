"""The CUDA engine on a GPU: captures, replays, parity, memory, long runs. Has not run anywhere yet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.compare import assert_identical

from fastgan import engines, parity
from fastgan.config import Config, preset
from fastgan.data import load
from fastgan.engines import cuda_data
from fastgan.state import State

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

EXACT = ["ieee"] if torch.version.hip else ["ieee", "tf32x3"]
CUDA = dict(fused=True, device="cuda")
DESIGNS = ("layered", "row-fused")
RECIPES = {"default": {}, "article": preset("article"), "seldom penalties": dict(penalty_every=40, d_steps=3)}


def engine_for(config, data, **options):
    return engines.create(replace(config, **CUDA, **options), data)


def started(config, data, **options):
    engine = engine_for(config, data, **options)
    engine.load(State.initial(engine.spec, 3))
    return engine


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("precision", [*EXACT, "tf32", "bf16"])
@pytest.mark.parametrize("design", DESIGNS)
def test_replays_equal_launches_one_by_one(digits, recipe, precision, design):
    config, options = Config(**RECIPES[recipe]), dict(precision=precision, design=design)
    captured, launched = (started(config, digits, **options, graph=g) for g in (True, False))
    for steps in (1, 50, 7):  # blocks, and steps before and after
        np.testing.assert_array_equal(captured.run(steps), launched.run(steps))
    assert_identical(captured.export().tensors, launched.export().tensors)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("design", DESIGNS)
def test_a_capture_leaves_the_state_as_it_was(digits, recipe, design):
    engine = engine_for(Config(**RECIPES[recipe]), digits, design=design)
    state = State.initial(engine.spec, 3)
    engine.load(state)
    assert_identical(engine.export().tensors, state.tensors)


@pytest.mark.parametrize("design", DESIGNS)
def test_a_poisoned_replay_writes_all_that_it_reads(digits, design):
    clean, poisoned = (started(Config(), digits, design=design) for _ in range(2))
    for _ in range(3):
        for scratch in (poisoned.buffers.workspace, poisoned.buffers.metrics):
            scratch.fill_(torch.nan)
        np.testing.assert_array_equal(poisoned.run(21), clean.run(21))
    assert_identical(poisoned.export().tensors, clean.export().tensors)


def test_the_same_bits_every_time_and_after_a_checkpoint(digits):
    whole, pieces = (started(Config(), digits) for _ in range(2))
    whole.run(60)
    pieces.run(23)
    resumed = engine_for(Config(), digits)
    resumed.load(pieces.export())
    resumed.run(37)
    assert_identical(resumed.export().tensors, whole.export().tensors)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("steps", [1, 5, 48], ids="windows of {} steps".format)
def test_streamed_rows_are_the_rows(digits, recipe, steps, monkeypatch):
    """Rows that come while kernels run, in one run and the next, are bit by bit those that are there."""
    config = Config(**RECIPES[recipe])
    row = digits.rows.shape[1] * digits.rows.itemsize
    monkeypatch.setattr(cuda_data, "_WINDOW_BYTES", steps * config.d_steps * config.batch * row)
    resident, streamed = (started(config, digits, data_on=place) for place in ("device", "host"))
    assert f"rows from host memory for {steps} steps at a time" in streamed.describe()
    for count in (1, 300, 7, 200):
        np.testing.assert_array_equal(streamed.run(count), resident.run(count))
    assert_identical(streamed.export().tensors, resident.export().tensors)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("precision", EXACT)
@pytest.mark.parametrize("name", parity.CASES)
def test_parity(name, precision, design):
    config, data = parity.case(name)
    spec = started(config, data).spec
    states = [State.initial(spec, seed) for seed in parity.SEEDS[:3]]
    options = dict(precision=precision, design=design)
    found = parity.traces(config, data, lambda c, d: engine_for(c, d, **options), states)
    assert [row for row in parity.judge(config, found) if not row.ok] == []


@pytest.mark.parametrize(("precision", "digits_kept"), [("tf32", 10), ("bf16", 7)])
def test_a_first_step_is_as_close_as_its_precision(digits, precision, digits_kept):
    config = Config(**preset("article"))
    losses = [started(config, digits, precision=p).run(1)[0, :2] for p in ("ieee", precision)]
    error = np.abs(losses[0] - losses[1]).max()
    assert 0 < error < 4 * 2.0**-digits_kept


def test_new_options_are_captured_anew(digits):
    engine = started(Config(), digits)
    engine.run(20)
    state, config = engine.export(), replace(engine.config, batch=96, beta1=0.3)
    engine.config = config
    fresh = engines.create(config, digits)
    fresh.load(state)
    np.testing.assert_array_equal(engine.run(20), fresh.run(20))


def test_memory_does_not_grow(digits):
    engine = started(Config(), digits)
    engine.run(100)
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        engine.run(100)
    assert torch.cuda.memory_allocated() == before
    assert engine.memory["buffers"] <= torch.cuda.memory_allocated()
    assert engine.memory["graphs"] < 64 << 20


@pytest.mark.parametrize("recipe", ["article", "default"])
@pytest.mark.parametrize("design", DESIGNS)
def test_a_long_run_has_the_statistics_of_the_native_engine(digits, recipe, design):
    """Beyond some 20 steps only these can agree: losses and accuracies, means over the last 500 of 2,000."""
    config = Config(**RECIPES[recipe], steps=2000)
    native = []
    for seed in (3, 4, 5):
        engine = engines.create(replace(config, fused=True, seed=seed), digits)
        engine.load(State.initial(engine.spec, seed))
        native.append(engine.run(2000)[-500:, [0, 1, 3, 4, 5]].mean(0))
    mine = started(config, digits, design=design).run(2000)
    assert np.isfinite(mine[:, :2]).all()
    spread = np.ptp(native, axis=0) + 0.05 * np.abs(np.mean(native, axis=0))
    assert (np.abs(mine[-500:, [0, 1, 3, 4, 5]].mean(0) - np.mean(native, axis=0)) <= 3 * spread).all()
