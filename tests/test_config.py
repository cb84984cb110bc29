"""Options: ranges, choices, combinations, presets, JSON, schedules."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from fastgan.config import LOSSES, PRESETS, Config, flag, preset
from fastgan.errors import UserError

FIELDS = {f.name: f for f in dataclasses.fields(Config)}
NUMBERS = [f for f in FIELDS.values() if f.type in ("int", "float")]
WIDTHS = [f for f in FIELDS.values() if f.type == "tuple[int, ...]"]
CHOICES = [f for f in FIELDS.values() if f.metadata["choices"]]
SWITCHES = [f for f in FIELDS.values() if f.type == "bool"]


def name_of(field: dataclasses.Field) -> str:
    return field.name


def config(**options) -> Config:
    """The article's recipe, which goes with every other option, with some options changed."""
    where = (
        dict(fused=True, device="cuda")
        if {"device", "precision", "design", "data_on", "graph"} & options.keys()
        else {}
    )
    return Config(**preset("article") | where | options)


def refused(field: dataclasses.Field, value) -> str:
    with pytest.raises(UserError) as caught:
        config(**{field.name: value})
    message = str(caught.value)
    assert message.startswith(f"--{field.name.replace('_', '-')}: got {value!r}; wanted")
    assert "\n" not in message
    return message


# ---- single options


def test_every_option_is_declared_in_full():
    kinds = {f.name: f.type for f in FIELDS.values()}
    assert set(kinds.values()) == {"int", "float", "bool", "str", "tuple[int, ...]"}
    for field in FIELDS.values():
        assert field.metadata["help"], field.name
        if field in NUMBERS or field in WIDTHS:
            assert field.metadata["low"] < field.metadata["high"], field.name


@pytest.mark.parametrize("field", NUMBERS, ids=name_of)
def test_both_ends_of_a_range_are_accepted(field):
    for value in (field.metadata["low"], field.metadata["high"]):
        got = getattr(config(**{field.name: value}), field.name)
        assert got == value
        assert type(got).__name__ == field.type


@pytest.mark.parametrize("field", NUMBERS, ids=name_of)
def test_outside_of_a_range(field):
    low, high = field.metadata["low"], field.metadata["high"]
    for value in (low - 1, high + 1, -1e300, 1e300, math.nan, math.inf, -math.inf):
        message = refused(field, value)
        assert f"from {low:g} to {high:g}" in message


@pytest.mark.parametrize("field", NUMBERS, ids=name_of)
@pytest.mark.parametrize("value", [True, "1", None, [1], 1j])
def test_no_number(field, value):
    refused(field, value)


@pytest.mark.parametrize("field", [f for f in NUMBERS if f.type == "int"], ids=name_of)
def test_whole_numbers(field):
    assert getattr(config(**{field.name: 7.0}), field.name) == 7
    assert "a whole number" in refused(field, field.metadata["low"] + 0.5)


@pytest.mark.parametrize("field", WIDTHS, ids=name_of)
def test_widths(field):
    for value in ((1,), [4096, 1], [3] * 16, (5.0,)):
        got = getattr(config(**{field.name: value}), field.name)
        assert got == tuple(value)
        assert all(type(width) is int for width in got)
    for value in ((), [1] * 17, 128, "128", None, {128}):
        assert "1 to 16 widths" in refused(field, value)
    for width in (0, 4097, 1.5, "8", True):
        with pytest.raises(UserError, match=f"^{flag(field.name)}: .*a whole number from 1 to 4096"):
            config(**{field.name: (8, width)})


@pytest.mark.parametrize("field", CHOICES, ids=name_of)
def test_choices(field):
    for value in field.metadata["choices"]:
        assert getattr(config(**{field.name: value}), field.name) == value
        misspelt = value[:-1]
        message = refused(field, misspelt)
        assert "one of " + ", ".join(field.metadata["choices"]) in message
        assert message.endswith(f"Did you mean '{value}'?")
    assert "Did you mean" not in refused(field, "qqqqqqqq")
    for value in (1, None, ""):
        refused(field, value)


@pytest.mark.parametrize("field", SWITCHES, ids=name_of)
def test_switches(field):
    for value in (True, False):
        assert getattr(config(**{field.name: value}), field.name) is value
    for value in (0, 1, "true", None):
        assert "true or false" in refused(field, value)


@pytest.mark.parametrize("value", ["", None, 3])
def test_data_is_a_text(value):
    assert "a non-empty text" in refused(FIELDS["data"], value)


def test_options_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().batch = 3


# ---- combinations


def test_smoothing_needs_a_target():
    with pytest.raises(UserError, match=r"--label-smoothing with --loss rpgan.*0\.1.*Use --loss bce"):
        Config(label_smoothing=0.1)
    for loss in set(LOSSES) - {"rpgan"}:
        assert Config(label_smoothing=0.1, loss=loss).label_smoothing == 0.1


