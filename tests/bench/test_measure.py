"""Measuring: rounds, noise, limits, workers, tables and files."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch.autograd import DeviceType

from bench import machine, measure, options, results, step, table, worker
from bench.bench_step import groups
from bench.cases import Case
from bench.measure import Measured, Timed
from bench.options import Options
from bench.peers.limits import Limit
from bench.peers.startup import Startup
from bench.plan import Contender, Group, Row, Work
from bench.protocol import Replayed
from bench.stats import Summary, summarize, verdict
from bench.team import Rounds, Team, WorkerError
from fastgan.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FAST = Contender("fast", "limits.Copy", Limit(threads=1, span=4096))
SLOW = Contender("slow", "limits.Copy", Limit(threads=1, span=8192))


# ---- figures


def test_summary_and_verdict():
    steady = summarize([2.0, 2.1, 1.9, 2.0, 2.0])
    assert steady.median == 2.0 and steady.low <= 2.0 <= steady.high and not steady.noisy
    assert verdict(steady, 1.5, None) == verdict(steady, 1.5, 2.2) == "ok"
    assert verdict(steady, 2.0, None) == verdict(steady, 1.5, 2.0) == "cannot tell"
    assert verdict(steady, 2.5, None) == verdict(steady, None, 1.8) == "MISSED"
    assert verdict(steady, None, None) == ""
    assert verdict(summarize([1.0, 2.0, 3.0, 4.0, 5.0]), 1.0, None) == "too noisy"
    assert verdict(summarize([2.0] * 5, [0.5] * 5), 3.0, None) == "too noisy"
    wide = Summary(1.2, 0.93, 1.5, 15)
    assert wide.noisy and verdict(wide, 1.8, None) == verdict(wide, None, 0.9) == "MISSED"
    assert verdict(wide, 0.5, None) == verdict(wide, 1.3, None) == verdict(wide, None, None) == "too noisy"
    assert verdict(replace(wide, rounds=4), 1.8, None) == "too noisy"
    assert summarize([2.0] * 4).noisy == "4 rounds only" and summarize([float("nan")] * 5).noisy


def test_the_interval_covers_the_median_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    found = [summarize(list(random.lognormal(0.0, 0.1, 15))) for _ in range(300)]
    assert 0.88 < np.mean([s.low <= 1.0 <= s.high for s in found]) < 0.995


def test_disturbed_rounds_are_left_out_if_enough_remain():
    values, others = [1.0, 9.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.9, 0.01, 0.0, 0.02, 0.0]
    calm = summarize(values, others)
    assert calm.median == calm.high == 1.0 and calm.rounds == 5 and not calm.noisy
    others = [0.9, 0.9, 0.01, 0.0, 0.0, 0.02]
    assert summarize(values, others).rounds == 6
    assert "others took" in summarize(values, others).noisy


def test_others_are_seen():
    """Children count as mine; what the processors did besides is others' time."""
    others = machine.Others()
    sum(range(2_000_000))
    found = others.taken()
    assert found["room"] > 0 and found["others"] < found["room"] + 0.05


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="children that run are seen on Linux only")
def test_the_time_of_a_child_that_runs_is_seen():
    before = machine.Others._now()[2]
    code = "print(sum(range(30_000_000)), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as child:
        child.stdout.readline()
        during = machine.Others._now()[2]
        child.communicate(b"\n")
    assert during - before > 0.1


# ---- groups


def test_a_part_of_a_group_keeps_what_its_ratios_need():
    third = Contender("third", "limits.Copy", Limit(threads=1, span=2048))
    group = Group("g", "title", [Row(SLOW, FAST), Row(third, FAST)], profile=third)
    part = group.only([SLOW])
    assert part.contenders == [FAST, SLOW] and part.rows == [Row(SLOW, FAST)] and part.profile is None
    assert group.only([FAST]).contenders == [FAST] and not group.only([FAST]).rows


def test_which_way_is_better():
    assert Row(SLOW, FAST).more_is_better and Row(SLOW, FAST, low=1.0, high=2.0).more_is_better
    assert not Row(SLOW, FAST, high=1.1).more_is_better


def test_groups_have_one_title_each():
    for some in (Options(), Options(quick=True), Options(threads=1), Options(device="cuda")):
        titles = [g.title for g in groups(some)]
        assert len(set(titles)) == len(titles)


