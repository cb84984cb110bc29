"""A step cut by the data's columns gives the bits of one cut by rows, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.cases import BCE, initial, setting
from helpers.compare import assert_identical
from helpers.parity import ISAS, native_at

from fastgan.config import preset
from fastgan.engines import cpu as engine

ROWS, COLUMNS = 1, 2  # kernels/cpu/plan.h: Cut
STEPS = 6

WIDE = dict(latent=66, g_hidden=(70, 100), d_hidden=(100, 65))
CASES = {
    "default": dict(batch=37),
    "article": preset("article") | dict(batch=150) | WIDE,
    "penalties every other step": dict(batch=131, penalty_every=2, reuse_fakes=False) | WIDE,
    "R2, tanh": dict(batch=40, r1=0.0, r2=3.0, penalty_every=1, head="tanh"),
    "labels, minimax": BCE | dict(batch=128, condition=True, loss="minimax") | WIDE,
    "labels, penalties": dict(batch=33, condition=True, penalty_every=2),
    "one hidden layer, one row": dict(batch=1, g_hidden=(20,), d_hidden=(17,), penalty_every=1),
}
FEATURES = [41, 801, 1300]  # in blocks of a sum, vectors and tiles: 1 and 1, 3 and 2, 5 and 4


def run(monkeypatch, config, data, cut: int, threads: int):
    plain = engine.native_spec
    with monkeypatch.context() as patch:
        patch.setattr(engine, "native_spec", lambda *args: plain(*args) | {"cut": cut})
        found = native_at(config, data, initial(config, data), threads)
    return found.run(STEPS), found.export().tensors


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", CASES)
def test_columns_give_the_bits_of_rows(make_data, monkeypatch, name, features, isa):
    monkeypatch.setenv("FASTGAN_ISA", isa)
    dtype = "float32" if features == 41 else "uint8"
    config, data = setting(make_data, CASES[name], features=features, dtype=dtype)
    metrics, tensors = run(monkeypatch, config, data, ROWS, 1)
    for threads in (1, 2, 3, 4, 5):
        got, found = run(monkeypatch, config, data, COLUMNS, threads)
        np.testing.assert_array_equal(got, metrics)
        assert_identical(found, tensors)
