"""The regression gate: planted regressions are seen, noise is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench import compare, machine, measure, results
from bench.bench_step import groups
from bench.compare import FALLEN, Change
from bench.measure import Measured, Result, Timed
from bench.options import QUICK, Options
from bench.parity import ParityError
from bench.peers.limits import Limit
from bench.plan import Contender, Group, Row
from bench.stats import summarize
from bench.team import Team, WorkerError
from tests.bench.test_peers import native_or_skip

OURS, THEIRS = (Contender(t, "limits.Copy", Limit(threads=1, span=s)) for t, s in (("a", 64), ("b", 128)))


def line(ratio: float, noise: float, seed: int, *, cost: bool = False, run: str = "1") -> dict:
    """A stored group whose one ratio has this median, with lognormal noise from round to round."""
    rounds = 5
    values = ratio * np.random.default_rng(seed).lognormal(0.0, noise, rounds)
    row = Row(THEIRS, OURS, "b / a", high=1.1 if cost else None)
    timed = {c: Timed(c, c.case.work, [1.0] * rounds, summarize([1.0] * rounds)) for c in (OURS, THEIRS)}
    found = Measured(
        Group("g", "t", [row]), timed, [Result(row, summarize(list(values)))], {}, [0.0] * rounds
    )
    return results.record("step", found) | dict(run=run, quick=True, facts={})


def words(ratio: float, noise: float, stored: int, *, cost: bool = False, tries: int = 60) -> list[str]:
    """What the gate says of a ratio that was 2 (a cost: 1), in many simulated histories."""
    before = 1.0 if cost else 2.0
    out = []
    for seed in range(tries):
        old = [line(before, noise, 1000 * seed + i, cost=cost) for i in range(stored)]
        (change,) = compare.compare(old, [line(ratio, noise, 1000 * seed + 999, cost=cost)])
        out.append(change.word)
    return out


@pytest.mark.parametrize("stored", [1, 3])
def test_noise_alone_does_not_fail(stored):
    for noise in (0.01, 0.03, 0.1):
        assert words(2.0, noise, stored).count(FALLEN) == 0


@pytest.mark.parametrize("stored", [1, 3])
def test_a_planted_regression_fails(stored):
    assert words(2.0 * 0.75, 0.02, stored).count(FALLEN) >= 59
    assert words(2.0 * 0.85, 0.01, stored).count(FALLEN) >= 57
    assert words(2.0 * 0.92, 0.01, stored).count(FALLEN) == 0  # within the tolerance


def test_a_cost_that_has_risen_fails():
    assert words(1.3, 0.02, 3, cost=True).count(FALLEN) >= 59
    assert words(0.7, 0.02, 3, cost=True).count("risen") >= 59


def test_too_noisy_to_tell_is_no_failure():
    assert words(1.6, 0.3, 3).count(FALLEN) < 3 and words(1.6, 0.3, 3).count("too noisy") > 45
    old, new = line(2.0, 0.0, 1), line(1.0, 0.0, 2)
    new["rows"][0]["summary"] |= dict(noisy="others took 40%", others=0.4)
    assert [c.word for c in compare.compare([old], [new])] == ["too noisy"]
    old["rows"][0]["summary"]["noisy"] = "known to 40%"  # tells nothing about now, either
    assert [c.word for c in compare.compare([old], [line(1.0, 0.0, 2)])] == ["new"]


def test_only_the_newest_runs_count():
    old = [line(2.0, 0.0, i, run=f"2026-01-0{i}") for i in range(2, 2 + compare.RUNS)]
    oldest = line(1.0, 0.0, 0, run="2026-01-01")
    for older in ([oldest, *old], [*old, oldest]):  # runs copied together may be in any order
        assert [c.word for c in compare.compare(older, [line(1.5, 0.0, 9)])] == [FALLEN]
    assert [c.word for c in compare.compare([oldest, *old[1:]], [line(1.5, 0.0, 9)])] == ["as before"]


def test_a_wide_interval_that_lies_below_as_a_whole_has_fallen():
    new = line(0.5, 0.0, 2)
    new["rows"][0]["summary"] |= dict(low=0.4, high=0.6, noisy="known to 20%")
    assert [c.word for c in compare.compare([line(2.0, 0.0, 1)], [new])] == [FALLEN]


@pytest.mark.parametrize(
    ("better", "slower", "faster"),
    [("more", "risen", FALLEN), ("less", FALLEN, "risen"), ("nothing", None, None)],
)
def test_what_is_better_says_which_way_is_a_fall(better, slower, faster):
    """With "less", the ratio is of our time over that of something else, and rises as we get slower."""
    old = line(2.0, 0.01, 1)
    direction = Row(THEIRS, OURS, better=better).more_is_better
    for ratio, word in ((3.0, slower), (1.0, faster)):
        new = line(ratio, 0.01, 2)
        new["rows"][0]["more_is_better"] = direction
        assert [c.word for c in compare.compare([old], [new])] == ([word] if word else [])


def test_what_is_no_longer_measured_is_named(stored, tmp_path, capsys):
    stored(line(2.0, 0.01, 3, run="2026-01-03"))
    stored(line(2.0, 0.01, 3, run="2026-01-03") | dict(title="another group"))
    stored(line(2.0, 0.01, 4, run="2026-01-04"))
    assert command(tmp_path) == 0
    out = capsys.readouterr().out
    assert "not measured, but by the stored run before: 1 ratios\n  step: another group: b / a\n" in out


def lost(*peers: str, title: str = "b / a") -> dict:
    """A group whose ratio has no figure, as its contenders did not run."""
    entry = line(2.0, 0.01, 5, run="2026-01-05")
    entry["rows"][0].update(summary=None, verdict="not measured", peers=list(peers), title=title)
    return entry


@pytest.mark.parametrize(
    "peers",
    [
        ("noise.Numpy", "noise.Native"),
        ("virtual.Png", "virtual.Loader"),
        ("tables.Here", "tables.Flight"),
        ("files.Numpy", "files.Fastgan"),
        ("startup.Process", "startup.Process"),
    ],
)
def test_a_ratio_without_a_figure_has_fallen_where_it_runs_everywhere(stored, tmp_path, capsys, peers):
    stored(lost(*peers))
    assert command(tmp_path) == 1
    out = capsys.readouterr().out
    assert "not measured, but by the stored run before: 1 ratios" in out and "does not run" in out


@pytest.mark.parametrize(
    ("peers", "title"),
    [
        (("jax_scan.JaxScan", "native.Step"), "x"),
        (("noise.Jax", "noise.Native"), "x"),
        (("startup.Process", "startup.Process"), "import jax / import fastgan"),
        (("virtual.DuckDb", "virtual.Stream"), "x"),
    ],
)
def test_a_ratio_that_a_machine_may_lack_is_named_and_no_fall(stored, tmp_path, capsys, peers, title):
    for i in (3, 4):
        with_both = line(2.0, 0.01, i, run=f"2026-01-0{i}")
        with_both["rows"].append(with_both["rows"][0] | dict(title=title))
        stored(with_both)
    fresh = lost(*peers, title=title)
    fresh["rows"].append(line(2.0, 0.01, 5)["rows"][0])
    stored(fresh)
    assert command(tmp_path) == 0
    out = capsys.readouterr().out
    assert f"not measured, but by the stored run before: 1 ratios\n  step: t: {title}\n" in out


def test_where_all_is_noise_nothing_is_held(stored, tmp_path, monkeypatch, capsys):
    noisy = line(1.0, 0.0, 3, run="2026-01-03")
    noisy["rows"][0]["summary"] |= dict(noisy="others took 40%", others=0.4)
    stored(noisy)
    assert command(tmp_path) == 2
    out = capsys.readouterr().out
    assert "nothing was held" in out and "too noisy" in out and "1.00" not in out


def test_other_rows_do_not_count():
    other = line(9.0, 0.0, 1)
    other["title"] = "another group"
    lost = line(2.0, 0.0, 2)
    lost["rows"][0]["summary"] = None
    assert [c.word for c in compare.compare([other, lost], [line(1.0, 0.0, 3)])] == ["new"]


def test_runs_by_another_method_do_not_count():
    old, fresh = line(2.0, 0.01, 1), line(1.0, 0.01, 2)
    assert compare.compare([old], [fresh])[0].word == FALLEN
    assert compare.compare([old], [fresh | {"method": 2}])[0].word == "new"
    del old["method"]  # as older runs are stored
    assert compare.compare([old], [fresh])[0].word == FALLEN


def test_what_ran_before_and_does_not_run_now_has_fallen_unless_a_machine_may_lack_it():
    lost = line(2.0, 0.0, 2)
    lost["rows"][0]["summary"] = None
    (change,) = compare.compare([line(2.0, 0.0, 1)], [lost])
    assert change.word == FALLEN and "does not run" in str(change)
    assert compare.compare([], [lost]) == []
    lost["rows"][0]["peers"] = ["jax_scan.JaxScan", "native.Step"]
    assert compare.compare([line(2.0, 0.0, 1)], [lost]) == []


# ---- the command


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Results of two runs of this kind of machine; returns a writer of more."""
    import json

    monkeypatch.setattr(machine, "device", lambda: "cpu")

    def write(entry: dict, folder: str = machine.slug()) -> None:
        path = tmp_path / folder / "step.jsonl"
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    for i in (1, 2):
        write(line(2.0, 0.01, i, run=f"2026-01-0{i}"))
    return write


