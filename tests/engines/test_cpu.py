"""The native engine follows the reference: the parity contract, case by case and tensor by tensor."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.cases import BCE, CASES, later, setting
from helpers.parity import ISAS, breaches, native
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from fastgan import parity
from fastgan.config import Config, preset
from fastgan.data.schema import Data, Schema
from fastgan.engines.protocol import METRICS
from fastgan.engines.reference import ReferenceEngine
from fastgan.spec import ModelSpec
from fastgan.state import State

FEW = dict(g_hidden=(8,), d_hidden=(8,), latent=5)
SHAPES = {
    **{f"width {w}": dict(g_hidden=(w, w), d_hidden=(w, w)) for w in (15, 16, 17, 100)},
    "width 300": dict(g_hidden=(300,), d_hidden=(300, 20), batch=3),
    "widths 1024 and 4096": dict(g_hidden=(1024, 7), d_hidden=(4096, 5), batch=3),
    "width 4096": dict(g_hidden=(4096,), d_hidden=(3, 4096), batch=2),
    "wide and narrow": dict(g_hidden=(40, 1, 33), d_hidden=(1, 65, 2)),
    "depth 1": dict(g_hidden=(20,), d_hidden=(20,)),
    "depth 4": dict(g_hidden=(20, 19, 18, 17), d_hidden=(17, 18, 19, 20)),
    **{f"batch {b}": dict(batch=b) for b in (2, 7, 15, 16, 17, 31, 97, 128, 257)},
    # Large enough for the tile unit, where there is one: whole tiles, and others.
    "batch 256, wide": dict(batch=256, g_hidden=(128, 64), d_hidden=(64, 128), latent=64, features=96),
    "batch 301, wide": dict(batch=301, g_hidden=(70, 130), d_hidden=(130, 75), latent=66, features=145),
    "batch 1, pairs, wide": dict(batch=1, g_hidden=(100,), d_hidden=(100,)),
    "batch 3000": FEW | dict(batch=3000),
    "batch 3000, BCE": FEW | BCE | dict(batch=3000),
    **{f"latent {z}": dict(latent=z) for z in (1, 2, 6, 16, 18, 37, 100)},
    "wide data": dict(features=401, batch=17),
    "one column": dict(features=1),
    "16 columns, 3 classes": dict(features=16, condition=True),
    "17 columns, 3 classes, float32": dict(features=17, condition=True, dtype="float32"),
    "float32": dict(dtype="float32", features=13),
    "float32 tanh": dict(dtype="float32", head="tanh"),
    "float32 linear head": dict(dtype="float32", head="linear", features=33),
    "slope 1, without penalties": dict(slope=1.0, r1=0.0, r2=0.0, batch=60),
    "one data row": dict(rows=1, batch=5),
    "an epoch in a batch": dict(rows=7, batch=40),
}


def states_of(config, data, seeds=parity.SEEDS) -> list[State]:
    spec = ModelSpec.of(config, data.schema.features, len(data.schema.classes))
    return [State.initial(spec, seed) for seed in seeds]


def small(make_data, case: dict):
    data = {k: case[k] for k in ("rows", "features", "dtype") if k in case}
    return setting(make_data, {k: v for k, v in case.items() if k not in data}, **data)


# ---- parity


@pytest.mark.parametrize("case", [*CASES.values(), *SHAPES.values()], ids=[*CASES, *SHAPES])
def test_parity(make_data, case):
    config, data = small(make_data, case)
    assert breaches(config, data, states_of(config, data)) == []


@pytest.mark.parametrize("name", CASES)
def test_parity_from_a_later_state(make_data, name):
    config, data = setting(make_data, CASES[name] | dict(steps=20))
    states = [later(config, data, step) for step in (7, 8, 12)]
    assert breaches(config, data, states) == []


@pytest.mark.parametrize("name", parity.CASES)
def test_parity_of_the_cases_that_users_check(name):
    config, data = parity.case(name)
    rows = parity.judge(config, parity.traces(config, data, native, states_of(config, data)))
    assert [row for row in rows if not row.ok] == []


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["default", "conditional article", "tanh"])
def test_parity_on_every_instruction_set(make_data, monkeypatch, isa, name):
    monkeypatch.setenv("FASTGAN_ISA", isa)
    shape = dict(g_hidden=(37, 18), d_hidden=(35, 17, 5), batch=29, latent=19)
    config, data = setting(make_data, CASES[name] | shape, features=43)
    assert breaches(config, data, states_of(config, data)) == []


WIDTHS = st.lists(
    st.one_of(st.integers(1, 70), st.sampled_from([15, 16, 17, 31, 33, 48])), min_size=1, max_size=4
)
OPTIONS = st.fixed_dictionaries(
    dict(
        latent=st.integers(1, 50),
        g_hidden=WIDTHS,
        d_hidden=WIDTHS,
        slope=st.sampled_from([0.0, 0.2, 0.4]),
        head=st.sampled_from(["sigmoid", "tanh", "linear"]),
        condition=st.booleans(),
        loss=st.sampled_from(["rpgan", "bce", "minimax"]),
        r1=st.sampled_from([0.0, 1.0, 3.0]),
        r2=st.sampled_from([0.0, 0.5, 3.0]),
        penalty_every=st.integers(1, 3),
        d_steps=st.integers(1, 3),
        reuse_fakes=st.booleans(),
        batch=st.integers(1, 64),
        g_lr=st.sampled_from([1e-4, 1e-2]),
        d_lr=st.sampled_from([1e-4, 1e-2]),
        beta1=st.sampled_from([0.0, 0.5, 0.9]),
        eps=st.sampled_from([1e-6, 1e-4]),
        g_schedule=st.sampled_from(["constant", "linear", "cosine"]),
        d_schedule=st.sampled_from(["constant", "linear", "cosine"]),
        decay_from=st.sampled_from([0.0, 0.5, 1.0]),
        ema=st.sampled_from([0.0, 0.5, 0.999]),
        steps=st.just(5),
    )
)


@settings(max_examples=60)
@given(OPTIONS, st.integers(1, 60), st.sampled_from(["uint8", "float32"]), st.integers(0, 2**63 - 3))
def test_parity_under_any_options(make_data, options, features, dtype, seed):
    config = Config(**options)
    data = make_data(rows=37, features=features, dtype=dtype, classes=3 if config.condition else 0)
    # Without the contract itself: among so many options are nets so small, and gradients so near to zero,
    # that PyTorch's difference is luck.
    states = states_of(config, data, range(seed, seed + 3))
    assert breaches(config, data, states, contract=False) == []


# ---- long runs: statistics


@pytest.fixture(scope="module")
def digits() -> Data:
    pixels = (load_digits().data * 15.9375).astype(np.uint8)
    return Data(pixels, None, Schema("image", (8, 8), "uint8"), "digits", "scikit-learn")


@pytest.mark.parametrize("recipe", ["default", "article"])
def test_long_runs_have_the_same_statistics(digits, recipe):
    size = dict(latent=16, g_hidden=(32, 32), d_hidden=(32, 32), batch=64, steps=300)
    config = Config(**preset(recipe) | size | dict(g_lr=2e-3, d_lr=2e-3))
    (state,) = states_of(config, digits, [1])
    wanted, got = (parity.trace(e(config, digits), state, [300]) for e in (ReferenceEngine, native))
    meaningless = ("d_real_acc", "d_fake_acc") if config.loss == "rpgan" else ("penalty", "d_pair_acc")
    for name in set(METRICS) - set(meaningless):
        i = METRICS.index(name)
        a, b = (np.nanmean(x.metrics[100:, i]) for x in (got, wanted))
        assert a == pytest.approx(b, rel=0.05, abs=0.01), name
    for name, value in wanted.states[0].tensors.items():
        if name.endswith("weight") and not name.startswith("exp"):
            spread = got.states[0].tensors[name].std().item()
            assert spread == pytest.approx(value.std().item(), rel=0.05), name
