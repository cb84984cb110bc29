"""Each layer against its counterpart in PyTorch, in everything but the speed."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import pytest
import torch
from helpers.compare import assert_identical
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import remove_parametrizations

import fastgan
from fastgan import layers
from fastgan.errors import UserError
from fastgan.fusion import call
from fastgan.layers import MLP, BCEWithLogitsLoss, LinearLeakyReLU
from fastgan.ops import bce_with_logits, linear_leaky_relu


def dense(inputs: int = 5, outputs: int = 3, slope: float = 0.2, **options) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs, **options), nn.LeakyReLU(slope))


def stack(widths=(5, 4, 4, 2), slope=0.2, **options) -> nn.Sequential:
    pairs = [dense(i, o, slope, **options) for i, o in pairwise(widths)]
    return nn.Sequential(*[m for pair in pairs for m in pair][:-1])


def seeded(build, *args, **options) -> nn.Module:
    torch.manual_seed(3)
    return build(*args, **options)


def loss_and_gradients(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    x = x.detach().requires_grad_()
    out = model(x)
    out.square().sum().backward()
    return {"out": out.detach(), "x": x.grad} | {
        f"{i}": p.grad.clone() for i, p in enumerate(model.parameters())
    }


def assert_same(one: nn.Module, other: nn.Module, x: torch.Tensor) -> None:
    torch.testing.assert_close(loss_and_gradients(one, x), loss_and_gradients(other, x))


OPTIONS = [{}, {"bias": False}, {"dtype": torch.float64}, {"device": "meta"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_layer_begins_like_linear(options):
    plain = seeded(nn.Linear, 5, 3, **options)
    layer = seeded(LinearLeakyReLU, 5, 3, negative_slope=0.2, **options)
    assert [n for n, _ in layer.named_parameters()] == [n for n, _ in plain.named_parameters()]
    if options.get("device") == "meta":
        assert {p.device.type for p in layer.parameters()} == {"meta"}
    else:
        assert_identical(layer.state_dict(), plain.state_dict())
        x = torch.randn(2, 7, 5, dtype=options.get("dtype"))
        assert_same(layer, nn.Sequential(plain, nn.LeakyReLU(0.2)), x)


def test_a_layer_takes_the_arguments_of_linear_by_position():
    layer = LinearLeakyReLU(5, 3, False, "cpu", torch.float64)
    assert layer.bias is None and layer.weight.dtype == torch.float64
    assert layer.negative_slope == nn.LeakyReLU().negative_slope


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_mlp_begins_like_sequential(options):
    plain = seeded(stack, **options)
    model = seeded(MLP, (5, 4, 4, 2), negative_slope=0.2, **options)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert str(model) == str(plain).replace("Sequential", "MLP")
    if options.get("device") != "meta":
        assert_identical(model.state_dict(), plain.state_dict())
        assert_same(model, plain, torch.randn(6, 5, dtype=options.get("dtype")))


def test_checkpoints_swap_both_ways():
    plain, model = seeded(stack), MLP([5, 4, 4, 2], negative_slope=0.2)
    x = torch.randn(6, 5)
    model.load_state_dict(plain.state_dict())
    assert_same(model, plain, x)
    nn.init.zeros_(model[2].bias)
    plain.load_state_dict(model.state_dict())
    assert_same(model, plain, x)
    layer = LinearLeakyReLU(5, 4, negative_slope=0.2)
    layer.load_state_dict(plain[0].state_dict())
    plain[0].load_state_dict(layer.state_dict())
    assert_same(layer, plain[:2], x)


def test_an_mlp_is_a_sequential():
    model = MLP((5, 4, 4, 2))
    assert len(model) == 5 and type(model[0]) is nn.Linear and model[-1].out_features == 2
    part = model[2:]
    assert type(part) is nn.Sequential and part[0] is model[2] and next(iter(part.state_dict())) == "2.weight"
    model[1] = nn.Tanh()
    x = torch.randn(6, 5)
    assert_same(model, nn.Sequential(*model), x)
    model.append(nn.LeakyReLU(0.3))
    assert_same(model, nn.Sequential(*model), x)


def test_what_is_printed():
    text = "LinearLeakyReLU(in_features=5, out_features=3, bias=True, negative_slope=0.2)"
    assert repr(LinearLeakyReLU(5, 3, negative_slope=0.2)) == text
    assert repr(BCEWithLogitsLoss()) == repr(nn.BCEWithLogitsLoss())


@pytest.mark.parametrize(
    "layer",
    [
        LinearLeakyReLU(5, 3, negative_slope=0.2, impl="reference"),
        MLP((5, 4, 2), negative_slope=0.2),
        BCEWithLogitsLoss(pos_weight=torch.tensor([2.0]), reduction="sum"),
    ],
    ids=lambda m: type(m).__name__,
)
def test_copies_and_pickles(layer, tmp_path):
    torch.save(layer, tmp_path / "layer.pt")
    copies = [
        copy.copy(layer),
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(tmp_path / "layer.pt", weights_only=False),
    ]
    x = torch.randn(4, 5)
    args = (x, 1.0) if isinstance(layer, BCEWithLogitsLoss) else (x,)
    for c in copies:
        assert (
            type(c) is type(layer) and repr(c) == repr(layer) and c.__dict__.keys() == layer.__dict__.keys()
        )
        assert torch.equal(c(*args), layer(*args))
        assert_identical(c.state_dict(), layer.state_dict())


def test_conversion():
    for model in (LinearLeakyReLU(5, 3, negative_slope=0.2), MLP((5, 4, 3), negative_slope=0.2)):
        x = torch.randn(4, 5, dtype=torch.float64)
        assert model.to(torch.float64) is model and model(x).dtype == torch.float64
        assert model.half().state_dict().popitem()[1].dtype == torch.float16
        assert model.to("meta")(x.to("meta", torch.float16)).device.type == "meta"
        assert model.to_empty(device="cpu").float()(x.float()).shape == (4, 3)


def test_hooks_of_a_layer():
    layer, seen = LinearLeakyReLU(5, 3), []
    layer.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    layer.register_forward_hook(lambda m, args, out: out + 1)
    layer.register_full_backward_hook(lambda m, inputs, outputs: seen.append(outputs[0].shape))
    x = torch.randn(4, 5, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert torch.equal(out, layer.forward(x * 2) + 1) and seen == [(4, 3)]


def hook(module, name):
    calls = []
    getattr(module, f"register_{name}")(lambda *args: calls.append(len(args)))
    return calls


HOOKS = ("forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook")


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("child", [0, 1, 2, 4])
def test_hooks_of_the_children_of_an_mlp(name, child):
    model = MLP((5, 4, 4, 2), negative_slope=0.2)
    plain = nn.Sequential(*copy.deepcopy(model))
    calls = hook(model[child], name), hook(plain[child], name)
    assert_same(model, plain, torch.randn(6, 5))
    assert calls[0] == calls[1] != []


def test_spectral_norm_comes_and_goes():
    model = MLP((5, 4, 4, 2), negative_slope=0.2).eval()
    plain, x = nn.Sequential(*copy.deepcopy(model)).eval(), torch.randn(6, 5)
    for m in (model, plain):
        torch.manual_seed(0)
        parametrizations.spectral_norm(m[2])
    assert_same(model, plain, x)
    for m in (model, plain):
        remove_parametrizations(m[2], "weight")
    assert_same(model, plain, x)
    layer = parametrizations.spectral_norm(LinearLeakyReLU(5, 3, negative_slope=0.2).eval())
    linear = parametrizations.spectral_norm(nn.Linear(5, 3).eval())
    linear.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), nn.functional.leaky_relu(linear(x), 0.2))


MISTAKES = {
    "zeros": lambda x, w, b, s: 0 * linear_leaky_relu(x, w, b, s),
    "wrong slope": lambda x, w, b, s: linear_leaky_relu(x, w, b, 1.001 * s),
    "no bias": lambda x, w, b, s: linear_leaky_relu(x, w, 0 * b, s),
    "wrong sign": lambda x, w, b, s: -linear_leaky_relu(x, w, b, s),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_seen(mistake, monkeypatch):
    def op(x, weight, bias, slope, **options):
        return MISTAKES[mistake](x, weight, bias, slope)

    monkeypatch.setattr(layers, "linear_leaky_relu", op)
    monkeypatch.setattr(call, "linear_leaky_relu", op)
    for test in (test_a_layer_begins_like_linear, test_an_mlp_begins_like_sequential):
        with pytest.raises(AssertionError, match="not close"):
            test({})


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weights", [{}, {"weight": torch.rand(3)}, {"pos_weight": torch.rand(3)}], ids=list)
def test_the_loss(reduction, weights):
    ours, plain = (c(**weights, reduction=reduction) for c in (BCEWithLogitsLoss, nn.BCEWithLogitsLoss))
    assert list(ours.state_dict()) == list(plain.state_dict())
    x, target = torch.randn(4, 3), torch.rand(4, 3)
    torch.testing.assert_close(ours(x, target), plain(x, target))
    torch.testing.assert_close(ours(x, 1.0), plain(x, torch.ones(4, 3)))
    torch.testing.assert_close(
        ours.double()(x.double(), 0.3), plain.double()(x.double(), torch.full_like(x, 0.3).double())
    )


TOOLS = {
    "dense": (LinearLeakyReLU(5, 3, negative_slope=0.2), torch.randn(4, 5)),
    "dense, no bias, a whole slope": (LinearLeakyReLU(5, 3, False, negative_slope=1), torch.randn(4, 5)),
    "dense and ReLU": (LinearLeakyReLU(5, 3, negative_slope=0), torch.randn(4, 5)),
    "loss": (BCEWithLogitsLoss(), torch.randn(4, 3), torch.rand(4, 3)),
    "loss, one target": (BCEWithLogitsLoss(reduction="sum"), torch.randn(4, 3), 1.0),
    "loss, weighted": (
        BCEWithLogitsLoss(torch.rand(3), reduction="none", pos_weight=torch.rand(3)),
        torch.randn(4, 3),
        torch.rand(4, 3),
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", TOOLS)
def test_torch_jit_and_fx_take_them(name):
    layer, *args = TOOLS[name]
    scripted, traced = torch.jit.script(layer), torch.fx.symbolic_trace(layer)
    torch.testing.assert_close(scripted(*args), layer(*args))
    assert torch.equal(traced(*args), layer(*args))
    ops = [n.target for n in traced.graph.nodes if n.op == "call_function"]
    assert ops == [linear_leaky_relu if isinstance(layer, nn.Linear) else bce_with_logits]
    rest = torch.fx.symbolic_trace(nn.Sequential(layer)) if len(args) == 1 else traced
    assert torch.equal(rest(*args), layer(*args))


def test_the_old_arguments_of_the_loss():
    with pytest.warns(UserWarning, match="size_average and reduce"):
        assert BCEWithLogitsLoss(None, False).reduction == "sum"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: LinearLeakyReLU(5, 3, negative_slope=-0.1),
            r"^negative_slope: got -0.1; wanted a number >= 0",
        ),
        (lambda: MLP((5, 3), negative_slope=float("nan")), r"^negative_slope: got nan"),
        (lambda: LinearLeakyReLU(5, 3, negative_slope="0.1"), r"^negative_slope: got '0.1'; wanted a number"),
        (lambda: LinearLeakyReLU(5, 3, 0.2), r"^bias: got 0.2; wanted True or False. .*negative_slope=0.2"),
        (lambda: MLP((5, 3), 0.2), r"^bias: got 0.2; wanted True or False"),
        (lambda: MLP((5,)), r"^widths: got \(5,\); wanted at least two whole numbers"),
        (lambda: MLP((True, 4)), r"^widths: got \(True, 4\)"),
        (lambda: BCEWithLogitsLoss(reduction="avg"), r"^reduction: got 'avg'; wanted one of"),
        (lambda: MLP((5, 2.5)), r"^widths: got \(5, 2.5\)"),
        (lambda: MLP((5, -3)), r"^widths: got \(5, -3\)"),
        (lambda: MLP(5), r"^widths: got 5"),
        (lambda: LinearLeakyReLU(5, 3, impl="fast"), r"^impl: got 'fast'"),
        (lambda: BCEWithLogitsLoss(impl="fast"), r"^impl: got 'fast'"),
    ],
)
def test_what_is_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_they_are_there_without_another_import():
    assert fastgan.layers.MLP is MLP and "layers" in dir(fastgan)
    with pytest.raises(AttributeError, match="no attribute 'layer'"):
        fastgan.layer  # noqa: B018
