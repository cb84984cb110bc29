"""The reference engine against the literal GAN; the contract: copies, continuing, stopping, metrics."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.compare import assert_close, assert_identical, largest_difference
from helpers.literal import LiteralGan
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan import engines
from fastgan.config import Config, preset
from fastgan.engines.protocol import METRICS
from fastgan.engines.reference import ReferenceEngine
from fastgan.errors import UserError
from fastgan.noise import Stream
from fastgan.state import State

STEPS = 5
TOLERANCE = (
    1e-10  # all cases agree to 1.4e-12; the smallest mistake below, an epsilon off by 1%, moves 1.8e-9
)
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


def setting(make_data, case: dict, **data_options) -> tuple[Config, object]:
    config = Config(**SMALL | dict(loss="rpgan") | case)
    return config, make_data(**dict(classes=3 if config.condition else 0) | data_options)


def engine_at(config, data, state: State, dtype=torch.float64, kind=ReferenceEngine) -> ReferenceEngine:
    engine = kind(config, data, dtype)
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


def assert_same_training(engine: ReferenceEngine, literal: LiteralGan, steps: int = STEPS) -> None:
    got, expected = engine.run(steps), np.array(literal.run(steps))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)  # metrics are float32
    assert_close(engine.export().tensors, literal.tensors(), TOLERANCE)
    assert engine.export().step == literal.step


# ---- the same training


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_matches_the_literal_gan(make_data, case):
    config, data = setting(make_data, case)
    state = initial(config, data)
    assert_same_training(engine_at(config, data, state), LiteralGan(config, data, state))


@pytest.mark.parametrize("case", ["default", "article", "3 D steps, fresh fakes", "conditional"])
def test_matches_the_literal_gan_from_a_later_state(make_data, case):
    config, data = setting(make_data, CASES[case] | dict(steps=20))
    state = later(config, data)
    assert_same_training(engine_at(config, data, state), LiteralGan(config, data, state))


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_data_smaller_than_a_batch(make_data, rows, dtype):
    config, data = setting(make_data, {}, rows=rows, features=1, dtype=dtype)
    state = initial(config, data)
    assert_same_training(engine_at(config, data, state), LiteralGan(config, data, state))


WIDTHS = st.lists(st.integers(1, 7), min_size=1, max_size=3)
OPTIONS = st.fixed_dictionaries(
    dict(
        latent=st.integers(1, 5),
        g_hidden=WIDTHS,
        d_hidden=WIDTHS,
        slope=st.sampled_from([0.0, 0.2, 0.7]),
        head=st.sampled_from(["sigmoid", "tanh", "linear"]),
        condition=st.booleans(),
        loss=st.sampled_from(["rpgan", "bce", "minimax"]),
        r1=st.sampled_from([0.0, 1.0, 3.0]),
        r2=st.sampled_from([0.0, 0.5, 3.0]),
        penalty_every=st.integers(1, 3),
        d_steps=st.integers(1, 3),
        reuse_fakes=st.booleans(),
        batch=st.integers(1, 6),
        beta1=st.sampled_from([0.0, 0.5, 0.9]),
        g_schedule=st.sampled_from(["constant", "linear", "cosine"]),
        d_schedule=st.sampled_from(["constant", "linear", "cosine"]),
        decay_from=st.sampled_from([0.0, 0.5, 1.0]),
        ema=st.sampled_from([0.0, 0.5, 0.999]),
        steps=st.just(3),
    )
)


@settings(max_examples=40)
@given(OPTIONS, st.integers(1, 12), st.integers(0, 2**63 - 1))
def test_matches_the_literal_gan_under_any_options(make_data, options, features, seed):
    config, data = setting(make_data, options, features=features)
    state = initial(config, data, seed)
    assert_same_training(engine_at(config, data, state), LiteralGan(config, data, state), steps=3)


def test_float32_is_float64_to_rounding(make_data):
    config, data = setting(make_data, preset("article") | dict(eps=1e-4))
    state = initial(config, data)
    single, double = (engine_at(config, data, state, dtype) for dtype in (torch.float32, torch.float64))
    np.testing.assert_allclose(single.run(STEPS), double.run(STEPS), rtol=1e-5)
    difference = largest_difference(single.export().tensors, double.export().tensors)
    assert 1e-10 < difference < 1e-5


# ---- gradients by finite differences: independent of autograd, too


def d_total(values: dict[str, np.ndarray], x: np.ndarray, fake: np.ndarray, config: Config) -> float:
    """The discriminator's loss with penalties in NumPy; input gradients by the chain of masked matrices."""

    def logits_and_norms(rows):
        layers = len(values) // 2
        h, slopes = rows, []
        for i in range(layers):
            h = h @ values[f"layers.{i}.weight"].T + values[f"layers.{i}.bias"]
            if i < layers - 1:
                slopes.append(np.where(h > 0, 1.0, config.slope))
                h = h * slopes[-1]
        v = np.ones((len(rows), 1))
        for i in reversed(range(layers)):
            v = v @ values[f"layers.{i}.weight"]
            if i:
                v = v * slopes[i - 1]
        return h[:, 0], (v**2).sum(1).mean()

    (real, real_norm), (generated, fake_norm) = logits_and_norms(x), logits_and_norms(fake)
    if config.loss == "rpgan":
        loss = np.log1p(np.exp(generated - real)).mean()
    else:
        loss = np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(generated)).mean()
    return loss + config.penalty_every * (config.r1 / 2 * real_norm + config.r2 / 2 * fake_norm)


