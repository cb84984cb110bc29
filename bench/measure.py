"""Measure one group: build its contenders, prove that they do the same work, time them in turn."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench import parity, worker
from bench.options import Options
from bench.peers.limits import Limit
from bench.plan import Contender, Group, Row, Work
from bench.protocol import Error
from bench.stats import Summary, summarize, verdict
from bench.team import Team, WorkerError

LIMITS = {"arithmetic": "flops", "copying": "bytes", "launching": "launches"}  # and the work that each is of
_LIMIT_SECONDS = 0.03
_PROFILE_SECONDS = 1.0
_SPANS = (64 << 10, 256 << 20)  # smallest and largest memory that a copy goes over


@dataclass(frozen=True)
class Result:
    """A ratio with what came out, or why nothing did."""

    row: Row
    summary: Summary | None
    missing: str = ""

    @property
    def verdict(self) -> str:
        """``ok``, ``MISSED``, ``too noisy``, nothing without a target, or ``not measured``."""
        return verdict(self.summary, self.row.low, self.row.high) if self.summary else "not measured"


@dataclass(frozen=True)
class Timed:
    """A contender's time.

    Attributes:
        work: of a unit; on a GPU with its launches, counted.
        seconds: per unit, one a round.
        summary: of them.
        nearest: which limit says that a unit takes longest; empty if none applies.
        share: of that limit, 0 to 1: the time that it allows over the time that was taken.
    """

    contender: Contender
    work: Work
    seconds: list[float]
    summary: Summary
    nearest: str = ""
    share: Summary | None = None


@dataclass(frozen=True)
class Measured:
    """A group with all that came out.

    Attributes:
        group: what was to be measured.
        timed: contenders that can run here.
        results: ratios, in the group's order.
        missing: why the other contenders cannot run.
        others: the share of processor time that other processes took, by round.
        parity: lines that say how far trained contenders are from the reference.
        profile: ``{"parts": [{"part", "seconds", "flops"}], "seconds", "summary"}`` per unit, or None.
    """

    group: Group
    timed: dict[Contender, Timed]
    results: list[Result]
    missing: dict[Contender, str]
    others: list[float]
    parity: list[str] = field(default_factory=list)
    profile: dict[str, Any] | None = None


def measure(team: Team, group: Group, options: Options) -> Measured:
    """Return a group's measurements; a contender that cannot run here is left out, with its reason.

    Raises:
        ParityError: a contender does other work than the reference; nothing is timed then.
    """
    missing, proven = _prepare(team, group.contenders)
    ready = [c for c in group.contenders if c not in missing]
    work = {c: _work(team, c) for c in ready}
    limits = {c: _limits(c, work[c]) for c in ready}
    wanted = list(dict.fromkeys(limit for some in limits.values() for limit in some.values()))
    missing |= _prepare(team, wanted)[0]
    usable = [c for c in wanted if c not in missing]
    seconds = {c: group.seconds or options.seconds for c in ready}
    taken = team.rounds(seconds | dict.fromkeys(usable, _LIMIT_SECONDS), group.rounds or options.rounds)
    timed = {}
    for contender in ready:
        values = taken.seconds[contender]
        found = {k: taken.seconds[c] for k, c in limits[contender].items() if c in usable}
        nearest, share = _share(work[contender], values, found, taken.others)
        summary = summarize(values, taken.others)
        timed[contender] = Timed(contender, work[contender], values, summary, nearest, share)
    missing = {c: missing[c] for c in group.contenders if c in missing}
    results = [_result(row, timed, missing, taken.others) for row in group.rows]
    profile = None
    if group.profile in timed:
        profile = _optional(lambda: team.ask(group.profile, "profile", seconds=_PROFILE_SECONDS))
    team.release(group.contenders)
    return Measured(group, timed, results, missing, taken.others, proven, profile)


def _prepare(team: Team, contenders: list[Contender]) -> tuple[dict[Contender, str], list[str]]:
    """Build all contenders, and check that those that train, generate or compute do the reference's work.

    Returns:
        Why some cannot run here, and how far from the reference the others are.
    """
    proofs = {c: _proof(c) for c in contenders if c.trains or c.generates}
    everyone = list(dict.fromkeys([*proofs.values(), *contenders]))
    answers: dict[Contender, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {c: os.path.join(folder, f"{i}.{_kind(c)}") for i, c in enumerate(everyone)}

        def prepare(contender: Contender) -> None:
            do = "replay" if contender.trains else "rows" if contender.generates else "build"
            answers[contender] = team.ask(contender, do, file=files[contender])

        missing = team.each(everyone, prepare)
        said = [_proven(c, files[c], files[reference]) for c, reference in proofs.items() if c not in missing]
    for contender, answer in answers.items():
        if errors := {name: Error(*error) for name, error in answer.get("errors", {}).items()}:
            said.append(f"{contender.title}: {parity.check_errors(contender.title, errors):.0e} off")
    return missing, said


def _proof(contender: Contender) -> Contender:
    """Return the reference that a contender's work is held against."""
    peer = "reference.Reference" if contender.trains else "reference.Generated"
    return replace(contender, title="reference", peer=peer, alone=False)


