"""pytest-benchmark over the suites: ``pytest bench/ --benchmark-only`` (README.md).

pytest-benchmark times one test after the other, so that a contender's minute is not its rival's. Here the
first test of a group measures the whole group, in turn, round by round (``measure.py``). Each test then hands
its contender's rounds to its ``benchmark`` fixture, whose timer is a clock that the test moves on by what was
measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench import machine, options, results, table
from bench.measure import Measured
from bench.options import Options
from bench.session import Measurements, Task
from fastgan.errors import UserError

_MEASUREMENTS = pytest.StashKey[Measurements]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suites."""
    group = parser.getgroup("fastgan", "fastgan's benchmarks")
    options.add(group)
    group.addoption(
        "--results", type=Path, default=results.FOLDER, help="folder that results are appended to"
    )
    group.addoption("--no-results", action="store_true", help="append nothing")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Leave the table to this file: pytest-benchmark's has no ratios. Look at the options.

    Raises:
        pytest.UsageError: this machine has not what they want. Raised later, it would be shown with its way.
    """
    if not config.pluginmanager.hasplugin("benchmark"):
        config.addinivalue_line("markers", "benchmark: of pytest-benchmark, which is not installed")
    elif config.getoption("benchmark_only"):
        config.option.benchmark_quiet = True
        try:
            config.stash[_MEASUREMENTS] = Measurements(config)
        except UserError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each contender of each group of a suite."""
    if "feed" not in metafunc.fixturenames:
        return
    stash = metafunc.config.stash
    if _MEASUREMENTS not in stash:
        stash[_MEASUREMENTS] = Measurements(metafunc.config)
    if stash[_MEASUREMENTS].options.device == "cuda" and hasattr(metafunc.module, "CPU_ONLY"):
        skip = pytest.mark.skip(reason=metafunc.module.CPU_ONLY)
        metafunc.parametrize("feed", [pytest.param(None, id="GPU", marks=skip)], indirect=True)
        return
    suite = metafunc.module.__name__.rpartition("bench_")[2]
    groups = metafunc.module.groups(stash[_MEASUREMENTS].options)
    tasks = [Task(suite, group, contender) for group in groups for contender in group.contenders]
    metafunc.parametrize("feed", [pytest.param(t, id=str(t), marks=_mark(t)) for t in tasks], indirect=True)


def _mark(task: Task) -> pytest.MarkDecorator:
    return pytest.mark.benchmark(group=": ".join(task.key), timer=task)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip benchmarks that nobody asked for."""
    if config.getoption("benchmark_only", False):
        return
    there = config.pluginmanager.hasplugin("benchmark")
    first = "" if there else '; first: pip install -e ".[bench]" -c constraints.txt'
    reason = f"a benchmark: pytest bench/ --benchmark-only runs it{first}"
    for item in items:
        if "feed" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which contenders are wanted."""
    for item in session.items:
        task = item.callspec.params.get("feed") if hasattr(item, "callspec") else None
        if isinstance(task, Task):
            session.config.stash[_MEASUREMENTS].select(task)


@pytest.fixture
def feed(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Return what hands the rounds of this test's contender to its benchmark fixture."""
    return partial(request.param.feed, measured=request.config.stash[_MEASUREMENTS].of(request.param))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Add our facts to the file of ``--benchmark-json``."""
    machine_info.update(machine.facts(Options.of(config.option).device))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables."""
    measurements = config.stash.get(_MEASUREMENTS, None)
    if measurements is None or not measurements.done:
        return
    terminalreporter.section("fastgan's benchmarks")
    terminalreporter.write_line(measurements.facts)
    for found in measurements.done.values():
        if isinstance(found, Measured):
            terminalreporter.write_line("\n".join(["", *table.lines(found)]))
    if measurements.path is not None:
        terminalreporter.write_line(f"\nappended to {measurements.path.parent}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the workers."""
    if (measurements := config.stash.get(_MEASUREMENTS, None)) is not None:
        measurements.close()