@pytest.mark.parametrize("loss", ["rpgan", "bce"])
def test_discriminator_gradients_are_finite_differences(make_data, loss):
    config, data = setting(make_data, dict(loss=loss, r1=2.0, r2=3.0, penalty_every=2, d_hidden=(5, 4, 3)))
    state = initial(config, data)
    engine = engine_at(config, data, state)
    x, _ = engine._real_batch(0)
    with torch.no_grad():
        fake = engine.generator(engine._noise(Stream.D_NOISE, 0))
    engine.run(1)
    # From zero moments, the first moment after one step is the gradient times 1 - beta1.
    moments = engine.export().part("exp_avg.discriminator")
    values = {k: v.double().numpy() for k, v in state.part("discriminator").items()}
    for name, moment in moments.items():
        for index in np.ndindex(values[name].shape):
            here, around = values[name][index], []
            for step in (1e-6, -1e-6):
                values[name][index] = here + step
                around.append(d_total(values, x.numpy(), fake.numpy(), config))
            values[name][index] = here
            expected = (around[0] - around[1]) / 2e-6
            assert moment[index].item() / (1 - config.beta1) == pytest.approx(expected, abs=2e-8), (
                name,
                index,
            )


# ---- the comparison can fail: one small mistake at a time


def wrong_slope(engine, monkeypatch, network="discriminator"):
    getattr(engine, network).slope = 0.2001


def wrong_generator_slope(engine, monkeypatch):
    wrong_slope(engine, monkeypatch, "generator")


def swapped_targets(engine, monkeypatch):
    bce = F.binary_cross_entropy_with_logits
    monkeypatch.setattr(F, "binary_cross_entropy_with_logits", lambda x, target: bce(x, 1 - target))


def swapped_pairs(engine, monkeypatch):
    softplus = F.softplus
    monkeypatch.setattr(F, "softplus", lambda x: softplus(-x))


def dropped_bias_gradient(engine, monkeypatch):
    engine.discriminator.layers[0].bias.register_hook(torch.zeros_like)


def dropped_generator_bias_gradient(engine, monkeypatch):
    engine.generator.layers[-1].bias.register_hook(torch.zeros_like)


def stale_moment(engine, monkeypatch, moment="exp_avg_sq"):
    update, p = engine._update, engine.discriminator.layers[1].weight

    def forgetful(name, loss):
        before = engine._adam["discriminator"].state[p][moment].clone()
        update(name, loss)
        engine._adam["discriminator"].state[p][moment].copy_(before)

    monkeypatch.setattr(engine, "_update", forgetful)


def stale_first_moment(engine, monkeypatch):
    stale_moment(engine, monkeypatch, "exp_avg")


