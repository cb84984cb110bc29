"""What the launchers refuse, before a kernel gets a pointer."""

from __future__ import annotations

import pytest
import torch
from fastgan.kernels import triton as kernels

from fastgan.errors import UserError

pytest.importorskip("triton", reason="no Triton")

X, W, B, Y = torch.zeros(3, 4), torch.zeros(5, 4), torch.zeros(5), torch.zeros(3, 5)


def fwd(x=X, weight=W, bias=B, y=Y, slope=0.2, precision="ieee"):
    kernels.linear_leaky_relu_fwd(x, weight, bias, y, slope, precision)


def bwd_input(dy=Y, y=Y, weight=W, dx=X, slope=0.2, precision="ieee"):
    kernels.linear_leaky_relu_bwd_input(dy, y, weight, dx, slope, precision)


def bwd_weight(dy=Y, y=Y, x=X, dweight=W, dbias=B, slope=0.2, precision="ieee"):
    kernels.linear_leaky_relu_bwd_weight(dy, y, x, dweight, dbias, slope, precision)


def bce(logits=Y, target=1.0, weight=None, pos_weight=None, loss=None, dlogits=None, **options):
    loss = torch.zeros(()) if loss is None else loss
    kernels.bce_with_logits_fwd_bwd(logits, target, weight, pos_weight, loss, dlogits, **options)


REFUSED = [
    (fwd, {"weight": torch.zeros(5, 3)}, r"^weight: got the shape \[5, 3\]; wanted \[5, 4\]"),
    (fwd, {"bias": torch.zeros(4)}, r"^bias: got the shape \[4\]; wanted \[5\]"),
    (fwd, {"y": torch.zeros(3, 4)}, r"^y: got the shape"),
    (fwd, {"weight": W.bfloat16()}, r"^weight: got torch.bfloat16; wanted torch.float32$"),
    (fwd, {"x": X.double()}, r"^x: got torch.float64; wanted torch.float32 or "),
    (fwd, {"y": Y.to("meta")}, r"^y: got a tensor on meta; wanted one on cpu"),
    (fwd, {"precision": "fp32"}, r"^precision: got 'fp32'; wanted one of ieee, tf32, tf32x3"),
    (bwd_input, {"y": torch.zeros(3, 4)}, r"^y: got the shape"),
    (bwd_input, {"weight": torch.zeros(4, 4)}, r"^weight: got the shape"),
    (bwd_input, {"dx": torch.zeros(4, 4)}, r"^dx: got the shape"),
    (bwd_weight, {"x": torch.zeros(4, 4)}, r"^x: got the shape"),
    (bwd_weight, {"dweight": torch.zeros(4, 4)}, r"^dweight: got the shape"),
    (bwd_weight, {"dbias": torch.zeros(5, 1)}, r"^dbias: got the shape"),
    (bce, {"logits": torch.zeros(3)}, r"^logits: got the shape \[3\]; wanted two dimensions"),
    (bce, {"target": torch.zeros(3, 4)}, r"^target: got the shape"),
    (bce, {"weight": torch.zeros(5)}, r"^weight: got the shape"),
    (bce, {"loss": torch.zeros(3, 5)}, r"^loss: got the shape \[3, 5\]; wanted \[\]"),
    (bce, {"reduction": "none"}, r"^loss: got the shape \[\]; wanted \[3, 5\]"),
    (bce, {"dlogits": Y.double()}, r"^dlogits: got torch.float64; wanted torch.float32 or "),
    (bce, {"reduction": "avg"}, r"^reduction: got 'avg'; wanted one of none, mean, sum"),
]


@pytest.mark.interpreted
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_refusals(number):
    launch, changed, message = REFUSED[number]
    launch()
    with pytest.raises(UserError, match=message):
        launch(**changed)


@pytest.mark.interpreted
def test_sizes_that_do_not_fit_32_bits():
    x, weight = (torch.zeros(1, 1).expand(2**31 - 1000, 1), torch.zeros(1, 1))
    with pytest.raises(UserError, match=r"^B: got 2147482648; wanted at most 2147482624"):
        fwd(x, weight, None, x)


@pytest.mark.skipif("kernels.interpreted()", reason="kernels are interpreted here")
@pytest.mark.parametrize("launch", [fwd, bwd_input, bwd_weight, bce])
def test_compiled_kernels_want_a_gpu(launch):
    with pytest.raises(UserError, match=r"^the Triton kernels: got tensors on cpu; .* TRITON_INTERPRET=1"):
        launch()


def test_tf32x3_is_refused_where_the_compiler_has_none(monkeypatch):
    from fastgan.kernels.triton.launch import dot_precision

    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert dot_precision(X, "tf32") == "tf32"
    assert dot_precision(X.half(), "tf32x3") == "ieee"
    with pytest.raises(UserError, match=r"^precision: got 'tf32x3'; wanted ieee or tf32"):
        dot_precision(X, "tf32x3")


def test_an_old_triton_is_refused(monkeypatch):
    for found, fine in (("3.5.1", False), ("3.6.0", True), ("3.10.0+git1", True), ("4.0", True)):
        monkeypatch.setattr(kernels, "version", lambda name, found=found: found)
        if fine:
            assert kernels.triton_version() == found
        else:
            with pytest.raises(UserError, match=r"got triton 3\.5\.1; wanted triton >= 3\.6\."):
                kernels.triton_version()


def test_no_triton_is_told(monkeypatch):
    def missing(name):
        raise kernels.PackageNotFoundError(name)

    monkeypatch.setattr(kernels, "version", missing)
    with pytest.raises(UserError, match=r"no Triton .* pip install 'fastgan\[triton\]'"):
        kernels.linear_leaky_relu_fwd(X, W, B, Y, 0.2)


def test_what_is_not_there():
    with pytest.raises(AttributeError, match="no_such_launcher"):
        kernels.no_such_launcher  # noqa: B018
