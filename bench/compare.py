"""``python -m bench.compare``: has anything become slower than it was on this kind of machine?

Only ratios are compared, of contenders that were measured in turn: a busier machine slows both. A ratio has
fallen if its whole 95% interval lies more than 10% below the lowest interval of the stored runs, or if there
is none any more because a contender of ours does not run. What cannot be told is no failure, unless that is
all. So falls of 25% are nearly always seen, smaller ones if the stored runs lie close together.
``--quick`` measures now, and what has fallen or was too noisy again, once or, if there is time, twice: what
fails has fallen twice or more, the last time too. It says what it measures, and ends in under three minutes
whatever the load: what was not reached is named.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import bench_generate, bench_ops, bench_step, machine, results
from bench.measure import measure
from bench.options import QUICK, Options
from bench.parity import ParityError
from bench.plan import Group
from bench.stats import BUSY, ENOUGH
from bench.team import Team, WorkerError
from fastgan.cli import run_command
from fastgan.errors import UserError

TOLERANCE = 0.10
RUNS = 5  # the newest stored ones that count
TRIES = 3
SECONDS = 150.0  # after which nothing is measured a third time
LONGEST = 170.0  # after which nothing is measured at all: under three minutes, whatever the load
FALLEN, NOISY = "FALLEN", "too noisy"
_EVERYWHERE = (  # modules of peers that no machine with this repository lacks
    *("native", "noise", "tables", "virtual", "files", "startup"),
    *("torch_eager", "torch_rows", "sgemm", "limits", "ops"),
)
_EXTRA = re.compile("jax|duckdb|polars", re.IGNORECASE)  # what these need that a machine may lack
WORDS = (FALLEN, "risen", "as before", NOISY, "new")
_HELD = WORDS[:3]  # against earlier runs

Key = tuple[str, str, str, int]  # suite, group's title, row's title, method
Line = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A ratio then and now.

    Attributes:
        key: suite, group, row, method.
        then: the outermost intervals of the stored runs, or None if there are none.
        now: the fresh median and its interval, or None: a contender does not run.
        word: one of ``WORDS``.
    """

    key: Key
    then: tuple[float, float] | None
    now: tuple[float, float, float] | None
    word: str

    def __str__(self) -> str:
        then = "" if self.then is None else "[{:.2f}, {:.2f}]".format(*self.then)
        now = "does not run" if self.now is None else "{:.2f} [{:.2f}, {:.2f}]".format(*self.now)
        now = "" if self.word == NOISY else now
        suite, group, row, _ = self.key
        return f"  {self.word:<10} {then:<14} {now:<20} {suite}: {group}: {row}"


def compare(stored: list[Line], fresh: list[Line]) -> list[Change]:
    """Return what became of every ratio of the fresh lines."""
    history: dict[Key, list[Line]] = defaultdict(list)
    for key, row in _rows(sorted(stored, key=lambda line: line["run"])):
        if row["summary"] and not row["summary"]["noisy"]:
            history[key].append(row["summary"])
    ours = ((key, row) for key, row in _rows(fresh) if row["more_is_better"] is not None)
    changes = (_change(key, row, history[key][-RUNS:]) for key, row in ours)
    return [change for change in changes if change is not None]


def not_measured(stored: list[Line], fresh: list[Line]) -> list[tuple[str, str, str]]:
    """Return the ratios that the newest of the stored runs has and the fresh one has not, by any method.

    One without a figure, because a contender did not run, is none.
    """
    newest = max((line["run"] for line in stored), default="")
    before, now = (
        {key[:3] for key, row in _rows(lines) if row["summary"]}
        for lines in ([line for line in stored if line["run"] == newest], fresh)
    )
    return sorted(before - now)


