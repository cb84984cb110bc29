"""The audit finds what a CUDA graph cannot hold, names the line, and lets a clean GAN pass."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from wgan import Wgan, batches

from fastgan.graphs import Audit

ROWS = torch.arange(12.0).reshape(3, 4)


def weight_of(rows):
    return rows.sum().item()


def sparse_gradient():
    torch.nn.Embedding(4, 5, sparse=True)(torch.tensor([0, 2, 2])).sum().backward()


@pytest.mark.parametrize(
    ("step", "op", "why"),
    [
        (weight_of, "_local_scalar_dense", "waits for the device"),
        (lambda x: float(x[0, 0]), "_local_scalar_dense", "waits for the device"),
        (lambda x: 1 if x.sum() > 0 else 2, "_local_scalar_dense|is_nonzero", "waits for the device"),
        (lambda x: torch.equal(x, x + 1), "equal", "waits for the device"),
        (lambda x: x[x > 3], "index", "size depends on the data"),
        (lambda x: torch.unique(x), "_unique2", "size depends on the data"),
        (lambda x: torch.linalg.inv(torch.eye(2)), "_linalg_check_errors", "waits for the device"),
        (lambda x: sparse_gradient(), "_sparse_coo_tensor_with_dims_and_tensors", "depends on the data"),
        (lambda x: torch.repeat_interleave(torch.tensor([1, 2])), "repeat_interleave", "size depends"),
    ],
)
def test_what_waits_for_the_device_is_found(step, op, why):
    with Audit() as audit:
        step(ROWS)
    assert len(audit.problems) == 1
    assert why in audit.problems[0] and any(f"aten::{o} " in audit.problems[0] for o in op.split("|"))


def test_the_users_line_is_named_once():
    with Audit() as audit:
        for _ in range(3):
            weight_of(ROWS)
    (problem,) = audit.problems
    assert __file__ in problem and "return rows.sum().item()" in problem


@pytest.mark.parametrize(
    "copy",
    [
        lambda: ROWS.to("meta"),
        lambda: torch.tensor(1.0).to("meta"),
        lambda: torch.zeros(3, device="meta")[0].copy_(torch.tensor(1.0)),
    ],
)
def test_copies_between_devices_are_found(copy):
    with Audit() as audit:
        copy()
    assert "copies between cpu and meta" in audit.problems[0]


def test_numbers_made_into_tensors_of_the_device_are_found():
    """torch.tensor(1.0, device="cuda") copies unseen and then does this; on "meta" nothing is copied."""
    with Audit() as audit:
        torch.ops.aten.lift_fresh(torch.empty((), device="meta"))
    assert "copies numbers to meta" in audit.problems[0] and __file__ in audit.problems[0]


@pytest.mark.parametrize(
    ("source", "draw"),
    [
        ("torch on the cpu", lambda: torch.nn.functional.dropout(ROWS)),
        ("random", lambda: ROWS * random.random()),
        ("numpy.random", lambda: ROWS * np.random.randn()),
    ],
)
def test_the_line_that_draws_on_the_host_is_named(source, draw):
    with Audit() as audit:
        ROWS.sum()
        draw()
        torch.rand(3, device="meta")
    assert audit.draws.keys() == {source} and audit.problems == []
    assert f'("{source}", lambda: ' in audit.draws[source][0]


def test_other_threads_have_the_line_that_waits_for_them():
    """As backward passes on a GPU, which have a thread of their own."""
    lines = []
    with Audit() as audit:
        other = threading.Thread(target=lambda: lines.append(audit._line()))
        other.start()
        other.join()
    assert "threading.py" in lines[0]


def test_numbers_as_tensors_and_known_sizes_are_fine():
    with Audit() as audit:
        torch.empty(3, device="meta") * torch.tensor(2.0)
        torch.repeat_interleave(torch.tensor([1, 2]), output_size=3)
    assert audit.problems == [] and "aten::mul" in audit.ops


@pytest.mark.filterwarnings("ignore:capture_alternating. every call runs eagerly")
def test_a_wgan_with_penalty_passes():
    gan, data = Wgan(fused=True), batches(2)
    step = gan.captured(clip_norm=1.0)
    step.step(data[0])
    with Audit() as audit:
        step.step(data[1])
    assert audit.problems == []
    assert {"aten::addmm", "aten::_fused_adam_", "aten::_foreach_lerp_"} <= set(audit.ops)
    # the penalty's second derivative goes through the network a second time, backwards
    assert audit.ops.count("aten::mm") > 10
