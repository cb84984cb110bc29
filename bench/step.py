"""``python -m bench.step``: the speed of a training step, against peers and the machine's limits.

The groups of the suites ``step`` and ``generate``, printed as soon as they are measured, without pytest.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from bench import bench_generate, bench_step, machine, options, results, table
from bench.measure import measure
from bench.options import Options
from bench.plan import Group
from bench.team import Team
from fastgan.cli import run_command

SUITES = {"step": bench_step, "generate": bench_generate}
NAMES = ("peers", "recipe", "limits", "odd", "widths", "threads", "generate", "calls")
BATCHES = (32, 128, 512)  # that have targets


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_step, argv)


def _step(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _arguments(words)
    wanted = Options.of(arguments)
    facts = machine.facts(wanted.device) | {"threads": wanted.threads}
    print("  ".join(f"{name} {value}" for name, value in facts.items()))
    run = results.new_run("python -m bench.step " + shlex.join(words), facts, wanted.quick)
    missed = 0
    with Team() as team:
        for suite, group in groups(wanted, arguments.only):
            measured = measure(team, group, wanted)
            print("\n" + "\n".join(table.lines(measured)), flush=True)
            missed += sum(r.verdict == "MISSED" for r in measured.results)
            if arguments.save:
                results.append(results.FOLDER, suite, measured, run, wanted.device)
    print(f"\n{missed} missed" if missed else "\nnone missed")
    return 1 if missed and arguments.gate else 0


def groups(wanted: Options, only: Sequence[str]) -> list[tuple[str, Group]]:
    """Return the wanted groups with their suites."""
    return [(suite, g) for suite, module in SUITES.items() for g in module.groups(wanted) if g.name in only]


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.step", description=__doc__.split("\n\n")[1])
    options.add(parser)
    parser.set_defaults(batches=BATCHES)
    parser.add_argument("--only", default=",".join(NAMES), help="tables (default %(default)s)")
    parser.add_argument("--gate", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--save", action="store_true", help="append to bench/results/<machine>")
    arguments = parser.parse_args(words)
    arguments.only = arguments.only.split(",")
    if unknown := set(arguments.only) - set(NAMES):
        parser.error(f"--only: got {', '.join(sorted(unknown))}; wanted some of {', '.join(NAMES)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
