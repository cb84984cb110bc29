"""What is around fused pairs: containers, subclasses, shared layers; and that a model stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.twins import assert_twins
from pairs import X, pair, reasons
from torch import nn

import fastgan
from fastgan.errors import UserError
from fastgan.fusion import places


def test_any_depth_and_containers_around(ran):
    inner = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.1), nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    model = nn.Sequential(nn.ModuleDict({"a": inner})["a"], nn.Linear(4, 4), nn.LeakyReLU(0.3), inner[:2])
    plain = copy.deepcopy(model)
    fastgan.fuse(model)
    assert_twins(model, plain, X)
    assert ran == 2 * [0.1, 0.0, 0.3, 0.1]


class Pair(nn.Module):
    """A GAN in one module, with a forward for one half only."""

    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = pair(), nn.ModuleList([pair(), pair(nn.ReLU())])

    def forward(self, x):
        return self.generator(x)


def test_what_the_forward_does_not_reach(ran):
    model = fastgan.fuse(Pair())
    model.discriminator[1](model.discriminator[0](model(X)))
    assert ran == [0.2, 0.2, 0.0]


def test_containers_without_a_forward(ran):
    model = nn.ModuleList([pair(), nn.ModuleDict({"x": pair(nn.ReLU())})])
    fastgan.fuse(model)
    model[0](X), model[1]["x"](X)
    assert ran == [0.2, 0.0]


def test_shared_layers_and_weights(ran):
    linear, act = nn.Linear(4, 4), nn.LeakyReLU(0.2)
    tied = nn.Linear(4, 4)
    tied.weight = linear.weight
    model = nn.Sequential(linear, act, tied, act, linear, nn.Tanh(), linear, act)
    plain = copy.deepcopy(model)
    fastgan.fuse(model)
    assert model[2].weight is model[0].weight and model[4] is model[0]
    assert_twins(model, plain, X)
    assert len(ran) == 6


class Named(nn.Sequential):
    """A Sequential of its own class, with more to it."""

    def extra(self):
        return self[0].in_features


class Odd(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + 1


def test_subclasses_of_sequential(ran):
    model = fastgan.fuse(Named(nn.Linear(4, 4), nn.ReLU()))
    assert isinstance(model, Named) and model.extra() == 4 and type(model).__name__ == "Named"
    model(X)
    assert ran == [0.0]
    odd = Odd(nn.Linear(4, 4), nn.ReLU())
    fused = fastgan.fuse(odd, inplace=False)
    assert_twins(fused, odd, X)
    assert type(fused) is Odd and reasons(odd) == [
        "the code does not call the activation right where it calls the Linear"
    ]


def test_nothing_else_changes(tmp_path):
    model = nn.Sequential(pair(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    torch.save(model.state_dict(), tmp_path / "old.pt")
    before = {name: (id(m), {**vars(m)}) for name, m in model.named_modules()}
    parameters, text = list(model.parameters()), repr(model)
    fastgan.fuse(model)
    assert {name: (id(m), {**vars(m)}) for name, m in model.named_modules()} == before
    assert repr(model) == text and all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    old = {k: v.clone() for k, v in model.state_dict().items()}
    model(X).sum().backward()
    optimizer.step()
    assert not torch.equal(model[1].weight, old["1.weight"])
    assert model.load_state_dict(torch.load(tmp_path / "old.pt")).missing_keys == []
    assert all(torch.equal(v, old[k]) for k, v in model.state_dict().items())


def test_a_copy_leaves_the_model_alone():
    model = nn.Sequential(pair(), nn.Linear(4, 1))
    fused = fastgan.fuse(model, inplace=False)
    assert type(model) is type(model[0]) is nn.Sequential and type(fused[0]) is not nn.Sequential
    assert not {*map(id, model.parameters())} & {*map(id, fused.parameters())}


def test_fusing_twice_and_unfusing():
    model = nn.Sequential(pair(), nn.Linear(4, 4), nn.ReLU())
    classes = [type(m) for m in fastgan.fuse(model).modules()]
    assert [type(m) for m in fastgan.fuse(model).modules()] == classes
    assert reasons(model) == ["", ""]
    assert fastgan.unfuse(model) is model
    assert [type(m) for m in model.modules()] == [
        nn.Sequential, nn.Sequential, nn.Linear, nn.LeakyReLU, nn.Linear, nn.ReLU,
    ]  # fmt: skip
    fastgan.unfuse(model)


def test_the_list(capsys):
    model = nn.Sequential(pair(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    fastgan.fuse(model, verbose=True)
    assert capsys.readouterr().out.splitlines() == [
        "Sequential: 1 fused, 2 left alone",
        "  0.0  Linear, LeakyReLU    fused",
        "  1    Linear, BatchNorm1d  neither LeakyReLU nor ReLU follows",
        "  4    Linear, the return   neither LeakyReLU nor ReLU follows",
    ]
    assert reasons(nn.Linear(4, 4)) == ["it is the whole model"]
    fastgan.fuse(nn.Tanh(), verbose=True)
    assert capsys.readouterr().out == "Tanh: 0 fused, 0 left alone\n"


@pytest.mark.parametrize("function", [fastgan.fuse, fastgan.unfuse, places])
def test_anything_but_a_module_is_refused(function):
    with pytest.raises(UserError, match=r"^model: got dict; wanted an nn.Module"):
        function({})
    with pytest.raises(UserError, match=r"^model: got the class Linear; .*\. Make one of the class first"):
        function(nn.Linear)
