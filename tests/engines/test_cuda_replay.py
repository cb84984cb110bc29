"""Replays of blocks of steps are the same training as one launch after the other, with a stand-in for graphs.

The steps here are arithmetic in which every step, its number and its penalties count. What needs a GPU is in
``test_cuda_gpu.py``.
"""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from helpers.graph_stand_in import StandIn
from helpers.mutants import mutant

pytest.importorskip("triton", reason="no Triton")

from fastgan.engines import cuda_replay
from fastgan.errors import UserError

PENALTIES = {  # every so many discriminator steps, of so many in a step
    "each step": (1, 1),
    "as the default recipe": (4, 1),
    "off the block": (3, 1),
    "within a step": (3, 2),
    "seldom": (50, 1),
    "seldom, within a step": (35, 3),
}


class Toy:
    """A plan of two launches a step, which change two numbers: a sum over everything so far, and the step."""

    def __init__(self, stand_in, module=cuda_replay, penalties="as the default recipe", captures=True):
        self.every, self.d_steps = PENALTIES[penalties]
        self.total, self.step = torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        self.stand_in, self.fails = stand_in, ""
        period = self.every // math.gcd(self.every, self.d_steps)
        self.replays = module.Replays(
            self.pattern, period, self.launches, (self.total, self.step), torch.device("cpu"), captures
        )

    def pattern(self, step):
        return tuple(n % self.every == 0 for n in range(step * self.d_steps, (step + 1) * self.d_steps))

    def launches(self, pattern):
        return [ToyLaunch(self, "first", pattern), ToyLaunch(self, "last", pattern)]

    def train(self, first, *pieces):
        """Run pieces of so many steps from ``first`` on; return the number that stands for all of them."""
        self.step.fill_(first)
        for steps in pieces:
            end = first + steps
            while first < end:
                first += self.replays.run(first, end - first)
        return self.total.item(), self.step.item()


class ToyLaunch:
    def __init__(self, toy, name, pattern):
        self.toy, self.name, self.pattern = toy, name, pattern

    def __call__(self):
        if self.name == self.toy.fails and self.toy.stand_in._capturing:
            raise RuntimeError("operation not permitted when stream is capturing\nand so on")
        self.toy.stand_in.launch(self.act)

    def act(self):
        toy = self.toy
        if self.name == "first":
            code = sum(2**i for i, penalty in enumerate(self.pattern) if penalty)
            assert self.pattern == toy.pattern(toy.step.item()) or toy.stand_in._on_side
            toy.total.mul_(31).add_(7 * toy.step + code).remainder_(1_000_003)
        else:
            toy.step.add_(1)


@pytest.fixture
def stand_in(monkeypatch):
    return StandIn(monkeypatch)


def one_by_one(stand_in, penalties, first, steps):
    return Toy(stand_in, penalties=penalties, captures=False).train(first, steps)


@pytest.mark.parametrize("penalties", PENALTIES)
def test_replays_are_the_same_training(stand_in, penalties):
    for first, pieces in ((0, (35,)), (5, (1, 16, 17, 32)), (47, (100, 3))):
        toy = Toy(stand_in, penalties=penalties)
        assert toy.train(first, *pieces) == one_by_one(stand_in, penalties, first, sum(pieces))


FAULTS = {
    "the warm-up trains": ("tensor.copy_(before)", "pass"),
    "the remainder is lost": ("whole = most >= size and", "whole = most > 1 and"),
    "a block of other steps": ("self._patterns(step, size) == self._block", "True"),
    "one graph for all steps": ("return len(key)", "return len(key) + (len(key) > 1)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(stand_in, fault):
    module = mutant(cuda_replay, *FAULTS[fault])
    try:
        got = Toy(stand_in, module).train(3, 20, 15)
    except AssertionError:  # a launch of another pattern than its step's
        return
    assert got != one_by_one(stand_in, "as the default recipe", 3, 35)


def test_a_call_is_a_few_replays(stand_in):
    toy = Toy(stand_in)
    toy.train(0, 35)
    (block,) = (g for g in stand_in.graphs if len(g.calls) == 2 * 16)
    alone = [g.replays for g in stand_in.graphs if len(g.calls) == 2]
    assert toy.replays.block == 16 and block.replays == 2
    assert sorted(alone) == [1, 2]  # one step with a penalty, two without
    assert stand_in.eager == stand_in.beside == 4  # both patterns were warmed up, beside the main stream


def test_preparing_moves_nothing_and_is_all_that_a_block_needs(stand_in):
    toy = Toy(stand_in)
    toy.step.fill_(8)
    toy.replays.prepare(8)
    assert (toy.total.item(), toy.step.item()) == (1, 8)
    graphs = len(stand_in.graphs)
    toy.train(8, 17)
    assert len(stand_in.graphs) == graphs == 2
    assert toy.replays.memory == 100 * graphs


def test_without_captures_launches_are_asked_for(stand_in):
    toy = Toy(stand_in, captures=False)
    toy.replays.prepare(0)
    toy.train(0, 3)
    assert stand_in.graphs == [] and stand_in.eager == 6 and stand_in.beside == 0
    assert toy.replays.block == 0 and toy.replays.memory == 0


def test_a_failed_capture_names_the_launch(stand_in):
    toy = Toy(stand_in)
    toy.fails = "last"
    wanted = r"failed at launch 2 of 32, last: operation not permitted when stream is capturing; .*--no-graph"
    with pytest.raises(UserError, match=wanted):
        toy.replays.prepare(0)
    assert (toy.total.item(), toy.step.item()) == (1, 0)


def test_a_capture_that_fails_at_its_end_says_so(stand_in, monkeypatch):
    def broken(graph, stream, capture_error_mode):
        yield
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.cuda, "graph", contextlib.contextmanager(broken))
    with pytest.raises(UserError, match="failed at its end: out of memory"):
        Toy(stand_in).replays.prepare(0)


def test_the_launchs_own_error_is_told_not_what_the_broken_capture_says(stand_in, monkeypatch):
    class Broken(contextlib.AbstractContextManager):
        def __init__(self, graph, stream, capture_error_mode):
            stand_in._capturing = graph

        def __exit__(self, *_):
            stand_in._capturing = None
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", Broken)
    toy = Toy(stand_in)
    toy.fails = "first"
    with pytest.raises(UserError, match="failed at launch 1 of 32, first: operation not permitted"):
        toy.replays.prepare(0)
