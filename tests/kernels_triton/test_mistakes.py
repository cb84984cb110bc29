"""Mutation checks: a mistake planted in a kernel's source must fail the comparison or the sanitizer."""

from __future__ import annotations

import pytest
from helpers import bce_checks, dense_checks
from helpers.bce_checks import BceCase
from helpers.dense_checks import DenseCase

pytestmark = [pytest.mark.interpreted, pytest.mark.slow]

DENSE = [
    # forward
    ("total = tl.dot(x, weight_t, total, input_precision=PRECISION)", "pass", 1),
    ("total = tl.dot(x, weight_t, total, input_precision=PRECISION)", "total = tl.dot(x, weight_t)", 1),
    ("total += bias.to(tl.float32)[None, :]", "pass", 1),
    ("total += bias.to(tl.float32)[None, :]", "total -= bias.to(tl.float32)[None, :]", 1),
    ("tl.where(total > 0, total, total * slope)", "total", 1),
    ("tl.where(total > 0, total, total * slope)", "tl.where(total < 0, total, total * slope)", 1),
    ("tl.where(total > 0, total, total * slope)", "tl.where(total > 0, total, total * (slope * 1.001))", 1),
    ("tl.where(total > 0, total, total * slope)", "tl.where(total > 0, total, total / slope)", 1),
    ("for step in tl.range(tl.cdiv(I, BLOCK_I)):", "for step in tl.range(I // BLOCK_I):", 1),
    ("for step in tl.range(tl.cdiv(I, BLOCK_I)):", "for step in tl.range(1, tl.cdiv(I, BLOCK_I)):", 1),
    # input gradient
    ("for step in tl.range(tl.cdiv(O, BLOCK_O)):", "for step in tl.range(O // BLOCK_O):", 1),
    ("gradient = before_activation(dy, y, slope, RELU)", "gradient = dy", 1),
    (
        "gradient = before_activation(dy, y, slope, RELU)",
        "gradient = -before_activation(dy, y, slope, RELU)",
        1,
    ),
    # weight and bias gradient
    ("for step in tl.range(tl.cdiv(B, BLOCK_B)):", "for step in tl.range(B // BLOCK_B):", 1),
    ("bias_lanes += gradient_t", "bias_lanes += dy_t", 1),
    ("bias_lanes += gradient_t", "bias_lanes = gradient_t", 1),
    ("tl.program_id(0) % columns == 0", "tl.program_id(0) % columns == 1", 1),
    ("tl.program_id(0) // columns", "tl.program_id(0) % columns", 3),
    ("tl.program_id(0) % columns, BLOCK", "tl.program_id(0) // columns, BLOCK", 3),
]
DENSE_TILES = [
    ("tl.where(y > 0, dy, dy * slope)", "tl.where(dy > 0, dy, dy * slope)", 1),
    ("tl.where(y > 0, dy, dy * slope)", "tl.where(y > 0, dy, dy * slope * slope)", 1),
    ("return index * SIZE + tl.arange(0, SIZE)", "return index * (SIZE - 1) + tl.arange(0, SIZE)", 1),
    ("(row < rows) & (column < columns)", "row < rows", 2),
    ("(row < rows) & (column < columns)", "(row < rows) & (column <= columns)", 2),
    ("(row < rows) & (column < columns)", "(row < rows) & (column < columns - 1)", 2),
    ("other=0.0,\n", "other=1.0,\n", 1),
]


def dense_fails(dense) -> bool:
    from test_sanitizer import dense_findings

    # Two by two tiles and two steps in every product, all partial; then one column of tiles.
    for case in (DenseCase.random(34, 40, 37), DenseCase.random(34, 20, 35)):
        out = case.outputs()
        if dense_findings(dense, case, out):  # first, as it lets nothing outside of the tensors happen
            return True
        try:
            dense_checks.compare(case, out)
        except AssertionError:
            return True
    return False


