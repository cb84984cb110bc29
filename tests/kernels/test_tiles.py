"""Products on tiles (AMX): as exact as on vectors, whatever the shape, with the same infinities and NaNs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.parity import ISAS
from helpers.programs import run_program

from fastgan.ops.dense import linear_leaky_relu

pytestmark = pytest.mark.skipif("amx" not in ISAS, reason="no tile unit, or the system gives it to nobody")

SHAPES = [  # batch, inputs, outputs: whole tiles, tails in every direction, several blocks of k, many panels
    (128, 96, 80),
    (129, 65, 67),
    (133, 784, 130),
    (175, 129, 95),
    (140, 2049, 70),
    (150, 70, 1100),
]


def results(monkeypatch, isa, x, weight, dy=None):
    """Return the output of a layer without bias and activation, and the gradients of x and weight."""
    monkeypatch.setenv("FASTGAN_ISA", isa)
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = linear_leaky_relu(x, weight, None, 1.0, impl="cpu")
    return [y.detach(), *torch.autograd.grad(y, (x, weight), torch.ones_like(y) if dy is None else dy)]


def draw(shape, seed, positive):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.abs() if positive else values


def exact(x, weight, dy):
    x, weight, dy = x.double(), weight.double(), dy.double()
    return [x @ weight.T, dy @ weight, dy.T @ x]


@pytest.mark.parametrize("positive", [False, True], ids=["either sign", "positive"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_errors_are_no_larger_than_those_of_vectors(monkeypatch, shape, positive):
    batch, inputs, outputs = shape
    x, weight = draw((batch, inputs), 1, positive), draw((outputs, inputs), 2, positive)
    dy = draw((batch, outputs), 3, positive)
    wanted = exact(x, weight, dy)
    sizes = exact(x.abs(), weight.abs(), dy.abs())
    for on_tiles, on_vectors, truth, size in zip(
        results(monkeypatch, "amx", x, weight, dy),
        results(monkeypatch, "avx512", x, weight, dy),
        wanted,
        sizes,
        strict=True,
    ):
        tiles, vectors = (((got - truth) / size).abs() for got in (on_tiles, on_vectors))
        # Half of a rounding more: what the split leaves out, where a sum has but a few terms.
        assert tiles.max() <= vectors.max() + 2**-25
        assert tiles.square().mean().sqrt() <= vectors.square().mean().sqrt() + 2**-26
        assert tiles.max() < 2**-21
        if positive and size.numel() > 100:  # no bias: what is left out is of either sign
            assert abs(((on_tiles - truth) / size).mean()) < 2**-26


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_numbers_of_any_size(monkeypatch, scale):
    x, weight = draw((130, 100), 1, False), draw((80, 100), 2, False)
    once = results(monkeypatch, "amx", x, weight)[0]
    power = 2.0 ** np.round(np.log2(scale))
    assert torch.equal(results(monkeypatch, "amx", x * power, weight)[0], once * power)


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan"), 3.4e38])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_is_not_finite_is_as_on_vectors(monkeypatch, bad, sign):
    x, weight = draw((130, 100), 1, False), sign * draw((80, 100), 2, True)
    x[3, 70], x[129, 99], weight[79, 5] = bad, bad, bad
    x[5, 5] = 0.0  # times infinity
    for tiles, vectors in zip(
        results(monkeypatch, "amx", x, weight), results(monkeypatch, "avx512", x, weight), strict=True
    ):
        assert torch.equal(tiles.isnan(), vectors.isnan())
        assert torch.equal(tiles[vectors.isinf()], vectors[vectors.isinf()])
        assert torch.equal(tiles.isinf(), vectors.isinf())
    assert not results(monkeypatch, "amx", x, weight)[0][:3, :79].isinf().any()


SMALL_STACK = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class Stack(ctypes.Structure):
    _fields_ = [("p", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(8192)  # for signals: too small for the registers with tiles
assert libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(memory), 0, 8192)), None) == 0
from fastgan.kernels import cpu
print(cpu.describe())
"""


def test_where_the_system_refuses_tiles_that_is_told():
    done = run_program(SMALL_STACK)
    assert done.stdout == (
        "native C++, avx512 (also: avx2, baseline; not amx: the system gives this process no tiles "
        "(No space left on device))\n"
    )
    done = run_program(SMALL_STACK, FASTGAN_ISA="amx")
    assert "got 'amx'" in done.stderr and "not amx: the system gives this process no tiles" in done.stderr
