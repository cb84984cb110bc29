"""Modules that are not quite modules: scripted, quantized, lazy, pruned, compiled, parametrized, wrapped."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from helpers.twins import assert_twins
from torch import nn
from torch.nn.utils import parametrize, prune

import fastgan
from fastgan.errors import UserError
from fastgan.fusion import places

X = torch.randn(5, 4)


def pair() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.Linear(4, 3))


def traced() -> nn.Module:
    return torch.jit.trace(pair(), X)


def scripted() -> nn.Module:
    return torch.jit.script(pair())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("make", [scripted, traced])
def test_torchscript_is_left_alone(make, ran):
    reason = "it is TorchScript, not Python"
    alone = make()
    wanted = alone(X)
    assert [(p.name, p.what, p.reason) for p in places(alone)] == [("", "Sequential", reason)]
    assert torch.equal(fastgan.unfuse(fastgan.fuse(alone))(X), wanted) and not ran

    around = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), make())
    plain = copy.deepcopy(around)
    assert [(p.name, p.reason) for p in places(around)] == [("0", ""), ("2", ""), ("4", reason)]
    assert torch.equal(fastgan.fuse(around)(X), plain(X)) and ran == [0.0, 0.0]


@pytest.mark.filterwarnings("ignore:.*quant")
def test_quantized_layers_are_no_linears():
    model = torch.ao.quantization.quantize_dynamic(pair(), {nn.Linear})
    wanted = model(X)
    assert torch.equal(fastgan.fuse(model)(X), wanted) and places(model) == []


def test_lazy_layers_are_linears_once_they_have_run(ran):
    model = fastgan.fuse(nn.Sequential(nn.LazyLinear(4), nn.ReLU()))
    assert [p.reason for p in places(model)] == ["the Linear is a LazyLinear"]
    wanted = model(X)
    assert torch.equal(fastgan.fuse(model)(X), wanted) and ran == [0.0]


def test_pruned_layers_have_a_hook_and_cannot_be_copied(ran):
    model = pair()
    prune.l1_unstructured(model[0], "weight", 0.5)
    wanted = model(X)
    with pytest.raises(UserError, match=r"^model: got a Sequential that PyTorch does not copy .*inplace"):
        fastgan.fuse(model, inplace=False)
    assert torch.equal(fastgan.fuse(model)(X), wanted) and not ran
    prune.remove(model[0], "weight")
    torch.testing.assert_close(fastgan.fuse(model)(X), wanted)
    assert ran == [0.2]


@pytest.mark.parametrize("first", ["fused", "compiled"])
def test_compiled_in_place(first):
    model, plain = pair(), pair()
    plain.load_state_dict(model.state_dict())
    if first == "fused":
        fastgan.fuse(model)
    model.compile(backend="eager")
    if first == "compiled":
        fastgan.fuse(model)
    assert_twins(model, plain, X)
    assert_twins(fastgan.unfuse(model), plain, X)


def test_data_parallel(ran):
    model = nn.DataParallel(pair())
    plain = copy.deepcopy(model)
    assert_twins(fastgan.fuse(model), plain, X)
    assert [p.name for p in places(model) if not p.reason] == ["module.0"] and ran


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return F.relu(self.fc(x)) * self.scale


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def test_a_parametrization_makes_a_subclass_of_the_fused_class(ran):
    model = Scaled()
    wanted = 2 * model(X)
    parametrize.register_parametrization(fastgan.fuse(model), "scale", Doubled())
    torch.testing.assert_close(model(X), wanted)
    torch.testing.assert_close(copy.deepcopy(model)(X), wanted)
    assert ran == [0.0] * 2
    with pytest.raises(RuntimeError, match="parametrized modules"):  # PyTorch's own word
        pickle.dumps(model)

    torch.testing.assert_close(fastgan.unfuse(model)(X), wanted)
    assert ran == [0.0] * 2 and type(model).__mro__[1] is Scaled
    parametrize.remove_parametrizations(model, "scale")
    assert type(model) is Scaled
    torch.testing.assert_close(model(X), wanted)


def test_a_copy_of_another_subclass_is_of_that_class():
    model = fastgan.fuse(pair())
    model.__class__ = type("Sharded", (type(model),), {})
    assert type(copy.deepcopy(model)) is type(model)
    assert type(fastgan.unfuse(model)).__bases__ == (nn.Sequential,)
