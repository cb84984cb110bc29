"""The ops where PyTorch writes down what is called: torch.compile, torch.export, torch.jit.trace, make_fx."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers.ops_cases import plain_bce, plain_dense
from torch._dynamo import compiled_autograd
from torch.export import Dim, export
from torch.fx.experimental.proxy_tensor import make_fx

import fastgan
from fastgan import layers
from fastgan.ops import bce_with_logits, explain, linear_leaky_relu

# Of so many rows auto takes native code, where nothing is written down.
ROWS = 2048
X, W, B = torch.randn(ROWS, 64), torch.randn(1024, 64), torch.randn(1024)

OPS = {
    "dense": (
        lambda x, impl: linear_leaky_relu(x, W, B, 0.2, impl=impl),
        lambda x: plain_dense(x, W, B, 0.2),
    ),
    "dense without bias": (
        lambda x, impl: linear_leaky_relu(x, W, None, 0.0, impl=impl),
        lambda x: plain_dense(x, W, None, 0.0),
    ),
    "bce": (
        lambda x, impl: bce_with_logits(x, 1.0, impl=impl),
        lambda x: plain_bce(x, 1.0, None, None, "mean"),
    ),
    "bce of a tensor": (
        lambda x, impl: bce_with_logits(x, torch.sigmoid(x.detach()), reduction="none", impl=impl),
        lambda x: plain_bce(x, torch.sigmoid(x.detach()), None, None, "none"),
    ),
}
EVERY = pytest.mark.parametrize("name", OPS)


def check(op, plain, x):
    """Fail unless values and gradients are those of plain operators."""
    leaves = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, wanted = op(leaves[0]), plain(leaves[1])
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    for y in (got, wanted):
        y.square().mean().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-4, atol=1e-4)


class Model(torch.nn.Module):
    """A function as the forward of a module, for what takes only these."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def targets(graph: torch.fx.Graph) -> set[str]:
    return {str(node.target) for node in graph.nodes if node.op == "call_function"}


# torch.jit.trace is deprecated, and PyTorch's own loss compares sizes.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@EVERY
@pytest.mark.parametrize("impl", ["auto", "cpu"])
def test_traced(name, impl):
    """By PyTorch's operators, or by the op that was asked for; of other rows than it was traced with, too."""
    op, plain = OPS[name]
    traced = torch.jit.trace(lambda x: op(x, impl), X)
    assert ("fastgan::" in str(traced.graph)) == (impl == "cpu")
    for x in (3 * X, X[:7]):
        torch.testing.assert_close(traced(x), plain(x), rtol=1e-4, atol=1e-4)


@EVERY
@pytest.mark.parametrize("dynamic", [False, True])
def test_what_is_asked_for_by_name_is_one_op_of_a_compiled_graph(name, dynamic):
    op, plain = OPS[name]
    graphs = []

    def backend(module, inputs):
        graphs.append(module.graph)
        return torch._dynamo.lookup_backend("aot_eager")(module, inputs)

    torch._dynamo.reset()
    compiled = torch.compile(partial(op, impl="cpu"), fullgraph=True, dynamic=dynamic, backend=backend)
    for rows in (64, 7):
        check(compiled, plain, X[:rows])
    assert all(any(t.startswith("fastgan") for t in targets(graph)) for graph in graphs)


@pytest.mark.interpreted
def test_triton_compiled():
    for name, (op, plain) in OPS.items():
        torch._dynamo.reset()
        compiled = torch.compile(partial(op, impl="triton"), fullgraph=True, backend="aot_eager")
        if name.startswith("bce"):
            check(compiled, plain, X[:3])
        else:
            torch.testing.assert_close(compiled(X[:3]), plain(X[:3]), rtol=1e-4, atol=1e-4)


@EVERY
@pytest.mark.parametrize("x", [X, X[:5]], ids=len)
def test_auto_takes_a_compiled_graph_of_any_number_of_rows(name, x):
    """Also of a number that only the values tell; a size that was compared would be a guard."""
    op, plain = OPS[name]

    def some(x):
        return op(x[x[:, 0] > 0], "auto")

    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        check(torch.compile(some, fullgraph=True, backend="aot_eager"), lambda x: plain(x[x[:, 0] > 0]), x)
    torch._dynamo.reset()
    marked = x.clone()
    torch._dynamo.mark_dynamic(marked, 0)
    compiled = torch.compile(partial(op, impl="auto"), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(marked), plain(x), rtol=1e-4, atol=1e-4)


def test_a_fused_model_of_any_number_of_rows():
    model = torch.nn.Sequential(torch.nn.Linear(64, 1024), torch.nn.LeakyReLU(0.2), torch.nn.Linear(1024, 1))
    plain = model.forward
    fused = fastgan.fuse(model, inplace=False)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(lambda x: fused(x[x[:, 0] > 0]), fullgraph=True, backend="aot_eager")
        check(compiled, lambda x: plain(x[x[:, 0] > 0]), X)


ROWS_OF_A_PROGRAM = ({0: Dim("rows", min=1, max=1 << 20)},)


@EVERY
def test_exported_for_any_number_of_rows(name):
    op, plain = OPS[name]
    model = Model(partial(op, impl="auto"))
    program = export(model, (X[:5],), dynamic_shapes=ROWS_OF_A_PROGRAM, strict=False)
    assert not any("fastgan" in target for target in targets(program.graph))
    for x in (X, X[:1]):
        torch.testing.assert_close(program.module()(x), plain(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strict", [True, False])
def test_layers_exported_for_any_number_of_rows(strict):
    loss = layers.BCEWithLogitsLoss()
    for model in (
        layers.LinearLeakyReLU(64, 1024),
        layers.MLP((64, 1024, 1)),
        Model(lambda x: loss(x, torch.ones_like(x))),
    ):
        program = export(model, (X[:5],), dynamic_shapes=ROWS_OF_A_PROGRAM, strict=strict)
        torch.testing.assert_close(program.module()(X), model(X), rtol=1e-4, atol=1e-4)


@EVERY
def test_symbolic_sizes_are_not_compared(name):
    op, plain = OPS[name]
    record = partial(make_fx, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    graph, wanted = record(partial(op, impl="auto"))(X[:5]), record(plain)(X[:5])
    guards = ([str(guard.expr) for guard in g.shape_env.guards] for g in (graph, wanted))
    assert next(guards) == next(guards)
    torch.testing.assert_close(graph(X), plain(X), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_the_reason_is_told():
    seen = []

    def f(x):
        seen.append(explain(linear_leaky_relu, x, W, B).reason)
        return x

    torch.jit.trace(f, X)
    assert "traces and exports" in seen[0]


# PyTorch looks at what autograd saved, leaf or not.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("impl", ["cpu", "reference"])
def test_compiled_autograd_of_an_eager_forward(impl, changed):
    found = []
    for op in (partial(linear_leaky_relu, impl=impl), plain_dense):
        leaves = [t.clone().requires_grad_() for t in (X, W, B)]
        y = op(*leaves, 0.2)
        loss = (y.mul_(-2.0) if changed else y).square().mean()
        with compiled_autograd._enable(torch.compile(backend="eager")):
            loss.backward()
        found.append([t.grad for t in leaves])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
