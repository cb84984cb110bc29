"""All suites, and how many groups a whole run has of each."""

from __future__ import annotations

import importlib
from pathlib import Path

from bench import machine
from bench.options import Options
from bench.plan import Group


def groups(options: Options) -> dict[str, list[Group]]:
    """Return the groups of each suite; one that has nothing to measure on this device is left out."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    found = {name: importlib.import_module(f"bench.{name}").groups(options) for name in names}
    return {name.removeprefix("bench_"): some for name, some in found.items() if some}


def whole(options: Options) -> dict[str, int] | None:
    """Return how many groups a whole run with these options has, by suite; None if it cannot be whole.

    It can with the defaults only: all sizes, all rounds, a thread for each core.
    """
    if options != Options(threads=len(machine.cores()), device=options.device):
        return None
    return {suite: len(some) for suite, some in groups(options).items()}