def command(tmp_path, *more: str) -> int:
    return compare.main(["--results", str(tmp_path), *more])


def test_the_newest_run_is_held_against_the_others(stored, tmp_path, capsys):
    assert command(tmp_path) == 0
    assert "1 as before" in capsys.readouterr().out
    stored(line(1.4, 0.01, 3, run="2026-01-03"))
    assert command(tmp_path) == 1
    assert "1 FALLEN" in capsys.readouterr().out


def test_a_run_from_elsewhere(stored, tmp_path, capsys):
    kind = machine.facts()["kind"]
    stored(line(1.4, 0.01, 3) | dict(facts=dict(kind=kind, cores=2, threads=1)), "one-thread")
    assert command(tmp_path, "--fresh", str(tmp_path / "one-thread")) == 2
    assert "nothing was held" in capsys.readouterr().out
    stored(line(1.4, 0.01, 3) | dict(facts=dict(kind=kind)), "elsewhere")
    assert command(tmp_path, "--fresh", str(tmp_path / "elsewhere")) == 1
    assert "not measured" not in capsys.readouterr().out
    stored(line(2.0, 0.01, 3) | dict(facts=dict(kind="another")), "of-another-kind")
    assert command(tmp_path, "--fresh", str(tmp_path / "of-another-kind")) == 2
    assert "no stored runs of this kind of machine, another" in capsys.readouterr().out
    stored(line(2.0, 0.01, 3), "elsewhere")
    assert command(tmp_path, "--fresh", str(tmp_path / "elsewhere")) == 2
    assert f"--fresh: got kinds {kind}, unknown" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command(tmp_path, "--fresh", str(tmp_path / "nowhere"))
    assert "--fresh: got" in capsys.readouterr().err


