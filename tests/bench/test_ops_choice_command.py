"""``python -m bench.ops_choice``: what it calls slower, and that it can find it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from bench import machine, ops_choice
from bench.ops_choice import Timed, cases
from bench.parity import ParityError
from bench.peers.ops import Auto, Bce, Dense, Plain
from bench.stats import Summary
from fastgan.ops import linear_leaky_relu


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    """Leave malloc and PyTorch's threads as they are for the other tests."""
    monkeypatch.setattr(machine, "keep_memory", lambda: None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def timed(ratio: tuple[float, float], microseconds: tuple[float, float]) -> Timed:
    share, loss = (Summary(sum(x) / 2, *x, 9) for x in (ratio, tuple(1e-6 * m for m in microseconds)))
    return Timed(next(iter(cases(1))), "cpu", 1e-4, share, loss)


@pytest.mark.parametrize(
    ("ratio", "microseconds", "verdict"),
    [
        ((0.5, 0.6), (-9, -8), "ok"),
        ((1.2, 1.3), (1.0, 1.9), "ok"),  # few microseconds
        ((1.01, 1.02), (50, 90), "ok"),  # few percent
        ((1.04, 1.05), (2.1, 9), "SLOWER"),
        ((1.02, 1.05), (3, 9), "unclear"),
        ((1.2, 1.3), (1.5, 2.5), "unclear"),
    ],
)
def test_verdicts(ratio, microseconds, verdict):
    assert timed(ratio, microseconds).verdict == verdict


def test_all_sizes_from_1_to_4096_are_there():
    dense = [c.problem for c in cases(2) if isinstance(c.problem, Dense)]
    for size in ("batch", "inputs", "outputs"):
        found = {getattr(p, size) for p in dense}
        assert min(found) == 1 and max(found) == 4096
    assert {c.mode for c in cases(2)} == {"no graph", "graph", "graph and backward"}
    assert {c.problem.tensor for c in cases(2) if isinstance(c.problem, Bce)} == {False, True}


def slow(*arguments):
    time.sleep(1e-4)
    return linear_leaky_relu(*arguments)


@pytest.mark.parametrize(("planted", "code"), [(False, 0), (True, 1)])
def test_a_slow_op_is_found(monkeypatch, capsys, planted, code):
    monkeypatch.setattr(ops_choice, "cases", lambda threads: [one(threads)])
    monkeypatch.setattr(ops_choice, "_AGAIN", 1)
    monkeypatch.setattr(Auto if planted else Plain, "dense", staticmethod(slow))
    assert ops_choice.main(["--threads", "1", "--seconds", "0.02", "--all"]) == code
    out = capsys.readouterr().out
    assert "dense, 8 x 8 -> 8, float32, graph, threads 1: reference" in out
    assert f"{int(planted)} slower than promised" in out and ("SLOWER" in out) == planted


def test_a_wrong_op_is_not_timed(monkeypatch):
    monkeypatch.setattr(Auto, "dense", staticmethod(lambda *arguments: 1.001 * linear_leaky_relu(*arguments)))
    monkeypatch.setattr(ops_choice, "_warm", None)
    with pytest.raises(ParityError, match=r"dense, 8 x 8 -> 8, .* computes something else"):
        ops_choice.measure(one(1), "auto", 0.02)


def one(threads: int) -> ops_choice.Case:
    case = next(iter(cases(threads)))
    return replace(case, problem=Dense(threads, batch=8, inputs=8, outputs=8, graph=True), mode="graph")


def test_parts_are_the_whole(monkeypatch, capsys):
    seen = []
    done = timed((0.5, 0.6), (-9, -8))
    monkeypatch.setattr(ops_choice, "measure", lambda case, *rest: seen.append(case.name) or done)
    for part in ("1/2", "2/2"):
        assert ops_choice.main(["--only", "BCE", "--part", part]) == 0
    assert sorted(seen) == sorted(c.name for n in (1, 2) for c in cases(n) if c.name.startswith("BCE"))


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "a/b"])
def test_no_such_part(part, capsys):
    with pytest.raises(SystemExit):
        ops_choice.main(["--part", part])
    assert f"--part: got {part}; wanted" in capsys.readouterr().err


def test_no_case_of_that_name():
    with pytest.raises(SystemExit):
        ops_choice.main(["--only", "nothing"])
