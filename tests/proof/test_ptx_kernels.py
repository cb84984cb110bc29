"""The kernels of the ops, compiled for sm_80 and simulated, against float64: at most twice PyTorch's error.

Tests in ``tests/kernels_triton`` interpret the kernels' source; here runs what the compiler made of it.
"""

from __future__ import annotations

import pytest
import torch
from fastgan.kernels.triton import bce, dense
from helpers import bce_checks, dense_checks
from helpers.bce_checks import BceCase
from helpers.dense_checks import ARITHMETIC, LAYOUTS, DenseCase
from helpers.ptx.launch import simulated

pytestmark = pytest.mark.slow


def truncated(tensor: torch.Tensor) -> torch.Tensor:
    """Cut float32 to tf32 as a tensor core does with operands that nobody has rounded."""
    return (tensor.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("shape", [(33, 31, 65), (128, 100, 17)], ids=str)
def test_dense(shape, arithmetic, monkeypatch):
    """With "tf32", Triton gives float32 registers to the tensor core as they are, which ignores the lower 13
    bits: operands are cut, not rounded, and the error is up to twice that of rounding, towards zero."""
    if arithmetic == "tf32":
        monkeypatch.setattr(dense_checks, "_tf32", truncated)
    with simulated() as machines:
        dense_checks.check(dense, DenseCase.random(*shape, arithmetic))
    assert len(machines) == 3
    rounds = any("rna" in i.opcode for i in machines[0].kernel.instructions)
    assert rounds == (arithmetic == "tf32x3")


@pytest.mark.parametrize("layout", ["transposed", "spread"])
def test_dense_with_strides(layout):
    with simulated():
        dense_checks.check(dense, DenseCase.random(33, 20, 40, layout=layout), LAYOUTS[layout])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_bce(dtype, reduction):
    cases = [BceCase.random(67, 5, dtype, weights=True, draw=i) for i in range(4)]
    with simulated():
        bce_checks.check(bce, cases, reduction)


def test_a_wrong_formula_is_found():
    """The slope of the other side, as a mutant of the compiled code: gradients are off."""
    with simulated(lambda ptx: ptx.replace("setp.gt.f32", "setp.lt.f32")), pytest.raises(AssertionError):
        dense_checks.check(dense, DenseCase.random(33, 31, 65))


def test_no_launch_without_a_context():
    case = DenseCase.random(3, 4, 5)
    with simulated():
        pass
    with pytest.raises(ValueError, match="tensors on cpu"):
        dense.linear_leaky_relu_fwd(case.x, case.weight, case.bias, torch.empty(3, 5), 0.2)
