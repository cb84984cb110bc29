"""Stored results as Markdown: the README's section, and all tables of a machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.ops_choice import SECONDS, SHARE
from bench.table import duration, number, quantity

Line = dict[str, Any]
OURS = "fastgan"
_NAMED = "<!-- From bench/results/{}, the run of {}. -->"  # in the README, for bench.report --check
RUN = re.compile(_NAMED.format(r"(?P<machine>\S+)", r"(?P<run>\S+)"))
_NOTHING = "Not measured on this machine.\n"
_SAID = {"MISSED": ": missed", "cannot tell": ": cannot tell"}  # of a target, behind it
_HELD = ("recipe", "limits", "odd", "widths", "threads", "generate", "calls")  # groups with targets


def readme(lines: list[Line], folder: Path) -> str:
    """Return the README's section, of the lines of one run."""
    of = {
        name: [line for line in lines if line["group"] == name]
        for name in ("peers", "dense", "control", *_HELD)
    }
    named = _NAMED.format(folder.name, lines[0]["run"])
    parts = [
        named,
        _where(lines),
        _peers(of["peers"]),
        "![Step time against batch size](docs/bench/step.png)",
    ]
    parts.append(_held([line for name in _HELD for line in of[name]]))
    if any(line["profile"] for line in lines):
        parts.append("![Where a step's time goes](docs/bench/where.png)")
    if of["threads"]:
        parts.append("![Scaling over threads](docs/bench/threads.png)")
    if of["dense"]:
        parts += [_ops(of["dense"], of["control"]), "![Ops against plain PyTorch](docs/bench/ops.png)"]
    virtual = [line for suite in ("virtual", "serve") for line in _of_suite(lines, suite)]
    if virtual:
        parts.append(_virtual(virtual))
    parts.append(_missed([line for name in ("peers", *_HELD) for line in of[name]] + virtual))
    machine = f"bench/results/{folder.name}"
    link = f"[`{machine}`]({machine}/README.md)"
    parts.append(f"All tables of this machine, start-up, noise and data included: {link}.")
    return "\n\n".join(parts) + "\n"


def images(lines: list[Line], folder: Path) -> str:
    """Return the README's table of images by a DataLoader: the files' time over ours."""
    found = [line for line in lines if line["group"] == "images"]
    if not found:
        return _NOTHING
    threads = found[0]["contenders"][0]["case"]["threads"]
    words = (
        f"A DataLoader without workers, on {threads} thread{'s' * (threads > 1)}, against one that reads the "
        "same 28 x 28 images from files: the files' time over ours, on the machine of [Speed](#speed), by "
        "`pytest bench/bench_virtual.py --benchmark-only -k images`"
    )
    cells = {}
    for line in found:
        how = line["title"].removeprefix("labelled images by a DataLoader, ").partition(", no workers")[0]
        for row in line["rows"]:
            files, _, ours = row["title"].partition(" / ")
            cells[f"{files}, {how}", ours] = _value(row)
    return f"{words}\n\n{_crossed('files', cells)}\n"


def served(lines: list[Line], folder: Path) -> str:
    """Return the README's table of rows from a server: its speed as a share of that in the process itself."""
    found = [line for line in lines if line["group"] == "serve"]
    if not found:
        return _NOTHING
    words = (
        "Speed of Flight on loopback, one thread computing, as a share of that in the process itself, on the "
        "machine of [Speed](#speed): `pytest bench/bench_serve.py --benchmark-only`"
    )
    cells = {
        (
            line["title"].partition(" as a table")[0],
            row["title"].removeprefix("Flight on loopback, ").partition(" / ")[0],
        ): _value(row)
        for line in found
        for row in line["rows"]
    }
    return f"{words}\n\n{_crossed('rows', cells)}\n"


def _of_suite(lines: list[Line], suite: str) -> list[Line]:
    return [line for line in lines if line["suite"] == suite]


def _crossed(corner: str, cells: dict[tuple[str, str], str]) -> str:
    """Return a table of cells by row and column."""
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in range(2))
    return _markdown([corner, *columns], [[row, *(cells.get((row, c), "") for c in columns)] for row in rows])


