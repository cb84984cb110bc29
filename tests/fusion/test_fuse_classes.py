"""Modules that are shared, that have an order of their own, or that notice when their class is another."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from helpers.twins import assert_twins
from torch import nn
from torch.overrides import TorchFunctionMode

import fastgan
from fastgan.fusion import places
from fastgan.fusion.classes import plain_class
from fastgan.layers import MLP

X = torch.randn(5, 4)
DEPENDS = "its {} depends on the class that it has"
NOTICED = "it, or what is around it, does something else once its class is another"


def pair(slope: float = 0.2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(slope))


def reasons(model: nn.Module) -> dict[str, str]:
    return {place.name: place.reason for place in places(model)}


# ---- shared between children of what has no forward, or none that can be traced


class Conditional(nn.Module):
    def __init__(self, labels: nn.Embedding) -> None:
        super().__init__()
        self.net, self.labels = pair(), labels

    def forward(self, x):
        return self.net(x + self.labels(torch.zeros(1, dtype=torch.long)))


class Untraceable(nn.Module):
    """A generator and a discriminator with layers in common."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.g, self.d = nn.Sequential(shared, pair(0.1)), nn.Sequential(pair(0.3), shared)

    def forward(self, x):
        return self.d(self.g(x)) if x.sum() > -1e9 else x


def test_an_embedding_shared_by_both_networks(ran):
    labels = nn.Embedding(3, 4)
    plain = nn.ModuleDict({"g": Conditional(labels), "d": Conditional(labels)})
    model = fastgan.fuse(copy.deepcopy(plain))
    for name in plain:
        assert_twins(model[name], plain[name], X)
    assert ran == 4 * [0.2] and reasons(plain) == {"g.net.0": "", "d.net.0": ""}


@pytest.mark.parametrize("kind", [pair, lambda: nn.Linear(4, 4), lambda: nn.LeakyReLU(0.2)])
def test_layers_shared_below_a_forward_that_cannot_be_traced(kind, ran):
    plain = Untraceable(kind())
    model = fastgan.fuse(plain, inplace=False)
    assert_twins(model, plain, X)
    assert {0.1, 0.3} <= {*ran}
    trunk = kind()
    heads = nn.ModuleDict({"a": nn.Sequential(trunk, pair()), "b": nn.Sequential(trunk, pair())})
    assert [r for name, r in reasons(heads).items() if name[2:] == "1.0"] == ["", ""]


# ---- Sequentials


@pytest.mark.parametrize("widths", [(4, 4, 1), (4, 4, 4, 3)])
def test_our_own_mlp_is_a_sequential(widths, ran):
    plain = MLP(widths, negative_slope=0.2)
    pairs = len(widths) - 2
    assert [place.reason for place in places(plain)] == [""] * pairs + ["neither LeakyReLU nor ReLU follows"]
    around = nn.Sequential(MLP((4, 4)), nn.ReLU(), nn.Sequential(MLP((4, 4, 4)), nn.ReLU(inplace=True)))
    for model in (plain, nn.ModuleList([plain])[0], around):
        assert_twins(fastgan.fuse(model, inplace=False), model, X)
    model = fastgan.fuse(plain)
    assert isinstance(model, MLP) and isinstance(pickle.loads(pickle.dumps(model)), MLP)
    assert type(fastgan.unfuse(model)) is MLP


class Growing(nn.Sequential):
    """As many layers as ``depth`` says, which grows."""

    depth = 4

    def __iter__(self):
        return iter([*self._modules.values()][: self.depth])


class Skipping(nn.Sequential):
    """Without some of its children in training."""

    def __iter__(self):
        return (m for m in self._modules.values() if not (self.training and isinstance(m, nn.Sequential)))


@pytest.mark.parametrize("kind", [Growing, Skipping])
def test_a_sequential_of_another_order_is_left_alone(kind):
    plain = kind(nn.Linear(4, 4), nn.ReLU(), pair())
    model = fastgan.fuse(plain, inplace=False)
    assert type(model) is kind and reasons(model) == {
        "0": f"{kind.__name__} has an __iter__ of its own",
        "2.0": "",
    }
    for depth in (4, 2, 1):
        plain.depth = model.depth = depth
        assert_twins(model, plain, X)


# ---- what a module does once its class is another


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return F.relu(self.fc(x))


class Tripled(Pair):
    def forward(self, x):
        h = F.relu(self.fc(x))
        return 3 * h if self.training and type(self) is Tripled else h


