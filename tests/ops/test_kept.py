"""Results that are changed in place before backward, as PyTorch allows after LeakyReLU."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from functools import partial
from weakref import ref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import grad
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from fastgan.ops import linear_leaky_relu
from fastgan.ops.kept import Kept


def plain_dense(x: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(F.linear(x, weight, bias), slope)  # at slope 0, too: relu refuses the changes


FEW, MANY = 4, 1 << 12  # rows; many of 2^8 outputs are enough for native code in auto


def dropped(h: Tensor) -> Tensor:
    torch.manual_seed(3)
    return F.dropout(h, 0.5, training=True, inplace=True)


CHANGES = {
    "untouched": lambda h: h,
    "+=": lambda h: h.add_(1.5),
    "mul_": lambda h: h.mul_(-2.0),
    "dropout": dropped,
}


def draw(rows: int, needs: str) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(rows)
    shapes = {"x": (rows, 5), "weight": (256, 5), "bias": (256,)}
    return {k: torch.randn(s, generator=random).requires_grad_(k in needs) for k, s in shapes.items()}


def derivatives(op, change, rows: int, needs: str, slope: float = 0.2) -> dict[str, Tensor]:
    """Return a layer's output, changed, and the first and second derivatives of a loss of it."""
    leaves = draw(rows, needs)
    asked = [t for t in leaves.values() if t.requires_grad]
    h = change(op(*leaves.values(), slope))
    first = grad(h.square().mean(), asked, create_graph=True)
    second = grad(sum(g.square().sum() for g in first), asked, allow_unused=True, materialize_grads=True)
    return {"h": h, **{f"first {i}": g for i, g in enumerate(first)}, **dict(enumerate(second))}


def check(op, change, *args, around=nullcontext) -> None:
    with around():
        got = derivatives(op, CHANGES[change], *args)
    torch.testing.assert_close(got, derivatives(plain_dense, CHANGES[change], *args), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("needs", ["x", "weight", "bias", "weight bias", "x weight bias"])
@pytest.mark.parametrize(("impl", "rows"), [("cpu", FEW), ("auto", MANY), ("reference", MANY)])
def test_derivatives_are_those_of_plain_pytorch(impl, rows, needs, change):
    check(partial(linear_leaky_relu, impl=impl), change, rows, needs)


@pytest.mark.interpreted
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_derivatives_of_triton(slope, change):
    check(partial(linear_leaky_relu, impl="triton"), change, FEW, "x weight bias", slope)


OFFLOAD = {
    "elsewhere": lambda: saved_tensors_hooks(lambda t: t.clone(), lambda t: t),
    "as they are": lambda: saved_tensors_hooks(lambda t: t, lambda t: t),
}


@pytest.mark.parametrize("hooks", OFFLOAD)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("impl", "rows"), [("cpu", FEW), ("reference", MANY)])
def test_where_hooks_take_what_is_saved(impl, rows, change, hooks):
    check(partial(linear_leaky_relu, impl=impl), change, rows, "x weight bias", around=OFFLOAD[hooks])


@pytest.mark.parametrize(("impl", "rows"), [("cpu", FEW), ("reference", MANY)])
def test_in_a_checkpoint(impl, rows):
    leaves = draw(rows, "x weight bias")

    def gradients(op):
        h = checkpoint(lambda *a: op(*a, 0.2).mul_(-2.0).exp(), *leaves.values(), use_reentrant=False)
        return grad(h.mean(), list(leaves.values()))

    torch.testing.assert_close(gradients(partial(linear_leaky_relu, impl=impl)), gradients(plain_dense))


def test_under_torch_func():
    x, weight, bias = draw(FEW, "").values()

    def derivatives(op):
        first = torch.func.grad(lambda x: op(x, weight, bias, 0.2).mul_(-2.0).exp().mean())
        return first(x), torch.func.grad(lambda x: first(x).square().sum())(x)

    torch.testing.assert_close(derivatives(partial(linear_leaky_relu, impl="cpu")), derivatives(plain_dense))


def test_through_the_dispatcher():
    check(lambda *args: torch.ops.fastgan.linear_leaky_relu(*args, "cpu"), "mul_", FEW, "x weight bias")


