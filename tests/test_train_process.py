"""``python -m fastgan.train`` as processes: killed, stopped, piped, on a terminal, short of disk."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import resource
import select
import signal
import struct
import sys
import termios
import time

import numpy as np
import pytest
from helpers.compare import assert_identical
from helpers.runs import assert_same_run, last_step, new_run, runs_in, start, stats_of, train_args

from fastgan import checkpoint, engines, train
from fastgan.data import sources
from fastgan.engines.reference import ReferenceEngine
from fastgan.progress import Progress
from fastgan.report import RunFolder
from fastgan.state import State

STEPS = 250
EXTRA = ("--checkpoint-every", "20", "--sample-every", "100", "--log-every", "30")


def wait_for(condition, process, seconds=60):
    """Wait until a running process has made something true."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    return new_run(tmp_path_factory.mktemp("whole"), STEPS, *EXTRA)


def test_kill_9_loses_at_most_the_work_since_the_last_checkpoint(tmp_path, whole):
    random = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    argv = train_args(tmp_path, STEPS, *EXTRA)
    for _ in range(2):
        before = last_step(runs_in(tmp_path)[0]) if runs_in(tmp_path) else -1
        process = start("fastgan.train", *argv)
        wait_for(lambda before=before: any(last_step(r) > before for r in runs_in(tmp_path)), process)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        process.communicate()
        (run,) = runs_in(tmp_path)
        assert checkpoint.latest(run / "checkpoints", pytest.fail)[0].step > before
        argv = ["--resume", str(run)]
    assert train.main(argv) == 0
    assert_same_run(whole, run)


def test_piped_output_is_plain_lines_and_sigterm_saves(tmp_path):
    process = start("fastgan.train", *train_args(tmp_path, 100_000, "--log-every", "10"))
    lines = [process.stdout.readline() for _ in range(6)]
    assert len(stats_of(runs_in(tmp_path)[0])) < 40  # they came at once, not with a full buffer
    process.terminate()
    rest, error = process.communicate(timeout=60)
    assert process.returncode == 143 and error == ""
    heads = [line.split(":")[0] for line in lines[1:]]
    assert heads == ["reference", *(f"step {n}" for n in (10, 20, 30, 40))]
    assert "\r" not in "".join(lines) + rest and "\x1b" not in rest
    (run,) = runs_in(tmp_path)
    message = rest.splitlines()[-1]
    assert re.search(
        rf"stopped by SIGTERM at step {last_step(run)}; .*--resume {re.escape(str(run))}$", message
    )


def read_until(terminal: int, pattern: bytes | None, seconds: float = 60) -> bytes:
    """Read what a process shows until a pattern, or its end, comes."""
    shown, end = b"", time.monotonic() + seconds
    while pattern is None or not re.search(pattern, shown):
        assert time.monotonic() < end, shown
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # EIO: the other side is closed
                break
    return shown


def test_a_terminal_gets_a_bar_and_ctrl_c_saves(tmp_path):
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    arguments = train_args(tmp_path, 100_000, "--sample-every", "100000", "--checkpoint-every", "100000")
    process = start("fastgan.train", *arguments, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = read_until(master, rb"D \d\.\d{3}, G \d\.\d{3}")
    process.send_signal(signal.SIGINT)
    shown += read_until(master, None)
    os.close(master)
    assert process.wait(timeout=60) == 130
    text = shown.decode()
    assert re.search(r"\d+/100000 \[\d\d:\d\d<[\d:]+, +[\d.]+ steps/s, D \d\.\d{3}, G \d\.\d{3}\]", text)
    assert "step 4:" not in text  # statistics are in the bar
    assert re.search(r"stopped by SIGINT at step \d+; continue with:", text)


@pytest.mark.skipif("cpu" not in {e.name for e in engines.available() if e.usable}, reason="no native module")
def test_ctrl_c_stops_the_native_engine_at_a_whole_step(tmp_path):
    more = ["--fused", "--log-every", "1000", "--sample-every", "10000000", "--checkpoint-every", "10000000"]
    process = start("fastgan.train", *train_args(tmp_path, 10**7, *more))
    while "step 1000:" not in process.stdout.readline():
        assert process.poll() is None, process.communicate()
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "") and time.monotonic() - sent < 20
    run = RunFolder.open(runs_in(tmp_path)[0])
    assert f"stopped by SIGINT at step {last_step(run.path)}" in out
    state = run.state(None, pytest.fail)
    engine = engines.create(run.config, sources.load(run.config.data))
    engine.load(State.initial(run.spec, run.config.seed))
    engine.run(state.step)
    assert engine.name == "cpu" and state.step >= 1000
    assert_identical(state.tensors, engine.export().tensors)


def test_a_terminal_that_does_not_know_its_width_gets_a_bar_too():
    master, terminal = pty.openpty()
    with open(terminal, "w") as stream:
        fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        with Progress(10, 0, stream) as progress:
            progress.advance(3, 0.5, 1.5)
            progress.message("a line")
            assert b"a line" in read_until(master, rb"30%\|.*\| 3/10 .*D 0.500, G 1.500")
    os.close(master)


def test_a_file_size_limit_is_a_full_disk(tmp_path, monkeypatch, capsys):
    class Engine(ReferenceEngine):
        def _one_step(self):
            if self.step == 6:
                os.kill(os.getpid(), signal.SIGINT)
            return super()._one_step()

    with monkeypatch.context() as context:
        context.setattr(engines, "create", Engine)
        run = new_run(tmp_path, 13, code=130)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    process = start("fastgan.train", "--resume", str(run), preexec_fn=limit)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.count("\n") == 1 and "step-0000000010.safetensors" in error and "too large" in error
    assert last_step(run) == 7 and not list(run.rglob(".*.tmp"))
    assert train.main(["--resume", str(run)]) == 0
    other = tmp_path / "uninterrupted"
    other.mkdir()
    assert_same_run(new_run(other, 13), run)


def test_a_reader_that_leaves_is_no_traceback(tmp_path):
    process = start("fastgan.train", *train_args(tmp_path, 5000, "--log-every", "1"))
    process.stdout.readline()
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait(timeout=60) == 141


def test_help_comes_without_torch():
    process = start("fastgan.train", "--help")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "--resume" in out
    code = "import sys, fastgan.train, fastgan.sample, fastgan.info; sys.exit('torch' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
