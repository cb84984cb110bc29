"""``bce_with_logits``: loss and gradient of every implementation, against float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers.ops_cases import LAYOUTS, Bce, check_bce, plain_bce

from fastgan.ops import bce_with_logits

HERE = ("auto", "reference", "cpu")


@pytest.fixture(params=HERE)
def op(request):
    return partial(bce_with_logits, impl=request.param)


@pytest.mark.parametrize("shape", [(), (1,), (7, 1), (128, 1), (3, 5, 7), (16, 257), (1023, 33)], ids=str)
@pytest.mark.parametrize("target", [None, 1.0, 0.0, 0.9])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_shapes(op, shape, target, reduction):
    check_bce(op, *shape, target=target, reduction=reduction)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_layouts_and_weights(op, layout, reduction):
    check_bce(op, 37, 5, weights=True, reduction=reduction, layout=layout)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_zero_rows(op, reduction):
    logits = torch.zeros(0, 3, requires_grad=True)
    got, wanted = (f(logits, 1.0, None, None, reduction) for f in (op, plain_bce))
    torch.testing.assert_close(got, wanted, equal_nan=True)
    got.sum().backward()
    assert logits.grad.shape == (0, 3)


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_extremes(op, target):
    logits = torch.tensor([-1e30, -200.0, -100.0, -20.0, 0.0, 20.0, 100.0, 200.0, 1e30, torch.nan])
    case = Bce(logits, target, None, None, "none")
    torch.testing.assert_close(
        case.results(op), case.results(plain_bce), equal_nan=True, rtol=3e-7, atol=2e-7
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype):
    case = Bce.random(33, 3, dtype=dtype)
    assert {t.dtype for t in case.results(bce_with_logits).values()} == {dtype}
    check_bce(bce_with_logits, 33, 3, dtype=dtype)


MISTAKES = {
    "zeros": lambda loss, *_: 0.0 * loss,
    "wrong sign": lambda loss, *_: -loss,
    "no weight": lambda _, logits, target, weight, *rest: plain_bce(logits, target, None, *rest),
    "no pos_weight": lambda _, logits, target, weight, __, reduction: plain_bce(
        logits, target, weight, None, reduction
    ),
    "other target": lambda _, logits, target, *rest: plain_bce(logits, 1 - target, *rest),
    "sum for mean": lambda loss, logits, *_: loss * logits.numel(),
    "an eps off": lambda loss, *_: loss * (1 + 2e-6),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_seen(name):
    def broken(*arguments):
        return MISTAKES[name](plain_bce(*arguments), *arguments)

    with pytest.raises(AssertionError, match="beyond"):
        check_bce(broken, 64, 3, weights=True)