def test_cuda_is_a_fused_engine_and_its_options_are_its_own():
    with pytest.raises(UserError, match="--device cuda: got no --fused; wanted --fused"):
        Config(device="cuda")
    given = {"--precision bf16": dict(precision="bf16"), "--no-graph": dict(graph=False)}
    given |= {"--data-on host": dict(data_on="host"), "--design layered": dict(design="layered")}
    for wrong, options in given.items():
        with pytest.raises(UserError, match=f"{wrong}: got --device cpu; wanted --device cuda"):
            Config(fused=True, **options)
        assert Config(fused=True, device="cuda", **options).device == "cuda"
    with pytest.raises(UserError, match="--precision: got 'fp8'; wanted one of ieee, tf32, tf32x3, bf16"):
        Config(fused=True, device="cuda", precision="fp8")


@pytest.mark.parametrize(("r1", "r2", "expected"), [(0, 0, False), (1, 0, True), (0, 1, True), (3, 3, True)])
def test_has_penalty(r1, r2, expected):
    assert Config(r1=r1, r2=r2).has_penalty is expected


# ---- presets, JSON


def test_presets_are_those_of_the_study():
    default, article = (Config(**preset(name)) for name in ("default", "article"))
    assert (default.loss, default.r1, default.r2, default.penalty_every) == ("rpgan", 3.0, 3.0, 4)
    assert (default.g_lr, default.d_lr, default.beta1, default.beta2) == (2e-3, 2e-3, 0.5, 0.999)
    assert (default.g_schedule, default.d_schedule) == ("linear", "linear")
    assert (default.decay_from, default.decay_to) == (0.5, 0.1)
    assert (default.ema, default.reuse_fakes) == (0.999, True)
    assert (article.loss, article.has_penalty, article.ema) == ("bce", False, 0.0)
    assert (article.g_lr, article.d_lr, article.beta1, article.beta2) == (2e-4, 2e-4, 0.9, 0.999)
    assert (article.g_schedule, article.d_schedule) == ("constant", "constant")
    assert (article.batch, article.steps, article.d_steps, article.reuse_fakes) == (128, 10_000, 1, False)
    for recipe in (default, article):
        assert (recipe.latent, recipe.g_hidden, recipe.d_hidden) == (100, (128, 128), (128, 128))
        assert (recipe.slope, recipe.head, recipe.label_smoothing) == (0.2, "sigmoid", 0.0)


def test_unknown_preset():
    with pytest.raises(UserError, match=r"^--preset: got 'articel'; .*Did you mean 'article'\?"):
        preset("articel")
    assert set(PRESETS) == {"default", "article"}


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name):
    before = Config(**preset(name) | dict(g_hidden=(7, 8, 9), seed=2**63 - 1, g_lr=1 / 3, data="a/b ü.npy"))
    text = before.to_json()
    after = Config.from_dict(json.loads(text))
    assert after == before
    assert list(json.loads(text)) == list(FIELDS)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"^run/options.json: option 'bacth': .*Did you mean 'batch'\?"):
        Config.from_dict({"bacth": 3}, "run/options.json")


# ---- schedules


def test_linear_schedule_by_hand():
    c = Config(steps=100, decay_from=0.5, decay_to=0.1)
    factors = {0: 1.0, 49: 1.0, 50: 1.0, 51: 1 - 0.9 / 50, 75: 0.55, 99: 0.1 + 0.9 / 50, 100: 0.1, 500: 0.1}
    for step, expected in factors.items():
        assert c.lr_factor("linear", step) == pytest.approx(expected, rel=1e-15)


def test_cosine_schedule_by_hand():
    c = Config(steps=80, decay_from=0.25, decay_to=0.2)
    for step, expected in {0: 1, 20: 1, 35: 0.6 + 0.4 * math.sqrt(0.5), 50: 0.6, 80: 0.2, 81: 0.2}.items():
        assert c.lr_factor("cosine", step) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedule_edges(schedule):
    assert Config(steps=1).lr_factor(schedule, 0) == 1.0
    never = Config(steps=10, decay_from=1.0, decay_to=0.0)
    assert [never.lr_factor(schedule, s) for s in range(10)] == [1.0] * 10
    at_once = Config(steps=10, decay_from=0.0, decay_to=0.0)
    factors = [at_once.lr_factor(schedule, s) for s in range(11)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert min(factors[:10]) > 0.0  # no step of the run is wasted
    assert factors[10] == (1.0 if schedule == "constant" else 0.0)


def test_ema_decay_by_hand():
    c = Config(ema=0.99, ema_warmup=10)
    for step, expected in {0: 0.1, 1: 2 / 11, 8: 0.5, 889: 890 / 899, 890: 0.99, 10_000: 0.99}.items():
        assert c.ema_decay(step) == pytest.approx(expected, rel=1e-15)
    assert [Config(ema=0.99, ema_warmup=1).ema_decay(s) for s in (0, 5)] == [0.99, 0.99]
    assert [Config(ema=0.0).ema_decay(s) for s in (0, 5)] == [0.0, 0.0]


def test_flags():
    assert flag("g_lr") == "--g-lr"
    assert flag("batch") == "--batch"