def tables(lines: list[Line]) -> str:
    """Return every group's table."""
    out = [
        "# Measured on this machine",
        "Written by `python -m bench.report`; [the method](../../README.md). Medians of interleaved rounds; "
        "ratios with their 95% bootstrap interval.",
        _where(lines),
    ]
    for suite in dict.fromkeys(line["suite"] for line in lines):
        out += [f"## {suite}", f"`pytest bench/bench_{suite}.py --benchmark-only`"]
        for line in lines:
            if line["suite"] == suite:
                out += [f"### {line['title']}", _contenders(line)]
                if line["rows"]:
                    out.append(_ratios([line]))
    return "\n\n".join(out) + "\n"


def _where(lines: list[Line]) -> str:
    """Return what it was measured on, and when."""
    facts = lines[-1]["facts"]
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "jax", "numpy", "python"))
    gpu = f"{facts['gpu']}; " if "gpu" in facts else ""
    return (
        f"{gpu}{facts['cpu']}, {facts['cores']} cores, {facts['isa']}, {facts['threads']} threads; "
        f"{versions}; commit `{facts['commit']}`; {lines[0]['run'][:10]}; by `{lines[0]['command']}`. "
        "The commands below measure parts of it."
    )


def _peers(lines: list[Line]) -> str:
    """Return the table of peers: a line per batch, a column per peer."""
    titles = dict.fromkeys(row["title"].removesuffix(f" / {OURS}") for line in lines for row in line["rows"])
    head = ["batch", OURS, "share of the limit", *titles]
    body = []
    for line in sorted(lines, key=lambda line: line["figure"]["batch"]):
        ours = next(c for c in line["contenders"] if c["title"] == OURS)
        ratios = {row["title"].removesuffix(f" / {OURS}"): row for row in line["rows"]}
        cells = [_value(ratios[t], wanted=True) if t in ratios else "" for t in titles]
        body.append([str(line["figure"]["batch"]), _time(ours), _share(ours), *cells])
    words = (
        "Time of others' step over fastgan's (wanted in brackets behind, where there is a target): "
        "`pytest bench/bench_step.py --benchmark-only -k peers`"
    )
    return words + "\n\n" + _markdown(head, body)


def _held(lines: list[Line]) -> str:
    command = "pytest bench/bench_step.py bench/bench_generate.py --benchmark-only"
    words = f"What else the step is held against: `{command}`"
    rows = (row for line in lines for row in line["rows"])
    if any("tile peak" in row["title"] and row["summary"] for row in rows):
        words += (
            ". The multiply-add peak is that of vector registers. The limit above is that of tiles, the "
            "faster unit here: six bfloat16 products for a float32 one"
        )
    return f"{words}\n\n{_ratios(lines, targets_only=True)}"


def _virtual(lines: list[Line]) -> str:
    command = "pytest bench/bench_virtual.py bench/bench_serve.py --benchmark-only"
    return f"Virtual data: `{command}`\n\n" + _ratios(lines, targets_only=True)


def _missed(lines: list[Line]) -> str:
    """Return a sentence on targets that were missed."""
    wanted = [(line, row) for line in lines for row in line["rows"] if _wanted(row)]
    missed = [f"{row['title']}, {line['title']}" for line, row in wanted if row["verdict"] == "MISSED"]
    untold = sum(row["verdict"] not in ("ok", "MISSED") for _, row in wanted)
    said = f"Of {len(wanted)} targets {len(missed)} are missed, and {untold} cannot be told."
    return said + (f" Missed: {'; '.join(missed)}." if missed else "")


def _ops(lines: list[Line], control: list[Line]) -> str:
    """Return a sentence on the fused ops, by what they promise: see ``bench/ops_choice.py``.

    Args:
        lines: groups of the ops.
        control: of plain PyTorch against itself: what differences mean nothing.
    """
    seen = [(line, row) for line in lines for row in line["rows"] if row["summary"]]
    told = [(line, row) for line, row in seen if not row["summary"]["noisy"]]
    if not told:
        return "The fused ops: too noisy to tell."
    faster = sum(row["summary"]["low"] > SHARE for _, row in told)
    lost = [_lost(line, row) > SECONDS for line, row in told if row["summary"]["high"] < 1 / SHARE]
    told.sort(key=lambda each: each[1]["summary"]["median"])
    best, worst = (
        f"{_value(row)} ({line['title']}, {row['title'].rpartition(', ')[2]})"
        for line, row in (told[-1], told[0])
    )
    return (
        f'`fastgan.ops` with `impl="auto"` against plain PyTorch: of {len(told)} sizes, and another '
        f"{len(seen) - len(told)} that were too noisy, faster by more than 3% in {faster}, slower by more "
        f"than 3% and 2 microseconds in {sum(lost)}, by more than 3% but fewer microseconds in "
        f"{len(lost) - sum(lost)}; whole intervals count. Best: {best}; worst: {worst}. "
        f"{_control(control)}: `pytest bench/bench_ops.py --benchmark-only`"
    )


