"""The BCE kernels, interpreted, against float64: at most twice PyTorch's own error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import bce_checks as checks
from helpers.bce_checks import BceCase
from helpers.dense_checks import DTYPES, LAYOUTS

pytestmark = pytest.mark.interpreted

REDUCTIONS = ["none", "mean", "sum"]
SHAPES = [(1, 1), (7, 1), (1024, 1), (341, 3), (1, 1025), (31, 300)]
"""B, O: one, a part of a block, one block exactly, one less, one more, two programs' worth."""


DRAWS = 6


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, reduction):
    from fastgan.kernels.triton import bce

    checks.check(bce, [BceCase.random(*shape, draw=i) for i in range(DRAWS)], reduction)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("target", [None, 0.0, 0.9, 1.0])
def test_dtypes_and_one_target_for_all(target, reduction, dtype):
    from fastgan.kernels.triton import bce

    draws = range(DRAWS)
    checks.check(bce, [BceCase.random(50, 3, dtype, target=target, draw=i) for i in draws], reduction)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_and_expanded_weights(layout, reduction, dtype):
    from fastgan.kernels.triton import bce

    cases = [BceCase.random(31, 5, dtype, layout, weights=True, draw=i) for i in range(DRAWS)]
    checks.check(bce, cases, reduction, layout)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_several_programs_and_their_sum(reduction):
    from fastgan.kernels.triton import bce

    assert bce.bce_with_logits_partials(8192) == 0
    assert bce.bce_with_logits_partials(8193) == 9
    assert bce.bce_with_logits_partials(10**9) == bce.MOST_PROGRAMS
    checks.check(bce, [BceCase.random(8193, 1)], reduction)
    checks.check(bce, [BceCase.random(2800, 3, layout="spread")], reduction)


def test_more_blocks_than_programs():
    from fastgan.kernels.triton import bce

    most = bce.MOST_PROGRAMS
    try:
        bce.MOST_PROGRAMS = 4
        checks.check(bce, [BceCase.random(9 * 1024 + 5, 1)], "mean")
    finally:
        bce.MOST_PROGRAMS = most


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_gradient_wanted(reduction):
    from fastgan.kernels.triton import bce

    case = BceCase.random(31, 5)
    wanted = checks.run(bce, case, reduction)["loss"]
    loss = torch.full_like(wanted, torch.nan)
    bce.bce_with_logits_fwd_bwd(case.logits, case.target, None, None, loss, None, reduction=reduction)
    assert torch.equal(loss, wanted)


def test_zero_logits():
    from fastgan.kernels.triton import bce

    case = BceCase.random(0, 1)
    assert checks.run(bce, case, "sum")["loss"] == 0
    assert checks.run(bce, case, "mean")["loss"].isnan()
    assert checks.run(bce, case, "none")["loss"].shape == (0, 1)


@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
def test_extreme_logits(target):
    from fastgan.kernels.triton import bce

    values = torch.tensor([0.0, -0.0, 1e-30, 20.0, -20.0, 90.0, -90.0, 1e4, -1e4, 3e38, -3e38])[:, None]
    checks.check(bce, [BceCase(values, target, None, None)], "none")


@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
def test_infinities_and_nan(target):
    from fastgan.kernels.triton import bce

    case = BceCase(torch.tensor([[math.inf], [-math.inf], [math.nan]]), target, None, None)
    got, wanted = checks.run(bce, case, "none"), checks.pytorch(case, "none")
    for name in got:
        assert got[name][2].isnan()
        number = ~wanted[name].isnan()  # PyTorch has NaN for some infinite losses, too
        assert torch.equal(got[name][number], wanted[name][number]), name


def test_gradients_keep_their_digits_where_the_answer_is_right():
    from fastgan.kernels.triton import bce

    case = BceCase(torch.tensor([[20.0], [25.0]]), 1.0, None, None)
    wanted = -torch.sigmoid(-case.logits.double())
    torch.testing.assert_close(checks.run(bce, case, "none")["dlogits"].double(), wanted, rtol=1e-6, atol=0)
    assert (checks.pytorch(case, "none")["dlogits"].double() - wanted).abs().max() > 0.1 * wanted.abs().max()


@pytest.mark.parametrize("bits", [32, 64])
def test_the_block_beyond_2_to_the_31_logits(bits):
    """Run one program of two million: it has the last five logits, if its numbers are 64-bit."""
    import triton.language as tl
    from fastgan.kernels.triton import bce
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    rows, program = 2**31 + 5, 2**31 // bce.BLOCK
    logits, sums = torch.tensor([[0.5]]).expand(rows, 1), torch.zeros(program + 1)
    original = InterpreterBuilder.create_get_program_id
    InterpreterBuilder.create_get_program_id = lambda *_: TensorHandle(
        np.array([program], np.int32), tl.int32
    )
    try:
        bce._bce_with_logits_fwd_bwd_kernel[(1,)](
            *(logits, None, None, None, sums, None),
            *(rows, 1, 1),
            *(0, 0) * 6,
            *(0.0, 1.0),
            REDUCE=True,
            INDEX=tl.int64 if bits == 64 else tl.int32,
            BLOCK=bce.BLOCK,
        )
    finally:
        InterpreterBuilder.create_get_program_id = original
    right = torch.isclose(sums[program], 5 * torch.nn.functional.softplus(logits[0, 0]))
    assert right == (bits == 64)


def test_the_same_bits_every_time():
    from fastgan.kernels.triton import bce

    case = BceCase.random(9000, 1)
    one, other = checks.run(bce, case, "mean"), checks.run(bce, case, "mean")
    assert all(torch.equal(one[k], other[k]) for k in one)
