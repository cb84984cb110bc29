"""The table of a group as text: contenders with their work and limits, then ratios with their targets."""

from __future__ import annotations

from bench.measure import Measured, Result, Timed
from bench.plan import Row
from bench.stats import BUSY, Summary

_HEAD = ("", "time", "rate", "flops", "bytes", "launches", "GFLOP/s", "share of the nearest limit")


def lines(measured: Measured) -> list[str]:
    """Return the lines of a group's table."""
    out = [measured.group.title]
    mean = sum(measured.others) / max(len(measured.others), 1)
    if mean > BUSY:
        out.append(f"  other processes took {mean:.0%} of these processors' time")
    out += [f"  parity of {line}" for line in measured.parity]
    rows = [_HEAD, *(_contender(t) for t in measured.timed.values())]
    used = [i for i in range(len(_HEAD)) if i < 2 or any(row[i] for row in rows[1:])]  # no empty columns
    rows = [tuple(row[i] for i in used) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(used))]
    for name, *cells in rows:
        padded = (f"{cell:>{width}}" for cell, width in zip(cells[:-1], widths[1:], strict=False))
        out.append(f"  {name:<{widths[0]}}  {'  '.join([*padded, cells[-1]])}".rstrip())
    out += [f"  {c.title}: not measured: {why}" for c, why in measured.missing.items()]
    out += [_result(r) for r in measured.results if r.summary]
    return out


def _contender(timed: Timed) -> tuple[str, ...]:
    work, s = timed.work, timed.summary
    share = ""
    if timed.share is not None:
        share = _noise(timed.share) or f"{interval(timed.share, percent=True)} {timed.nearest}"
    work_cells = (
        quantity(work.flops) if work.flops else "",
        quantity(work.bytes) + "B" if work.bytes else "",
        "" if work.launches is None else f"{work.launches:g}",
    )
    if s.noisy:
        return (timed.contender.title, _noise(s), "", *work_cells, "", share)
    gflops = f"{work.flops / s.median / 1e9:.1f}" if work.flops else ""
    rate = f"{quantity(1.0 / s.median)} {work.unit}s/s"
    return (timed.contender.title, duration(s.median), rate, *work_cells, gflops, share)


def _result(result: Result) -> str:
    row, s = result.row, result.summary
    assert s is not None
    value = _noise(s) or interval(s, row.percent)
    word = "" if result.verdict == "too noisy" else result.verdict
    return f"  {row.name:<52} {value:<26} {target(row):<16} {word}".rstrip()


def _noise(summary: Summary) -> str:
    """Return that the machine was too noisy, if so. What others took is said once for the whole group."""
    if summary.others > BUSY:
        return "too noisy"
    return summary.noisy and f"too noisy ({summary.noisy})"


def number(value: float, percent: bool = False) -> str:
    """Return a ratio as text."""
    return f"{100 * value:.0f}%" if percent else f"{value:.2f}x"


def interval(summary: Summary, percent: bool = False) -> str:
    """Return a median with its 95% interval."""
    low, high = (number(v, percent)[:-1] for v in (summary.low, summary.high))
    return f"{number(summary.median, percent)} [{low}, {high}]"


def target(row: Row) -> str:
    """Return what a ratio is wanted to be, or nothing."""
    parts = [(">=", row.low), ("<=", row.high)]
    return " ".join(f"{sign} {number(bound, row.percent)}" for sign, bound in parts if bound is not None)


def quantity(value: float) -> str:
    """Return a number with three digits and a prefix: 1.24 M."""
    value = float(f"{value:.3g}")
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "


def duration(seconds: float) -> str:
    """Return a time with three digits and its unit."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
