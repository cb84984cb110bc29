"""Results on disk: one line of JSON per group, appended, under ``results/<machine>/<suite>.jsonl``."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import machine
from bench.measure import Measured
from bench.plan import Contender
from bench.stats import Summary
from fastgan.errors import UserError

FOLDER = Path(__file__).resolve().parent / "results"


def check(folder: Path) -> None:
    """Make sure, before time is spent on measuring, that results can be written.

    Raises:
        UserError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        hint = "--no-results measures without writing."
        raise UserError("--results", f"{folder} ({error.strerror})", "a folder to write to", hint) from None


def append(folder: Path, suite: str, measured: Measured, run: dict[str, Any], device: str) -> Path:
    """Append a group's measurements.

    Args:
        folder: of all results.
        suite: name of the file.
        measured: the group.
        run: what is the same for all groups of a run: its id, command, facts of the machine.
        device: it was measured on.
    """
    path = folder / machine.slug(device) / f"{suite}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record(suite, measured) | run) + "\n")
    return path


def record(suite: str, measured: Measured) -> dict[str, Any]:
    """Return a group's measurements as plain data, every round of them."""
    contenders = [
        {
            "title": t.contender.title,
            "peer": t.contender.peer,
            "case": asdict(t.contender.case),
            "work": asdict(t.work),
            "seconds": [_short(s) for s in t.seconds],
            "summary": summary(t.summary),
            "nearest": t.nearest,
            "share": summary(t.share),
        }
        for t in measured.timed.values()
    ]
    rows = [
        {
            "title": r.row.name,
            "peers": [r.row.top.peer, r.row.bottom.peer],
            "top": _index(measured, r.row.top),
            "bottom": _index(measured, r.row.bottom),
            "low": r.row.low,
            "high": r.row.high,
            "percent": r.row.percent,
            "more_is_better": r.row.more_is_better,
            "verdict": r.verdict,
            "summary": summary(r.summary),
        }
        for r in measured.results
    ]
    return {
        "suite": suite,
        "group": measured.group.name,
        "title": measured.group.title,
        "figure": measured.group.figure,
        "method": measured.group.method,
        "contenders": contenders,
        "rows": rows,
        "missing": {c.title: why for c, why in measured.missing.items()},
        "others": [_short(o) for o in measured.others],
        "profile": measured.profile,
    }


def new_run(
    command: str, facts: dict[str, Any], quick: bool, whole: dict[str, int] | None = None
) -> dict[str, Any]:
    """Return what all lines of a run say: when, by which command, on what.

    And how many groups of each suite make it whole (``suites.whole``): later versions have others.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"run": now, "command": command, "quick": quick, "facts": facts, "whole": whole}


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield all lines of a machine's folder, in the order of the files' names and of their lines.

    Raises:
        UserError: a line is none of ours, such as one that a kill cut off.
    """
    for path in sorted(folder.glob("*.jsonl")):
        # What is no text is no line of ours, either.
        for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            try:
                line = json.loads(text)
                known = {"suite", "title", "rows", "run", "quick", "facts"} <= line.keys()
            except (ValueError, AttributeError):
                known = False
            if not known:
                hint = "Remove it if a run was killed while it wrote."
                raise UserError(f"{path}, line {number}", repr(text[:60]), "a line of results", hint)
            yield line


def on_all_cores(line: dict[str, Any]) -> bool:
    """Return whether contenders had a thread for each core: titles do not always say how many."""
    return line["facts"].get("threads") == line["facts"].get("cores")


def summary(found: Summary | None) -> dict[str, Any] | None:
    """Return a summary as plain data, with the reason why it says nothing, if so."""
    return None if found is None else asdict(found) | {"noisy": found.noisy}


def _index(measured: Measured, contender: Contender) -> int | None:
    ready = list(measured.timed)
    return ready.index(contender) if contender in ready else None


def _short(value: float) -> float:
    return float(f"{value:.5g}")
