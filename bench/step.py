"""``python -m bench.step``: the speed of a training step, against peers and the machine's limits.

Before timing, five recorded steps prove that all do the same work. Then the contenders of a table are
measured in turn, round by round, in processes of their own; a row is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastgan.kernels import cpu

from bench import machine, parity, worker
from bench.cases import PEERS, SEED, Contender, Group, Row, groups
from bench.stats import BUSY, Summary, summarize, verdict
from bench.team import Team, WorkerError
from fastgan.models import init_parameters

RESULTS = Path(__file__).resolve().parent / "results"
NAMES = ("peers", "recipe", "limits", "odd", "widths", "threads", "generate", "calls")


@dataclass(frozen=True)
class Result:
    """A row with what came out, or why nothing did."""

    row: Row
    summary: Summary | None
    missing: str = ""

    @property
    def verdict(self) -> str:
        """``ok``, ``MISSED``, ``noisy`` ..."""
        return verdict(self.summary, self.row.low, self.row.high) if self.summary else "not measured"

    def __str__(self) -> str:
        row, s = self.row, self.summary
        if s is None:
            return f"  {row.title:<42} {self.missing}"
        value = f"{_number(s.median, row)} [{', '.join(_number(q, row) for q in s.quartiles)}]"
        return f"  {row.title:<42} {value:<24} {_target(row):<16} {self.verdict}".rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _options(argv)
    facts = machine.facts() | {"isa": cpu.native().isa(), "threads": options.threads}
    print("  ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"threads: {options.threads} cores per worker by affinity, OMP_NUM_THREADS, torch.set_num_threads;")
    print("         XLA takes what the affinity allows, fastgan --threads")
    if facts["cores"] < options.threads:
        print(f"warning: {options.threads} threads on {facts['cores']} cores")
    if facts["load"] > 0.2 * facts["cores"]:
        print(f"warning: others are at work here (load average {facts['load']})")
    missed = 0
    table = [g for g in groups(options.batches, options.threads) if g.name in options.only]
    with Team() as team:
        for group in table:
            results = list(_measure(team, group, options.rounds, options.seconds))
            missed += sum(r.verdict.startswith("MISSED") for r in results)
            if options.save:
                _save(group, results, facts)
    print(f"\n{missed} missed" if missed else "\nnone missed")
    return 1 if missed and options.gate else 0


def _measure(team: Team, group: Group, rounds: int, seconds: float) -> Iterator[Result]:
    """Check, measure and print one group; a row whose contender cannot run here says why."""
    print(f"\n{group.title}")
    missing: dict[Contender, str] = {}
    for contender in group.contenders:
        try:
            team.ask(contender, "build")
        except WorkerError as error:
            missing[contender] = str(error)
    ready = [c for c in group.contenders if c not in missing]
    _prove(team, [c for c in ready if c.peer in ("fastgan", *PEERS) and c.case.recipe == "article"])
    taken, others = team.rounds(ready, rounds, seconds)
    if others > BUSY:
        print(f"    noisy: other processes took {others:.0%} of these processors' time")
    for contender, values in taken.items():
        middle = summarize(values).median
        print(f"    {_speed(contender, middle)}")
    for row in group.rows:
        absent = [missing[c] for c in (row.top, row.bottom) if c in missing]
        if absent:
            result = Result(row, None, absent[0])
        else:
            pairs = zip(taken[row.top], taken[row.bottom], strict=True)
            result = Result(row, summarize([row.scale * top / bottom for top, bottom in pairs], others))
        print(result)
        yield result


def _prove(team: Team, contenders: list[Contender]) -> None:
    """Check that these do the reference's work.

    Raises:
        ParityError: one does not.
    """
    if not contenders:
        return
    wanted: dict[Any, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "replayed.npz")
        for contender in contenders:
            reference = Contender("reference", contender.case)
            for one in (reference, contender):
                if one not in wanted:
                    team.ask(one, "replay", file=path)
                    wanted[one] = worker.load(path)
            initial = {k: v.numpy() for k, v in init_parameters(contender.case.spec, SEED).items()}
            found = parity.check(str(contender), wanted[contender], wanted[reference], initial)
            print(f"    parity {contender.peer:<13} losses {found.loss:.0e}, updates {found.update:.0e} off")


def _save(group: Group, results: list[Result], facts: dict[str, Any]) -> None:
    """Append a line per row to the results of this kind of machine."""
    path = RESULTS / machine.slug() / "step.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with path.open("a", encoding="utf-8") as file:
        for r in results:
            summary = asdict(r.summary) if r.summary else None
            line = dict(time=now, group=group.name, table=group.title, row=r.row.title, summary=summary)
            line |= dict(low=r.row.low, high=r.row.high, verdict=r.verdict, facts=facts)
            file.write(json.dumps(line) + "\n")


def _number(value: float, row: Row) -> str:
    return f"{100 * value:.1f}%" if row.percent else f"{value:.2f}x"


def _target(row: Row) -> str:
    parts = [(">=", row.low), ("<=", row.high)]
    return " ".join(f"{sign} {_number(bound, row)}" for sign, bound in parts if bound is not None)


def _speed(contender: Contender, seconds: float) -> str:
    rate = f"{contender.work / seconds / 1e9:.1f} GFLOP/s"
    if contender.work == 1.0:
        return f"{contender}: {rate}"
    by_row = contender.work == contender.case.row_flops
    unit = f"{1e-3 / seconds:.0f} thousand rows/s" if by_row else f"{1e3 * seconds:.3f} ms a step"
    return f"{contender}: {unit}, {rate}"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.step", description=__doc__.split("\n\n")[1])
    parser.add_argument("--rounds", type=int, help="rounds of each table (default 25)")
    parser.add_argument("--seconds", type=float, help="of one measurement (default 0.25)")
    parser.add_argument("--batches", help="batch sizes (default 32,128,512; quick: 128)")
    parser.add_argument("--threads", type=int, default=2, help="of every contender (default %(default)s)")
    parser.add_argument("--only", default=",".join(NAMES), help="tables (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="5 rounds of 0.1 s, batch 128")
    parser.add_argument("--gate", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--save", action="store_true", help="append to bench/results/<machine>/step.jsonl")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (5 if options.quick else 25)
    options.seconds = options.seconds or (0.1 if options.quick else 0.25)
    options.only = options.only.split(",")
    try:
        options.batches = [
            int(b) for b in (options.batches or ("128" if options.quick else "32,128,512")).split(",")
        ]
    except ValueError:
        parser.error(f"--batches: got {options.batches}; wanted numbers such as 32,128")
    if unknown := set(options.only) - set(NAMES):
        parser.error(f"--only: got {', '.join(sorted(unknown))}; wanted some of {', '.join(NAMES)}")
    for name in ("rounds", "seconds", "threads"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name}: got {getattr(options, name)}; wanted a positive number")
    return options


if __name__ == "__main__":
    sys.exit(main())
