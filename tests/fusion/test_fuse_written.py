"""Fused hand-written forwards."""

from __future__ import annotations

import copy
import inspect
import linecache
import random
import traceback

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import written
from helpers.twins import assert_twins
from torch import nn

import fastgan
from fastgan.fusion import places
from fastgan.fusion.classes import plain_class

X = torch.randn(6, written.D)
ELSEWHERE = "the code does not call the activation right where it calls the Linear"
FORWARD_NOT_SEEN = "the forward does not call it"


def reasons(model: nn.Module) -> dict[str, str]:
    return {place.name: place.reason for place in places(model)}


@pytest.mark.parametrize("kind", written.MODELS, ids=lambda c: c.__name__)
def test_the_same_numbers(kind, ran):
    model = kind()
    plain = copy.deepcopy(model)
    fastgan.fuse(model)
    if kind is written.Decorated:
        assert torch.equal(model(X), plain(X)) and not model(X).requires_grad
    else:
        assert_twins(model, plain, X)
    assert sorted(ran) == sorted(2 * kind.slopes)
    changed = [type(m) for m in model.modules() if plain_class(m) is not type(m)]
    assert bool(changed) == bool(kind.slopes)
    fastgan.unfuse(model)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (written.Functions, {"a": "", "b": "", "c": ""}),
        (written.Decorated, {"a": ELSEWHERE, "b": FORWARD_NOT_SEEN}),
        (written.Wrapped, {"a": "its source is not at hand"}),
        (written.Registered, {"a": "its class is told of subclasses"}),
        (written.Residual, {"b": "its result is changed in place, and the backward pass needs it", "a": ""}),
        (written.Many, {"a": "its output is used 2 times", "b": ELSEWHERE}),
        (written.Untraceable, {"net.0": "", "net.2": "", "a": "torch.fx cannot trace the model"}),
        (written.Around, {"a": "", "b": "", "inner.net.0": "", "inner.a": "torch.fx cannot trace inner"}),
        (written.Packed, {"wide": "", "a": "neither LeakyReLU nor ReLU follows"}),
    ],
    ids=lambda c: getattr(c, "__name__", ""),
)
def test_the_reasons(kind, wanted):
    got = reasons(kind())
    assert {name: got[name] for name in wanted} == wanted


def test_what_cannot_be_traced_is_listed():
    inner = [p for p in places(written.Around()) if p.name == "inner"]
    assert [p.what for p in inner] == ["Untraceable"]
    assert inner[0].reason.startswith("torch.fx cannot trace it: TraceError: symbolically traced variables")


def test_a_forward_keeps_all_that_it_does(ran):
    model = fastgan.fuse(written.Branches())
    assert not hasattr(model, "last") and not hasattr(model, "calls")
    model.eval()
    assert torch.equal(model(X), model(X, torch.zeros_like(X)))
    assert not torch.equal(model(X), model(X, X))
    assert model.last.shape == X.shape and model.calls == 4
    model.train()
    assert not torch.equal(model(X), model(X))
    assert model.forward.__doc__ == "Documented."
    assert inspect.signature(model.forward) == inspect.signature(written.Branches().forward)
    assert inspect.getsource(type(model)) == inspect.getsource(written.Branches)
    assert [p.grad is None for p in (fastgan.fuse(written.Frozen()).a.weight,)] == [True]


def test_fusing_disturbs_nothing(capsys):
    class Noisy(written.Base):
        def forward(self, x):
            print("hello")
            return self.act(self.a(x)) + random.random() + torch.rand(()) + np.random.rand()

    model, seen = Noisy(), []
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()
    model.register_forward_hook(lambda *args: seen.append(args))
    fastgan.fuse(model)
    assert states[0] == random.getstate() and torch.equal(states[1], torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(states[2], np.random.get_state(), strict=True))
    assert capsys.readouterr().out == "" and seen == []


def test_changes_after_fusing_count(ran):
    model = fastgan.fuse(written.Statements())
    plain = copy.deepcopy(model)
    fastgan.unfuse(plain)
    for m in (model, plain):
        m.slope = 0.5
        m.act.negative_slope = -0.1
        m.c.register_forward_hook(lambda m, args, out: out + 1)
    assert_twins(model, plain, X)
    assert ran == 2 * [0.5]
    for m in (model, plain):
        m.act = nn.Tanh()
        m.a = nn.Identity()
    assert_twins(model, plain, X)


def test_an_error_is_on_its_line():
    model = fastgan.fuse(written.Modules())
    for m in (model, written.Modules()):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
            m(torch.ones(2, 3))
        lines = [f.line for f in traceback.extract_tb(caught.value.__traceback__)]
        assert "x = self.act(self.a(x))" in lines


def defined(source: str, filename: str) -> nn.Module:
    names = {"nn": nn, "F": F, "__name__": "elsewhere"}
    exec(compile(source, filename, "exec"), names)
    return names["M"]()


SOURCE = """
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.LeakyReLU(0.2)
    def forward(self, x):
        return F.leaky_relu(self.fc(x), 0.2)
"""


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (SOURCE, ""),
        (None, "its source is not at hand"),
        (
            SOURCE.replace("F.leaky_relu(self.fc(x), 0.2)", "F.leaky_relu(self.fc(x), 0.3)"),
            "its source is not what runs",
        ),
        (SOURCE.replace("return", "x = x + 1; return"), "its source is not what runs"),
        ("\n\n" + SOURCE, "its source is not at hand"),
        (SOURCE + "(", "its source does not parse"),
    ],
    ids=["the same", "none", "another slope", "more code", "moved", "broken"],
)
def test_only_the_source_that_runs_is_rewritten(now, reason, ran):
    filename = f"<cell {reason} {len(now or '')}>"
    model = defined(SOURCE, filename)
    if now is not None:
        linecache.cache[filename] = (len(now), None, now.splitlines(True), filename)
    plain = copy.deepcopy(model)
    assert reasons(model) == {"fc": reason}
    assert_twins(fastgan.fuse(model), plain, X)
    assert ran == ([] if reason else [0.2, 0.2])


def test_a_model_that_cannot_be_copied_is_left_alone():
    class Stubborn(written.Modules):
        def __deepcopy__(self, memo):
            raise TypeError("not me")

    model = Stubborn()
    model.net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    fastgan.fuse(model)
    assert type(model) is Stubborn and plain_class(model.net) is nn.Sequential is not type(model.net)
    assert next(p.reason for p in places(model)).endswith("it cannot be copied: TypeError: not me")


def test_a_module_of_pytorch_is_one_piece():
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 1, 4, batch_first=True), nn.Linear(4, 4), nn.ReLU())
    got = reasons(model)
    assert got["0.linear1"] == "it is part of TransformerEncoderLayer" and got["1"] == ""