def _control(lines: list[Line]) -> str:
    told = [row["summary"] for line in lines for row in line["rows"] if row["summary"]]
    told = [summary for summary in told if not summary["noisy"]]
    if not told:
        return "Plain PyTorch against itself: too noisy to tell"
    medians, within = [s["median"] for s in told], sum(s["low"] <= 1.0 <= s["high"] for s in told)
    return (
        f"Plain PyTorch against itself, by the same way of measuring: {min(medians):.2f}x to "
        f"{max(medians):.2f}x at {len(told)} sizes, 1 within the interval at {within}"
    )


def _lost(line: Line, row: Line) -> float:
    """Return how many seconds the contender that is below in a ratio takes longer, by the medians."""
    top, bottom = (line["contenders"][row[k]]["summary"]["median"] for k in ("top", "bottom"))
    return bottom - top


def _contenders(line: Line) -> str:
    """Return the table of a group's contenders, without empty columns."""
    unit = next((c["work"]["unit"] for c in line["contenders"]), "unit")
    head = ["", "time", f"{unit}s/s", "flops", "bytes", "launches", "GFLOP/s", "share of the nearest limit"]
    body = []
    for c in line["contenders"]:
        work, s = c["work"], c["summary"]
        told = not s["noisy"]
        cells = [
            _time(c),
            quantity(1.0 / s["median"]) if told else "",
            quantity(work["flops"]) if work["flops"] else "",
            quantity(work["bytes"]) + "B" if work["bytes"] else "",
            "" if work["launches"] is None else f"{work['launches']:g}",
            f"{work['flops'] / s['median'] / 1e9:.1f}" if work["flops"] and told else "",
            f"{_share(c)} {c['nearest']}".strip(),
        ]
        body.append([c["title"], *(cell.strip() for cell in cells)])
    empty = [""] * (len(head) - 2)
    body += [[title, f"not measured: {why}", *empty] for title, why in line["missing"].items()]
    used = [i for i in range(len(head)) if i < 2 or any(row[i] for row in body)]
    return _markdown([head[i] for i in used], [[row[i] for i in used] for row in body])


def _ratios(lines: Iterable[Line], targets_only: bool = False) -> str:
    body = []
    for line in lines:
        for row in line["rows"]:
            if _wanted(row) or not targets_only:
                where = f", {line['title']}" if targets_only else ""
                body.append([row["title"] + where, _value(row), _wanted(row)])
    return _markdown(["ratio", "measured", "wanted"], body)


def _value(row: Line, wanted: bool = False) -> str:
    """Return a ratio's median and interval."""
    s, percent = row["summary"], row["percent"]
    if s is None:
        said = "not measured"
    else:
        low, high = (number(s[k], percent)[:-1] for k in ("low", "high"))
        said = f"{number(s['median'], percent)} [{low}, {high}]"
        if s["noisy"]:  # what misses by all of a wide interval shows it
            said = f"too noisy, [{low}, {high}]" if row["verdict"] == "MISSED" else "too noisy"
    return f"{said} ({_wanted(row)})" if wanted and _wanted(row) else said


def _wanted(row: Line) -> str:
    parts = [("≥", row["low"]), ("≤", row["high"])]
    said = ", ".join(f"{sign} {number(v, row['percent'])}" for sign, v in parts if v is not None)
    return said + _SAID.get(row["verdict"], "")


def _time(contender: Line) -> str:
    s = contender["summary"]
    return "too noisy" if s["noisy"] else duration(s["median"])


def _share(contender: Line) -> str:
    s = contender["share"]
    return "" if s is None else "too noisy" if s["noisy"] else number(s["median"], percent=True)


def _markdown(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
