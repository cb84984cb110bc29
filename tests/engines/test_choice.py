"""Who runs the step: the engine that was asked for, or one line that says why not."""

import sys

import numpy as np
import pytest

from fastgan import engines
from fastgan.config import Config
from fastgan.data.schema import Data, Schema
from fastgan.errors import UserError


def data() -> Data:
    return Data(np.zeros((4, 6), dtype=np.uint8), None, Schema("array", (6,), "uint8"), "zeros", "zeros")


def test_the_reference_is_the_default_and_fused_asks_for_the_native_engine():
    assert engines.create(Config(), data()).name == "reference"
    assert engines.create(Config(fused=True), data()).name == "cpu"


def test_a_checkout_that_hides_the_installed_package_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastgan.kernels", None)  # pip install ., in the checkout
    with pytest.raises(UserError, match=r"hides.*pip install -e"):
        engines.create(Config(fused=True), data())
    assert engines.create(Config(), data()).name == "reference"  # which needs no kernels
    native = next(e for e in engines.available() if e.name == "cpu")
    assert not native.usable
    assert "hides" in native.detail