def test_options_are_numbers():
    assert options.counts("1,32") == (1, 32) and options.duration("0.5") == 0.5
    for kind, bad in (
        (options.counts, "1,-2"),
        (options.counts, "5000"),
        (options.count, "x"),
        (options.duration, "nan"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match="got"):
            kind(bad)


@pytest.mark.parametrize("option", [["--threads", "999"], ["--device", "cuda"]])
def test_a_machine_without_them_is_told_so(option, capsys, monkeypatch):
    monkeypatch.setattr(machine, "device", lambda: "cpu")
    assert step.main(option) == 2 and f"{option[0]}: got {option[1]}" in capsys.readouterr().err


def test_the_step_has_the_targets_of_the_issue():
    rows = [row for g in groups(Options()) if g.name == "peers" for row in g.rows]
    targets = {(row.top.case.batch, row.top.title): row.low for row in rows if row.low}
    assert targets[32, "JAX jit + lax.scan"] == 2.0 and targets[512, "torch.compile"] == 1.9
    assert targets[128, "torch eager, Adam(fused=True)"] == 2.4 and len(targets) == 12


def test_odd_shapes_count_useful_flops_only():
    (row,) = next(g.rows for g in groups(Options()) if g.name == "odd")
    seconds = {c: c.case.work.flops for c in (row.top, row.bottom)}  # equal GFLOP/s make 1
    assert row.scale * seconds[row.top] / seconds[row.bottom] == pytest.approx(1.0)


# ---- limits


def fake(seconds: dict[str, float]):
    """A team whose contenders take what is said, by title."""

    class Fake:
        def __init__(self):
            self.released = []

        def ask(self, contender, do, **more):
            if contender.title not in seconds:
                raise WorkerError("it is not here")
            if do == "launches":
                return {"launches": 19.0}
            return {"parts": [], "seconds": 1.0}

        def each(self, contenders, call):
            return {c: "it is not here" for c in contenders if c.title not in seconds}

        def rounds(self, wanted, rounds):
            return Rounds({c: [seconds[c.title]] * rounds for c in wanted}, [0.0] * rounds)

        def release(self, contenders):
            self.released.extend(contenders)

    return Fake()


class Busy(Limit):
    """A problem with work of both kinds."""

    @property
    def work(self) -> Work:
        return Work(flops=1e6, bytes=1e3)


def test_the_share_is_that_of_the_nearest_limit():
    one = Contender("one", "x.One", Busy(threads=1))
    for byte, nearest, share in ((1e-9, "arithmetic", 0.5), (1.8e-6, "copying", 0.9)):
        team = fake({"one": 2e-3, "arithmetic": 1e-9, "copying": byte})
        found = measure.measure(team, Group("g", "t", also=[one]), Options(rounds=5)).timed[one]
        assert found.nearest == nearest and found.share.median == pytest.approx(share)


def test_launches_on_a_gpu_are_counted_and_a_limit():
    one = Contender("one", "x.One", Busy(threads=1, device="cuda"))
    team = fake({"one": 1e-4, "arithmetic": 1e-12, "copying": 1e-12, "launching": 2e-6})
    found = measure.measure(team, Group("g", "t", also=[one]), Options(rounds=5))
    timed = found.timed[one]
    assert timed.work.launches == 19 and timed.nearest == "launching"
    assert timed.share.median == pytest.approx(19 * 2e-6 / 1e-4)
    head, row = table.lines(found)[1:3]
    assert "launches" in head and " 19 " in row
    assert results.record("s", found)["contenders"][0]["work"]["launches"] == 19


def test_a_profile_is_the_median_of_samples_with_its_noise(monkeypatch):
    class Peer:
        calls = 0

        def reset(self):
            pass

        def profile(self, units):
            self.calls += 1
            slow = 5.0 if self.calls == 3 else 1.0  # one sample that something disturbed
            return [dict(part="products", seconds=slow, flops=2.0)]

    one = Contender("one", "x.One", Busy(threads=1))
    hands = worker._Worker()
    hands.peers[one], hands.estimates[one] = Peer(), 0.1
    monkeypatch.setattr(machine.Others, "taken", lambda self: dict(others=0.4, room=1.0))
    found = hands.profile(one, 0.9)
    assert found["parts"] == [dict(part="products", seconds=1.0, flops=2.0)] and Peer.calls == 0
    assert found["summary"]["rounds"] == hands.peers[one].calls == 9
    assert found["summary"]["noisy"] == "others took 40%" and found["seconds"] == found["summary"]["median"]


def test_kernels_of_a_unit_are_counted_by_the_profiler(monkeypatch):
    def event(name, device=DeviceType.CUDA, mark=False):
        return SimpleNamespace(name=name, device_type=device, is_user_annotation=mark)

    class Profiler(contextlib.nullcontext):
        def events(self):
            others = [
                event("cudaGraphLaunch", DeviceType.CPU),
                event("Memcpy HtoD"),
                event("Adam", mark=True),
            ]
            return [event("dense_forward")] * 38 + others

    class Peer:
        def reset(self):
            pass

        def run(self, units):
            return 2 * units

    monkeypatch.setattr("torch.profiler.profile", lambda **_: Profiler(Profiler()))
    assert worker.kernels(Peer()) == 19


def test_a_contender_that_cannot_run_is_left_out_with_its_reason():
    group = Group("g", "t", [Row(SLOW, FAST), Row(Contender("gone", "x.Y", Limit()), FAST)])
    team = fake({"fast": 1.0, "slow": 3.0})
    found = measure.measure(team, group, Options(rounds=5))
    assert found.results[0].summary.median == 3.0 and found.results[0].verdict == ""
    assert found.results[1].summary is None and found.results[1].verdict == "not measured"
    assert found.missing == {group.rows[1].top: "it is not here"} and team.released
    assert "gone: not measured: it is not here" in "\n".join(table.lines(found))


# ---- tables and files


def measured(ratios: list[float], others: float = 0.0, low: float | None = None) -> Measured:
    """What a group with two contenders and these ratios would give."""
    row, busy = Row(SLOW, FAST, low=low), [others] * len(ratios)
    seconds = {FAST: [1e-3] * len(ratios), SLOW: [r * 1e-3 for r in ratios]}
    timed = {c: Timed(c, c.case.work, s, summarize(s, busy)) for c, s in seconds.items()}
    result = measure.Result(row, summarize(ratios, busy))
    return Measured(Group("g", "a title", [row]), timed, [result], {}, busy)


def test_the_table_shows_ratios_targets_and_verdicts():
    text = "\n".join(table.lines(measured([2.0, 2.1, 2.0] * 2, low=1.5)))
    assert "slow / fast" in text and "2.00x [2.00, 2.10]" in text and ">= 1.50x" in text and "ok" in text
    assert "2 ms" in text and "MISSED" in "\n".join(table.lines(measured([2.0] * 5, low=2.5)))


def test_the_table_says_too_noisy_instead_of_a_number():
    text = "\n".join(table.lines(measured([1.0, 2.0, 3.0, 4.0] * 2, low=1.5)))
    assert "too noisy (known to 40%)" in text and "2.50x" not in text and "ok" not in text
    text = "\n".join(table.lines(measured([2.0] * 5, others=0.4)))
    assert "other processes took 40%" in text and "too noisy" in text and "MISSED" not in text
    missed = table.lines(measured([1.0, 2.0, 3.0, 4.0] * 2, low=9.0))[-1]
    assert "too noisy (known to 40%)" in missed and missed.endswith("MISSED")
    assert "2.00x" not in text and "2 ms" not in text


def test_units():
    assert [table.quantity(v).strip() for v in (12.0, 1.24e6, 5e9)] == ["12", "1.24 M", "5 G"]
    assert [table.duration(v) for v in (2.0, 1.5e-3, 2e-6, 3e-9)] == ["2 s", "1.5 ms", "2 µs", "3 ns"]


def test_results_are_appended_and_read(tmp_path):
    run = results.new_run("pytest x", {"cpu": "a"}, quick=True)
    for ratios in ([2.0] * 5, [1.0, 3.0] * 3):
        path = results.append(tmp_path, "step", measured(ratios), run, "cpu")
    one, two = results.read(path.parent)
    assert path.name == "step.jsonl" and one["run"] == two["run"] and one["facts"] == {"cpu": "a"}
    assert one["rows"][0]["summary"]["median"] == 2.0 and not one["rows"][0]["summary"]["noisy"]
    assert two["rows"][0]["summary"]["noisy"] and two["contenders"][1]["seconds"] == [0.001, 0.003] * 3
    assert json.loads(path.read_text().splitlines()[0])["rows"][0]["title"] == "slow / fast"
    for bad in ('{"suite": "st', "[]", "{}"):
        path.write_text(json.dumps(one) + "\n" + bad)
        with pytest.raises(UserError, match=r"step\.jsonl, line 2: got"):
            list(results.read(path.parent))


def test_a_folder_that_cannot_be_written_to_is_seen_before(tmp_path):
    results.check(tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--results: got"):
        results.check(tmp_path / "file")


# ---- workers


def test_one_core_each_and_a_folder_name():
    assert len(machine.cores()) >= 1
    assert re.fullmatch(r"[a-z0-9-]+-cores", machine.slug())


def test_recorded_steps_travel(tmp_path):
    path = str(tmp_path / "replayed.npz")
    worker.save(path, Replayed(np.ones((5, 2)), {"generator.layers.0.bias": np.arange(3.0)}))
    loaded = worker.load(path)
    assert loaded.losses.shape == (5, 2) and list(loaded.parameters) == ["generator.layers.0.bias"]


_FAULTS = """
import resource, sys, numpy
from bench import machine
if sys.argv[1] == "kept":
    machine.keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
numpy.ones(1 << 22), numpy.ones(1 << 22)  # 32 MB each
before = faults()
for _ in range(4):
    numpy.ones(1 << 22), numpy.ones(1 << 22)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_kept_memory_has_no_page_faults():
    found = {}
    for how in ("kept", "given back"):
        done = subprocess.run([sys.executable, "-c", _FAULTS, how], cwd=ROOT, capture_output=True, text=True)
        found[how] = int(done.stdout)
    assert found["kept"] < 64 < found["given back"]


def test_a_team_measures_in_turn_and_says_what_cannot_run():
    broken = Contender("broken", "limits.Launches", Limit(threads=1))
    lost = Contender("lost", "startup.Process", Startup(threads=1, code="raise SystemExit('no such thing')"))
    with Team() as team:
        group = Group("g", "t", [Row(SLOW, FAST), Row(broken, FAST), Row(lost, FAST)])
        found = measure.measure(team, group, Options(rounds=3, seconds=0.005, threads=1))
    assert [len(t.seconds) for t in found.timed.values()] == [3, 3] and len(found.others) == 3
    assert all(math.isfinite(s) and s > 0 for t in found.timed.values() for s in t.seconds)
    assert found.missing[broken] == "kernels are launched on GPUs only"
    assert found.missing[lost] == "no such thing"


def test_trained_contenders_are_proven_before_they_are_timed():
    from bench.parity import ParityError

    case = Case(batch=8, hidden=8, latent=4, features=6, threads=1, rows=50)
    eager = Contender("eager", "torch_eager.Eager", case, trains=True)
    with Team() as team:
        missing, said = measure._prepare(team, [eager])
        assert not missing and len(said) == 1 and said[0].startswith("eager: losses")
        other = replace(eager, case=replace(case, recipe="default"))  # another loss than the peers have
        with pytest.raises(ParityError, match="other work"):
            measure._prepare(team, [other])


def test_generated_rows_are_proven_before_they_are_timed(monkeypatch):
    from bench import parity
    from bench.cases import Rows

    case = Rows(hidden=8, latent=4, features=6, threads=1, rows=50, dtype="float32")
    eager = Contender("eager", "torch_rows.Eager", case, generates=True)
    with Team() as team:
        missing, said = measure._prepare(team, [eager])
        assert not missing and len(said) == 1 and said[0].startswith("eager: rows")
        monkeypatch.setattr(parity, "ROW_TOLERANCE", 0.0)
        with pytest.raises(parity.ParityError, match="other rows"):
            measure._prepare(team, [eager])


def test_summary_is_plain_data():
    assert results.summary(None) is None
    assert results.summary(Summary(1.0, 0.95, 1.05, 5))["noisy"] == ""


def test_outside_of_git_the_commit_is_unknown_and_no_more(monkeypatch):
    monkeypatch.setattr(machine, "_ROOT", machine.Path("/"))
    assert machine.facts()["commit"] == "unknown"
