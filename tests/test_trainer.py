"""The loop: a stopped, killed or failed run loses nothing that was promised."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import assert_same_run, last_step, new_run, runs_in, stats_of, train_args

from fastgan import checkpoint, engines, pictures, stats, train
from fastgan.engines import METRICS
from fastgan.engines.reference import ReferenceEngine
from fastgan.stats import Window


def resume(run: Path, *more: str) -> int:
    return train.main(["--resume", str(run), *more])


@pytest.fixture
def at_step(monkeypatch):
    """Make the engine call a function in the middle of a step, the first time that it comes there."""
    todo = {}

    class Engine(ReferenceEngine):
        def _one_step(self):
            if self.step in todo:
                todo.pop(self.step)(self)
            return super()._one_step()

    monkeypatch.setattr(engines, "create", Engine)
    return todo.__setitem__


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 13 steps, left alone."""
    return new_run(tmp_path_factory.mktemp("whole"), 13)


@pytest.mark.parametrize(
    ("number", "step"), [(signal.SIGINT, 0), (signal.SIGTERM, 4), (signal.SIGINT, 6), (signal.SIGTERM, 11)]
)
def test_a_signal_finishes_the_step_and_the_resumed_run_is_the_same(
    tmp_path, at_step, whole, capsys, number, step
):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    at_step(step, lambda engine: os.kill(os.getpid(), number))
    run = new_run(tmp_path, 13, code=128 + number)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert last_step(run) == step + 1
    out = capsys.readouterr().out
    assert number.name in out and f"step {step + 1};" in out and f"--resume {run}" in out
    assert resume(run) == 0
    # The step of the signal has a checkpoint of its own; keeping 2, the end leaves the same ones.
    assert_same_run(whole, run)


def test_a_signal_between_two_engine_calls_counts_too(tmp_path, monkeypatch, whole):
    real = pictures.png

    def png(image):
        if threading.current_thread() is threading.main_thread() and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return real(image)

    sent = []
    monkeypatch.setattr(pictures, "png", png)
    run = new_run(tmp_path, 13, code=143)
    assert last_step(run) == 0
    assert resume(run) == 0
    assert_same_run(whole, run)


def test_the_second_interrupt_does_what_it_always_did(tmp_path, at_step, capsys):
    def twice(engine):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist ignores it
    try:
        at_step(7, twice)
        run = new_run(tmp_path, 13, code=130)
        assert capsys.readouterr().err == "fastgan: interrupted\n"
        assert last_step(run) == 5
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_training_outside_the_main_thread_leaves_signals_alone(tmp_path):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(train.main(train_args(tmp_path, 3))))
    thread.start()
    thread.join()
    assert codes == [0]


def test_killed_anywhere_a_run_loads_and_ends_the_same(tmp_path, monkeypatch, whole):
    """A copy of the folder before every system call that changes it is what kill -9 would leave."""
    copies = []

    def watch(module, name):
        real = getattr(module, name)

        def watched(*arguments, **options):
            for run in runs_in(tmp_path):
                copies.append(tmp_path / f"copy{len(copies):03d}")
                shutil.copytree(run, copies[-1])
            return real(*arguments, **options)

        return watched

    with monkeypatch.context() as context:
        for module, name in ((os, "replace"), (os, "fsync"), (os, "write"), (Path, "unlink")):
            context.setattr(module, name, watch(module, name))
        run = new_run(tmp_path, 13)
    assert_same_run(whole, run)
    started = [c for c in copies if (c / "options.json").exists()]
    assert len(started) > 60
    # The plot takes most of the time of a short run.
    monkeypatch.setattr(pictures, "loss_plot", lambda *arguments: b"")
    for copy in started:
        for path in copy.rglob(".*.tmp"):  # the killed process had another number
            path.rename(path.with_name(path.name.replace(str(os.getpid()), "1")))
        assert resume(copy) == 0
        assert_same_run(whole, copy)
        assert not list(copy.rglob(".*.tmp"))
    for copy in copies:
        if copy not in started:  # killed before there was anything to lose
            assert resume(copy) == 2


def test_a_finished_run_has_nothing_to_do(tmp_path, capsys):
    run = new_run(tmp_path, 5)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert resume(run) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def stopped(folder: Path, at_step, step: int = 6) -> Path:
    at_step(step, lambda engine: engine.stop() or os.kill(os.getpid(), signal.SIGINT))
    return new_run(folder, 13, code=130)


def test_a_damaged_newest_checkpoint_costs_the_work_since_the_one_before(tmp_path, at_step, whole, capsys):
    run = stopped(tmp_path, at_step)
    newest = checkpoint.path_of(run / "checkpoints", 7).with_suffix(".safetensors")
    newest.write_bytes(newest.read_bytes()[:-1])
    assert resume(run) == 0
    assert "checkpoint of step 7 skipped" in capsys.readouterr().out
    assert_same_run(whole, run)


