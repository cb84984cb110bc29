"""``python -m fastgan.check``: whether the native engine computes here what the reference computes."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from fastgan.cli import Parser, run_command, whole_number

_HEADER = f"{'case':<23}{'steps':>5}{'PyTorch':>11}{'native':>10}{'ratio':>8}{'losses':>10}  ok"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_check, argv)


def _check(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "fastgan.check",
        "Train by the native engine and by PyTorch in float32, and compare both with PyTorch in float64.",
        "exit codes: 0 all agree, 1 some do not, 2 bad input or no native engine",
    )
    text = "threads of the native engine (0 to 1024; default: 0, all this process may use)"
    parser.add_argument("--threads", metavar="N", help=text)
    arguments = parser.parse(argv)
    threads = whole_number("--threads", arguments.get("threads", "0"), 0, 1024)
    from fastgan.kernels import cpu

    about = cpu.describe()
    import dataclasses

    import torch

    from fastgan import parity
    from fastgan.engines.cpu import CpuEngine
    from fastgan.threads import thread_count

    threads = thread_count(threads)
    torch.set_num_threads(1)  # its matrices are small: on a busy machine, it would wait for more threads
    print(f"{about}; threads: {threads}; PyTorch {torch.__version__}")
    print(f"largest difference from PyTorch in float64, median of {len(parity.SEEDS)} seeds")
    print(_HEADER)
    breaches = 0
    for name, row in parity.table(lambda c, d: CpuEngine(dataclasses.replace(c, threads=threads), d)):
        p = row.parameters
        ratio = p.engine / p.pytorch if p.pytorch else math.nan
        print(
            f"{name:<23}{row.steps:>5}{p.pytorch:>11.1e}{p.engine:>10.1e}{ratio:>8.2f}"
            f"{row.loss:>10.1e}  {'yes' if row.ok else 'NO'}",
            flush=True,
        )
        for line in row.wrong:
            print("  " + " ".join(line.split()))
        breaches += not row.ok
    allowed = f"{parity.FACTOR:g} times PyTorch's own difference and {parity.ROUNDINGS:g} roundings"
    print(f"{breaches} lines are beyond {allowed}" if breaches else f"all within {allowed}")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
