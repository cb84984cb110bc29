"""``linear_leaky_relu``: outputs and gradients of every implementation, against float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.ops_cases import LAYOUTS, Dense, plain_dense

from fastgan.ops import linear_leaky_relu

HERE = ("auto", "reference", "cpu")
SIZES = [
    (1, 1, 1),
    (2, 3, 5),
    (1, 70, 1),
    (7, 1, 13),
    (16, 16, 16),
    (15, 17, 31),
    (33, 127, 129),
    (64, 63, 257),
    (130, 289, 47),
    (513, 1000, 70),
]


@pytest.fixture(params=HERE)
def op(request):
    return partial(linear_leaky_relu, impl=request.param)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(op, size):
    Dense.random(*size).check(op)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_layouts(op, layout, bias):
    Dense.random(37, 45, 129, layout=layout, bias=bias).check(op)


@pytest.mark.parametrize("slope", [0.0, 1e-3, 1.0, 3.0])
def test_slopes(op, slope):
    Dense.random(20, 33, 17, slope=slope).check(op)


@pytest.mark.parametrize("rows", [(), (1,), (2, 3), (2, 1, 4, 3)])
def test_leading_dimensions(op, rows):
    case = Dense.random(rows, 9, 7)
    assert case.results(op)["y"].shape == (*rows, 7)
    case.check(op)


@pytest.mark.parametrize("rows", [(0,), (3, 0), (0, 2)])
def test_zero_rows(op, rows):
    got = Dense.random(rows, 9, 7).results(op)
    assert got["y"].shape == (*rows, 7) and got["dx"].shape == (*rows, 9)
    assert not got["dweight"].any() and not got["dbias"].any()


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 3), (3, 0), (0, 0)])
def test_no_inputs_or_outputs(op, inputs, outputs):
    case = Dense.random(4, inputs, outputs)
    got, wanted = case.results(op), case.results(plain_dense)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_what_is_not_finite(op, slope):
    x = torch.tensor([[torch.nan], [torch.inf], [-torch.inf], [-0.0], [1e-44], [-1e-44]]).requires_grad_()
    one = torch.ones(1, 1)
    got, wanted = op(x, one, None, slope), plain_dense(x, one, None, slope)
    gradients = [torch.autograd.grad(y, x, torch.ones_like(y))[0] for y in (got, wanted)]
    torch.testing.assert_close(got, wanted, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(*gradients, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype):
    case = Dense.random(33, 47, 29, dtype=dtype)
    got = case.results(linear_leaky_relu)
    assert {t.dtype for t in got.values()} == {dtype}
    case.check(linear_leaky_relu)


def test_auto_has_pytorchs_own_numbers_where_it_runs_pytorch():
    case = Dense.random((3, 4), 9, 7)
    got, wanted = case.results(partial(linear_leaky_relu, impl="reference")), case.results(plain_dense)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_activation_is_in_place_for_autograd_too_where_that_is_faster(dtype):
    """One tensor is kept where plain PyTorch keeps the product and the output."""

    def kept(op):
        case = Dense.random(512, 300, 2048, dtype=dtype)
        y = op(case.x, case.weight.requires_grad_(), case.bias, 0.2)
        saved = [getattr(y.grad_fn, name) for name in dir(y.grad_fn) if name.startswith("_saved_")]
        saved += getattr(y.grad_fn, "saved_tensors", ())
        return len({t.data_ptr() for t in (y, *saved) if getattr(t, "shape", ()) == y.shape})

    assert kept(plain_dense) == 2
    for ours in (linear_leaky_relu, partial(linear_leaky_relu, impl="reference")):
        assert kept(ours) == (1 if dtype == torch.float32 else 2)


# ---- mistakes that the comparison must see

MISTAKES = {
    "zeros": lambda x, w, b, s: 0.0 * plain_dense(x, w, b, s),
    "wrong slope": lambda x, w, b, s: plain_dense(x, w, b, s * 1.001),
    "no bias": lambda x, w, b, s: plain_dense(x, w, 0.0 * b, s),
    "wrong sign": lambda x, w, b, s: -plain_dense(x, w, b, s),
    "no activation": lambda x, w, b, s: F.linear(x, w, b),
    "gradient past the mask": lambda x, w, b, s: _PastTheMask.apply(x, w, b, s),
    "one output off": lambda x, w, b, s: plain_dense(x, w, b, s) + _ONE,
    "bfloat16 inside": lambda x, w, b, s: plain_dense(*(t.bfloat16() for t in (x, w, b)), s).float(),
}
_ONE = torch.zeros(16, 12)
_ONE[3, 5] = 1e-4


class _PastTheMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, slope):
        ctx.save_for_backward(x, weight)
        return plain_dense(x, weight, bias, slope)

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        return dy @ weight, dy.t() @ x, dy.sum(0), None


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_seen(name):
    with pytest.raises(AssertionError, match="beyond"):
        Dense.random(16, 20, 12).check(MISTAKES[name])