def test_nothing_to_hold_against_is_no_success(tmp_path, monkeypatch, stored, capsys):
    stored(line(2.0, 0.01, 1, run="2026-01-01"), "another-machine")
    for folder, runs in (("another-machine", 1), ("a-third", 0)):
        monkeypatch.setattr(machine, "slug", lambda device="cpu", folder=folder: folder)
        assert command(tmp_path) == 2
        assert f"nothing was held: {runs} stored runs" in capsys.readouterr().out
    stored(line(2.0, 0.01, 2, run="2026-01-02") | dict(title="another group"), "another-machine")
    monkeypatch.setattr(machine, "slug", lambda device="cpu": "another-machine")
    assert command(tmp_path) == 2


def test_the_quick_version_runs_on_a_machine_without_stored_runs(tmp_path, monkeypatch, stored, capsys):
    monkeypatch.setattr(machine, "slug", lambda device="cpu": "another-machine")
    quick(tmp_path, monkeypatch, [2.0])
    assert command(tmp_path, "--quick") == 0
    assert "no stored runs of this kind of machine, another-machine" in capsys.readouterr().out


def test_a_lowered_instruction_set_is_another_kind(tmp_path, stored, capsys):
    native = native_or_skip()
    best, *others = native.isas()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTGAN_ISA", best)
        default = machine.slug()
        assert machine.LOWERED not in default or native.refused()
        for isa in others:
            patch.setenv("FASTGAN_ISA", isa)
            assert machine.slug() == f"{default}-isa-{isa}" and machine.slug("cuda").count(isa) == 0
            assert command(tmp_path) == 2
            assert "no stored runs of this kind" in capsys.readouterr().out