@pytest.mark.parametrize(("old", "new", "count"), DENSE)
def test_dense(old, new, count):
    from fastgan.kernels.triton import dense
    from helpers.mutants import mutant

    assert dense_fails(mutant(dense, old, new, count))


@pytest.mark.parametrize(("old", "new", "count"), DENSE_TILES)
def test_dense_tiles(old, new, count):
    from fastgan.kernels.triton import dense, dense_tile
    from helpers.mutants import mutant_of_part

    assert dense_fails(mutant_of_part(dense, dense_tile, old, new, count))


def test_dense_without_a_mistake():
    from fastgan.kernels.triton import dense, dense_tile
    from helpers.mutants import mutant_of_part

    assert not dense_fails(mutant_of_part(dense, dense_tile, "other=0.0,\n", "other=0.0,\n"))


@pytest.mark.parametrize("case", [("x", 0), ("dy", 1), ("y", 0)])
def test_dense_with_32_bit_offsets_only(case):
    from fastgan.kernels.triton import dense
    from helpers.mutants import mutant
    from test_sanitizer import dense_findings, wide_case

    narrow = mutant(dense, "OFFSET=offset", "OFFSET=tl.int32")
    case = wide_case(*case)
    assert dense_findings(narrow, case, case.outputs())


BCE = [
    ("negative = 1.0 - positive", "negative = 1.0", 1),
    ("tl.exp(-tl.abs(logit))", "tl.exp(-logit)", 1),
    ("rest = _log1p(small)", "rest = 0.0", 1),
    ("rest = _log1p(small)", "rest = small", 1),
    ("(tl.maximum(-logit, 0.0) + rest)", "tl.maximum(-logit, 0.0)", 1),
    ("gradient = negative * sigmoid - positive", "gradient = negative * sigmoid + positive", 1),
    ("gradient = negative * sigmoid - positive * one_minus_sigmoid", "gradient = sigmoid - positive", 1),
    ("loss *= weight", "pass", 1),
    ("gradient *= weight", "pass", 1),
    ("            positive *= _load", "            negative *= _load", 1),
    ("(gradient / divisor)", "gradient", 1),
    ("(tl.sum(total) / divisor)", "tl.sum(total)", 1),
    ("total += tl.where(inside, loss, 0.0)", "total += loss", 1),
    ("inside = b < B", "inside = b <= B", 1),
    ("first = tl.program_id(0).to(INDEX) * blocks_per_program", "first = tl.program_id(0).to(INDEX)", 1),
    ("mask=n < programs", "mask=n < programs - 1", 1),
    ("b, o = n // O, n % O", "b, o = n % B, n // B % O", 1),
    ("1.0 / 5.0 + q", "1.0 / 6.0 + q", 1),
]


def bce_fails(bce) -> bool:
    from helpers.sanitizer import Sanitizer

    cases = [BceCase.random(400, 3, weights=True), BceCase.random(9300, 1, target=0.9)]
    most, bce.MOST_PROGRAMS = bce.MOST_PROGRAMS, 4  # several programs of several blocks each
    try:
        for case in cases:
            for reduction in ("none", "mean"):
                out = bce_checks.outputs(case, reduction)
                with Sanitizer({"logits": case.logits}, out) as found:
                    bce_checks.launch(bce, case, reduction, out)
                if found:
                    return True
                try:
                    bce_checks.compare([case], [out], reduction)
                except AssertionError:
                    return True
    finally:
        bce.MOST_PROGRAMS = most
    return False


@pytest.mark.parametrize(("old", "new", "count"), BCE)
def test_bce(old, new, count):
    from fastgan.kernels.triton import bce
    from helpers.mutants import mutant

    assert bce_fails(mutant(bce, old, new, count))


def test_bce_without_a_mistake():
    from fastgan.kernels.triton import bce
    from helpers.mutants import mutant

    assert not bce_fails(mutant(bce, "1.0 / 5.0 + q", "1.0 / 5.0 + q"))
