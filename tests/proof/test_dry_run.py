"""The dry run counts launches, and finds what must not be in a captured step."""

from __future__ import annotations

import pytest
import torch
from helpers.dry_run import DryRun
from samples import product_kernel

META = dict(
    PRECISION="tf32", BLOCK_M=32, BLOCK_N=32, BLOCK_K=32, STAGES=2, num_warps=4, enable_fp_fusion=True
)


@pytest.fixture
def dry():
    with DryRun() as run:
        yield run


def tensors(device="meta"):
    return [torch.empty(32, 32, device=device) for _ in range(3)]


def multiply(a, b, c, columns=32):
    product_kernel[(1, 1)](a, b, c, 32, 32, columns, **META)


def test_a_clean_step(dry):
    a, b, c = tensors()
    dry.record()
    records = []
    for _ in range(2):
        multiply(a, b, c)
        multiply(b, a, c)
        records.append(dry.record())
    assert records[0] == records[1] and [r[0] for r in records[0]] == ["product_kernel"] * 2
    assert dry.problems == []


def test_a_launch_was_compiled_for_the_architecture(dry):
    multiply(*tensors())
    (launch,) = dry.launches
    assert ".target sm_90" in launch.kernel.asm["ptx"] and launch.kernel.metadata.num_warps == 4
    assert launch.constants["PRECISION"] == "tf32" and launch.arguments["M"] == 32


def test_pytorchs_operations_are_counted(dry):
    a, b, c = tensors()
    dry.record()
    torch.mm(a, b, out=c)
    c.mul_(2)
    assert dry.record() == [("aten::mm",), ("aten::mul_",)]


def test_a_tensor_of_the_host_is_found(dry):
    a, b, _ = tensors()
    multiply(a, b, torch.empty(32, 32))
    assert any("product_kernel: argument c_ptr is on cpu" in p for p in dry.problems)
    assert any("aten::empty" in p and "runs on the cpu" in p for p in dry.problems)


def test_waiting_for_the_device_is_found(dry):
    a, _, _ = tensors()
    with pytest.raises(Exception, match="item"):
        a.sum().item()
    assert any("waits for the device" in p for p in dry.problems)


def test_a_copy_from_the_device_is_found(dry):
    a, _, _ = tensors()
    with pytest.raises(NotImplementedError, match="no data"):
        a.cpu()
    assert any("copies between cpu and meta" in p for p in dry.problems)


@pytest.mark.parametrize("fault", ["a number from Python", "a fresh buffer", "one launch more", "a view"])
def test_steps_that_a_replay_would_not_repeat(dry, fault):
    a, b, c = tensors()
    records = []
    for step in range(2):
        dry.record()
        out = torch.empty(32, 32, device="meta") if fault == "a fresh buffer" else c
        dry.ops.clear()
        if fault == "a view":
            out = c.narrow(0, step, 31)
            dry.ops.clear()
        multiply(a, b, out, 16 * (step + 1) if fault == "a number from Python" else 32)
        if fault == "one launch more" and step:
            multiply(a, b, c)
        records.append(dry.record())
    assert records[0] != records[1]
