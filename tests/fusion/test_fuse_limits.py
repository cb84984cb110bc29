"""Where a fused model could differ from PyTorch: in what changes out of its sight, and as documented."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch
from helpers.twins import assert_twins
from torch import nn

import fastgan
from fastgan.fusion import call, places
from fastgan.ops import linear_leaky_relu


class Hidden(nn.Module):
    """Changes its input, at a time that torch.fx cannot follow."""

    def forward(self, x):
        return x.mul_(0.5) if x.sum() > -1e9 else x


def test_what_is_changed_out_of_sight(ran):
    """Enough outputs, so that auto takes the native code, where there is any."""
    wide = nn.Linear(4, 1 << 11)
    plain = nn.Sequential(wide, nn.LeakyReLU(0.2), nn.Flatten(), Hidden(), nn.Linear(1 << 11, 4), nn.ReLU())
    model = fastgan.fuse(plain, inplace=False)
    copies = (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model)))
    for m in copies:
        assert_twins(m, plain, torch.randn(1 << 9, 4), tolerance=1e-3)  # of sums up to some hundred
    assert ran == [0.2, 0.0] * 2 * len(copies)


def test_a_leaky_relu_of_slope_0_is_relu():
    """As fuse's documentation says; PyTorch's own is NaN there."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.LeakyReLU(0.0))
    nn.init.ones_(model[0].weight)
    x = torch.tensor([[-torch.inf]])
    assert model(x).isnan().all() and fastgan.fuse(model)(x).item() == 0


def test_a_whole_fused_model_in_a_file(tmp_path):
    """As fuse's documentation says, too."""
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with torch.serialization.safe_globals([nn.Sequential, nn.Linear, nn.ReLU, set]):
        for model in (plain, fastgan.fuse(plain, inplace=False), fastgan.unfuse(fastgan.fuse(plain))):
            torch.save(model, tmp_path / "whole.pt")
            if type(model) is nn.Sequential:
                torch.load(tmp_path / "whole.pt", weights_only=True)
            else:
                with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
                    torch.load(tmp_path / "whole.pt", weights_only=True)
            assert type(torch.load(tmp_path / "whole.pt", weights_only=False)) is type(model)


class Around(nn.Module):
    """Changes the result of its block in place, out of sight of who fuses the block alone."""

    def __init__(self, change):
        super().__init__()
        self.block, self.change = nn.Sequential(nn.Linear(64, 1 << 11), nn.LeakyReLU(0.2)), change

    def forward(self, x):
        return self.change(self.block(x), x)


def residual(h, x):
    h += x.repeat(1, 1 << 5)
    return h


CHANGES = {
    "residual": residual,
    "mul_": lambda h, x: h.mul_(-0.5),
    "dropout": lambda h, x: nn.functional.dropout(h, 0.5, inplace=True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("impl", "rows"), [("cpu", 3), ("auto", 1 << 9)])
def test_what_the_caller_changes(impl, rows, change, monkeypatch):
    monkeypatch.setattr(call, "linear_leaky_relu", partial(linear_leaky_relu, impl=impl))
    plain = Around(CHANGES[change])
    model = copy.deepcopy(plain)
    fastgan.fuse(model.block)
    assert_twins(model, plain, torch.randn(rows, 64), tolerance=1e-3)  # likewise


class Modes(nn.Module):
    """A forward that branches on an optional string."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, x, mode="train"):
        x = torch.relu(self.fc(x))
        return self.net(x) if mode == "train" else x


def test_an_if_on_an_argument_costs_its_forward_only(ran):
    found = {place.name: place.reason for place in places(Modes())}
    assert found["fc"] == "torch.fx cannot trace the model" and found["net.0"] == ""
    fastgan.fuse(Modes())(torch.randn(3, 4))
    assert ran == [0.0]