def changed(**options):
    """The engine runs with other options than it should."""

    def mutate(engine, monkeypatch):
        engine.config = dataclasses.replace(engine.config, **options)

    mutate.__name__ = ", ".join(f"{k}={v}" for k, v in options.items())
    return mutate


def missing_penalty_weight(engine, monkeypatch):
    c = engine.config
    engine.config = dataclasses.replace(c, r1=c.r1 / c.penalty_every, r2=c.r2 / c.penalty_every)


def real_rows_shifted(engine, monkeypatch):
    real = engine._real_batch
    monkeypatch.setattr(engine, "_real_batch", lambda update: real(update + 1))


def pairs_shifted(engine, monkeypatch):
    noise = engine._noise
    monkeypatch.setattr(engine, "_noise", lambda *a: noise(*a).roll(1, 0))


def streams_swapped(engine, monkeypatch):
    noise = engine._noise
    monkeypatch.setattr(engine, "_noise", lambda stream, update: noise(Stream(1 - stream), update))


def label_off_by_one(engine, monkeypatch):
    engine.labels = (engine.labels + 1) % 3


def wrong_epsilon(engine, monkeypatch):
    engine._adam["generator"].param_groups[0]["eps"] *= 1.01


def wrong_beta(engine, monkeypatch):
    engine._adam["discriminator"].param_groups[0]["betas"] = (0.5, 0.998)


def bias_correction_restarted(engine, monkeypatch):
    for p in engine.discriminator.parameters():
        engine._adam["discriminator"].state[p]["step"].fill_(0.0)


MUTATIONS = [
    ("default", wrong_slope),
    ("article", wrong_slope),
    ("article", wrong_generator_slope),
    ("article", swapped_targets),
    ("default", swapped_pairs),
    ("article", dropped_bias_gradient),
    ("default", dropped_bias_gradient),
    ("default", dropped_generator_bias_gradient),
    ("default", stale_moment),
    ("default", stale_first_moment),
    ("default", missing_penalty_weight),
    ("default", changed(r1=0.0)),
    ("default", changed(r2=0.0)),
    ("default", changed(penalty_every=5)),
    ("default", changed(reuse_fakes=False)),
    ("default", changed(d_schedule="constant")),
    ("default", changed(ema_warmup=11.0)),
    ("default", wrong_epsilon),
    ("default", wrong_beta),
    ("minimax", changed(loss="bce")),
    ("smoothed", changed(label_smoothing=0.0)),
    ("default", real_rows_shifted),
    ("default", pairs_shifted),
    ("article", streams_swapped),
    ("conditional", label_off_by_one),
    ("3 D steps, fresh fakes", bias_correction_restarted),
]


@pytest.mark.parametrize(("case", "mutate"), MUTATIONS, ids=[f"{c}: {m.__name__}" for c, m in MUTATIONS])
def test_a_mistake_is_seen(make_data, monkeypatch, case, mutate):
    config, data = setting(make_data, CASES[case] | dict(steps=20))
    state = later(config, data)
    engine, literal = engine_at(config, data, state), LiteralGan(config, data, state)
    mutate(engine, monkeypatch)
    engine.run(STEPS)
    literal.run(STEPS)
    with pytest.raises(AssertionError, match="of elements off"):
        assert_close(engine.export().tensors, literal.tensors(), TOLERANCE)


# ---- the contract of engines


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
    engine = engine_at(config, data, initial(config, data))
    timer = threading.Timer(0.2, engine.stop)
    timer.start()
    metrics = engine.run(10**9)
    timer.join()
    assert 0 < len(metrics) < 10**9
    assert engine.export().step == len(metrics)
    assert np.isfinite(metrics[:, :2]).all()


def test_stop_from_a_signal_handler_leaves_a_good_state(make_data):
    config, data = setting(make_data, {})
    state = initial(config, data)
    engine = engine_at(config, data, state)
    previous = signal.signal(signal.SIGALRM, lambda *_: engine.stop())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        done = len(engine.run(10**9))
    finally:
        signal.signal(signal.SIGALRM, previous)
    again = engine_at(config, data, state)
    again.run(done)
    assert_identical(engine.export().tensors, again.export().tensors)
    assert len(engine.run(3)) == 3  # the stop is spent


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