class Counted(Pair):
    calls = 0

    def forward(self, x):
        self.__class__.calls += 1
        return F.relu(self.fc(x))


class OldSuper(Pair):
    def load_state_dict(self, state, strict=True):
        return super(type(self), self).load_state_dict(state, strict)


class Lookup(Pair):
    """The class decides by a table, as no code of its own tells."""

    def forward(self, x):
        return SCALES.get(kind(self), 1.0) * F.relu(self.fc(x)) if self.training else F.relu(self.fc(x))


class Parent(Pair):
    """Looks at its children's class, in evaluation only."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = pair(0.1), pair(0.3)

    def forward(self, x):
        x = self.other(self.one(F.relu(self.fc(x))))
        return x if self.training or type(self.other) is nn.Sequential else -x


class Harmless(Pair):
    def forward(self, x):
        self.last = f"{type(self).__name__} {self.__class__.__qualname__} {type(x)} {type(self).scale}"
        return F.relu(self.fc(x))

    scale = 2.0

    def again(self):
        return type(self)()


kind, SCALES = type, {Lookup: 2.0}


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (Tripled, {"fc": DEPENDS.format("forward")}),
        (Counted, {"fc": DEPENDS.format("forward")}),
        (OldSuper, {"fc": DEPENDS.format("load_state_dict")}),
        (Lookup, {"fc": NOTICED}),
        (Parent, {"fc": "", "one.0": "", "other.0": NOTICED}),
        (lambda: nn.Sequential(pair(), Lookup(), pair()), {"0.0": "", "1.fc": NOTICED, "2.0": ""}),
        (Harmless, {"fc": ""}),
    ],
    ids=["type(self)", "__class__", "super", "table", "parent", "inside", "harmless"],
)
def test_what_would_notice_is_left_alone(make, wanted):
    plain = make()
    model = fastgan.fuse(plain, inplace=False)
    assert reasons(plain) == wanted
    assert_twins(model, plain, X)
    model.load_state_dict(plain.state_dict())
    fused = {name for name, m in model.named_modules() if plain_class(m) is not type(m)}
    assert fused == {name.rpartition(".")[0] for name, reason in wanted.items() if not reason}


class InTraining(nn.Module):
    """Traceable in evaluation only, and what it calls then, too."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.inner = pair(), Drawn()

    def forward(self, x):
        return self.inner(self.net(x))


class Drawn(Pair):
    def forward(self, x):
        x = F.relu(self.fc(x))
        return 2 * x if self.training and x.sum() > -1e9 else x


def test_what_is_traced_in_one_mode_only(ran):
    plain = InTraining()
    assert_twins(fastgan.fuse(plain, inplace=False), plain, X)
    assert ran == 2 * [0.2, 0.0] and reasons(plain) == {"net.0": "", "inner.fc": ""}


# ---- after fusing


def decorated(method):
    return lambda self, x: method(self, x)


def test_a_subclass_of_the_fused_class_keeps_its_super(ran):
    model = fastgan.fuse(Pair())

    class Child(type(model)):
        def forward(self, x):
            return 2 * super().forward(x)

        @decorated
        def twice(self, x):
            return super().forward(x) * 2

        @property
        def name(self):
            return super()._get_name()

        @classmethod
        def made(cls):
            return super().__new__(cls)

    model.__class__ = Child
    wanted = model(X)
    for change in (places, fastgan.unfuse, fastgan.fuse, fastgan.unfuse):
        change(model)
        assert torch.equal(model(X), wanted) and torch.equal(model.twice(X), wanted)
        assert model.name == "Child" and isinstance(model.made(), Pair)
    assert len(ran) == 3 and type(model).__mro__[1] is Pair


@pytest.mark.parametrize("kind", [nn.Linear, nn.LeakyReLU])
def test_a_patched_class_of_pytorch_counts(kind, ran, monkeypatch):
    model = fastgan.fuse(pair())
    wanted, forward = model(X), kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: 3 * forward(self, x))
    assert not torch.allclose(model(X), wanted) and len(ran) == 1


class Seen(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__)
        return function(*args, **(kwargs or {}))


def test_function_modes_see_both_modules_but_default_devices_are_none(ran):
    model = fastgan.fuse(pair())
    with Seen() as mode:
        model(X)
    assert {"linear", "leaky_relu"} <= {*mode.names} and not ran
    with torch.device("cpu"):
        model(X)
    assert ran == [0.2]
