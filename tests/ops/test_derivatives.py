"""Derivatives of first, second and third order, through the ops themselves and through their backward ops.

In float64, where the ops' kernels are PyTorch's operators: what is tested is how derivatives are made. But
batches of gradients are in float32, as the native kernels are that must not get them.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers.ops_cases import plain_bce, plain_dense
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.autograd.functional import hessian, jacobian

from fastgan.errors import UserError
from fastgan.ops import bce_op, bce_with_logits, dense_op, linear_leaky_relu
from fastgan.ops.backends import cpu, pytorch


def draw(*shape: int, needs: bool = True) -> torch.Tensor:
    random = torch.Generator().manual_seed(sum(shape) + len(shape))
    return torch.randn(*shape, generator=random, dtype=torch.float64).requires_grad_(needs)


def dense(x, weight, bias=None, slope=0.2):
    return dense_op.linear_leaky_relu(x, weight, bias, slope, "auto")


def through_the_dispatcher(x, weight, bias=None, slope=0.2):
    return torch.ops.fastgan.linear_leaky_relu(x, weight, bias, slope)


@pytest.mark.parametrize("op", [dense, through_the_dispatcher])
@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("rows", [(4,), (2, 3)])
def test_dense(op, slope, rows):
    inputs = draw(*rows, 3), draw(5, 3), draw(5)
    f = partial(op, slope=slope)
    assert gradcheck(f, inputs) and gradgradcheck(f, inputs)
    assert gradgradcheck(lambda *a: f(*a), inputs[:2])


@pytest.mark.parametrize("op", [dense, through_the_dispatcher])
def test_third_derivatives_of_dense(op):
    inputs = draw(4, 3), draw(5, 3), draw(5)

    def penalty(*tensors):
        return grad(op(*tensors).pow(3).sum(), tensors[:2], create_graph=True)

    assert gradgradcheck(penalty, inputs)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_only_the_gradients_that_are_needed(needed, monkeypatch):
    """Each subset gives what all give, and the backward kernels are not asked for more."""
    tensors = [draw(4, 3), draw(5, 3), draw(5)]
    everything = grad(dense(*tensors).pow(2).sum(), tensors)
    some = [t.detach().requires_grad_(i in needed) for i, t in enumerate(tensors)]
    asked = []
    backward = pytorch.dense_bwd

    def watch(dy, x, weight, y, slope, bias):
        asked.append((weight is not None, x is not None, bias))
        return backward(dy, x, weight, y, slope, bias)

    monkeypatch.setattr(pytorch, "dense_bwd", watch)
    got = grad(dense(*some).pow(2).sum(), [some[i] for i in needed])
    for gradient, i in zip(got, needed, strict=True):
        torch.testing.assert_close(gradient, everything[i])
    assert asked == [tuple(i in needed for i in range(3))]


def test_a_gradient_penalty_is_plain_pytorchs():
    x, weight, bias, last = draw(8, 3), draw(5, 3), draw(5), draw(1, 5)

    def penalty(op):
        (g,) = grad((op(x, weight, bias, 0.2) @ last.t()).sum(), x, create_graph=True)
        return grad((g.norm(2, dim=1) - 1).pow(2).mean(), (weight, last))

    torch.testing.assert_close(penalty(dense), penalty(plain_dense))


@pytest.mark.parametrize("of", ["x", "weight", "bias", "x weight", "x bias", "weight bias", "x weight bias"])
@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("rows", [(8,), (2, 4)])
def test_second_derivatives_are_zero_where_pytorchs_are(of, slope, rows):
    """A bias has no part in an input's gradient, but a gradient: optimizers step there."""

    def second(op):
        torch.manual_seed(0)
        leaves = {"x": torch.randn(*rows, 3), "weight": torch.randn(5, 3), "bias": torch.randn(5)}
        x, weight, bias = (leaf.requires_grad_() for leaf in leaves.values())
        y, found = op(x * 2, weight, bias, slope), []
        for loss in (y.sum(), y.pow(2).sum()):
            first = grad(loss, [leaves[name] for name in of.split()], create_graph=True)
            found.append(grad(sum(g.pow(2).sum() for g in first), (x, weight, bias), retain_graph=True))
        return found

    got, wanted = second(partial(linear_leaky_relu, impl="cpu")), second(plain_dense)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_penalty_alone_is_a_step_of_the_optimizer_for_biases_too():
    """R1 by itself, every few steps, as StyleGAN has it."""

    def trained(op):
        torch.manual_seed(0)
        layers = [torch.nn.Linear(3, 5), torch.nn.Linear(5, 4), torch.nn.Linear(4, 1)]
        parameters = [p for layer in layers for p in layer.parameters()]
        optimizer = torch.optim.Adam(parameters, 0.01)

        def logits(x):
            for layer in layers[:-1]:
                x = op(x, layer.weight, layer.bias, 0.2)
            return layers[-1](x)

        for step in range(6):
            x = torch.randn(8, 3, requires_grad=True)
            optimizer.zero_grad()
            loss = logits(x).mean()
            if step % 2:
                loss = grad(loss, x, create_graph=True)[0].pow(2).sum()
            loss.backward()
            optimizer.step()
        return parameters

    torch.testing.assert_close(trained(partial(linear_leaky_relu, impl="cpu")), trained(plain_dense))