def quick(tmp_path, monkeypatch, ratios: list) -> list:
    """Run the quick version on a machine whose only ratio takes these values, try by try, a number or five;
    return the rest."""
    group = Group("g", "t", [Row(THEIRS, OURS, "b / a")])

    def measured(team, group, options):
        ratio = ratios.pop(0)
        rows = [Result(group.rows[0], summarize(ratio if isinstance(ratio, list) else [ratio] * 5))]
        timed = {c: Timed(c, c.case.work, [1.0] * 5, summarize([1.0] * 5)) for c in (OURS, THEIRS)}
        return Measured(group, timed, rows, {}, [0.0] * 5)

    monkeypatch.setattr(compare, "groups", lambda options: [("step", group)])
    monkeypatch.setattr(compare, "measure", measured)
    return ratios


def test_what_has_fallen_is_measured_again(stored, tmp_path, monkeypatch, capsys):
    left = quick(tmp_path, monkeypatch, [1.4, 2.0, 7.0])
    assert command(tmp_path, "--quick") == 0 and left == [7.0]
    left = quick(tmp_path, monkeypatch, [1.4, 1.4, 1.4])
    assert command(tmp_path, "--quick") == 1 and not left
    left = quick(tmp_path, monkeypatch, [2.0])
    assert command(tmp_path, "--quick") == 0


def test_what_was_too_noisy_is_measured_again_and_falls_twice_before_it_fails(
    stored, tmp_path, monkeypatch, capsys
):
    noise = [1.0, 3.0, 1.0, 3.0, 2.0]  # an interval as wide as all of them
    left = quick(tmp_path, monkeypatch, [noise, 2.0, 7.0])
    assert command(tmp_path, "--quick") == 0 and left == [7.0]
    assert "1 as before" in capsys.readouterr().out
    left = quick(tmp_path, monkeypatch, [noise, noise, 7.0])
    assert command(tmp_path, "--quick") == 0 and left == [7.0]
    assert "nothing was held" in capsys.readouterr().out
    monkeypatch.setattr(compare, "SECONDS", -1.0)  # a fall seen once is looked at again whatever the time
    left = quick(tmp_path, monkeypatch, [noise, 1.4, 2.0])
    assert command(tmp_path, "--quick") == 0 and not left
    left = quick(tmp_path, monkeypatch, [noise, 1.4, 1.4])
    assert command(tmp_path, "--quick") == 1 and not left


def test_a_slow_machine_measures_a_second_time_but_no_third(stored, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "SECONDS", -1.0)
    left = quick(tmp_path, monkeypatch, [1.4, 1.4, 2.0])
    assert command(tmp_path, "--quick") == 1 and left == [2.0]
    assert "1 FALLEN" in capsys.readouterr().out


