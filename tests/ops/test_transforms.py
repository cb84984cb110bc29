"""The ops under torch.library.opcheck, torch.compile, torch.func and autocast."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
from helpers.ops_cases import plain_bce, plain_dense
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

import fastgan
from fastgan.errors import UserError
from fastgan.ops import bce_op, bce_with_logits, dense_op, linear_leaky_relu

D = {"dtype": torch.float64}
X, W, B = torch.randn(3, 4, 5, **D), torch.randn(6, 5, **D), torch.randn(6, **D)
L, T = torch.randn(3, 4, **D), torch.rand(3, 4, **D)


def needs_grad(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


# The ops as ``auto`` runs them, and the fused op, whose kernels are PyTorch's operators in float64.
DENSE = {
    "auto": linear_leaky_relu,
    "op": partial(dense_op.linear_leaky_relu, impl="auto"),
}
BCE = {
    "auto": lambda logits, target, reduction: bce_with_logits(logits, target, reduction=reduction),
    "op": lambda logits, target, reduction: bce_op.bce_with_logits(
        logits, target, None, None, reduction, "auto"
    ),
}


OPCHECKED = pytest.mark.parametrize(
    ("impl", "dtype"), [("auto", torch.float64), ("cpu", torch.float32)], ids=["PyTorch's", "native"]
)


@OPCHECKED
@pytest.mark.parametrize("bias", [True, False])
def test_opcheck_dense(bias, impl, dtype):
    check_dense(bias, impl, dtype)


def check_dense(bias, impl, dtype):
    """Fail unless ``opcheck`` finds nothing wrong with the ops of a dense layer."""
    x, weight, b, dy = needs_grad(*(t.to(dtype) for t in (X, W, B, torch.randn(3, 4, 6))))
    b = b if bias else None
    torch.library.opcheck(dense_op.forward, (x, weight, b, 0.2, impl))
    y = plain_dense(X, W, B, 0.2).to(dtype)
    torch.library.opcheck(dense_op.backward, (dy, x, weight, y, 0.2, bias, impl))
    some = (x, None) if bias else (None, weight)
    torch.library.opcheck(dense_op.backward, (dy, *some, y, 0.2, False, impl))


@OPCHECKED
@pytest.mark.parametrize(
    ("reduction", "target", "weights"), [("mean", 1.0, False), ("none", T, True), ("sum", T, False)]
)
def test_opcheck_bce(reduction, target, weights, impl, dtype):
    check_bce(reduction, target, weights, impl, dtype)


def check_bce(reduction, target, weights, impl, dtype):
    """Fail unless ``opcheck`` finds nothing wrong with the ops of the loss."""
    logits, dloss = needs_grad(L.to(dtype), torch.randn(L.shape if reduction == "none" else ()).to(dtype))
    arguments = (target.to(dtype), 0.0) if isinstance(target, torch.Tensor) else (None, target)
    rest = (torch.rand(3, 1, dtype=dtype), torch.rand(4, dtype=dtype)) if weights else (None, None)
    torch.library.opcheck(bce_op.forward, (logits, *arguments, *rest, reduction, True, impl))
    torch.library.opcheck(bce_op.backward, (dloss, T.to(dtype), logits, *arguments, *rest, reduction))


@pytest.mark.interpreted
def test_opcheck_of_the_triton_kernels():
    check_dense(True, "triton", torch.float32)
    check_bce("none", T, True, "triton", torch.float32)


@pytest.mark.parametrize("dense", DENSE)
@pytest.mark.parametrize("bce", BCE)
def test_compiled_in_one_graph(dense, bce):
    """Forward and backward, with a graph for sizes that change."""

    def loss(x, weight, bias, last):
        h = DENSE[dense](x, weight, bias, 0.2)
        return BCE[bce](h @ last, 1.0, "mean") + BCE[bce](h @ last, 0.0, "sum")

    def plain(x, weight, bias, last):
        logits = plain_dense(x, weight, bias, 0.2) @ last
        return plain_bce(logits, 1.0, None, None, "mean") + plain_bce(logits, 0.0, None, None, "sum")

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (4, 7):
        inputs = needs_grad(torch.randn(rows, 5, **D), W, B, torch.randn(6, 1, **D))
        got, wanted = compiled(*inputs), plain(*inputs)
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(torch.autograd.grad(got, inputs), torch.autograd.grad(wanted, inputs))


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # Inductor's own
def test_compiled_by_inductor(tmp_path, monkeypatch):
    """What auto takes becomes part of Inductor's own code; the native ops are called from it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    native = partial(dense_op.linear_leaky_relu, impl="cpu")
    model = fastgan.fuse(torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.LeakyReLU(0.2)))

    def loss(dense, x, weight, bias, last):
        h = model(x) + dense(x, weight, bias, 0.2)
        return bce_op.bce_with_logits(h @ last, 1.0, None, None, "mean", "cpu") + bce_with_logits(
            h @ last, 0.0
        )

    inputs = needs_grad(*(t.float() for t in (X.view(12, 5), W, B, torch.randn(6, 1))))
    torch._dynamo.reset()
    compiled = torch.compile(partial(loss, native), fullgraph=True)
    got, wanted = compiled(*inputs), loss(plain_dense, *inputs)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(torch.autograd.grad(got, inputs), torch.autograd.grad(wanted, inputs))


