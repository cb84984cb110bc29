"""What the ops accept and what they refuse, and how."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from helpers.ops_cases import plain_bce, plain_dense

from fastgan.errors import UserError
from fastgan.ops import bce_with_logits, explain, linear_leaky_relu

X, W, B = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)


NAMED = pytest.mark.parametrize("impl", ["auto", "reference", "cpu"])


@pytest.mark.parametrize(
    "slope", [-0.1, math.nan, math.inf, "0.2", None, 1j, 10**400, torch.ones(2)], ids=lambda s: str(s)[:9]
)
def test_slopes_that_are_no_numbers_from_zero_on_are_refused(slope):
    with pytest.raises(UserError, match=r"^negative_slope: got .* wanted a number >= 0"):
        linear_leaky_relu(X, W, B, slope)


@NAMED
@pytest.mark.parametrize("slope", [1, np.float32(0.25), np.float64(0.25), torch.tensor(0.25)], ids=repr)
def test_any_number_is_a_slope(slope, impl):
    torch.testing.assert_close(
        linear_leaky_relu(X, W, B, slope, impl=impl), plain_dense(X, W, B, float(slope))
    )


@pytest.mark.parametrize(
    "call",
    [lambda impl: linear_leaky_relu(X, W, B, impl=impl), lambda impl: bce_with_logits(X, 1.0, impl=impl)],
)
def test_unknown_implementations_are_refused(call):
    with pytest.raises(UserError, match=r"^impl: got 'refrence'; wanted .* Did you mean 'reference'\?"):
        call("refrence")


@NAMED
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("x", partial(linear_leaky_relu, X.tolist(), W, B)),
        ("bias", partial(linear_leaky_relu, X, W, B.tolist())),
        ("logits", partial(bce_with_logits, X.tolist(), 1.0)),
    ],
    ids=["x", "bias", "logits"],
)
def test_what_is_no_tensor_is_refused(name, call, impl):
    with pytest.raises(
        UserError, match=rf"^{name}: got a list; wanted a tensor\. Use torch.as_tensor\({name}\)"
    ):
        call(impl=impl)


@NAMED
@pytest.mark.parametrize("many", [1, 1 << 15])
@pytest.mark.parametrize(
    "target", [None, "1", [1.0], 1j, Decimal(1), np.ones(1), 10**400], ids=lambda t: str(t)[:9]
)
def test_targets_that_are_no_numbers_are_refused(target, impl, many):
    with pytest.raises(
        UserError, match=r"^target: got .*; wanted a tensor of the logits' shape, or a number"
    ):
        bce_with_logits(X.repeat(many, 1), target, impl=impl)


@NAMED
@pytest.mark.parametrize("many", [1, 1 << 15])
@pytest.mark.parametrize("target", [1e40, -1e40])
def test_targets_that_the_logits_dtype_does_not_hold_are_refused(target, impl, many):
    with pytest.raises(UserError, match=r"^target: got -?1e\+40 for logits in torch.float32; wanted"):
        bce_with_logits(X.repeat(many, 1), target, impl=impl)


@NAMED
def test_weights_without_dimensions_are_refused(impl):
    for call in (linear_leaky_relu, partial(explain, linear_leaky_relu)):
        with pytest.raises(UserError, match=r"^weight: got .*; wanted \[outputs, inputs\]"):
            call(X, torch.tensor(1.0), impl=impl)


@NAMED
@pytest.mark.parametrize("many", [1, 1 << 15])
@pytest.mark.parametrize("target", [1, True, Fraction(1, 2), np.float32(0.5), np.int64(1)], ids=repr)
def test_any_number_is_a_target(target, impl, many):
    logits = X.repeat(many, 1)
    torch.testing.assert_close(
        bce_with_logits(logits, target, impl=impl), plain_bce(logits, float(target), None, None, "mean")
    )


@NAMED
@pytest.mark.parametrize("many", [1, 1 << 15])
@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_weights_that_are_no_tensors_are_refused(name, impl, many):
    with pytest.raises(UserError, match=rf"^{name}: got a float; wanted a tensor"):
        bce_with_logits(X.repeat(many, 1), 1.0, **{name: 2.0}, impl=impl)


@NAMED
def test_unknown_reductions_are_refused(impl):
    with pytest.raises(UserError, match=r"^reduction: got 'men'; wanted one of .* Did you mean 'mean'\?"):
        bce_with_logits(X, 1.0, reduction="men", impl=impl)


@pytest.mark.parametrize(("impl", "wanted"), [("cpu", "the CPU"), ("triton", "a CUDA device")])
def test_tensors_without_memory_are_refused_by_name(impl, wanted):
    for call in (
        partial(linear_leaky_relu, X.to("meta"), W.to("meta")),
        partial(bce_with_logits, X.to("meta"), 1.0),
    ):
        with pytest.raises(
            UserError, match=rf"^impl: got '{impl}' with tensors on meta; wanted tensors on {wanted}"
        ):
            call(impl=impl)


def check_lazy(impl: str) -> None:
    """Fail unless tensors whose memory has other values than they are read at their values."""

    def negative(*shape):  # of a lazy minus
        return torch.randn(*shape, dtype=torch.complex64).conj().imag

    def zeros(*shape):
        return torch._efficientzerotensor(shape)

    for lazy in (negative, zeros):
        x, weight, bias, dy = lazy(3, 4), lazy(5, 4), lazy(5), lazy(3, 5)
        for tensors in ((x, W, B, torch.ones(3, 5)), (X, weight, bias, torch.ones(3, 5)), (X, W, B, dy)):
            leaves = [t.detach().requires_grad_() for t in tensors[:3]]
            got, wanted = linear_leaky_relu(*leaves, 0.2, impl=impl), plain_dense(*leaves, 0.2)
            torch.testing.assert_close(got, wanted)
            gradients = (torch.autograd.grad(y, leaves, tensors[3]) for y in (got, wanted))
            torch.testing.assert_close(*gradients)
        for logits, target, weight in ((x, 1.0, None), (X, x, None), (X, 1.0, x)):
            logits = logits.detach().requires_grad_()
            got = bce_with_logits(logits, target, weight, reduction="none", impl=impl)
            wanted = plain_bce(logits, target, weight, None, "none")
            torch.testing.assert_close(got, wanted)
            gradients = (torch.autograd.grad(loss, logits, dy[:, :4]) for loss in (got, wanted))
            torch.testing.assert_close(*gradients)


def test_lazy_tensors():
    check_lazy("cpu")


@pytest.mark.interpreted
def test_lazy_tensors_in_triton():
    check_lazy("triton")
