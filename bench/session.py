"""What a pytest run keeps: the groups measured so far, and the clock of each test (``conftest.py``)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import machine, results, suites
from bench.measure import Measured, measure
from bench.options import Options
from bench.plan import Contender, Group
from bench.team import Team


class Task:
    """One contender of one group: what a test is about, and the clock of its ``benchmark`` fixture."""

    __name__ = "interleaved rounds"  # for pytest-benchmark, as a timer's name

    def __init__(self, suite: str, group: Group, contender: Contender) -> None:
        self.suite, self.group, self.contender = suite, group, contender
        self._now = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Of its group."""
        return self.suite, self.group.title

    def __str__(self) -> str:
        return f"{self.group.name}: {self.group.title}: {self.contender.title}"

    def __call__(self) -> float:
        return self._now

    def feed(self, benchmark: Any, measured: Measured) -> None:
        """Hand this contender's rounds to a ``benchmark`` fixture, with what the table says of them."""
        if self.contender in measured.missing:
            pytest.skip(measured.missing[self.contender])
        record = results.record(self.suite, measured)
        mine = list(measured.timed).index(self.contender)
        rows = [row for row in record["rows"] if mine in (row["top"], row["bottom"])]
        benchmark.extra_info.update(record["contenders"][mine] | {"rows": rows})
        seconds = measured.timed[self.contender].seconds
        benchmark.pedantic(self._advance, args=(iter(seconds),), rounds=len(seconds))

    def _advance(self, rounds: Iterator[float]) -> None:
        self._now += next(rounds)


class Measurements:
    """Groups, each measured when first asked for, and the workers that measure them."""

    def __init__(self, config: pytest.Config) -> None:
        self.options = Options.of(config.option)
        self.done: dict[tuple[str, str], Measured | Exception] = {}
        self.path: Path | None = None  # of what was appended last
        self._folder = None if config.getoption("no_results") else config.getoption("results")
        if self._folder is not None and config.getoption("benchmark_only", False):
            results.check(self._folder)
        self._command = shlex.join(["pytest", *map(str, config.invocation_params.args)])
        self._selected: dict[tuple[str, str], list[Contender]] = {}
        self._team = Team()
        self._run: dict[str, Any] = {}

    def select(self, task: Task) -> None:
        """Note that a test of this contender will come."""
        self._selected.setdefault(task.key, []).append(task.contender)

    def of(self, task: Task) -> Measured:
        """Return the measurements of a task's group, of the contenders that were selected.

        Raises:
            ParityError: one of them does other work than the reference.
        """
        if task.key not in self.done:
            try:
                group = task.group.only(self._selected[task.key])
                self.done[task.key] = self._measure(task.suite, group, len(task.group.contenders))
            except Exception as error:  # all tests of the group fail alike
                self.done[task.key] = error
        found = self.done[task.key]
        if isinstance(found, Exception):
            raise found
        return found

    def _measure(self, suite: str, group: Group, wanted: int) -> Measured:
        device = self.options.device
        if not self._run:
            facts = machine.facts(device) | {"threads": self.options.threads}
            whole = suites.whole(self.options)
            self._run = results.new_run(self._command, facts, self.options.quick, whole)
        part = dict(part=len(self._selected[suite, group.title]) < wanted)
        measured = measure(self._team, group, self.options)
        if self._folder is not None:
            self.path = results.append(self._folder, suite, measured, self._run | part, device)
        return measured

    @property
    def facts(self) -> str:
        """The machine's facts, as a line."""
        return "  ".join(f"{name} {value}" for name, value in self._run.get("facts", {}).items())

    def close(self) -> None:
        """End the workers."""
        self._team.close()
