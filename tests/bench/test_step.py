"""The benchmark: peers do the same work, a mistake would be seen, the command runs."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from fastgan.kernels import cpu

from bench import machine, parity, peers, step, worker
from bench.cases import Case, Contender, Row, groups
from bench.peers import sgemm
from bench.protocol import Replayed
from bench.stats import summarize, verdict
from fastgan.errors import UserError
from fastgan.models import init_parameters

SMALL = Case(batch=24, hidden=32, latent=10, features=40)
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.compile's and JAX's own making


def native_or_skip() -> None:
    try:
        cpu.native()
    except UserError as error:
        pytest.skip(str(error))


def replay(peer: str, case: Case = SMALL) -> Replayed:
    return peers.create(Contender(peer, case)).replay(case.recorded())


def initial(case: Case) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in init_parameters(case.spec, 0).items()}


# ---- the same work


@pytest.mark.parametrize(
    "peer", ["fastgan", "eager", "compile", "compile whole", pytest.param("jax", marks=needs_jax)]
)
def test_peers_do_the_same_work(peer):
    if peer == "fastgan":
        native_or_skip()
    found = parity.check(peer, replay(peer), replay("reference"), initial(SMALL))
    assert found.update < parity.USUAL


@pytest.mark.parametrize("peer", ["eager", pytest.param("jax", marks=needs_jax)])
def test_timing_leaves_no_trace(peer):
    """A replay after timed steps is the replay of a fresh peer."""
    one = peers.create(Contender(peer, SMALL))
    one.reset()
    one.run(3)
    again = one.replay(SMALL.recorded())
    np.testing.assert_array_equal(again.losses, replay(peer).losses)


MISTAKES = {
    "slope": dict(slope=0.19),
    "first beta": dict(beta1=0.8),
    "second beta": dict(beta2=0.99),
    "epsilon": dict(eps=1e-4),
    "learning rate": dict(g_lr=2.1e-4),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(mistake):
    wrong = replace(SMALL)
    wrong.__dict__["config"] = replace(SMALL.config, **MISTAKES[mistake])
    wrong.__dict__["spec"] = type(SMALL.spec).of(wrong.config, SMALL.features, 0)
    got = peers.create(Contender("eager", wrong)).replay(SMALL.recorded())
    difference = parity.compare(got, replay("reference"), initial(SMALL))
    assert difference.update > parity.USUAL
    if mistake != "second beta":  # five steps hardly depend on it
        with pytest.raises(parity.ParityError, match="does other work"):
            parity.check("eager", got, replay("reference"), initial(SMALL))


def test_other_data_missing_tensors_and_nan_are_seen():
    wanted, start = replay("reference"), initial(SMALL)
    steps = SMALL.recorded()
    got = peers.create(Contender("eager", SMALL)).replay([steps[1], steps[0], *steps[2:]])
    assert not parity.compare(got, wanted, start).within
    with pytest.raises(parity.ParityError, match="tensors"):
        parity.compare(Replayed(wanted.losses, {}), wanted, start)
    broken = {k: np.full_like(v, math.nan) for k, v in wanted.parameters.items()}
    assert not parity.compare(Replayed(wanted.losses, broken), wanted, start).within


@pytest.mark.parametrize("case", [Case(), SMALL, Case(batch=7, hidden=3)])
def test_plain_sgemm_has_the_flops_of_the_step(case):
    assert sum(2 * m * k * n for m, k, n, _ in sgemm.step_shapes(case)) == case.flops


# ---- figures


def test_summary_and_verdict():
    steady = summarize([2.0, 2.1, 1.9, 2.0, 2.0])
    assert steady.median == 2.0 and steady.low <= 2.0 <= steady.high and not steady.noisy
    assert verdict(steady, 1.5, None) == verdict(steady, 1.5, 2.0) == "ok"
    assert verdict(steady, 2.5, None) == verdict(steady, None, 1.9) == "MISSED"
    assert verdict(steady, None, None) == ""
    assert verdict(summarize([1.0, 2.0, 3.0, 4.0]), 1.0, None) == "ok, noisy"
    assert verdict(summarize([2.0, 2.0], others=0.5), 3.0, None) == "MISSED, noisy"


def test_the_table_has_the_targets_of_the_issue():
    rows = [(g.name, row) for g in groups([32, 128, 512], 2) for row in g.rows]
    lows = [row.low for name, row in rows if name == "peers"]
    assert lows == [2.0, 4.5, 4.5, 4.5, 1.5, 2.4, 2.4, 2.4, 1.4, 1.9, 1.9, 1.9]
    assert {name for name, _ in rows} == set(step.NAMES)
    assert all(row.low is None for g in groups([77], 2) if g.name == "peers" for row in g.rows)


def test_odd_shapes_count_useful_flops_only():
    (row,) = next(g.rows for g in groups([], 2) if g.name == "odd")
    assert row.scale == row.bottom.work / row.top.work  # equal GFLOP/s make 1


def test_a_row_that_cannot_be_measured_says_why():
    one = Contender("jax", SMALL)
    assert "pip install" in str(step.Result(Row("x", one, one), None, "jax is not installed: pip install y"))


# ---- workers and the command


def test_one_core_each_and_a_folder_name():
    assert len(machine.cores()) >= 1
    assert re.fullmatch(r"[a-z0-9-]+-cores", machine.slug())


def test_recorded_steps_travel(tmp_path):
    path = str(tmp_path / "replayed.npz")
    worker.save(path, Replayed(np.ones((5, 2)), {"generator.layers.0.bias": np.arange(3.0)}))
    loaded = worker.load(path)
    assert loaded.losses.shape == (5, 2) and list(loaded.parameters) == ["generator.layers.0.bias"]


def test_the_command_runs(capsys, tmp_path, monkeypatch):
    native_or_skip()
    monkeypatch.setattr(step, "RESULTS", tmp_path)
    options = ["--rounds", "1", "--seconds", "0.01", "--threads", "1", "--only", "odd,generate", "--save"]
    assert step.main(options) == 0
    printed = capsys.readouterr().out
    assert "parity fastgan" in printed and "GFLOP/s of odd / round" in printed
    (path,) = tmp_path.rglob("step.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["group"] for line in lines] == ["odd", "generate", "generate"]
    assert all(line["summary"]["median"] > 0 and line["facts"]["isa"] for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "all"], "--only: got all"),
        (["--batches", "x"], "--batches: got x"),
        (["--rounds", "-1"], "--rounds: got -1"),
    ],
)
def test_bad_options(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        step.main(options)
    assert message in capsys.readouterr().err
