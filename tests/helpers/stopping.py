"""What every engine owes to those who stop it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import numpy as np

from fastgan.engines import Engine
from helpers.compare import assert_identical


def assert_another_thread_stops(engine: Engine) -> None:
    """Check that a stop from another thread ends a long run, and is spent then."""
    timer = threading.Timer(0.2, engine.stop)
    timer.start()
    metrics = engine.run(10**9)
    timer.join()
    assert 0 < len(metrics) < 10**9
    assert engine.export().step == len(metrics)
    assert np.isfinite(metrics[:, :2]).all()
    assert len(engine.run(3)) == 3  # the stop is spent


def assert_a_signal_handler_stops_in_a_good_state(create: Callable[[], Engine]) -> None:
    """Check that an engine stopped by a signal handler is where another one is after as many steps."""
    engine = create()
    previous = signal.signal(signal.SIGALRM, lambda *_: engine.stop())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        done = len(engine.run(10**9))
    finally:
        signal.signal(signal.SIGALRM, previous)
    again = create()
    again.run(done)
    assert_identical(engine.export().tensors, again.export().tensors)
    assert len(engine.run(3)) == 3  # the stop is spent
