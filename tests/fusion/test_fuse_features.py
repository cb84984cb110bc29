"""What people do with models: copy, store, compile, export, differentiate, distribute."""

from __future__ import annotations

import copy
import io
import linecache
import pickle

import pytest
import torch
import written
from helpers.compare import assert_identical
from helpers.twins import assert_twins
from torch import nn
from torch.func import functional_call, grad, vmap

import fastgan
from fastgan.fusion.classes import fused_class, plain_class

X = torch.randn(6, written.D)


def model_of(kind: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    """Return a fused model with a Sequential in it, and its plain twin."""
    model = kind()
    model.net = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.1))
    plain = copy.deepcopy(model)
    return fastgan.fuse(model), plain


KINDS = pytest.mark.parametrize(
    "kind", [written.Modules, written.Branches, written.Concrete], ids=lambda c: c.__name__
)


def saved_and_loaded(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "the first pickle": lambda m: pickle.loads(pickle.dumps(m, protocol=0)),
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("how", COPIES)
@KINDS
def test_copies_are_fused(kind, how, ran):
    model, plain = model_of(kind)
    other = COPIES[how](model)
    assert type(other) is type(model) is not kind and type(other.net) is type(model.net)
    assert_identical(other.state_dict(), model.state_dict())
    assert_twins(other, plain, X)
    assert len(ran) == 2 * len(kind.slopes)
    assert type(fastgan.unfuse(other)) is kind


def test_a_pickle_without_its_source_is_the_plain_model(monkeypatch, ran):
    model, plain = model_of(written.Modules)
    stored = pickle.dumps(model)
    file = written.Modules.forward.__code__.co_filename
    monkeypatch.setitem(linecache.cache, file, (0, None, [], file))
    fused_class.cache_clear()
    other = pickle.loads(stored)
    fused_class.cache_clear()
    assert type(other) is written.Modules and plain_class(other.net) is nn.Sequential is not type(other.net)
    assert_twins(other, plain, X)


def test_classes_with_their_own_pickling():
    class Counted(written.Modules):
        def __getstate__(self):
            return {**self.__dict__, "copies": getattr(self, "copies", 0) + 1}

    class Rebuilt(written.Modules):
        def __reduce__(self):
            return (Rebuilt, ())

    counted = copy.deepcopy(fastgan.fuse(Counted()))
    assert counted.copies == 1 and plain_class(counted) is Counted is not type(counted)
    assert type(copy.deepcopy(fastgan.fuse(Rebuilt()))) is Rebuilt


@KINDS
def test_compile(kind):
    model, plain = model_of(kind)
    model.eval(), plain.eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=kind is not written.Branches)
    x = X.clone().requires_grad_()
    torch.testing.assert_close(compiled(x), plain(x))
    compiled(x).sum().backward()
    plain(X).sum().backward()
    torch.testing.assert_close(model.a.weight.grad, plain.a.weight.grad)


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_exported_is_the_plain_model(strict):
    model, plain = (m.eval() for m in model_of(written.Modules))
    model, plain = nn.Sequential(model, model.net), nn.Sequential(plain, plain.net)
    graphs = [torch.export.export(m, (X,), strict=strict).graph for m in (fastgan.fuse(model), plain)]
    assert str(graphs[0]) == str(graphs[1]) and "aten.leaky_relu" in str(graphs[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torch_jit_sees_the_plain_model():
    for model, plain in (model_of(written.Modules), (fastgan.layers.MLP((4, 4, 1)), None)):
        wanted = (plain or nn.Sequential(*model))(X)
        traced, scripted = torch.jit.trace(model, X), torch.jit.script(model)
        torch.testing.assert_close(traced(X), wanted)
        torch.testing.assert_close(scripted(X), wanted)
        graph = str(traced.inlined_graph)
        assert "aten::leaky_relu" in graph and "fastgan::" not in graph


def test_fx_sees_the_plain_model():
    model, plain = model_of(written.Modules)
    assert str(torch.fx.symbolic_trace(model).graph) == str(torch.fx.symbolic_trace(plain).graph)


@KINDS
def test_function_transforms(kind):
    model, plain = (m.eval() for m in model_of(kind))
    parameters = dict(plain.named_parameters())

    def loss(parameters, model, x):
        return functional_call(model, parameters, (x,)).square().sum()

    torch.testing.assert_close(
        grad(loss)(parameters, model, X), grad(loss)(parameters, plain, X), equal_nan=False
    )
    each = [vmap(grad(loss), (None, None, 0))(parameters, m, X) for m in (model, plain)]
    torch.testing.assert_close(*each)


def test_second_derivatives():
    model, plain = model_of(written.Statements)
    gradients = []
    for m in (model, plain):
        x = X.clone().requires_grad_()
        (slope,) = torch.autograd.grad(m(x).sum(), x, create_graph=True)
        ((slope.norm(dim=1) - 1) ** 2).mean().backward()
        gradients.append({n: p.grad for n, p in m.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*gradients)


def test_autocast_and_other_dtypes():
    model, plain = model_of(written.Modules)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(X).dtype == plain(X).dtype == torch.bfloat16
        torch.testing.assert_close(model(X), plain(X))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.bfloat16, 0.2)):
        assert_twins(model.to(dtype), plain.to(dtype), X.to(dtype), tolerance=tolerance)
    assert model.to("meta")(X.to("meta", torch.bfloat16)).device.type == "meta"


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 3, 4)])
def test_shapes(shape):
    model, plain = model_of(written.Modules)
    torch.testing.assert_close(model(torch.ones(shape)), plain(torch.ones(shape)))


def test_tensors_of_other_classes_run_one_by_one(ran):
    class Mine(torch.Tensor):
        pass

    model, plain = model_of(written.Modules)
    x = X.as_subclass(Mine)
    assert type(model(x)) is Mine and torch.equal(model(x), plain(x)) and ran == []