def test_nothing_is_computed_of_a_gradient_that_is_zero(monkeypatch):
    x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((4, 3), (5, 3), (5,)))
    monkeypatch.setattr(cpu, "dense_bwd", None)
    zero = torch.zeros(()).expand(4, 5)
    for dx in grad(linear_leaky_relu(x, weight, bias, impl="cpu"), (x, weight, bias), zero):
        assert not dx.any()
    with pytest.raises(TypeError):
        grad(linear_leaky_relu(x, weight, bias, impl="cpu"), x, torch.ones(()).expand(4, 5))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_zero_with_a_history(scale):
    """A factor that happens to be zero, such as a penalty's at the start, has a derivative of its own."""
    found = []
    for op in (partial(linear_leaky_relu, impl="cpu"), plain_dense):
        x, weight, bias = (
            torch.linspace(-1, 1, n).view(s) for n, s in ((12, (4, 3)), (15, (5, 3)), (5, (5,)))
        )
        factor = torch.tensor(scale).requires_grad_()
        x, weight = x.requires_grad_(), weight.requires_grad_()
        (dx,) = grad(factor * op(x, weight, bias, 0.2).sum(), x, create_graph=True)
        found.append((dx, *grad(dx.square().sum() + dx.sum(), (factor, weight))))
        (dx,) = grad(op(x, weight, bias, 0.2).sum() * 0, x, create_graph=True)
        found[-1] += grad(dx.sum(), weight)
    torch.testing.assert_close(*found)


def test_gradients_of_a_zero_are_tensors_of_their_own_and_not_finite_where_pytorchs_are():
    found = []
    for op in (partial(linear_leaky_relu, impl="cpu"), plain_dense):
        x, weight, bias = torch.ones(2, 4, 3), torch.ones(5, 3), torch.ones(5)
        weight[2, 1], x[0, 3, 2] = torch.nan, torch.inf
        leaves = [t.requires_grad_() for t in (x, weight, bias)]
        found.append([g.add_(1.0) for g in grad(op(*leaves, 0.2), leaves, torch.zeros(()).expand(2, 4, 5))])
    assert found[0][0].isnan().any() and found[0][1].isnan().any()
    torch.testing.assert_close(*found, equal_nan=True)


@pytest.mark.parametrize("impl", ["cpu", "reference"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_batches_of_gradients(impl, bias, slope):
    """Jacobians and Hessians by one backward pass, vectorized, as with PyTorch's own operators."""
    x, weight, b = (draw(*shape).detach().float() for shape in ((4, 3), (5, 3), (5,)))
    inputs = (x, weight, b) if bias else (x, weight)

    def dense_of(op, *given):
        return op(*given, *(() if bias else (None,)), slope)

    def loss_of(dense, bce, *given):
        logits = dense_of(dense, *given)
        return bce(logits, 0.3, None, None, "mean") + bce(logits, 1.0, None, None, "none").pow(2).sum()

    ops = partial(linear_leaky_relu, impl=impl), partial(bce_with_logits, impl=impl)
    plain = plain_dense, plain_bce
    for of, derivative in ((dense_of, jacobian), (loss_of, jacobian), (loss_of, hessian)):
        got, wanted = (
            derivative(partial(of, *(some[:1] if of is dense_of else some)), inputs, vectorize=True)
            for some in (ops, plain)
        )
        torch.testing.assert_close(got, wanted)
    leaf = x.clone().requires_grad_()
    got, wanted = (
        grad(dense_of(some[0], leaf, *inputs[1:]), leaf, torch.ones(2, 4, 5), is_grads_batched=True)
        for some in (ops, plain)
    )
    torch.testing.assert_close(got, wanted)


TARGETS = {"tensor": draw(3, 4, needs=False).sigmoid(), "number": 0.9}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weights", [False, True])
def test_bce(reduction, target, weights):
    logits, target = draw(3, 4), TARGETS[target]
    rest = (draw(3, 1, needs=False).exp(), draw(4, needs=False).exp()) if weights else (None, None)

    def f(logits):
        return bce_op.bce_with_logits(logits, target, *rest, reduction, "auto")

    def third(logits):
        return grad(f(logits).pow(3).sum(), logits, create_graph=True)[0]

    torch.testing.assert_close(f(logits), plain_bce(logits, target, *rest, reduction))
    assert gradcheck(f, logits) and gradgradcheck(f, logits)
    assert gradgradcheck(third, logits)
    for gradient in (False, True):
        arguments = (target, 0.0) if isinstance(target, torch.Tensor) else (None, target)
        direct = lambda x: bce_op.forward(x, *arguments, *rest, reduction, gradient)[0]  # noqa: E731, B023
        assert gradcheck(direct, logits) and gradgradcheck(direct, logits)


def test_bce_refuses_what_it_has_no_derivative_for():
    logits, target = draw(3, 4), TARGETS["tensor"].clone().requires_grad_()
    with pytest.raises(UserError, match=r"^target: got a tensor that requires grad; .* impl='reference'"):
        bce_op.bce_with_logits(logits, target, None, None, "mean", "auto")


def test_no_gradient_underflows_in_float16():
    """The mean's gradient is scaled in float32: in float16 it would be zero before a loss scale helps."""
    logits = torch.zeros(1 << 19, dtype=torch.float16, requires_grad=True)
    loss = bce_op.bce_with_logits(logits, 1.0, None, None, "mean", "auto")
    (got,) = grad(loss, logits, torch.tensor(2.0**15, dtype=torch.float16))
    assert got.dtype == torch.float16 and (got == -(2.0**15) / 2 / (1 << 19)).all()
