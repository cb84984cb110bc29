"""The kernels on a GPU: the same checks as interpreted, larger, and what only a device can show."""

from __future__ import annotations

import pytest
import torch
from fastgan.kernels import triton as kernels
from helpers import bce_checks, dense_checks
from helpers.bce_checks import BceCase
from helpers.dense_checks import ARITHMETIC, LAYOUTS, DenseCase

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def same_products_in_pytorch():
    """PyTorch in float32 is the yardstick for "ieee": no tf32 there, and none left behind."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def arithmetics() -> list[str]:
    return [a for a in ARITHMETIC if not (torch.version.hip and a == "tf32x3")]


@pytest.mark.parametrize("arithmetic", arithmetics())
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (33, 31, 65), (128, 784, 128), (513, 1000, 1025), (4096, 512, 512)]
)
def test_dense(shape, arithmetic):
    from fastgan.kernels.triton import dense

    dense_checks.check(dense, DenseCase.random(*shape, arithmetic, device="cuda"))


@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dense_strides_and_slopes(layout, slope):
    from fastgan.kernels.triton import dense

    dense_checks.check(
        dense, DenseCase.random(129, 100, 70, layout=layout, slope=slope, device="cuda"), LAYOUTS[layout]
    )


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (5, 3, 0)])
def test_dense_empty(shape):
    from fastgan.kernels.triton import dense

    dense_checks.check(dense, DenseCase.random(*shape, device="cuda"))


@pytest.mark.parametrize("dtype", dense_checks.DTYPES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(("shape", "weights"), [((1, 1), False), ((341, 3), True), ((100_003, 1), False)])
def test_bce(shape, weights, reduction, dtype):
    from fastgan.kernels.triton import bce

    cases = [BceCase.random(*shape, dtype, weights=weights, draw=i, device="cuda") for i in range(6)]
    bce_checks.check(bce, cases, reduction)


def test_the_same_bits_every_time():
    from fastgan.kernels.triton import bce, dense

    case, losses = DenseCase.random(4096, 128, 784, device="cuda"), BceCase.random(100_003, 1, device="cuda")
    one, other = ({**dense_checks.run(dense, case), **bce_checks.run(bce, losses, "mean")} for _ in range(2))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_beyond_2_to_the_31_elements():
    rows = 2**21 + 5  # of 1024 columns
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("needs 12 GB of free memory on the device")
    x = torch.zeros(rows, 1024, dtype=torch.float16, device="cuda")
    x[-1], weight = 1.0, torch.ones(3, 1024, dtype=torch.float16, device="cuda")
    y = torch.full((rows, 3), torch.nan, dtype=torch.float16, device="cuda")
    kernels.linear_leaky_relu_fwd(x, weight, None, y, 0.2)
    assert (y[:-1] == 0).all() and (y[-1] == 1024).all()
    logits, dlogits = x.zero_(), torch.full_like(x, torch.nan)
    loss = torch.zeros((), device="cuda")
    kernels.bce_with_logits_fwd_bwd(logits, 1.0, None, None, loss, dlogits, reduction="sum")
    assert (dlogits == -0.5).all()
    torch.testing.assert_close(loss.item(), x.numel() * 0.6931471805599453, rtol=1e-5, atol=0)


def test_replay_of_a_captured_graph():
    from fastgan.kernels.triton import bce, dense

    case, losses = DenseCase.random(128, 784, 128, device="cuda"), BceCase.random(9000, 1, device="cuda")
    out, loss = case.outputs(), bce_checks.outputs(losses, "mean")

    def step():
        dense_checks.launch(dense, case, out)
        bce_checks.launch(bce, losses, "mean", loss)

    step()  # compiles
    wanted = {k: v.clone() for k, v in (out | loss).items()}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for tensor in (out | loss).values():
        tensor.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(v, wanted[k]) for k, v in (out | loss).items())
