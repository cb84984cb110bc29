"""Who runs the step: the engine that was asked for, or one line that says why not."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

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


CUDA = Config(fused=True, device="cuda")


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that there is a GPU of some compute capability."""

    def make(*capability):
        properties = SimpleNamespace(name="A Card", major=capability[0], minor=capability[1])
        monkeypatch.setattr(torch.version, "hip", None, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: properties)

    return make


def test_cuda_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"--device cuda: got no GPU that PyTorch .* can use.*fastgan.info"):
        engines.create(CUDA, data())
    cuda = next(e for e in engines.available() if e.name == "cuda")
    assert not cuda.usable and "no GPU" in cuda.detail


def test_cuda_without_triton_names_the_extra(gpu, monkeypatch):
    gpu(9, 0)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(UserError, match=r"no Triton .*pip install 'fastgan\[triton\]'"):
        engines.create(CUDA, data())


def test_old_gpus_are_refused(gpu):
    pytest.importorskip("triton", reason="no Triton")
    gpu(7, 5)
    with pytest.raises(UserError, match=r"A Card, compute capability 7.5; wanted at least 8.0"):
        engines.create(CUDA, data())
    gpu(9, 0)
    cuda = next(e for e in engines.available() if e.name == "cuda")
    assert cuda.usable and cuda.detail.endswith(" on A Card")


def test_engines_tell_how_they_run():
    for config in (Config(), Config(fused=True, threads=1)):
        engine = engines.create(config, data())
        assert "\n" not in engine.describe() and len(engine.describe()) > 10
