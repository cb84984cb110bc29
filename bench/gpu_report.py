"""The report that we would need from a machine with a GPU: ``python -m bench.gpu_report``.

Runs the tests that need a GPU, short trainings, the benchmark of the step and its model, one after the
other, and writes what they print, with the machine's facts, into one Markdown file, whatever of it fails.
Please send it: nothing of fastgan has run on a GPU of ours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.machine import facts
from fastgan import engines
from fastgan.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
TRAIN = "-m fastgan.train --fused --device cuda --steps 5000 --log-every 1000 --out {scratch}"
PARTS = {
    "What is here": "-m fastgan.info",
    "Tests that need a GPU": "-m pytest -m gpu -q",
    "The same numbers as the reference": "-m fastgan.check --device cuda",
    "The same numbers, row-fused": "-m fastgan.check --device cuda --design row-fused",
    "Training in graphs": TRAIN,
    "Training in graphs, article recipe": TRAIN + " --preset article",
    "Training in graphs, products in bf16": TRAIN + " --precision bf16",
    "Training in graphs, layered kernels": TRAIN + " --design layered",
    "Training without graphs": TRAIN + " --no-graph",
    "Training on rows that are streamed": TRAIN + " --data-on host",
    "The step against its peers": "-m bench.step --device cuda --only peers,recipe,limits,widths",
    "The step, modelled": "-m bench.gpu_model",
}
"""Titles and arguments of Python. A part that runs longer than ``MOST_SECONDS`` is ended."""
MOST_SECONDS = 1800


def run(title: str, arguments: str, scratch: str) -> str:
    """Run a part and return its section."""
    command = [sys.executable, *arguments.format(scratch=scratch).split()]
    started = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=MOST_SECONDS,
        )
        output, code = done.stdout, f"exit code {done.returncode}"
    except subprocess.TimeoutExpired as late:
        output, code = (late.stdout or b"").decode(errors="replace"), f"ended after {MOST_SECONDS} s"
    seconds = time.perf_counter() - started
    shown = arguments.format(scratch="SCRATCH")
    text = output.replace(scratch, "SCRATCH").strip()
    return f"## {title}\n\n`python {shown}`: {code}, {seconds:.0f} s\n\n```\n{text}\n```\n"


def write(path: Path, sections: list[str]) -> None:
    """Write the report so far.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        path.write_text("\n".join(sections), encoding="utf-8")
    except OSError as error:
        raise UserError("--out", path, f"a file that can be written ({error.strerror})") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m bench.gpu_report", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-report.md"), help="default: gpu-report.md")
    options = parser.parse_args(arguments)
    try:
        gpu = engines.require_gpu()
        sections = [f"# fastgan on a GPU\n\n{gpu}\n\n```\n{json.dumps(facts('cuda'), indent=1)}\n```\n"]
        write(options.out, sections)  # before anything runs, for an hour or so
        with tempfile.TemporaryDirectory() as scratch:
            for title, part in PARTS.items():
                print(f"{title} ...", flush=True)
                sections.append(run(title, part, scratch))
                write(options.out, sections)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
