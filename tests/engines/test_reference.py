"""The reference engine in float64 is the literal GAN, and its gradients are finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.cases import CASES, STEPS, engine_at, initial, later, setting
from helpers.compare import assert_close, largest_difference
from helpers.literal import LiteralGan
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan.config import Config, preset
from fastgan.engines.reference import ReferenceEngine
from fastgan.noise import Stream

TOLERANCE = 1e-10  # all cases agree to 1.4e-12


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
