"""The loop: engine calls between the events of a run, all at absolute steps, so stopping changes nothing."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from types import FrameType
from typing import Protocol

import numpy as np

from fastgan import checkpoint, files, stats
from fastgan.checkpoint import Record
from fastgan.engines import METRICS, Engine
from fastgan.errors import UserError
from fastgan.progress import Progress
from fastgan.report import RunFolder
from fastgan.state import State
from fastgan.stats import Window

FINISHED, NON_FINITE = 0, 3
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Engine calls are kept this short: the bar moves, and a signal is answered even where an engine in native
# code keeps Python's handlers from running until it returns.
_CALL_SECONDS = 0.2


class Board(Protocol):
    """A place that also wants the statistics, such as TensorBoard."""

    def add(self, step: int, values: dict[str, float | int | None]) -> None:
        """Take one line of statistics."""


class Trainer:
    """Trains one run from a state to its end, or until a signal or a non-finite loss.

    Args:
        run: the folder; its lock is held by the caller.
        engine: loaded with the state to start from.
        progress: shows how far it is.
        board: takes the statistics too.
    """

    def __init__(
        self, run: RunFolder, engine: Engine, progress: Progress, board: Board | None = None
    ) -> None:
        self.run, self.engine, self.progress, self.board = run, engine, progress, board
        self.config = run.config
        self._signal: int | None = None
        self._call = 1

    def train(self, record: Record | None) -> int:
        """Run to the end of the run.

        Args:
            record: of the checkpoint that the engine's state came from; None for a new run.

        Returns:
            The exit code: 0 finished, 3 non-finite, 128 + number after a signal.

        Raises:
            UserError: a file cannot be written.
        """
        self.step = record.step if record else 0
        self._saved = record.step if record else None
        self._window = Window(**record.window) if record else Window()
        self._started = time.perf_counter() - (record.seconds if record else 0.0)
        with _Signals(self._on_signal):
            try:
                return self._train(is_new=record is None)
            except UserError as error:
                # The disk may be full, and the log is on it: what counts is the error itself.
                with contextlib.suppress(UserError):
                    self.run.note(f"stopped at step {self.step}: {error}")
                raise

    def _train(self, is_new: bool) -> int:
        if is_new and not self._record_state(sample=True, save=True):
            return NON_FINITE
        while self.step < self.config.steps:
            if self._signal is not None:
                return self._stop()
            if not self._advance():
                return NON_FINITE
        self.run.log(f"finished {self.config.steps} steps in {self._seconds():.1f} s: {self.run.path}")
        return FINISHED

    def _advance(self) -> bool:
        """Run one engine call and the events at its end; False after a non-finite number."""
        started = time.perf_counter()
        metrics = self.engine.run(min(self._call, self._next_event() - self.step))
        if not len(metrics):  # stopped before its first step: the events of this one are over
            return True
        seconds = time.perf_counter() - started
        self._call = min(2 * self._call if seconds < _CALL_SECONDS else max(self._call // 2, 1), 2**20)
        before, self.step = self.step, self.step + len(metrics)
        bad = np.flatnonzero(~np.isfinite(metrics[:, :2]).all(axis=1) | np.isinf(metrics).any(axis=1))
        if len(bad):
            values = zip(METRICS, metrics[bad[0]].tolist(), strict=True)
            return self._non_finite(before + int(bad[0]) + 1, ", ".join(f"{k} {v:g}" for k, v in values))
        self._window.add(metrics, seconds)
        self.progress.advance(len(metrics), *metrics[-1, :2].tolist())
        return self._events()

    def _next_event(self) -> int:
        c = self.config
        every = (c.log_every, c.sample_every, c.checkpoint_every)
        return min(c.steps, *(self.step - self.step % n + n for n in every))

    def _events(self) -> bool:
        """Do what is due at this step, the checkpoint last: it vouches for everything before it."""
        c, at_end = self.config, self.step == self.config.steps
        if self.step % c.log_every == 0 or at_end:
            self._log_statistics()
        sample = self.step % c.sample_every == 0 or at_end
        save = self.step % c.checkpoint_every == 0 or at_end
        return self._record_state(sample, save) if sample or save else True

    def _log_statistics(self) -> None:
        c, step = self.config, self.step
        means = self._window.means()
        rates = {
            "g_lr": c.g_lr * c.lr_factor(c.g_schedule, step - 1),
            "d_lr": c.d_lr * c.lr_factor(c.d_schedule, step - 1),
        }
        values = {
            "step": step,
            **means,
            **rates,
            "steps_per_s": self._window.steps_per_s,
            "rss_mb": _peak_rss_mb(),
            "time_s": self._seconds(),
        }
        files.append(self.run.stats, stats.line(values))
        text = (
            f"step {step}: D loss {means['d_loss']:.4f}, G loss {means['g_loss']:.4f}, accuracy on real "
            f"{means['d_real_acc']:.2f}, fake {means['d_fake_acc']:.2f}, pairs {means['d_pair_acc']:.2f}, "
            f"{values['steps_per_s']:.0f} steps/s, {values['rss_mb']:.0f} MB"
        )
        self.run.note(text)
        self.progress.statistics(text)
        if self.board:
            self.board.add(step, values)
        self._window = Window()

    def _record_state(self, sample: bool, save: bool) -> bool:
        """Write pictures and a checkpoint of this step; a state that is not finite is never saved: False."""
        state = self.engine.export()
        name = checkpoint.non_finite(state)
        if name:
            return self._non_finite(self.step, f"{name} holds NaN or infinity")
        if sample and self.run.is_image:
            self.run.write_fakes(state)
        if self.step == self.config.steps:
            self.run.write_samples(state)
            self.run.write_loss_plot()
        if save:
            self.run.write_generator(state)
            self._save(state)
        return True

    def _save(self, state: State) -> None:
        if self.run.stats.exists():
            # The checkpoint promises that the lines before it are there, after a power cut too.
            files.sync(self.run.stats)
        record = Record(
            self.step,
            state.seed,
            self.engine.name,
            asdict(self.config),
            self._window.to_dict(),
            self._seconds(),
        )
        checkpoint.save(self.run.checkpoints, state, record, self.config.keep)
        self._saved = self.step

    def _stop(self) -> int:
        if self._saved != self.step and not self._record_state(sample=False, save=True):
            return NON_FINITE
        self.run.write_loss_plot()
        name = signal.Signals(self._signal).name
        self.run.log(
            f"stopped by {name} at step {self.step}; continue with: "
            f"python -m fastgan.train --resume {self.run.path}"
        )
        return 128 + self._signal

    def _non_finite(self, step: int, what: str) -> bool:
        self.run.write_loss_plot()
        kept = max(checkpoint.steps(self.run.checkpoints), default=None)
        last = "no checkpoint yet" if kept is None else f"the checkpoint of step {kept} is kept"
        self.run.log(f"stopped: not finite at step {step} ({what}); {last}. Try lower --g-lr and --d-lr.")
        return False

    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    def _on_signal(self, number: int) -> None:
        self._signal = number
        self.engine.stop()


class _Signals:
    """While entered, the first SIGINT or SIGTERM calls ``on_signal``; the second does what it did before."""

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        self._on_signal = on_signal
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.__exit__()
        self._on_signal(number)


def _peak_rss_mb() -> float:
    """Return the largest resident size of this process so far, in MB (10**6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
