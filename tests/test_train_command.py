"""``python -m fastgan.train`` from outside: processes, signals, terminals, limits, refusals."""

from __future__ import annotations

import fcntl
import json
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
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import assert_same_run, last_step, new_run, runs_in, start, tiny_images, train_args

from fastgan import checkpoint, engines, train
from fastgan.config import Config, preset
from fastgan.cost import estimate
from fastgan.engines.reference import ReferenceEngine
from fastgan.models import ModelSpec
from fastgan.progress import Progress
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
    lines = [process.stdout.readline() for _ in range(5)]  # flushed, or this waits for a full buffer
    process.terminate()
    rest, error = process.communicate(timeout=60)
    assert process.returncode == 143 and error == ""
    assert [line.split(":")[0] for line in lines[1:]] == [f"step {n}" for n in (10, 20, 30, 40)]
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


def test_one_process_at_a_time_trains_in_a_folder(tmp_path, monkeypatch, capsys):
    codes = []

    class Engine(ReferenceEngine):
        def _one_step(self):
            if self.step == 2:
                codes.append(train.main(["--resume", str(runs_in(tmp_path)[0])]))
            return super()._one_step()

    monkeypatch.setattr(engines, "create", Engine)
    run = new_run(tmp_path, 4)
    assert codes == [2]
    assert f"{run}: got a run that another process is training" in capsys.readouterr().err


def test_a_dry_run_tells_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(["--dry-run"]) == 0
    out = capsys.readouterr().out
    for part in ("130,576 parameters", "117,121 parameters", "Mflop per step", "MB", "10000", "reference"):
        assert part in out
    assert "runs/00000-digits-default" in out
    assert train.main(["--dry-run", "--preset", "article", "--out", "a/b"]) == 0
    assert "a/b/00000-digits-article" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_resumed_run_tells_what_is_left(tmp_path, capsys):
    run = new_run(tmp_path, 5)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    capsys.readouterr()
    assert train.main(["--dry-run", "--resume", str(run)]) == 0
    assert "0 of 5" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_flops_are_the_study_s_for_the_article():
    """DESIGN.md: about 1.24 M multiply-adds per sample."""
    config = Config(**preset("article"))
    cost = estimate(config, ModelSpec.of(config, 784, 10), 0)
    assert cost.flops / 2 / config.batch == pytest.approx(1.24e6, rel=0.001)
    penalized = Config(**preset("article") | {"r1": 1.0})
    more = estimate(penalized, ModelSpec.of(penalized, 784, 10), 0)
    assert more.flops - cost.flops == 2 * config.batch * 6 * 116_864


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--batch", "5"], ["--batch 5", "--batch 4"]),
        (["--steps", "20", "--seed", "3"], ["--steps 20", "--steps 8", "--seed 3", "--seed 0"]),
        (["--condition"], ["--condition on", "--condition off"]),
        (["--preset", "article"], ["--loss bce", "--loss rpgan"]),
        (["--data", "digits"], ["--data digits", "tiny.npz"]),
        (["--keep", "7"], ["--keep 7"]),
    ],
)
def test_resume_refuses_changed_options_by_name(tmp_path_factory, argv, parts, capsys, refused):
    assert train.main(["--resume", str(refused), *argv]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in parts:
        assert part in error


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    return new_run(tmp_path_factory.mktemp("refused"), 8)


def test_resume_accepts_the_same_options_again(refused, capsys):
    assert train.main(["--resume", str(refused), "--batch", "4", "--preset", "default", "--steps", "8"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def unfinished(folder: Path) -> Path:
    """A run of 13 steps whose last checkpoint is that of step 5."""
    run = new_run(folder, 13)
    for step in checkpoint.steps(run / "checkpoints")[1:]:
        checkpoint.path_of(run / "checkpoints", step).unlink()
    return run


def test_resume_refuses_options_json_edited_by_hand(tmp_path, capsys):
    run = unfinished(tmp_path)
    path = run / "options.json"
    path.write_text(path.read_text().replace('"steps": 13', '"steps": 20'))
    assert train.main(["--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert "options.json" in error and "--steps 20" in error and "--steps 13" in error


def test_resume_refuses_other_data(tmp_path, capsys):
    run = unfinished(tmp_path)
    with np.load(tiny_images(tmp_path)) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    images[3, 1, 2] ^= 1
    np.savez(tmp_path / "tiny.npz", images=images, labels=labels)
    assert train.main(["--resume", str(run)]) == 2
    assert "other data than the run began with" in capsys.readouterr().err


def test_resume_refuses_a_checkpoint_of_another_shape(tmp_path, capsys):
    run = unfinished(tmp_path)
    _, record = checkpoint.load(checkpoint.path_of(run / "checkpoints", 10))
    state = State.initial(ModelSpec(4, 16, 0, (9,), (8, 6), 0.2, "sigmoid"), 0)
    state.step = 10
    checkpoint.save(run / "checkpoints", state, record, 5)
    assert train.main(["--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert "generator.layers.0.weight" in error and "(9, 4)" in error and "(8, 4)" in error


@pytest.mark.parametrize("name", ["options.json", "data.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"nonsense": 1}', b"\xff"])
def test_resume_refuses_a_damaged_run_folder(tmp_path, capsys, refused, name, content):
    for path in ("options.json", "data.json"):
        (tmp_path / path).write_bytes((refused / path).read_bytes())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    assert train.main(["--resume", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and name in error


def test_an_output_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "runs").write_text("a file, not a folder")
    assert train.main(train_args(tmp_path, 3)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_options_that_do_not_fit_the_data_write_nothing(tmp_path, capsys):
    np.save(tmp_path / "plain.npy", np.full((5, 3), 7.0, np.float32))
    common = ["--data", str(tmp_path / "plain.npy"), "--out", str(tmp_path / "runs")]
    assert train.main([*common]) == 2
    assert "--head" in capsys.readouterr().err
    assert train.main([*common, "--head", "linear", "--condition"]) == 2
    assert "--condition" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_tensorboard_missing_names_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train.main(train_args(tmp_path, 3, "--tensorboard")) == 2
    assert "pip install 'fastgan[tensorboard]'" in capsys.readouterr().err
    assert runs_in(tmp_path) == []


def test_tensorboard_gets_every_line(tmp_path, monkeypatch):
    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def close(self):
            written.append("closed")

    written = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", type(sys)("tensorboard"))
    sys.modules["torch.utils.tensorboard"].SummaryWriter = Writer
    run = new_run(tmp_path, 8, "--tensorboard")
    assert written[0] == (str(run), 1) and written[-1] == "closed"
    assert {("d_loss", 4), ("g_loss", 8), ("steps_per_s", 8), ("penalty", 4)} <= set(written[1:-1])


def test_threads_are_set_when_asked_for(tmp_path, monkeypatch):
    seen, before = [], torch.get_num_threads()
    real = ReferenceEngine._one_step
    monkeypatch.setattr(
        ReferenceEngine, "_one_step", lambda e: seen.append(torch.get_num_threads()) or real(e)
    )
    new_run(tmp_path, 2, "--threads", "0")
    new_run(tmp_path, 2, "--threads", "3")
    assert seen == [before, before, 3, 3] and torch.get_num_threads() == before


def test_help_comes_without_torch():
    process = start("fastgan.train", "--help")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "--resume" in out
    code = "import sys, fastgan.train, fastgan.sample, fastgan.info; sys.exit('torch' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


def test_options_json_holds_every_option(refused):
    options = json.loads((refused / "options.json").read_text())
    assert Config.from_dict(options).batch == 4 and options.keys() == vars(Config()).keys()
