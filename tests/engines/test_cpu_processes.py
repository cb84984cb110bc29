"""The native engine among threads, signals and processes: who may call it, what stops it, after forks."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from helpers.cases import initial, setting
from helpers.compare import assert_identical
from helpers.parity import native_at
from helpers.programs import GAN, TESTS, run_program
from helpers.stopping import assert_a_signal_handler_stops_in_a_good_state, assert_another_thread_stops

from fastgan import threads
from fastgan.engines.cpu import CpuEngine


def test_the_option_then_pytorch_then_the_machine_decide_on_threads(make_data, monkeypatch, tmp_path):
    config, data = setting(make_data, {})

    def count(wanted=0):
        return CpuEngine(dataclasses.replace(config, threads=wanted), data).threads

    monkeypatch.setattr(threads, "_CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    torch.set_num_threads(6)  # put back by the fixture
    assert count() == 6 and count(3) == 3 and count(7) == 7
    for text, expected in (("max 100000", 6), ("250000 100000", 3), ("1000 100000", 1), ("nonsense", 6)):
        (tmp_path / "cpu.max").write_text(text)
        assert count() == expected
    torch.set_num_threads(1)
    assert count() == 1


def test_two_engines_in_two_threads(make_data):
    config, data = setting(make_data, dict(batch=40))
    expected = native_at(config, data, initial(config, data))
    expected.run(300)
    engines = [native_at(config, data, initial(config, data)) for _ in range(2)]
    workers = [threading.Thread(target=engine.run, args=(300,)) for engine in engines]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for engine in engines:
        assert_identical(engine.export().tensors, expected.export().tensors)


@pytest.mark.parametrize("call", ["run", "export", "load"])
def test_one_engine_in_two_threads_is_refused(make_data, call):
    config, data = setting(make_data, dict(batch=512, d_hidden=(64, 64)))
    state = initial(config, data)
    engine = native_at(config, data, state)
    done = []
    worker = threading.Thread(target=lambda: done.append(len(engine.run(10**9))))
    worker.start()
    calls = {"run": lambda: engine.run(1), "export": engine.export, "load": lambda: engine.load(state)}
    try:
        time.sleep(0.05)
        with pytest.raises(RuntimeError, match="engine: it is running in another thread"):
            calls[call]()
    finally:
        while worker.is_alive():
            engine.stop()
            worker.join(0.05)
    again = native_at(config, data, state)
    again.run(done[0])
    assert_identical(engine.export().tensors, again.export().tensors)  # nothing came in between


# ---- stopping


def test_stop_from_another_thread(make_data):
    config, data = setting(make_data, {})
    assert_another_thread_stops(native_at(config, data, initial(config, data)))


def test_stop_from_a_signal_handler_leaves_a_good_state(make_data):
    config, data = setting(make_data, {})
    state = initial(config, data)
    assert_a_signal_handler_stops_in_a_good_state(lambda: native_at(config, data, state))


def test_a_stop_is_never_lost(make_data, monkeypatch):
    config, data = setting(make_data, {})
    engine = native_at(config, data, initial(config, data))
    rates = engine._rates  # computed right before a native call
    with monkeypatch.context() as context:
        context.setattr(engine, "_rates", lambda *steps: engine.stop() or rates(*steps))
        assert len(engine.run(1000)) == 0
    assert len(engine.run(300)) == 300  # it is spent
    later = iter([False, True])
    with monkeypatch.context() as context:
        context.setattr(engine, "_rates", lambda *steps: (next(later) and engine.stop()) or rates(*steps))
        assert len(engine.run(1000)) == 256  # between two native calls
    assert engine.export().step == 556


def test_signal_handlers_see_denormal_numbers(make_data):
    config, data = setting(make_data, {})
    engine, seen, smallest = native_at(config, data, initial(config, data)), [], [5e-324]
    previous = signal.signal(signal.SIGALRM, lambda *_: seen.append(smallest[0] * 1.0) or engine.stop())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        engine.run(10**9)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert seen == smallest


def test_ctrl_c_interrupts_between_steps_and_leaves_a_good_state():
    program = GAN + (
        # Background jobs and workers of pytest-xdist ignore Ctrl-C, and their children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "engine = engine_at()\nprint('running', flush=True)\n"
        "try:\n    engine.run(10**9)\nexcept KeyboardInterrupt:\n    pass\n"
        "steps = engine.export().step\nother = engine_at(steps)\nassert steps > 0 and same(engine, other)\n"
        "engine.run(7); other.run(7)\nassert same(engine, other)\nprint('good')"
    )
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TESTS)
    assert process.stdout.readline() == "running\n"
    time.sleep(0.3)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (out, error, process.returncode) == ("good\n", "", 0)
    assert time.monotonic() - sent < 30


# ---- processes


def assert_ends_well(program: str) -> None:
    """Run a program on the small GAN, whose own assertions must hold, to its end."""
    done = run_program(GAN + program + "print('good')")
    assert (done.stdout, done.returncode) == ("good\n", 0), done.stderr


def test_a_forked_child_and_its_parent_both_go_on():
    assert_ends_well(
        "expected, engine = engine_at(8), engine_at(3)\n"
        + "child = os.fork()\nengine.run(5)\ngood = same(engine, expected)\n"
        + "if not child:\n    os._exit(0 if good else 3)\n"
        + "_, status = os.waitpid(child, 0)\nassert good and status == 0, (good, status)\n"
    )


def test_a_fork_during_a_run_leaves_the_parent_alone():
    assert_ends_well(
        "engine = engine_at()\nworker = threading.Thread(target=engine.run, args=(2000,))\nworker.start()\n"
        + "child = os.fork()\nif not child:\n    os._exit(0 if same(engine_at(5), engine_at(5)) else 3)\n"
        + "_, status = os.waitpid(child, 0)\nworker.join()\nassert status == 0, status\n"
        + "assert same(engine, engine_at(2000))\n"
    )


# What a child does with a copy of half a step.
REFUSED = """
def refused():
    for call in (engine.export, lambda: engine.run(1)):
        try:
            call()
        except RuntimeError as error:
            assert "forked while it ran" in str(error), error
        else:
            os._exit(4)
    engine.load(State.initial(engine.spec, 3))
    engine.run(5)
    os._exit(0 if same(engine, engine_at(5)) else 3)
