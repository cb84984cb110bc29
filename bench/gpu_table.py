"""What every Triton kernel takes on four GPUs, compiled without any: ``python -m bench.gpu_table``.

Registers, stack, shared memory and tensor-core instructions of every case of ``bench/gpu_cases.py``. The
record is ``bench/results/compiled/kernels.json``, from which a part of kernels/README.md is generated;
``--check`` fails where something has got worse. Nothing is run, and nothing timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import triton

from bench.gpu_cases import cases, compile_case
from bench.gpu_compile import SHARED_LIMIT, TARGETS

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "bench" / "results" / "compiled" / "kernels.json"
README = ROOT / "kernels" / "README.md"
MARKERS = ("<!-- python -m bench.gpu_table --write -->", "<!-- end -->")

Rows = dict[str, dict[str, Any]]
"""By ``kernel | arithmetic | size | target``: the fields of ``gpu_compile.Resources``."""


def measure(case: str, target: str) -> Rows:
    """Compile a case and return a row for each of its kernels."""
    _, arithmetic, size = case.split(" | ")
    return {
        f"{launch.kernel} | {arithmetic} | {size} | {target}": launch.resources.as_dict()
        for launch in compile_case(case, target)
    }


def measure_all(wanted: list[tuple[str, str]], processes: int) -> Rows:
    """Compile cases in several processes."""
    rows: Rows = {}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(measure, *zip(*wanted, strict=True), chunksize=2):
            rows |= found
    return rows


def faults(rows: Rows, recorded: dict[str, Any]) -> list[str]:
    """Return a line for everything that must not be, or has got worse than recorded.

    Whatever the version of Triton: no stack, no more shared memory than there is, tensor cores in use
    wherever they can be. With the recorded version, also: no more registers or shared memory than recorded,
    and the same kinds of tensor-core instructions.
    """
    lines = []
    for name, row in rows.items():
        _, arithmetic, _, target = name.split(" | ")
        if row["stack"]:
            lines.append(f"{name}: {row['stack']} bytes of stack; wanted none")
        if row["shared"] > SHARED_LIMIT[target]:
            lines.append(
                f"{name}: {row['shared']} bytes of shared memory; the limit is {SHARED_LIMIT[target]}"
            )
        dense = name.startswith("_linear")
        if dense and not row["tensor"] and (arithmetic != "ieee" or target == "gfx942"):
            lines.append(f"{name}: no tensor-core instruction")
        if recorded["triton"] != triton.__version__:
            continue
        before = recorded["rows"].get(name)
        if before is None:
            lines.append(f"{name}: not in the record; run python -m bench.gpu_table --write")
            continue
        lines += [
            f"{name}: {key} {row[key]}, recorded {before[key]}"
            for key in ("registers", "shared")
            if row[key] > before[key]
        ]
        if kinds(row) != kinds(before):
            lines.append(f"{name}: tensor-core instructions {kinds(row)}, recorded {kinds(before)}")
    return lines


def kinds(row: dict[str, Any]) -> str:
    """Return the kinds of tensor-core instructions in a row, as ``HMMA`` or ``v_mfma_f32``."""
    names = {re.match(r"v_mfma_f32|[A-Z]+", name)[0] for name in row["tensor"]}
    return ", ".join(sorted(names))


def table(rows: Rows) -> str:
    """Return the rows as Markdown, one line for a kernel in an arithmetic: the most over its sizes."""
    targets = [t for t in TARGETS if any(name.endswith(f" | {t}") for name in rows)]
    lines = ["| kernel | arithmetic | " + " | ".join(targets) + " |", "|---|---|" + "---|" * len(targets)]
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for name, row in rows.items():
        kernel, arithmetic, _, target = name.split(" | ")
        groups.setdefault((kernel, arithmetic), {}).setdefault(target, []).append(row)
    for (kernel, arithmetic), by_target in groups.items():
        cells = [_cell(by_target[t]) if t in by_target else "not offered" for t in targets]
        lines.append(f"| `{kernel}` | {arithmetic} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: list[dict[str, Any]]) -> str:
    most = {key: max(row[key] for row in rows) for key in ("registers", "stack", "shared")}
    shared = f"{most['shared'] >> 10} KiB" if most["shared"] >= 1024 else f"{most['shared']} bytes"
    parts = [f"{most['registers']} registers", shared]
    parts += [f"**{most['stack']} bytes of stack**"] if most["stack"] else []
    return ", ".join(parts + sorted({kinds(row) for row in rows} - {""}))


def generated(record: dict[str, Any]) -> str:
    """Return what stands between the markers in kernels/README.md."""
    return f"Compiled by Triton {record['triton']}:\n\n{table(record['rows'])}"


def readme_with(text: str, record: dict[str, Any]) -> str:
    """Return the README's text with the generated part renewed."""
    before, rest = text.split(MARKERS[0])
    after = rest.split(MARKERS[1], 1)[1]
    return f"{before}{MARKERS[0]}\n{generated(record)}\n{MARKERS[1]}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m bench.gpu_table", description=__doc__.split("\n\n")[0])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="default: all")
    parser.add_argument("--only", default="", help="a regular expression that the case's name must contain")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: one for each core")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a row has got worse")
    parser.add_argument("--write", action="store_true", help="renew the record and kernels/README.md")
    options = parser.parse_args(arguments)
    partial = options.only or set(options.targets) != set(TARGETS)
    if options.write and partial:
        parser.error("--write renews everything: it goes without --only and --targets")
    wanted = [(case, t) for t in options.targets for case in cases(t) if re.search(options.only, case)]
    if not wanted:
        parser.error(f"--only {options.only}: no case has that in its name")
    rows = measure_all(wanted, options.processes)
    print(table(rows))
    if options.write:
        record = {"triton": triton.__version__, "rows": dict(sorted(rows.items()))}
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        README.write_text(readme_with(README.read_text(), record))
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {"triton": "none"}
    lines = faults(rows, recorded)
    print(*lines, sep="\n", file=sys.stderr)
    return 1 if options.check and lines else 0


if __name__ == "__main__":
    sys.exit(main())