def _kind(contender: Contender) -> str:
    return "npy" if contender.generates else "npz"


def _proven(contender: Contender, got: str, wanted: str) -> str:
    """Return how far files of a contender's work are from those of the reference.

    Raises:
        ParityError: further than rounding explains.
    """
    if contender.generates:
        off = parity.check_rows(contender.title, np.load(got), np.load(wanted))
        return f"{contender.title}: rows {off:.0e} off"
    found = parity.check(contender.title, worker.load(got), worker.load(wanted), _initial(contender.case))
    return f"{contender.title}: losses {found.loss:.0e}, updates {found.update:.0e} off"


def _initial(case: Any) -> dict[str, Any]:
    from bench.cases import SEED
    from fastgan.models import init_parameters

    return {k: v.numpy() for k, v in init_parameters(case.spec, SEED).items()}


def _work(team: Team, contender: Contender) -> Work:
    """Return the work of a unit; on a GPU, its launches are counted."""
    if contender.case.device != "cuda":
        return contender.case.work
    return replace(contender.case.work, launches=team.ask(contender, "launches")["launches"])


def _limits(contender: Contender, work: Work) -> dict[str, Contender]:
    """Return the limits of a contender's work, to be measured beside it."""
    case = contender.case
    smallest, largest = _SPANS
    span = min(max(work.span or work.bytes, smallest), largest)
    span = 2 ** round(math.log2(span))  # so that contenders of about the same size share one
    where = dict(threads=case.threads, device=case.device)
    out = {}
    if work.flops:
        out["arithmetic"] = Contender("arithmetic", "limits.Arithmetic", Limit(**where, dtype=work.dtype))
    if work.bytes:
        out["copying"] = Contender("copying", "limits.Copy", Limit(**where, span=span))
    if work.launches:
        out["launching"] = Contender("launching", "limits.Launches", Limit(**where))
    return out


def _share(
    work: Work, seconds: list[float], limits: dict[str, list[float]], others: list[float]
) -> tuple[str, Summary | None]:
    """Return the nearest limit and how much of it was reached.

    A limit is what the machine can do: its fast rounds count (the first quartile), not its median, and the
    interval is that of the contender.
    """
    allowed = {k: getattr(work, LIMITS[k]) * float(np.quantile(limit, 0.25)) for k, limit in limits.items()}
    if not allowed:
        return "", None
    nearest = max(allowed, key=allowed.__getitem__)
    return nearest, summarize([allowed[nearest] / s for s in seconds], others)


def _result(
    row: Row, timed: dict[Contender, Timed], missing: dict[Contender, str], others: list[float]
) -> Result:
    for contender in (row.bottom, row.top):
        if contender in missing:
            return Result(row, None, missing[contender])
    pairs = zip(timed[row.top].seconds, timed[row.bottom].seconds, strict=True)
    return Result(row, summarize([row.scale * top / bottom for top, bottom in pairs], others))


def _optional(call: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return call()
    except WorkerError:
        return None