"""


# So that signals arrive inside: 256 steps of so small a model, a usual call, end before it looks for one.
LONG_CALLS = "from fastgan.engines import cpu\ncpu._PIECE = 5000\n"


def test_a_fork_during_a_run_leaves_the_child_a_copy_to_load_into():
    assert_ends_well(
        REFUSED
        + LONG_CALLS
        + "engine = engine_at()\n"
        + "worker = threading.Thread(target=engine.run, args=(10**9,))\nworker.start()\n"
        + "while True:\n    try:\n        engine.export()\n    except RuntimeError:\n        break\n"
        + "child = os.fork()\nif not child:\n    refused()\n"
        + "_, status = os.waitpid(child, 0)\nengine.stop()\nworker.join()\nassert status == 0, status\n"
        + "assert same(engine, engine_at(engine.export().step))\n"
    )


@pytest.mark.parametrize("count", [1, 2])
def test_a_fork_by_a_signal_handler_ends_the_run_in_the_child(count):
    assert_ends_well(
        REFUSED
        + LONG_CALLS
        + f"children, engine = [], engine_at(threads={count})\n"
        + "def fork(*_):\n    try:\n        engine.export()\n    except RuntimeError:  # it is inside\n"
        + "        signal.setitimer(signal.ITIMER_REAL, 0)\n        children.append(os.fork())\n"
        + "        if children[0]:\n            engine.stop()\n"
        + "signal.signal(signal.SIGALRM, fork)\nsignal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)\n"
        + "try:\n    engine.run(10**9)\n"
        + "except RuntimeError as error:\n    assert 'in a signal handler' in str(error)\n    refused()\n"
        + "_, status = os.waitpid(children[0], 0)\nassert status == 0, status\n"
        + f"assert same(engine, engine_at(engine.export().step, threads={count}))\n"
    )


def test_threads_that_the_system_does_not_give_are_an_error_and_not_the_end():
    done = run_program(
        GAN
        + "import resource\nengine = engine_at(threads=1000)\n"
        + "used = int(open('/proc/self/statm').read().split()[0])\n"
        + "limit = used * 4096 + (1 << 30)\nresource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        + "for _ in range(2):\n    try:\n        engine.run(1)\n    except RuntimeError as error:\n"
        + "        print(error)\nassert same(engine_at(4), engine_at(4, threads=1))"
    )
    message = "threads: the system gives no 1000 of them; ask for fewer\n"
    assert (done.stdout, done.returncode) == (2 * message, 0), done.stderr


def test_idle_threads_sleep():
    done = run_program(
        GAN
        + "engine = engine_at(50)\nbefore = time.process_time()\ntime.sleep(0.5)\n"
        + "print(time.process_time() - before)"
    )
    assert float(done.stdout) < 0.1, done.stderr
