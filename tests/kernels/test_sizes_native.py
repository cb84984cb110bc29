"""Sizes of nothing, at the native module: refused where there must be something, or nothing is done."""

from __future__ import annotations

import numpy as np
import pytest
from fastgan.kernels.cpu import native
from helpers.parity import ISAS  # noqa: F401 (skips where there is no native module)

OPTIONS = dict(latent=2, features=3, classes=0, g_hidden=[4], slope=0.2, head=1, batch=16)
TRAINED = OPTIONS | dict(d_hidden=[4], loss=0, target=1.0, r1=0.0, r2=0.0, penalty_every=1, d_steps=1)
TRAINED |= dict(reuse_fakes=False, beta1=0.5, beta2=0.9, eps=1e-8, average=False)
NOTHING = [
    (name, value)
    for name, values in dict(
        latent=[0, -1],
        features=[0, -1],
        classes=[-1],
        g_hidden=[[], [0], [4, 0]],
        batch=[0, -1],
        threads=[0, -1],
    ).items()
    for value in values
]


@pytest.mark.parametrize(("name", "value"), NOTHING)
def test_a_sampler_without_sizes_is_refused(name, value):
    options = OPTIONS | {"threads": 1, name: value}
    with pytest.raises(ValueError, match=name):
        native().Sampler(options, options.pop("threads"))


@pytest.mark.parametrize(
    ("name", "value"), [*NOTHING, ("d_hidden", []), ("d_hidden", [0]), ("penalty_every", 0), ("d_steps", 0)]
)
def test_an_engine_without_sizes_is_refused(name, value):
    options = TRAINED | {"threads": 1, name: value}
    with pytest.raises(ValueError, match=name):
        native().Engine(options, np.zeros((5, 3), np.uint8), None, 1.0, 0.0, options.pop("threads"))


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (np.zeros((0, 3), np.uint8), None, "rows"),
        (np.zeros((5, 2), np.uint8), None, "rows: as many columns"),
        (np.zeros(15, np.uint8), None, "rows"),
        (np.zeros((5, 3)), None, "rows"),
        (np.zeros((5, 3), np.uint8), np.zeros(4, np.int64), "labels"),
        (np.zeros((5, 3), np.uint8), np.zeros(5), "labels"),
        (np.zeros((5, 3), np.uint8), None, "labels"),
    ],
)
def test_an_engine_refuses_data_that_do_not_fit(rows, labels, message):
    classes = 0 if labels is None and message != "labels" else 2
    with pytest.raises(ValueError, match=message):
        native().Engine(TRAINED | {"classes": classes}, rows, labels, 1.0, 0.0, 1)


def test_arrays_of_no_elements_are_filled():
    for shape in ((0, 3), (3, 0), (0, 0)):
        native().words(0, 0, 0, np.empty(shape, np.uint32))
        native().normal(0, 0, 0, np.empty(shape, np.float32))
    native().epoch_index(0, 0, 1, np.empty(0, np.int64))
    sampler = native().Sampler(OPTIONS, 2)
    for rows in (0, np.empty(0, np.int64)):
        sampler.rows(0, 4, rows, None, np.empty((0, 3), np.uint8), 1.0, 0.0)
    for peak in (native().fma, native().tile_fma):
        with pytest.raises(ValueError, match="threads"):
            peak(0, 1000)
        assert peak(2, 0) == 0