def test_only_damaged_checkpoints_are_an_error(tmp_path, at_step, capsys):
    run = stopped(tmp_path, at_step)
    for path in (run / "checkpoints").glob("*.safetensors"):
        path.write_bytes(b"")
    assert resume(run) == 2
    assert "only damaged checkpoints" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(
    tmp_path, at_step, monkeypatch, whole, capsys
):
    real = os.replace

    def full(source, target):
        if "step-0000000010" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(source, target)

    with monkeypatch.context() as context:
        context.setattr(os, "replace", full)
        run = new_run(tmp_path, 13, code=2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "step-0000000010.safetensors" in error and "no space left" in error
    assert last_step(run) == 5
    assert not list(run.rglob(".*.tmp"))
    assert "no space left" in (run / "log.txt").read_text()
    assert resume(run) == 0
    assert_same_run(whole, run)


def test_a_full_disk_while_the_folder_is_made_leaves_no_folder(tmp_path, monkeypatch, capsys):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    assert train.main(train_args(tmp_path, 3)) == 2
    assert "data.json" in capsys.readouterr().err
    assert runs_in(tmp_path) == []


def test_a_non_finite_loss_stops_with_its_step_and_keeps_the_last_checkpoint(tmp_path, at_step, capsys):
    def poison(engine):
        with np.errstate(all="ignore"):
            engine.discriminator.layers[0].weight.data.fill_(float("nan"))

    at_step(8, poison)
    run = new_run(tmp_path, 13, code=3)
    out = capsys.readouterr().out
    assert "not finite at step 9" in out and "checkpoint of step 5 is kept" in out
    assert "not finite at step 9 (d_loss nan, g_loss nan" in (run / "log.txt").read_text()
    assert last_step(run) == 5
    assert checkpoint.non_finite(checkpoint.latest(run / "checkpoints", pytest.fail)[0]) is None
    assert (run / "loss.png").exists() and not (run / "samples.png").exists()


def test_a_non_finite_state_is_never_saved(tmp_path, at_step, capsys):
    """Finite losses can hide it: here in the moving average, which no loss sees."""
    at_step(3, lambda engine: engine.average.layers[0].bias.data.fill_(float("inf")))
    run = new_run(tmp_path, 13, code=3)
    assert "ema.layers.0.bias holds NaN or infinity" in capsys.readouterr().out
    assert checkpoint.steps(run / "checkpoints") == [0]


def test_data_that_overflows_is_a_non_finite_run(tmp_path, capsys):
    np.save(tmp_path / "large.npy", np.full((10, 3), 3e38, np.float32))
    argv = ["--data", str(tmp_path / "large.npy"), "--head", "linear", "--steps", "20"]
    assert train.main([*argv, "--out", str(tmp_path / "runs")]) == 3
    assert "not finite at step" in capsys.readouterr().out


def test_statistics_do_not_depend_on_how_steps_are_cut_into_calls(tmp_path, monkeypatch, whole):
    monkeypatch.setattr("fastgan.trainer._CALL_SECONDS", 0.0)  # one step a call
    assert_same_run(whole, new_run(tmp_path, 13))


def test_an_engine_call_is_short_however_far_the_next_event_is(tmp_path, monkeypatch):
    calls = []

    class Engine(ReferenceEngine):
        def run(self, steps):
            calls.append(steps)
            return super().run(steps)

    monkeypatch.setattr(engines, "create", Engine)
    rare = ("--log-every", "1e9", "--sample-every", "1e9", "--checkpoint-every", "1e9")
    new_run(tmp_path, 40, *rare)
    assert calls[:5] == [1, 2, 4, 8, 16] and sum(calls) == 40


def test_statistics_are_means_over_the_window(tmp_path, monkeypatch):
    seen = []

    class Engine(ReferenceEngine):
        def run(self, steps):
            seen.append(super().run(steps))
            return seen[-1]

    monkeypatch.setattr(engines, "create", Engine)
    run = new_run(tmp_path, 10, "--penalty-every", "3")
    rows = np.concatenate(seen).astype(np.float64)
    lines = stats.read(run / "stats.jsonl")
    assert [line["step"] for line in lines] == [4, 8, 10]
    for line, window in zip(lines, (rows[:4], rows[4:8], rows[8:]), strict=True):
        for name, column in zip(METRICS, window.T, strict=True):
            assert line[name] == pytest.approx(np.nanmean(column), rel=1e-5)
        assert line["steps_per_s"] > 0 and line["time_s"] > 0 and 20 < line["rss_mb"] < 1e5
    assert lines[0]["g_lr"] == 2e-3 and lines[-1]["g_lr"] == pytest.approx(2e-3 * (1 - 0.9 * 4 / 5))


def test_a_window_without_a_penalty_says_null():
    window = Window()
    window.add(np.array([[1, 2, np.nan, 0, 0, 1], [3, 4, np.nan, 0, 0, 1]], np.float32), 0.5)
    assert window.means()["penalty"] is None and window.means()["d_loss"] == 2
    assert window.steps_per_s == 4
    again = Window(**window.to_dict())
    assert again.to_dict() == window.to_dict()


def test_stats_lines_are_json_without_nan():
    assert stats.line({"step": 3, "a": float("nan"), "b": 1 / 3}) == '{"step": 3, "a": null, "b": 0.333333}'


def test_cutting_statistics_drops_later_lines_only(tmp_path):
    path = tmp_path / "stats.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    stats.cut(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_resumed_statistics_have_the_same_lines_when_the_run_died_after_a_checkpoint(
    tmp_path, whole, monkeypatch
):
    """Lines after the last checkpoint are written anew, not twice."""
    calls = []

    def boom(self):
        calls.append(self.step)
        if self.step == 9:
            raise RuntimeError("a bug")
        return real(self)

    real = ReferenceEngine._one_step
    with monkeypatch.context() as context:
        context.setattr(ReferenceEngine, "_one_step", boom)
        with pytest.raises(RuntimeError):
            train.main(train_args(tmp_path, 13))
    (run,) = runs_in(tmp_path)
    assert [line["step"] for line in stats_of(run)] == [4, 8] and last_step(run) == 5
    assert resume(run) == 0
    assert_same_run(whole, run)
