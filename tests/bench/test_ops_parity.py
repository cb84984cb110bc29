"""Ops are held against float64 on the tensors that are timed; a wrong one is not timed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastgan.kernels import cpu

from bench import measure, parity, peers
from bench.bench_ops import groups
from bench.options import Options
from bench.peers import ops, ops_exact
from bench.peers.ops import Auto, Bce, Dense, Plain
from bench.plan import Contender
from bench.protocol import Error
from bench.worker import _Worker, request
from fastgan.errors import UserError

CASES = [
    Dense(batch=37, inputs=70, outputs=33),
    Dense(batch=600, inputs=16, outputs=300),  # rows are left out
    Dense(batch=1, inputs=784, outputs=1),
    Bce(batch=999),
    Bce(batch=999, tensor=True),
]


def check(peer: Auto) -> float:
    return parity.check_errors("fastgan", peer.errors())


@pytest.mark.parametrize("impl", ["auto", "cpu"])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_fused_ops_give_what_plain_ones_do(case, backward, impl):
    if impl == "cpu":
        try:
            cpu.native()
        except UserError as error:
            pytest.skip(str(error))
    peer = Auto(replace(case, backward=backward))
    peer.call = partial(peer.call, impl=impl)
    names = ["values", *(f"gradient of {n}" for n in ("x", "weight", "bias"))]
    wanted = names if isinstance(case, Dense) else ["values", "gradient of logits"]
    assert list(peer.errors()) == (wanted if backward else ["values"])
    assert check(peer) < 1e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_types_are_held_against_their_own_rounding(dtype):
    eps = torch.finfo(getattr(torch, dtype)).eps
    assert check(Auto(replace(CASES[0], dtype=dtype, backward=True))) < 2 * eps


def eight_inputs(x, w, b, slope):
    return F.linear(x[:, :8], w[:, :8], None)


def last_value(x, w, b, slope):
    y = Plain.dense(x, w, b, slope)
    return torch.cat([y.flatten()[:-1], y.flatten()[-1:] + 1e-3]).view_as(y)


def other_slope(x, w, b, slope):
    return Plain.dense(x, w, b, slope + 1e-4)


def no_bias_gradient(x, w, b, slope):
    return Plain.dense(x, w, b.detach() + 0.0 * b, slope)


def half_weight_gradient(x, w, b, slope):
    return Plain.dense(x, 0.5 * w + 0.5 * w.detach(), b, slope)


def one_row(x, w, b, slope):
    return Plain.dense(x[:1], w, b, slope)


WRONG = {
    eight_inputs: "values",
    last_value: "values",
    other_slope: "values",
    one_row: "values inf off",
    no_bias_gradient: "gradient of bias",
    half_weight_gradient: "gradient of weight",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda f: f.__name__)
def test_a_wrong_dense_is_refused(monkeypatch, wrong):
    monkeypatch.setattr(Auto, "dense", staticmethod(wrong))
    backward = WRONG[wrong].startswith("gradient")
    with pytest.raises(parity.ParityError, match=f"something else than plain PyTorch: {WRONG[wrong]}"):
        check(Auto(replace(CASES[0], backward=backward)))


def test_a_wrong_bce_is_refused(monkeypatch):
    monkeypatch.setattr(Auto, "bce", staticmethod(lambda x, t: Plain.bce(x, t) * (1 + 1e-5)))
    with pytest.raises(parity.ParityError, match="values"):
        check(Auto(CASES[-1]))
    monkeypatch.setattr(Auto, "bce", staticmethod(lambda x, t: Plain.bce(0.9 * x + 0.1 * x.detach(), t)))
    with pytest.raises(parity.ParityError, match="gradient of logits"):
        check(Auto(replace(CASES[-1], backward=True)))


def no_leaky_relu(x, w, b, slope):
    return F.linear(x, w, b)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("backward", [False, True])
def test_both_wrong_alike_is_refused(monkeypatch, dtype, backward):
    for kind in (Auto, Plain):
        monkeypatch.setattr(kind, "dense", staticmethod(no_leaky_relu))
    with pytest.raises(parity.ParityError, match="plain PyTorch, which fastgan is held against"):
        check(Auto(replace(CASES[0], dtype=dtype, backward=backward)))


def test_what_is_no_number_is_refused():
    with pytest.raises(parity.ParityError, match="nan off"):
        parity.check_errors("it", {"values": Error(float("nan"), 1e-7, 1e-7)})
    assert ops_exact.error(torch.zeros(2), torch.ones(3)) == float("inf")


class Here:
    """A team whose workers live in this process."""

    def __init__(self) -> None:
        self.worker, self.timed = _Worker(), False

    def ask(self, contender, do, **more):
        return self.worker.answer(json.loads(request(contender, do, **more)))

    def each(self, contenders, call):
        return {c: "" for c in contenders if call(c)}

    def rounds(self, *_):
        self.timed = True
        raise AssertionError("it was timed")


def test_a_wrong_op_of_the_suite_is_never_timed(monkeypatch):
    group = next(g for g in groups(Options(quick=True)) if g.name == "dense")
    small = group.only(group.contenders[:2])  # of the smallest batch
    team = Here()
    _, said = measure._prepare(team, small.contenders)
    assert len(said) == 1 and said[0].startswith("fastgan, batch 1: ") and said[0].endswith(" off")
    monkeypatch.setattr(Auto, "dense", staticmethod(eight_inputs))
    team = Here()
    with pytest.raises(parity.ParityError, match="fastgan, batch 1 computes something else"):
        measure.measure(team, small, Options(quick=True))
    assert not team.timed


def test_tensors_are_the_ones_that_are_timed():
    case = replace(CASES[0], backward=True)
    proven, plain = (peers.create(Contender("", f"ops.{name}", case)) for name in ("Auto", "Plain"))
    proven.errors()
    assert all(a is b for a, b in zip(proven.tensors, plain.tensors, strict=True))
    assert ops._tensors(case)[0][0] is plain.tensors[0]