def test_compiled():
    """The change is compiled, too; autograd is asked before it is made functional."""
    leaves = list(draw(FEW, "x weight bias").values())
    losses = [
        lambda *a, op=op: op(*a, 0.2).mul_(-2.0).exp().mean()
        for op in (partial(linear_leaky_relu, impl="cpu"), plain_dense)
    ]
    compiled = torch.compile(losses[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(grad(compiled(*leaves), leaves), grad(losses[1](*leaves), leaves))


@pytest.mark.parametrize("hooks", [None, *OFFLOAD])
@pytest.mark.parametrize(("impl", "rows"), [("cpu", FEW), ("reference", MANY)])
def test_changed_between_two_backward_passes(impl, rows, hooks):
    """The second derivative reads the output, too, which changes after the first one was taken."""
    found = []
    for op in (partial(linear_leaky_relu, impl=impl), plain_dense):
        leaves = list(draw(rows, "x weight bias").values())
        h = op(*leaves, 0.2)
        with OFFLOAD.get(hooks, nullcontext)():
            first = grad(h.sum(), leaves, create_graph=True)
        h.mul_(-2.0)
        second = grad(first[0].square().sum() + first[1].square().sum(), leaves[:2], retain_graph=True)
        found.append((first, second, grad(h.sum(), leaves, retain_graph=True), grad(h.sum(), leaves)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["x", "weight", "bias"])
def test_what_is_gone_is_told(name):
    leaves = draw(FEW, "bias")
    h = linear_leaky_relu(*leaves.values(), 0.2, impl="cpu")
    h.mul_(2.0)
    with torch.no_grad():
        leaves[name].mul_(2.0)
    with pytest.raises(
        RuntimeError, match=f"a result and its {name} that were both modified .* Clone the {name}"
    ):
        h.sum().backward()


@pytest.mark.parametrize("name", ["x", "weight", "bias"])
def test_inputs_that_are_not_needed_may_change(name):
    """As with PyTorch's own: none of them is saved for the gradient of the bias."""
    leaves = draw(FEW, "bias")
    h = linear_leaky_relu(*leaves.values(), 0.2, impl="cpu")
    with torch.no_grad():
        leaves[name].mul_(2.0)
    h.sum().backward()


@pytest.mark.parametrize(("impl", "rows"), [("cpu", FEW), ("reference", MANY)])
def test_memory_is_freed_with_what_is_saved(impl, rows, monkeypatch):
    """By backward, though the graph lives on, unless that is retained; else with the graph."""
    made = []
    hold = Kept.hold
    monkeypatch.setattr(Kept, "hold", lambda self, saved: made.append(ref(self)) or hold(self, saved))
    gc.disable()  # no cycles that hold memory until they are found
    try:
        h = linear_leaky_relu(*draw(rows, "x weight bias").values(), 0.2, impl=impl)
        h.sum().backward(retain_graph=True)
        assert made[0]() is not None
        h.sum().backward()
        assert made[0]() is None
        h = linear_leaky_relu(*draw(rows, "x weight bias").values(), 0.2, impl=impl)
        del h
        assert made[1]() is None and len(made) == 2
    finally:
        gc.enable()


SHAPES = [(2, 2, 5), (1, 4, 5), (5,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("change", CHANGES)
def test_inputs_of_other_than_two_dimensions(change, shape):
    """Their results, and gradients that will be differentiated again, are no views for autograd."""
    found = []
    for op in (partial(linear_leaky_relu, impl="cpu"), plain_dense):
        weight, bias = list(draw(FEW, "weight bias").values())[1:]
        x = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape).requires_grad_()
        h = CHANGES[change](op(x, weight, bias, 0.2))
        (dx,) = grad(h.square().sum(), x, create_graph=True)
        found.append((h, dx.add_(1.0), grad(dx.square().sum(), (x, weight))))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("impl", ["cpu", "reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_without_gradients_may_be_changed_with_them(shape, impl):
    weight, bias = (t.detach() for t in list(draw(FEW, "").values())[1:])
    with torch.no_grad():
        h = linear_leaky_relu(torch.ones(shape), weight, bias, 0.2, impl=impl)
        other = linear_leaky_relu(torch.ones(shape), weight, bias, 0.2, impl=impl).detach_()
    h += (learned := torch.ones((), requires_grad=True))
    h.sum().backward()
    assert learned.grad == h.numel() and torch.equal(h.detach(), other + 1.0)


def test_in_place_without_memory():
    x, weight, bias = (t.detach().to("meta").requires_grad_() for t in draw(MANY, "").values())
    linear_leaky_relu(x, weight, bias, 0.2).mul_(2.0).sum().backward()
    assert x.grad.shape == x.shape
