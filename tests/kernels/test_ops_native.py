"""The native code of the ops: what its bindings refuse, threads, processes, and what it writes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.ops_cases import Dense, check_bce
from helpers.parity import ISAS

from fastgan.ops import bce_with_logits, linear_leaky_relu
from fastgan.ops.backends import cpu

SIZES = [(1, 1, 1), (37, 45, 129), (200, 300, 530), (2100, 5, 40)]


def dense(*arguments):
    return linear_leaky_relu(*arguments, impl="cpu")


def bce(*arguments):
    return bce_with_logits(*arguments, impl="cpu")


@pytest.fixture
def threads():
    """Set the number of PyTorch's threads, and set it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_same_bits_for_any_number_of_threads(size, threads):
    case, results = Dense.random(*size), []
    for count in (1, 2, 3, 7):
        threads(count)
        results.append(case.results(dense))
    for got in results[1:]:
        torch.testing.assert_close(got, results[0], rtol=0, atol=0)


def test_the_loss_is_the_same_for_any_number_of_threads(threads):
    logits = torch.randn(100_003, generator=torch.Generator().manual_seed(0))
    losses = set()
    for count in (1, 2, 5):
        threads(count)
        losses.add(bce(logits, 1.0).item())
    assert len(losses) == 1


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set(isa):
    if isa not in cpu._native.isas():
        pytest.skip(f"this processor has no {isa}")
    code = (
        "from helpers.ops_cases import *; from fastgan.ops import *; from functools import partial\n"
        "dense, bce = (partial(f, impl='cpu') for f in (linear_leaky_relu, bce_with_logits))\n"
        "for slope in (0.0, 0.2): Dense.random(37, 45, 129, slope=slope).check(dense)\n"
        "Dense.random(130, 600, 47).check(dense)\n"
        "for n in (3, 1023): check_bce(bce, n, 3, weights=True)\n"
    )
    environment = os.environ | {"FASTGAN_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


def test_several_callers_at_once():
    cases = [Dense.random(*size) for size in SIZES] * 3
    alone = [case.results(dense) for case in cases]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda case: case.results(dense), cases))
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork():
    """In a child of a process that has used threads, where OpenMP's are gone."""
    x, weight, bias = torch.randn(200, 300), torch.randn(530, 300), torch.randn(530)
    wanted = dense(x, weight, bias, 0.2)
    expected = wanted.numpy().tobytes()
    torch.mm(x, weight.t())
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def child():
        got = dense(x, weight, bias, 0.2)
        send.send(got.numpy().tobytes() == expected)  # torch.equal would hang: it asks for OpenMP's threads

    process = context.Process(target=child)
    process.start()
    answered = receive.poll(30)
    if not answered:
        process.kill()
    process.join(60)
    assert answered and receive.recv()


def test_no_element_is_left_unwritten(monkeypatch):
    """Outputs full of NaN beforehand, with NaN after them that must stay."""
    made = []

    def poisoned(self, *shape, dtype=None):
        size = torch.Size(shape[0] if shape and not isinstance(shape[0], int) else shape)
        whole = torch.full((size.numel() + 64,), torch.nan, dtype=dtype or self.dtype)
        made.append((whole, size.numel()))
        return whole[: size.numel()].view(size)

    for size in SIZES:
        case = Dense.random(*size)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "new_empty", poisoned)
            y = cpu.dense_fwd(case.x, case.weight, case.bias, 0.2)
            gradients = cpu.dense_bwd(case.dy, case.x, case.weight, y, 0.2, True)
            loss, _ = cpu.bce(case.dy, 1.0, None, None, "none", False)
        assert not any(t.isnan().any() for t in (y, *gradients, loss))
    assert len(made) == 5 * len(SIZES)
    assert all(whole[count:].isnan().all() for whole, count in made)


# ---- what the bindings refuse: they are given addresses

X, W, B, Y = torch.ones(3, 4), torch.ones(5, 4), torch.ones(5), torch.zeros(3, 5)


def at(tensor, *, stride=None, room=None, shift=0):
    address, rows, space = cpu._address(tensor)
    return address + shift, rows if stride is None else stride, space if room is None else room


def forward(batch=3, inputs=4, outputs=5, x=at(X), w=at(W), b=at(B), slope=0.2, y=at(Y), threads=1):  # noqa: B008
    cpu._native.dense_forward(batch, inputs, outputs, x, w, b, slope, y, threads)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": -1}, "x: its size is out of range"),
        ({"batch": 4}, "x: its memory ends before its last element"),
        ({"inputs": 5}, "x: its rows overlap"),
        ({"outputs": 6}, "weight: its memory ends"),
        ({"batch": 2**31}, "x: its size is out of range"),
        ({"x": (0, 4, 12)}, "x: it has no memory"),
        ({"x": at(X, stride=5)}, "x: its memory ends"),
        ({"x": at(X, stride=2**62)}, "x: its stride is out of range"),
        ({"x": at(X, shift=2)}, "x: its address is not that of a float"),
        ({"w": at(W, room=19)}, "weight: its memory ends"),
        ({"b": at(B, room=4)}, "bias: its memory ends"),
        ({"y": at(Y, stride=6, room=100)}, "y: it is not contiguous"),
        ({"y": at(Y, room=14)}, "y: its memory ends"),
        ({"slope": -0.1}, "slope: wanted a number >= 0"),
        ({"slope": float("nan")}, "slope: wanted a number >= 0"),
        ({"threads": 0}, "threads: wanted 1 to 4096"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_wrong_arguments_of_forward_are_refused(wrong, message):
    Y.fill_(7.0)
    with pytest.raises(ValueError, match=f"^{message}"):
        forward(**wrong)
    assert (Y == 7.0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"y": at(Y, room=14)}, "y: its memory ends"),
        ({"dx": at(X, room=11)}, "dx: its memory ends"),
        ({"dweight": at(W, room=19)}, "dweight: its memory ends"),
        ({"dbias": at(B, room=4)}, "dbias: its memory ends"),
        ({"weight": None}, "dx: it goes with weight"),
        ({"x": None}, "dweight: it goes with x"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_wrong_arguments_of_backward_are_refused(wrong, message):
    outputs = {"dx": at(X.clone()), "dweight": at(W.clone()), "dbias": at(B.clone())}
    good = {"dy": at(Y), "x": at(X), "weight": at(W), "y": at(Y), "slope": 0.2, **outputs, "threads": 1}
    with pytest.raises(ValueError, match=f"^{message}"):
        cpu._native.dense_backward(3, 4, 5, *(good | wrong).values())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": -1}, "logits: its size is negative"),
        ({"count": 6}, "logits: its memory ends"),
        ({"target": at(B, room=4)}, "target: its memory ends"),
        ({"pos_weight": at(B, room=4)}, "pos_weight: its memory ends"),
        ({"reduction": 3}, "reduction: wanted 0, 1 or 2"),
        ({"reduction": 0}, "loss: its memory ends"),
        ({"gradient": at(B, room=4)}, "gradient: its memory ends"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_wrong_arguments_of_bce_are_refused(wrong, message):
    good = {
        "count": 5,
        "logits": at(B),
        "target": None,
        "value": 1.0,
        "weight": None,
        "pos_weight": None,
        "reduction": 1,
        "loss": at(torch.zeros(())),
        "gradient": None,
        "threads": 1,
    }
    with pytest.raises(ValueError, match=f"^{message}"):
        cpu._native.bce(*(good | wrong).values())


def test_a_wide_sum_of_losses():
    check_bce(bce, 60_000)