def _change(key: Key, row: Line, before: list[Line]) -> Change | None:
    new = row["summary"]
    then = (min(s["low"] for s in before), max(s["high"] for s in before)) if before else None
    if new is None:
        ours = not _EXTRA.search(row["title"]) and all(map(_everywhere, row["peers"]))
        return Change(key, then, None, FALLEN) if then and ours else None
    now = (new["median"], new["low"], new["high"])
    if then is None:
        return Change(key, then, now, NOISY if new["noisy"] else "new")
    below, above = new["high"] < then[0] * (1.0 - TOLERANCE), new["low"] > then[1] * (1.0 + TOLERANCE)
    if not row["more_is_better"]:
        below, above = above, below
    sound = new["rounds"] >= ENOUGH and new["others"] <= BUSY
    if new["noisy"] and not (sound and below):  # a wide interval may lie below as a whole
        return Change(key, then, now, NOISY)
    return Change(key, then, now, FALLEN if below else "risen" if above else "as before")


def _everywhere(peer: str) -> bool:
    return peer.split(".")[0] in _EVERYWHERE and not _EXTRA.search(peer)


def _rows(lines: list[Line]) -> Iterator[tuple[Key, Line]]:
    for line in lines:
        for row in line["rows"]:
            yield (line["suite"], line["title"], row["title"], line.get("method", 1)), row


def groups(options: Options) -> list[tuple[str, Group]]:
    """Return what the quick version measures: no compiler, no framework that a machine may lack.

    What has become slower in fastgan shows against any peer; one form of torch.compile alone takes a minute
    of a busy machine's time for each batch before it can be timed.
    """
    found = [
        ("step", bench_step, ("peers", "limits", "odd", "calls")),
        ("generate", bench_generate, ("generate",)),
        ("ops", bench_ops, ("dense",)),
    ]
    return [
        (suite, g.only([c for c in g.contenders if _everywhere(c.peer)]))
        for suite, module, names in found
        for g in module.groups(options)
        if g.name in names
    ]


def measured_now(stored: list[Line], options: Options) -> tuple[list[Change], list[str]]:
    """Measure the quick groups; what has fallen or was too noisy is measured again, and must fall twice or
    more and at last.

    Returns:
        What became of the ratios, and the groups that the time was too short for. A fall that could not be
        looked at again is none: it is too noisy.

    Raises:
        ParityError: a contender does other work than it should.
    """
    end = time.monotonic() + SECONDS
    changes: dict[Key, Change] = {}
    falls: Counter[Key] = Counter()
    with Team() as team:
        team.stop_after(LONGEST)
        waiting = groups(options)
        for attempt in range(TRIES):
            once = any(c.word == FALLEN and falls[key] == 1 for key, c in changes.items())
            if attempt > 1 and time.monotonic() > end and not once:
                break
            lines = list(_measured(team, waiting, options, attempt))
            for change in compare(stored, lines):
                if not attempt or changes[change.key].word in (FALLEN, NOISY):
                    changes[change.key] = change
                    falls[change.key] += change.word == FALLEN
            again = (FALLEN, NOISY) if not attempt else (FALLEN,)  # what is noisy twice will be a third time
            open_ = {key[:2] for key, change in changes.items() if change.word in again and change.then}
            reached = {(line["suite"], line["title"]) for line in lines}
            left = [
                f"{suite}: {group.title}" for suite, group in waiting if (suite, group.title) not in reached
            ]
            waiting = [(suite, group) for suite, group in waiting if (suite, group.title) in open_]
            if not waiting or team.over:
                break
    for key, change in changes.items():
        if change.word == FALLEN and falls[key] == 1:
            changes[key] = replace(change, word=NOISY)
    return list(changes.values()), left


def _measured(team: Team, waiting: list[tuple[str, Group]], options: Options, attempt: int) -> Iterator[Line]:
    """Measure groups until all are or the time is over, and say which one is being measured."""
    start = time.monotonic()
    for i, (suite, group) in enumerate(waiting, 1):
        again = f", time {attempt + 1}" if attempt else ""
        print(f"measuring {i} of {len(waiting)}{again}: {suite}: {group.title}", flush=True)
        try:
            found = measure(team, group, options)
        except WorkerError:
            if not team.over:
                raise
        if team.over:  # what it found has contenders that were ended
            return
        yield results.record(suite, found)
    print(f"measured in {time.monotonic() - start:.0f} s", flush=True)


