"""The dense kernels, interpreted, against float64: at most twice PyTorch's own error."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import dense_checks as checks
from helpers.dense_checks import ARITHMETIC, LAYOUTS, DenseCase

pytestmark = pytest.mark.interpreted

SHAPES = [(1, 1, 1), (7, 13, 5), (33, 31, 65), (64, 32, 33), (128, 100, 17)]
"""B, I, O: ones, primes, tiles exactly, one less and one more, several tiles with a last partial one."""


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, arithmetic):
    from fastgan.kernels.triton import dense

    checks.check(dense, DenseCase.random(*shape, arithmetic))


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
def test_large_tiles(arithmetic):
    from fastgan.kernels.triton import dense, tiles

    few = tiles.ENOUGH_PROGRAMS
    try:
        tiles.ENOUGH_PROGRAMS = 1
        checks.check(dense, DenseCase.random(65, 63, 130, arithmetic))
    finally:
        tiles.ENOUGH_PROGRAMS = few


@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0, 1.5])
@pytest.mark.parametrize("bias", [True, False])
def test_slopes_and_no_bias(slope, bias):
    from fastgan.kernels.triton import dense

    checks.check(dense, DenseCase.random(20, 33, 40, slope=slope, bias=bias))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(layout):
    from fastgan.kernels.triton import dense

    checks.check(dense, DenseCase.random(33, 20, 40, layout=layout), LAYOUTS[layout])


def test_expanded_gradients():
    from fastgan.kernels.triton import dense

    case = DenseCase.random(33, 20, 40)
    case.dy = torch.tensor(0.5).expand(33, 40)
    case.x = case.x[:1].expand(33, 20)
    checks.check(dense, case)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (5, 3, 0), (0, 0, 3), (0, 0, 0)])
def test_empty(shape):
    from fastgan.kernels.triton import dense

    checks.check(dense, DenseCase.random(*shape))


def test_gradients_in_float32_of_bfloat16_operands():
    from fastgan.kernels.triton import dense

    case = DenseCase.random(40, 33, 20, "bfloat16")
    out = {k: v.float() for k, v in case.outputs().items()}
    arguments = (case.slope, case.precision)
    dense.linear_leaky_relu_bwd_weight(case.dy, case.y, case.x, out["dweight"], out["dbias"], *arguments)
    truth = checks.pytorch(case.upcast())
    # The gradient before the activation is rounded to bfloat16 (8 bits) as an operand, not as a sum.
    torch.testing.assert_close(out["dweight"].double(), truth["dweight"], rtol=0, atol=40 * 3 * 2**-9)
    torch.testing.assert_close(out["dbias"].double(), truth["dbias"], rtol=0, atol=40 * 2**-22)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_special_values_are_those_of_pytorch(slope):
    from fastgan.kernels.triton import dense

    special = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 1.0, -1.0])
    case = DenseCase.random(7, 1, 1, slope=slope, bias=False)
    case.x, case.weight = special[:, None], torch.ones(1, 1)
    case.y, case.dy = special[:, None], torch.full((7, 1), 3.0)
    got, wanted = checks.run(dense, case), checks.pytorch(case)
    for name in ("y", "dx"):
        assert torch.equal(got[name].nan_to_num(7e7), wanted[name].nan_to_num(7e7)), (name, got[name])


def test_the_same_bits_every_time():
    from fastgan.kernels.triton import dense

    case = DenseCase.random(100, 33, 40)
    one, other = checks.run(dense, case), checks.run(dense, case)
    assert all(torch.equal(one[k], other[k]) for k in one)
