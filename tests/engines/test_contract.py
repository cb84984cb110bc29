"""What callers of an engine rely on: copies, continuing, stopping, metrics, the choice of an engine."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers.cases import BCE, CASES, engine_at, initial, setting
from helpers.compare import assert_identical
from helpers.stopping import assert_a_signal_handler_stops_in_a_good_state, assert_another_thread_stops

from fastgan import engines
from fastgan.engines.protocol import METRICS
from fastgan.engines.reference import ReferenceEngine
from fastgan.errors import UserError
from fastgan.state import State

# ---- continuing


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_continuing_is_bit_equal(make_data, case):
    config, data = setting(make_data, case)
    state = initial(config, data)
    through = engine_at(config, data, state, torch.float32)
    metrics = through.run(5)
    first = engine_at(config, data, state, torch.float32)
    before = first.run(2)
    second = engine_at(config, data, first.export(), torch.float32)
    after = second.run(3)
    np.testing.assert_array_equal(np.concatenate([before, after]), metrics)
    assert_identical(second.export().tensors, through.export().tensors)
    assert (second.export().step, second.export().seed) == (5, state.seed)


def test_loading_again_starts_over(make_data):
    config, data = setting(make_data, {})
    state = initial(config, data)
    engine = engine_at(config, data, state)
    first = engine.run(3)
    once = engine.export()
    engine.load(state)
    np.testing.assert_array_equal(engine.run(3), first)
    assert_identical(engine.export().tensors, once.tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_load_and_export_copy(make_data, dtype):
    config, data = setting(make_data, {})
    state = initial(config, data)
    untouched = {k: v.clone() for k, v in state.tensors.items()}
    engine = engine_at(config, data, state, dtype)
    before = engine.export()
    before_run = {k: v.clone() for k, v in before.tensors.items()}
    engine.run(2)
    assert_identical(state.tensors, untouched)
    assert_identical(before.tensors, before_run)
    for tensor in (*state.tensors.values(), *before.tensors.values()):
        tensor.fill_(torch.nan)
    exported = engine.export().tensors
    assert all(t.isfinite().all() for t in exported.values())
    assert all(t.dtype == dtype and not t.requires_grad for t in exported.values())
    engine.export().check(engine.spec)


def test_a_foreign_state_is_refused(make_data):
    config, data = setting(make_data, {})
    state = initial(*setting(make_data, dict(d_hidden=(6, 4))))
    with pytest.raises(UserError, match=r"discriminator\.layers\.1"):
        ReferenceEngine(config, data).load(state)


def test_data_is_left_alone(make_data):
    config, data = setting(make_data, {}, dtype="float32")
    before = data.rows.copy()
    data.rows.flags.writeable = False
    engine_at(config, data, initial(config, data), torch.float32).run(2)
    np.testing.assert_array_equal(data.rows, before)


def test_training_does_not_touch_the_global_generator(make_data):
    config, data = setting(make_data, {})
    torch.manual_seed(1)
    before = torch.get_rng_state()
    engine = ReferenceEngine(config, data)
    engine.load(initial(config, data))
    torch.set_rng_state(before)
    np.random.seed(1)
    first = engine.run(2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(2)
    engine.load(initial(config, data))
    np.testing.assert_array_equal(engine.run(2), first)


# ---- stopping


def test_stop_from_another_thread(make_data):
    config, data = setting(make_data, {})
    assert_another_thread_stops(engine_at(config, data, initial(config, data)))


def test_stop_from_a_signal_handler_leaves_a_good_state(make_data):
    config, data = setting(make_data, {})
    state = initial(config, data)
    assert_a_signal_handler_stops_in_a_good_state(lambda: engine_at(config, data, state))


# ---- metrics


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_metrics_have_a_row_a_step(make_data, steps):
    config, data = setting(make_data, {})
    metrics = engine_at(config, data, initial(config, data)).run(steps)
    assert metrics.shape == (steps, len(METRICS))
    assert metrics.dtype == np.float32


def with_constant_logit(config, data, logit: float) -> State:
    state = initial(config, data)
    for name, tensor in state.part("discriminator").items():
        tensor.fill_(logit if name.endswith(f"{len(config.d_hidden)}.bias") else 0.0)
    return state


@pytest.mark.parametrize(
    ("loss", "d_loss", "g_loss"),
    [
        ("bce", math.log(4), math.log(2)),
        ("minimax", math.log(4), -math.log(2)),
        ("rpgan", math.log(2), math.log(2)),
    ],
)
def test_losses_of_an_undecided_discriminator(make_data, loss, d_loss, g_loss):
    # At the smallest rates, the generator's step still meets an undecided discriminator.
    config, data = setting(make_data, dict(loss=loss, d_lr=1e-12, g_lr=1e-12))
    state = with_constant_logit(config, data, 0.0)
    got = dict(zip(METRICS, engine_at(config, data, state).run(1)[0].tolist(), strict=True))
    assert got == pytest.approx(
        dict(d_loss=d_loss, g_loss=g_loss, penalty=0.0, d_real_acc=0.0, d_fake_acc=0.0, d_pair_acc=0.0)
    )


@pytest.mark.parametrize(("logit", "on_real", "on_fake"), [(5.0, 1.0, 0.0), (-5.0, 0.0, 1.0)])
def test_accuracies_of_a_constant_discriminator(make_data, logit, on_real, on_fake):
    config, data = setting(make_data, BCE)
    got = engine_at(config, data, with_constant_logit(config, data, logit)).run(1)[0]
    assert got[METRICS.index("d_real_acc")] == on_real
    assert got[METRICS.index("d_fake_acc")] == on_fake
    assert got[METRICS.index("d_pair_acc")] == 0.0
    assert got[METRICS.index("d_loss")] == pytest.approx(math.log1p(math.exp(5)) + math.log1p(math.exp(-5)))


@pytest.mark.parametrize(
    ("options", "steps_with_penalty"),
    [
        (dict(penalty_every=4), [0, 4, 8]),
        (dict(penalty_every=1), list(range(9))),
        (dict(penalty_every=4, r1=0.0), [0, 4, 8]),
        (dict(penalty_every=4, r1=0.0, r2=0.0), []),
        # Every other discriminator step; the last of three is number 3 s + 2.
        (dict(penalty_every=2, d_steps=3), [0, 2, 4, 6, 8]),
        (dict(penalty_every=3, d_steps=3), []),
    ],
)
def test_penalty_is_nan_at_steps_without_one(make_data, options, steps_with_penalty):
    config, data = setting(make_data, options)
    penalty = engine_at(config, data, initial(config, data)).run(9)[:, METRICS.index("penalty")]
    assert np.flatnonzero(np.isfinite(penalty)).tolist() == steps_with_penalty
    assert (penalty[steps_with_penalty] > 0).all()


def test_penalty_is_not_multiplied_by_its_interval(make_data):
    values = []
    for every in (1, 4):
        config, data = setting(make_data, dict(penalty_every=every))
        values.append(engine_at(config, data, initial(config, data)).run(1)[0, METRICS.index("penalty")])
    assert values[0] == values[1]


# ---- choosing an engine


def test_create_gives_the_reference(make_data):
    config, data = setting(make_data, {})
    engine = engines.create(config, data)
    assert isinstance(engine, ReferenceEngine)
    assert engine.name == "reference"
    assert engine.dtype == torch.float32


def test_create_refuses_labels_that_are_not_there(make_data):
    config, data = setting(make_data, dict(condition=True), classes=0)
    with pytest.raises(UserError, match=r"--condition with --data"):
        engines.create(config, data)


def test_create_refuses_data_outside_of_the_head(make_data):
    config, data = setting(make_data, {}, dtype="float32")
    data.rows[3, 2] = 1.5
    with pytest.raises(UserError, match=r"--head sigmoid: got values from 0 to 1\.5"):
        engines.create(config, data)
    engines.create(dataclasses.replace(config, head="linear"), data)
