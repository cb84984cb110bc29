"""What every Triton kernel takes on four GPUs, compiled without any: ``python -m bench.gpu_table``.

Registers, stack, shared memory and tensor-core instructions of every case of ``bench/gpu_cases.py``, and how
often a step of the CUDA engine launches each kernel. The record is
``bench/results/compiled/kernels.json``, from which parts of kernels/README.md are generated; ``--check``
fails where something has got worse. Nothing is run, and nothing timed. All of it takes two cores a quarter of
an hour: after a change, ``--only`` the cases that it concerns; Triton's cache has what was compiled before.
Which these are the record knows, since it has a hash of what each was made from (``bench/gpu_inputs.py``).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import triton

from bench.gpu_cases import cases, compile_case
from bench.gpu_compile import SHARED_LIMIT, TARGETS
from bench.gpu_inputs import inputs_hash
from bench.gpu_steps import counts
from bench.options import count, pattern

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "bench" / "results" / "compiled" / "kernels.json"
README = ROOT / "kernels" / "README.md"
MARKERS = ("<!-- python -m bench.gpu_table --write -->", "<!-- end -->")
LAUNCHES = ("<!-- launches: python -m bench.gpu_table --write -->", "<!-- end of launches -->")

Rows = dict[str, dict[str, Any]]
"""By ``kernel | arithmetic | size | target``: the fields of ``gpu_compile.Resources``."""


def measure(case: str, target: str) -> Rows:
    """Compile a case and return a row for each of its kernels: the most over its launches of it."""
    _, arithmetic, size = case.split(" | ")
    rows: Rows = {}
    for launch in compile_case(case, target):
        name, row = f"{launch.kernel} | {arithmetic} | {size} | {target}", launch.resources.as_dict()
        rows[name] = worst(rows.get(name, row), row)
    return rows


def worst(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the larger of two rows' numbers, and the tensor-core instructions that both have."""
    most = {key: max(one[key], other[key]) for key in ("registers", "stack", "shared")}
    return most | {
        "tensor": {k: min(n, other["tensor"][k]) for k, n in one["tensor"].items() if k in other["tensor"]}
    }


def measure_all(wanted: list[tuple[str, str]], processes: int) -> Rows:
    """Compile cases in several processes."""
    rows: Rows = {}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        asked = {pool.submit(measure, *one): one for one in wanted}
        for n, done in enumerate(as_completed(asked), 1):
            rows |= done.result()
            print(f"{n} of {len(wanted)}:", *asked[done], file=sys.stderr)
    return rows


def faults(rows: Rows, recorded: dict[str, Any]) -> list[str]:
    """Return a line for everything that must not be, or has got worse than recorded.

    Whatever the version of Triton: no stack beyond what is recorded, no more shared memory than there is,
    tensor cores in use wherever they can be. With the recorded version, also: no more registers or shared
    memory than recorded, and the same kinds of tensor-core instructions.
    """
    lines = []
    for name, row in rows.items():
        _, arithmetic, _, target = name.split(" | ")
        stack = recorded.get("rows", {}).get(name, {}).get("stack", 0)
        if row["stack"] > stack:
            lines.append(f"{name}: {row['stack']} bytes of stack; wanted {stack or 'none'}")
        if row["shared"] > SHARED_LIMIT[target]:
            lines.append(
                f"{name}: {row['shared']} bytes of shared memory; the limit is {SHARED_LIMIT[target]}"
            )
        products = ("_linear", "step_", "sample_layer")
        multiplies = name.startswith(products) and not name.startswith("step_head")
        if multiplies and not row["tensor"] and (arithmetic != "ieee" or target == "gfx942"):
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


def stale(recorded: dict[str, Any]) -> list[str]:
    """Return a line for every case that the record has not, or has of other sources, launches or options.

    Whatever the version of Triton: the record says what these very kernels took when its own compiled them.
    """
    now, before = hashes([(case, t) for t in TARGETS for case in cases(t)]), recorded.get("inputs", {})
    what = {name: "is new" for name in now.keys() - before.keys()}
    what |= {name: "is no more" for name in before.keys() - now.keys()}
    what |= {name: "has changed" for name in now.keys() & before.keys() if now[name] != before[name]}
    return [f"{name}: {what[name]}; run python -m bench.gpu_table --write" for name in sorted(what)]


def hashes(wanted: list[tuple[str, str]]) -> dict[str, str]:
    """Return the hash of each case's inputs, by ``case | target``."""
    return {f"{case} | {target}": inputs_hash(case, target) for case, target in sorted(wanted)}


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


def launch_table(counts: dict[str, dict[str, int]]) -> str:
    """Return how often each kernel is launched in each kind of step, as Markdown."""
    kernels = list(dict.fromkeys(kernel for step in counts.values() for kernel in step))
    lines = ["| kernel | " + " | ".join(counts) + " |", "|---|" + "---|" * len(counts)]
    lines += [
        f"| `{kernel}` | " + " | ".join(str(step.get(kernel, 0)) for step in counts.values()) + " |"
        for kernel in kernels
    ]
    return "\n".join([*lines, "| all | " + " | ".join(str(sum(s.values())) for s in counts.values()) + " |"])


def readme_with(text: str, record: dict[str, Any]) -> str:
    """Return the README's text with the generated parts renewed."""
    resources = f"Compiled by Triton {record['triton']}:\n\n{table(record['rows'])}"
    for (start, end), new in ((MARKERS, resources), (LAUNCHES, launch_table(record["launches"]))):
        before, rest = text.split(start)
        text = f"{before}{start}\n{new}\n{end}{rest.split(end, 1)[1]}"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m bench.gpu_table", description=__doc__.split("\n\n")[0])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="default: all")
    parser.add_argument(
        "--only", type=pattern, default="", help="a regular expression that the case's name must contain"
    )
    parser.add_argument("--processes", type=count, default=os.cpu_count(), help="default: one for each core")
    parser.add_argument(
        "--check", action="store_true", help="exit code 1 where a row is worse or of old code"
    )
    parser.add_argument("--write", action="store_true", help="renew these rows of the record, and the README")
    options = parser.parse_args(arguments)
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {"triton": "none"}
    partial = bool(options.only.pattern) or set(options.targets) != set(TARGETS)
    if options.write and partial and recorded["triton"] != triton.__version__:
        parser.error(
            f"--write with --only or --targets: the other rows are of Triton {recorded['triton']}, and this "
            f"is {triton.__version__}; without these, all rows are renewed"
        )
    wanted = [(case, t) for t in options.targets for case in cases(t) if options.only.search(case)]
    if not wanted:
        parser.error(f"--only {options.only.pattern}: no case has that in its name")
    rows = measure_all(wanted, options.processes)
    print(table(rows))
    if options.write:
        kept = recorded if partial else {"rows": {}, "inputs": {}}
        recorded = {
            "triton": triton.__version__,
            "launches": counts(),
            "inputs": dict(sorted((kept["inputs"] | hashes(wanted)).items())),
            "rows": dict(sorted((kept["rows"] | rows).items())),
        }
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        RECORD.write_text(json.dumps(recorded, indent=1) + "\n")
        README.write_text(readme_with(README.read_text(), recorded))
    lines = faults(rows, recorded) + stale(recorded)
    print(*lines, sep="\n", file=sys.stderr)
    return 1 if options.check and lines else 0


if __name__ == "__main__":
    sys.exit(main())
