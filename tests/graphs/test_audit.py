"""The audit finds what a CUDA graph cannot hold, names the line, and lets a clean GAN pass."""

from __future__ import annotations

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


def test_copies_between_devices_are_found():
    with Audit() as audit:
        ROWS.to("meta")
    assert "copies between cpu and meta" in audit.problems[0]


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