def split(lines: list[Line]) -> tuple[list[Line], list[Line]]:
    """Return the lines of older runs, and those of the newest."""
    newest = max((line["run"] for line in lines), default="")
    return [x for x in lines if x["run"] != newest], [x for x in lines if x["run"] == newest]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if a ratio has fallen, 2 if none could be held.

    With ``--quick`` neither a kind of machine that has no stored runs nor one too busy to tell is a failure:
    CI runs everywhere. It says so.
    """
    return run_command(_compare, argv)


def _compare(argv: Sequence[str] | None) -> int:
    arguments = _arguments(argv)
    device = machine.device()
    fresh = list(results.read(arguments.fresh)) if arguments.fresh else []
    folder = arguments.results / (_kind(fresh) if fresh else machine.slug(device))
    stored, fresh = (
        [line for line in lines if results.on_all_cores(line)] for lines in (results.read(folder), fresh)
    )
    if not stored:
        known = ", ".join(sorted({p.parent.name for p in arguments.results.glob("*/*.jsonl")})) or "none"
        print(f"no stored runs of this kind of machine, {folder.name}; there are: {known}")
    if arguments.quick:
        options = Options(True, **QUICK, threads=len(machine.cores()), device=device)
        try:
            changes, left = measured_now(stored, options)
        except ParityError as error:
            print(f"bench.compare: {error}")
            return 1
        if left:
            print(f"not reached in {LONGEST:.0f} s: {len(left)} groups")
            print(*(f"  {group}" for group in left), sep="\n")
    else:
        older, fresh = (stored, fresh) if arguments.fresh else split(stored)
        changes = compare(older, fresh)
        lost = not_measured(older, fresh)
        if lost and changes:
            print(f"not measured, but by the stored run before: {len(lost)} ratios")
            print(*(f"  {': '.join(key)}" for key in lost), sep="\n")
    print(f"{'':<13}{'stored lowest to highest, then now: median and 95% interval'}")
    for change in sorted(changes, key=lambda c: (WORDS.index(c.word), c.key)):
        print(change)
    counts = ", ".join(f"{sum(c.word == word for c in changes)} {word}" for word in WORDS)
    print(f"{folder.name}: {counts}")
    if any(c.word == FALLEN for c in changes):
        return 1
    if any(c.word in _HELD for c in changes):
        return 0
    runs = {line["run"] for line in stored}
    print(f"nothing was held: {len(runs)} stored runs of this kind of machine; all else was too noisy or new")
    return 0 if arguments.quick else 2


def _kind(fresh: list[Line]) -> str:
    """Return the kind of machine that a run is of.

    Raises:
        UserError: it does not say, or there are several: ratios of different kinds differ by themselves.
    """
    kinds = {line["facts"].get("kind", "unknown") for line in fresh}
    if len(kinds) > 1 or "unknown" in kinds:
        wanted = "lines of one kind of machine that say which, in their facts"
        raise UserError("--fresh", f"kinds {', '.join(sorted(kinds))}", wanted, "Measure with --results DIR.")
    return kinds.pop()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench.compare",
        description="Hold a run against the stored ones of the same kind of machine; exit code 1 if a ratio "
        f"has fallen by more than {TOLERANCE:.0%} beyond noise, 2 if there is nothing to hold it against. "
        "By default the newest stored run is held.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--fresh", type=Path, help="folder with the *.jsonl of a run, as --results wrote it")
    which.add_argument("--quick", action="store_true", help="measure now, under 3 minutes, and store nothing")
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="folder of the stored runs")
    arguments = parser.parse_args(argv)
    if not arguments.results.is_dir():
        parser.error(f"--results: got {arguments.results}; wanted a folder with a folder for each machine")
    if arguments.fresh and not list(arguments.fresh.glob("*.jsonl")):
        parser.error(f"--fresh: got {arguments.fresh}; wanted a folder with *.jsonl files")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
