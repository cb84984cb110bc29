"""What auto takes, and that it can say why."""

from __future__ import annotations

import pytest
import torch
from helpers.ops_cases import Bce, Dense, plain_bce, plain_dense

from fastgan.errors import UserError
from fastgan.ops import bce_with_logits, explain, linear_leaky_relu
from fastgan.ops.backends import cpu


@pytest.fixture
def native_calls(monkeypatch):
    """The names of the native functions that run, in order."""
    calls = []

    def watch(name, function):
        def run(*args):
            calls.append(name)
            return function(*args)

        return run

    for name in ("dense_fwd", "dense_bwd", "bce"):
        monkeypatch.setattr(cpu, name, watch(name, getattr(cpu, name)))
    return calls


@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "graph", "impl"),
    [
        (1, 1, 1, True, "reference"),
        (128, 784, 128, True, "reference"),
        (4096, 64, 256, True, "cpu"),
        (4096, 64, 256, False, "cpu"),
        (4096, 64, 255, False, "reference"),
        (1024, 2, 1024, True, "cpu"),
        (1024, 1, 1024, True, "reference"),
        (511, 8, 4096, True, "reference"),
        (1024, 257, 1024, True, "reference"),
        (1024, 1024, 1024, True, "reference"),
    ],
)
def test_dense(native_calls, batch, inputs, outputs, graph, impl):
    case = Dense.random(batch, inputs, outputs)
    weight = case.weight.requires_grad_(graph)
    choice = explain(linear_leaky_relu, case.x, weight, case.bias, case.slope)
    y = linear_leaky_relu(case.x, weight, case.bias, case.slope)
    assert choice.impl == impl and str(choice).startswith(f"{impl}: ")
    if graph:
        y.sum().backward()
    wanted = ["dense_fwd", "dense_bwd"] if graph else ["dense_fwd"]
    assert native_calls == (wanted if impl == "cpu" else [])
    weight.requires_grad_(False)
    if batch * inputs * outputs < 1 << 28:
        case.check(linear_leaky_relu)


@pytest.mark.parametrize(
    ("count", "graph", "impl"),
    [
        (1, False, "reference"),
        ((1 << 14) - 1, False, "reference"),
        (1 << 14, False, "cpu"),
        ((1 << 16) - 1, True, "reference"),
        (1 << 16, True, "cpu"),
    ],
)
@pytest.mark.parametrize("target", [None, 1.0])
def test_bce(native_calls, count, graph, impl, target):
    case = Bce.random(count, target=target)
    logits = case.logits.requires_grad_(graph)
    assert explain(bce_with_logits, logits, case.target).impl == impl
    got, wanted = bce_with_logits(logits, case.target), plain_bce(logits, case.target, None, None, "mean")
    assert native_calls == (["bce"] if impl == "cpu" else [])
    torch.testing.assert_close(got, wanted)


LARGE = torch.ones(4096, 64), torch.ones(256, 64)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([t.double() for t in LARGE], "no native kernel computes in torch.float64"),
        ([t.bfloat16() for t in LARGE], "no native kernel computes in torch.bfloat16"),
        ([t.half() for t in LARGE], "no native kernel computes in torch.float16"),
        ([t.to("meta") for t in LARGE], "no fused kernel for this device"),
    ],
    ids=str,
)
def test_reasons(tensors, reason):
    choice = explain(linear_leaky_relu, *tensors)
    assert choice.impl == "reference" and reason in str(choice)


# PyTorch's forward mode compiles some of its own formulas by what it has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_reasons_around_the_call():
    seen = []

    def f(x):
        seen.append(explain(linear_leaky_relu, x, LARGE[1]).reason)
        return linear_leaky_relu(x, LARGE[1])

    torch.func.vmap(f)(LARGE[0][None])
    torch.func.jvp(f, LARGE[:1], LARGE[:1])
    with torch.autocast("cpu"):
        f(LARGE[0])
    assert ["torch.func" in seen[0], "torch.func" in seen[1], "autocast" in seen[2]] == [True] * 3


def test_wrong_shapes_give_pytorchs_own_errors():
    for x, weight in ((torch.ones(4096, 63), LARGE[1]), (torch.ones(0, 3), torch.ones(2, 4))):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            linear_leaky_relu(x, weight)
    with pytest.raises(ValueError, match="Target size"):
        bce_with_logits(torch.ones(3), torch.ones(4))


def test_only_the_ops_are_explained():
    with pytest.raises(UserError, match=r"^op: got plain_dense; wanted one of"):
        explain(plain_dense, *LARGE)
