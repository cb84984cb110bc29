"""A product through the simulator in every precision: as exact as the format allows, and no more."""

from __future__ import annotations

import pytest
import samples
import torch
from helpers.ptx.launch import simulated


@pytest.mark.parametrize("size", [(33, 31, 70), (1, 1, 1), (64, 32, 128)], ids=str)
@pytest.mark.parametrize(
    ("precision", "dtype", "largest", "smallest"),
    [
        ("ieee", torch.float32, 5e-7, 0.0),
        ("tf32x3", torch.float32, 3e-7, 0.0),
        ("tf32", torch.float32, 1e-3, 1e-5),  # at least: were it less, tf32 would not be simulated
        ("ieee", torch.bfloat16, 3e-7, 0.0),  # the inputs are bfloat16, products and sums are not rounded
        ("ieee", torch.float16, 3e-7, 0.0),
    ],
)
def test_precision(size, precision, dtype, largest, smallest):
    with simulated() as machines:
        error = samples.product(*size, precision=precision, dtype=dtype)
    assert error <= largest and (error >= smallest or size[2] < 8), error
    used = {i.opcode[0] for i in machines[0].kernel.instructions}
    assert ("mma" in used) == (precision != "ieee" or dtype != torch.float32)


@pytest.mark.parametrize(("stages", "warps"), [(1, 4), (2, 8), (4, 2)])
def test_pipelines_and_warps(stages, warps):
    with simulated():
        assert samples.product(48, 40, 200, stages=stages, warps=warps) < 3e-7
