"""The comparison with the literal GAN can fail: one small mistake at a time."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from helpers.cases import CASES, STEPS, engine_at, later, setting
from helpers.compare import assert_close
from helpers.literal import LiteralGan

from fastgan.noise import Stream

TOLERANCE = 1e-10  # that of test_reference.py; the smallest mistake, an epsilon off by 1%, moves 1.8e-9


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
