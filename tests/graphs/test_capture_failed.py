"""Captures that fail, with a stand-in for the graph: where, what PyTorch said of it, and what to do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from wgan import batches, captures, run

from fastgan.errors import UserError
from fastgan.graphs.recording import overrides_stale_streams


def test_a_failed_capture_is_explained(gan, stand_in):
    def iterate(inputs, spec):
        if stand_in._capturing:
            raise RuntimeError(
                "CUDA error: not permitted when stream is capturing\n\nTo fix, either:\n  (a) begin anew\n"
                "CUDA kernel errors might be asynchronously reported at some other API call"
            )
        return torch.zeros(1), ["d_loss"]

    stand_in.wrap = lambda iterate: iterate
    found, (rows,) = captures(gan, stand_in, iterate=iterate, warmup=1), batches(1)
    run(found, rows)
    cure = r"stream is capturing\n  To fix, either:\n  \(a\) begin anew\n;.*capture=False .* in a new process"
    with pytest.raises(UserError, match=cure):
        run(found, rows)


def fail_by_another_stream(gan, stand_in):
    def iterate(inputs, spec):
        if stand_in._capturing:
            raise RuntimeError("CUDA error: dependency created on uncaptured work in another stream")
        return torch.zeros(1), ["d_loss"]

    stand_in.wrap = lambda iterate: iterate
    found, (rows,) = captures(gan, stand_in, iterate=iterate, warmup=1), batches(1)
    run(found, rows)
    with pytest.raises(UserError) as error:
        run(found, rows)
    return str(error.value)


@pytest.mark.skipif(not overrides_stale_streams(), reason="this PyTorch cannot keep them there")
def test_captures_keep_backward_passes_on_their_stream(gan, stand_in):
    """Whatever the parameters' autograd nodes say; outside of captures, PyTorch does as it was told."""
    overridden, d_step = [], gan.d_step

    def watched(rows):
        overridden.append(torch._C._override_stale_capture_stream())
        return d_step(rows)

    gan.d_step = watched
    found, (rows,) = captures(gan, stand_in), batches(1)
    for _ in range(4):
        run(found, rows)
    assert overridden == [False, False, True, False, False]  # warm-up twice, the capture, its replays
    assert "spectral_norm" not in fail_by_another_stream(gan, stand_in)
    assert not torch._C._override_stale_capture_stream()


def test_a_pytorch_that_cannot_keep_them_there_is_told_what_to_do(gan, stand_in, monkeypatch):
    monkeypatch.delattr(torch.autograd.graph, "set_override_stale_capture_stream", raising=False)
    monkeypatch.delattr(torch._C, "_override_stale_capture_stream", raising=False)
    assert "parametrizations.spectral_norm; or install" in fail_by_another_stream(gan, stand_in)


class Failing(torch.autograd.Function):
    """Whose backward pass fails, as one does in which something waits for the device."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("not permitted when stream is capturing")  # in a backward pass


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (
            lambda loss: F.layer_norm(loss.expand(2), (3,)),  # in PyTorch
            r"_failed.py:\d+: .*# in PyTorch: Given normalized_shape.*\n  in .*functional.py:\d+: ",
        ),
        (
            Failing.apply,
            r"_failed.py:\d+: raise RuntimeError.*# in a backward pass: not permitted",
        ),
    ],
)
def test_a_failed_capture_names_lines(gan, stand_in, fail, message):
    d_step = gan.d_step
    gan.d_step = lambda rows: (fail if stand_in._capturing else torch.clone)(d_step(rows)["loss"])
    found, (rows,) = captures(gan, stand_in, warmup=1), batches(1)
    run(found, rows)
    with pytest.raises(UserError, match=message):
        run(found, rows)