def scalar(op, *rest):
    return lambda *a: op(*a, *rest).pow(2).sum()


@pytest.mark.parametrize("name", DENSE)
def test_func_of_dense(name):
    f, p = scalar(DENSE[name], 0.2), scalar(plain_dense, 0.2)
    everything = (0, 1, 2)
    same = torch.testing.assert_close
    same(grad(f, everything)(X, W, B), grad(p, everything)(X, W, B))
    over_x = (0, None, None)
    same(vmap(grad(f, everything), over_x)(X, W, B), vmap(grad(p, everything), over_x)(X, W, B))
    same(vmap(f, (1, None, None))(X, W, B), vmap(p, (1, None, None))(X, W, B))
    per_row = grad(lambda w, g: vmap(g, (0, None, None))(X, w, B).sum())
    same(per_row(W, f), per_row(W, p))
    ensemble = torch.stack([W, 2 * W, -W]), torch.stack([B, B, 0 * B])
    for in_dims, inputs in (((None, 0, 0), (X, *ensemble)), ((0, 0, None), (X, ensemble[0], B))):
        got, wanted = (vmap(grad(g, everything), in_dims)(*inputs) for g in (f, p))
        same(got, wanted)
    same(jacrev(jacrev(f))(X, W, B), jacrev(jacrev(p))(X, W, B))

    def penalty(g):
        return lambda w: grad(g)(X, w, B).pow(2).sum()

    same(grad(penalty(f))(W), grad(penalty(p))(W))


@pytest.mark.parametrize("name", BCE)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("target", [1.0, "tensor"])
def test_func_of_bce(name, reduction, target):
    t = T if target == "tensor" else target
    over = (0, 0) if target == "tensor" else (0, None)

    def f(logits, t):
        return BCE[name](logits, t, reduction).sum()

    def p(logits, t):
        return plain_bce(logits, t, None, None, reduction).sum()

    same = torch.testing.assert_close
    same(grad(f)(L, t), grad(p)(L, t))
    same(vmap(grad(f), over)(L, t), vmap(grad(p), over)(L, t))
    per_row = grad(lambda logits, g: vmap(g, over)(logits, t).sum())
    same(per_row(L, f), per_row(L, p))
    same(jacrev(jacrev(f))(L, t), jacrev(jacrev(p))(L, t))


