"""Where a module's code asks for its class: properties, class methods, decorated ones, helpers."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan
from fastgan.fusion import places

X = torch.linspace(-1, 1, 8).view(2, 4)
NOTICED = "it, or what is around it, does something else once its class is another"


class Untraceable(nn.Module):
    """It cannot be traced; of what it asks the net for, only that one's code tells."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) * self.net.gain() if x.sum() < 1e9 else x


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return F.leaky_relu(self.fc(x), 0.2) * self.gain()

    def gain(self):
        return 1.0


class Property(Layer):
    @property
    def exact(self):
        return type(self) is Property

    def gain(self):
        return 2.0 if self.exact else 1.0


class Cached(Layer):
    @functools.cached_property
    def exact(self):
        return type(self) is Cached

    def gain(self):
        return 2.0 if self.exact else 1.0


class Decorated(Layer):
    @torch.no_grad()
    def gain(self):
        return torch.tensor(2.0 if type(self) is Decorated else 1.0)


class ClassMethod(Layer):
    @classmethod
    def exact(cls):
        return cls is ClassMethod

    def gain(self):
        return 2.0 if self.exact() else 1.0


class Static(Layer):
    @staticmethod
    def exact(module):
        return type(module) is Static

    def gain(self):
        return 2.0 if self.exact(self) else 1.0


class Overridden(Decorated):
    def gain(self):
        return super().gain() + 1.0


class InOrder(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.LeakyReLU(0.2))

    @property
    def exact(self):
        return type(self) is InOrder

    def gain(self):
        return 2.0 if self.exact else 1.0


def factor(module):
    return {Helped: 2.0}.get(type(module), 1.0)


class Helped(Layer):
    """The value is not in the graph, but in a tensor that the graph names."""

    def gain(self):
        return torch.tensor([factor(self)])


@pytest.mark.parametrize(
    ("cls", "asking"),
    [
        (Property, "exact"),
        (Cached, "exact"),
        (Decorated, "gain"),
        (ClassMethod, "exact"),
        (Static, "exact"),
        (Overridden, "gain"),
        (InOrder, "exact"),
    ],
)
def test_methods_of_any_kind_are_asked(cls, asking):
    torch.manual_seed(0)
    model = Untraceable(cls())
    wanted = model(X)
    assert torch.equal(fastgan.fuse(model)(X), wanted)
    reasons = [place.reason for place in places(model.net)]
    assert reasons == [f"its {asking} depends on the class that it has"]


def test_tensors_that_a_forward_makes_are_compared_by_value():
    model = Helped()
    wanted = model(X)
    assert [place.reason for place in places(model)] == [NOTICED]
    assert torch.equal(fastgan.fuse(model)(X), wanted)


class Framework(Layer):
    """A base class as frameworks have: what the forward does not get to is about the module itself."""

    def forward(self, x):
        return F.leaky_relu(self.fc(x), 0.2) * torch.tensor([torch.nan, 1.0, -0.0, torch.inf])

    def call_hook(self, other):
        return isinstance(other, self.__class__)

    @classmethod
    def load(cls, table):
        return table[cls]


class Tree(Framework):
    def forward(self, x):
        return -x if self.call_hook(self.fc) else F.leaky_relu(self.fc(x), 0.2)


def test_what_the_forward_does_not_reach_counts_only_where_it_has_to():
    assert [place.reason for place in places(Framework())] == [""]
    assert [place.reason for place in places(Tree())] == ["its call_hook depends on the class that it has"]
