"""Fused ``nn.Sequential``: what is fused, what is left alone and why, and what changes afterwards."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers.twins import assert_twins
from pairs import X, pair, reasons
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import fastgan
from fastgan.fusion.classes import plain_class


@pytest.mark.parametrize(
    ("activation", "slope"),
    [
        (nn.LeakyReLU(), 0.01),
        (nn.LeakyReLU(0.2, inplace=True), 0.2),
        (nn.LeakyReLU(0), 0.0),
        (nn.LeakyReLU(1.5), 1.5),
        (nn.ReLU(), 0.0),
        (nn.ReLU(inplace=True), 0.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("bias", [True, False])
def test_pairs_that_are_fused(activation, slope, bias, ran):
    model = pair(activation, bias=bias)
    plain = copy.deepcopy(model)
    assert fastgan.fuse(model) is model
    assert_twins(model, plain, X)
    assert ran == [slope, slope]


def is_plain(model: nn.Module) -> bool:
    return all(plain_class(m) is type(m) for m in model.modules())


class Slope(nn.LeakyReLU):
    pass


class Dense(nn.Linear):
    pass


def normed(norm, *args):
    model = pair()
    norm(model[0], *args)
    return model


def hooked(child, register):
    model = pair()
    getattr(model[child], register)(lambda *args: None)
    return model


def with_forward():
    model = pair()
    model[0].forward = lambda x, layer=model[0]: nn.Linear.forward(layer, 2 * x)
    return model


LEFT = {
    "tanh": (lambda: pair(nn.Tanh()), "neither LeakyReLU nor ReLU follows"),
    "prelu": (lambda: pair(nn.PReLU()), "neither LeakyReLU nor ReLU follows"),
    "batch norm between": (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()), "neither"),
    "dropout between": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.ReLU()), "neither"),
    "last": (lambda: nn.Sequential(nn.Linear(4, 4)), "neither"),
    "negative slope": (lambda: pair(nn.LeakyReLU(-0.2)), "its activation's slope is not a number >= 0"),
    "not a number": (lambda: pair(nn.LeakyReLU(float("nan"))), "its activation's slope is not"),
    "subclass": (lambda: pair(Slope(0.2)), "the activation is a Slope"),
    "subclass of Linear": (lambda: nn.Sequential(Dense(4, 4), nn.ReLU()), "the Linear is a Dense"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4), nn.ReLU()), "the Linear is a LazyLinear"),
    "spectral norm": (lambda: normed(parametrizations.spectral_norm), "the Linear is a ParametrizedLinear"),
    "orthogonal": (lambda: normed(parametrizations.orthogonal), "the Linear is a ParametrizedLinear"),
    "old spectral norm": (lambda: normed(spectral_norm), "the Linear has a hook"),
    "pruned": (lambda: normed(prune.random_unstructured, "weight", 0.5), "the Linear has a hook"),
    "forward hook": (lambda: hooked(0, "register_forward_hook"), "the Linear has a hook"),
    "pre-hook": (lambda: hooked(0, "register_forward_pre_hook"), "the Linear has a hook"),
    "backward hook": (lambda: hooked(0, "register_full_backward_hook"), "the Linear has a hook"),
    "backward pre-hook": (lambda: hooked(0, "register_full_backward_pre_hook"), "the Linear has a hook"),
    "hook on the activation": (lambda: hooked(1, "register_forward_hook"), "the LeakyReLU has a hook"),
    "its own forward": (with_forward, "the Linear has a forward of its own"),
    "changed in place": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.Dropout(inplace=True)),
        "its result is changed in place, and the backward pass needs it",
    ),
    "a view changed in place": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.Flatten(), nn.ELU(inplace=True)),
        "its result is changed in place",
    ),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_alone(case, ran):
    build, reason = LEFT[case]
    torch.manual_seed(0)
    model = build()
    torch.manual_seed(0)
    fused = fastgan.fuse(build())
    assert reasons(model)[0].startswith(reason)
    assert is_plain(fused)
    if case not in ("lazy", "not a number"):
        assert_twins(fused, model, X)
    assert ran == []


def test_a_global_hook_is_respected(ran):
    model, seen = fastgan.fuse(pair()), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, args, out: seen.append(type(m)))
    try:
        model(X)
    finally:
        handle.remove()
    assert seen == [nn.Linear, nn.LeakyReLU, type(model)] and ran == []


def changes():
    def weight(m):
        m[0].weight = nn.Parameter(torch.ones(4, 4))

    def child(m):
        m[0] = nn.Linear(4, 4, bias=False)

    def buffer(m, name):
        value = m[0]._parameters.pop(name).detach()
        m[0].register_buffer(name, value)

    def attribute(m, name):
        setattr(m[0], name, m[0]._parameters.pop(name).detach() * 2)

    def hidden(m, name):  # as some write hypernetworks: the parameter stays, another tensor is used
        vars(m[0])[name] = getattr(m[0], name).detach() * 2

    def insert(m):
        m.insert(1, nn.BatchNorm1d(4))

    return {
        "a slope": (lambda m: setattr(m[1], "negative_slope", 0.5), [0.5]),
        "a slope of NumPy": (lambda m: setattr(m[1], "negative_slope", np.float32(0.5)), [0.5]),
        "a slope below 0": (lambda m: setattr(m[1], "negative_slope", -0.5), []),
        "an activation": (lambda m: m.__setitem__(1, nn.Tanh()), []),
        "a Linear": (child, [0.2]),
        "a weight": (weight, [0.2]),
        "no bias": (lambda m: setattr(m[0], "bias", None), [0.2]),
        "a weight in a buffer": (lambda m: buffer(m, "weight"), [0.2]),
        "a bias in a buffer": (lambda m: buffer(m, "bias"), [0.2]),
        "a weight that is no parameter": (lambda m: attribute(m, "weight"), [0.2]),
        "a bias that is no parameter": (lambda m: attribute(m, "bias"), [0.2]),
        "a weight before the parameter": (lambda m: hidden(m, "weight"), [0.2]),
        "a bias before the parameter": (lambda m: hidden(m, "bias"), [0.2]),
        "something between": (insert, []),
        "something in place after": (lambda m: m.append(nn.Dropout(inplace=True)), []),
        "a hook": (lambda m: m[0].register_forward_hook(lambda m, args, out: 3 * out), []),
        "a norm": (lambda m: parametrizations.spectral_norm(m[0]), []),
        "an old norm": (lambda m: weight_norm(m[0]), []),
        "a slice": (lambda m: m.__delitem__(slice(1, 2)), []),
    }


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("what", changes())
def test_changes_after_fusing_count(what, ran):
    change, slopes = changes()[what]
    plain = pair()
    model = fastgan.fuse(plain, inplace=False)
    for m in (plain, model):
        torch.manual_seed(1)
        change(m)
    assert_twins(model, plain, X)
    assert ran == 2 * slopes


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_frozen_buffer_in_place_of_a_parameter(name, ran):
    plain = pair()
    value = getattr(plain[0], name).data
    delattr(plain[0], name)
    plain[0].register_buffer(name, value)
    model = fastgan.fuse(plain, inplace=False)
    assert_twins(model, plain, X)
    new = {f"0.{name}": 3 * value}
    assert torch.equal(functional_call(model, new, X), functional_call(plain, new, X))
    assert not torch.equal(functional_call(model, new, X), model(X)) and len(ran) == 5