# PyTorch's forward mode compiles some of its own formulas by what it has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_auto_has_forward_mode_and_the_fused_ops_say_that_they_have_none():
    for f, p, x in (
        (lambda x: linear_leaky_relu(x, W, B, 0.2), lambda x: plain_dense(x, W, B, 0.2), X),
        (lambda x: bce_with_logits(x, 1.0), lambda x: plain_bce(x, 1.0, None, None, "mean"), L),
    ):
        torch.testing.assert_close(jvp(f, (x,), (x,)), jvp(p, (x,), (x,)))
        torch.testing.assert_close(hessian(scalar(f))(x), hessian(scalar(p))(x))
    for call in (
        lambda x: linear_leaky_relu(x, W, B, impl="triton"),
        lambda x: bce_with_logits(x, 1.0, impl="triton"),
    ):
        with pytest.raises(UserError, match=r"^impl: got 'triton' under forward-mode .* wanted auto"):
            jvp(call, (X,), (X,))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("create_graph", [False, True])
def test_forward_mode_over_the_backward_pass_of_a_node_that_was_there(slope, create_graph):
    """Of the public ops the node is native; dual numbers come in by the gradient of its result."""
    pairs = (
        (
            lambda x: linear_leaky_relu(x, W.float(), B.float(), slope, impl="cpu"),
            lambda x: plain_dense(x, W.float(), B.float(), slope),
            X,
        ),
        (
            lambda x: bce_with_logits(x, 1.0, reduction="none", impl="cpu"),
            lambda x: plain_bce(x, 1.0, None, None, "none"),
            L,
        ),
    )
    for *functions, x in pairs:
        found = []
        for f in functions:
            leaf = x.float().requires_grad_()
            y = f(leaf)
            dy, tangent = (torch.linspace(*ends, y.numel()).view_as(y) for ends in ((-1, 1), (2, 3)))

            def backward(dy, y=y, leaf=leaf):
                return torch.autograd.grad(y, leaf, dy, create_graph=create_graph, retain_graph=True)[0]

            with forward_ad.dual_level():
                dual = forward_ad.unpack_dual(backward(forward_ad.make_dual(dy, tangent)))
            assert dual.tangent is not None
            found.append([*dual, *jvp(backward, (dy,), (tangent,))])
        torch.testing.assert_close(*found)


def test_per_sample_gradients_of_a_module():
    layer = torch.nn.Linear(5, 6)
    parameters = dict(layer.named_parameters())

    def loss(op, p, x):
        return op(x, p["weight"], p["bias"], 0.2).pow(2).sum()

    got, wanted = (
        vmap(grad(partial(loss, op)), (None, 0))(parameters, X.float()) for op in (DENSE["op"], plain_dense)
    )
    torch.testing.assert_close(got, wanted)
    assert functional_call(layer, parameters, X.float()).shape == (3, 4, 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dense", [linear_leaky_relu, torch.ops.fastgan.linear_leaky_relu])
def test_autocast_is_that_of_a_linear_layer(dense, dtype):
    x, weight, bias = needs_grad(X.float(), W.float(), B.float())
    outputs = []
    for op in (dense, plain_dense):
        with torch.autocast("cpu", dtype):
            y = op(x, weight, bias, 0.2)
        gradients = torch.autograd.grad(y.float().sum(), (x, weight, bias))
        outputs.append((y, *gradients))
    assert [t.dtype for t in outputs[0]] == [dtype, *[torch.float32] * 3]
    torch.testing.assert_close(*outputs)
    with torch.autocast("cpu", dtype):
        assert dense(X, W, B, 0.2).dtype == torch.float64


def test_the_loss_is_float32_under_autocast():
    logits, target = L.bfloat16(), T.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        losses = [
            bce_with_logits(logits, 1.0),
            bce_with_logits(logits, target, reduction="none"),
            torch.ops.fastgan.bce_with_logits(logits, target, 0.0, None, None, "none", False)[0],
        ]
    assert {loss.dtype for loss in losses} == {torch.float32}


def test_the_caller_may_be_in_inference_mode():
    with torch.inference_mode():
        assert not DENSE["op"](X, W, B, 0.2).requires_grad
        assert not BCE["op"](L, 1.0, "mean").requires_grad
