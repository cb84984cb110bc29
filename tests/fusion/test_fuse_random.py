"""Random models of nested, shared, hand-written and strange parts: fused and plain are twins."""

from __future__ import annotations

import copy
import random
from functools import partial

import pytest
import torch
import written
from helpers.compare import assert_close
from helpers.twins import results
from torch import nn

import fastgan
from fastgan.fusion import call
from fastgan.layers import MLP
from fastgan.ops import linear_leaky_relu

D = written.D
WRITTEN = tuple(kind for kind in written.MODELS if kind not in (written.Decorated, written.Packed))
ACTIVATIONS = (
    *(nn.ReLU, partial(nn.ReLU, inplace=True), partial(nn.LeakyReLU, 0.2), nn.Tanh, nn.Identity),
    *(partial(nn.LeakyReLU, 0.1, inplace=True), partial(nn.Dropout, 0.5), partial(nn.BatchNorm1d, D)),
)


class Backwards(nn.Sequential):
    """Its children in the other order, in training."""

    def __iter__(self):
        modules = [*self._modules.values()]
        return iter(modules[::-1] if self.training else modules)


class Asking(nn.Sequential):
    """Looks at the class of its first child."""

    def forward(self, x):
        return -super().forward(x) if self.training and type(self[0]) is nn.Sequential else super().forward(x)


def model_of(draw: random.Random, shared: list[nn.Module], depth: int = 0) -> nn.Module:
    parts: list[nn.Module] = []
    for _ in range(draw.randint(1, 4)):
        what = draw.randrange(6 if depth < 3 else 4)
        if what < 2:
            parts += [nn.Linear(D, D), draw.choice(ACTIVATIONS)()]
        elif what == 2:
            parts.append(draw.choice(shared))
        elif what == 3:
            parts.append(draw.choice((*WRITTEN, partial(MLP, (D, D, D))))())
        else:
            parts.append(model_of(draw, shared, depth + 1))
    return draw.choice((nn.Sequential,) * 4 + (Backwards, Asking))(*parts)


@pytest.mark.parametrize("seed", range(16))
def test_random_models(seed, monkeypatch):
    torch.manual_seed(seed)
    draw = random.Random(seed)
    shared = [nn.Linear(D, D), nn.LeakyReLU(0.3), nn.Sequential(nn.Linear(D, D), nn.ReLU())]
    plain = nn.ModuleList(model_of(draw, shared) for _ in range(2))  # it has no forward
    native = partial(linear_leaky_relu, impl="cpu")
    monkeypatch.setattr(call, "linear_leaky_relu", native if seed % 2 else linear_leaky_relu)
    model = fastgan.fuse(copy.deepcopy(plain))
    for training in (True, False):
        for pair in zip(model, plain, strict=True):
            a, b = (ran(m.train(training)) for m in pair)
            assert a == b if isinstance(b, str) else assert_close(a, b, 1e-4) is None
    assert [type(m) for m in fastgan.unfuse(model).modules()] == [type(m) for m in plain.modules()]


def ran(model: nn.Module) -> dict[str, torch.Tensor] | str:
    """Return output and gradients, or the error that PyTorch has for a change in place."""
    try:
        return results(model, torch.linspace(-2, 2, 6 * D).view(6, D))
    except RuntimeError as error:
        return str(error).partition(":")[0]