def test_what_it_measures_is_printed_and_what_it_did_not_reach_is_named(
    stored, tmp_path, monkeypatch, capsys
):
    left = quick(tmp_path, monkeypatch, [1.4, 2.0])
    assert command(tmp_path, "--quick") == 0 and not left
    out = capsys.readouterr().out
    assert "measuring 1 of 1: step: t\n" in out and "measuring 1 of 1, time 2: step: t\n" in out
    measured = compare.measure

    def slowly(team, group, options):
        team._timer.cancel()
        team._stop()
        return measured(team, group, options)

    quick(tmp_path, monkeypatch, [1.4])
    measured = compare.measure
    monkeypatch.setattr(compare, "measure", slowly)
    assert command(tmp_path, "--quick") == 0
    out = capsys.readouterr().out
    assert "not reached in 170 s: 1 groups\n  step: t\n" in out and "FALLEN " not in out.partition(":")[2]


def test_a_fall_that_could_not_be_looked_at_again_is_no_fall(stored, tmp_path, monkeypatch, capsys):
    left = quick(tmp_path, monkeypatch, [1.4, 1.4])
    measured = compare.measure

    def slowly(team, group, options):
        team.over = len(left) < 2
        return measured(team, group, options)

    monkeypatch.setattr(compare, "measure", slowly)
    assert command(tmp_path, "--quick") == 0 and not left
    out = capsys.readouterr().out
    assert "not reached in 170 s: 1 groups" in out and "0 FALLEN" in out and "1 too noisy" in out


def test_workers_end_when_their_time_is_over():
    with Team() as team:
        team.ask(OURS, "build")
        team.stop_after(0.2)
        with pytest.raises(WorkerError, match=r"its process ended|the time is over"):
            team.rounds({OURS: 0.01}, 1000)
        assert team.over
        with pytest.raises(WorkerError, match="over"):
            team.ask(replace(OURS, alone=True), "build")


def test_other_work_is_one_line_and_a_failure(stored, tmp_path, monkeypatch, capsys):
    def other(*_):
        raise ParityError("it computes something else")

    monkeypatch.setattr(compare, "measure", other)
    assert command(tmp_path, "--quick") == 1
    out = capsys.readouterr()
    assert out.out.endswith("bench.compare: it computes something else\n") and not out.err


def test_files_that_are_no_results(stored, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        command(tmp_path, "--results", str(tmp_path / "nowhere"))
    (tmp_path / machine.slug() / "cut.jsonl").write_text('{"suite": "st')
    assert command(tmp_path) == 2
    assert "cut.jsonl, line 1: got" in capsys.readouterr().err


def test_the_quick_version_needs_no_extra():
    options = Options(True, **QUICK)
    found = compare.groups(options)
    peers = {c.peer.split(".")[0] for _, group in found for c in group.contenders}
    assert peers == {"native", "torch_eager", "torch_rows", "sgemm", "limits", "ops"}
    assert {suite for suite, _ in found} == {"step", "generate", "ops"}
    titles = {group.title for group in groups(Options())}
    assert {group.title for suite, group in found if suite == "step"} <= titles  # so full runs are comparable


def test_a_slower_fastgan_is_seen_from_measuring_to_exit_code(tmp_path, monkeypatch, stored):
    """The whole way but for the clocks: a team whose `a` takes 1.4 times as long as before."""
    from bench.team import Rounds

    class Team:
        slow = 1.4
        over = False

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def each(self, contenders, call):
            return {}

        def release(self, contenders):
            pass

        def stop_after(self, seconds):
            pass

        def rounds(self, wanted, rounds):
            seconds = {"a": 1.0 * self.slow, "b": 2.0}
            return Rounds({c: [seconds.get(c.title, 1.0)] * rounds for c in wanted}, [0.0] * rounds)

    group = Group("g", "t", [Row(THEIRS, OURS, "b / a")])
    monkeypatch.setattr(compare, "groups", lambda options: [("step", group)])
    monkeypatch.setattr(compare, "Team", Team)
    assert compare.measure is measure.measure
    assert command(tmp_path, "--quick") == 1
    Team.slow = 1.0
    assert command(tmp_path, "--quick") == 0


def test_a_change_is_one_line():
    text = str(Change(("step", "batch 128", "b / a", 1), (1.9, 2.1), (1.5, 1.4, 1.6), FALLEN))
    assert "FALLEN" in text and "[1.90, 2.10]" in text and "1.50 [1.40, 1.60]" in text and "\n" not in text
