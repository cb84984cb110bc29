"""``python -m fastgan.check``: whether a fused engine computes here what the reference computes."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastgan.cli import Parser, one_of, run_command, whole_number
from fastgan.config import DESIGNS, DEVICES, Config
from fastgan.errors import UserError

if TYPE_CHECKING:
    from fastgan.data.schema import Data
    from fastgan.engines import Engine

_HEADER = f"{'case':<23}{'steps':>5}{'PyTorch':>11}{'engine':>10}{'ratio':>8}{'moments':>9}{'losses':>10}  ok"
EXACT = ("ieee", "tf32x3")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_check, argv)


def _check(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "fastgan.check",
        "Train by a fused engine and by PyTorch in float32, and compare both with PyTorch in float64.",
        "exit codes: 0 all agree, 1 some do not, 2 bad input or no such engine",
    )
    text = f"where the engine runs, one of {', '.join(DEVICES)} (default: cpu)"
    parser.add_argument("--device", metavar="NAME", help=text)
    text = "threads of the native engine (0 to 1024; default: 0, all this process may use)"
    parser.add_argument("--threads", metavar="N", help=text)
    text = f"with --device cuda, of products, as exact as float32: {' or '.join(EXACT)} (default: ieee)"
    parser.add_argument("--precision", metavar="NAME", help=text)
    designs = DESIGNS[1:]
    text = f"with --device cuda, the kernels of a step: {' or '.join(designs)} (default: layered)"
    parser.add_argument("--design", metavar="NAME", help=text)
    arguments = parser.parse(argv)
    device = one_of("--device", arguments.get("device", "cpu"), DEVICES)
    if device == "cuda":
        _only_for("cpu", "--threads", arguments)
        about, engine = _cuda(
            one_of("--precision", arguments.get("precision", "ieee"), EXACT),
            one_of("--design", arguments.get("design", "layered"), designs),
        )
    else:
        _only_for("cuda", "--precision", arguments)
        _only_for("cuda", "--design", arguments)
        about, engine = _native(whole_number("--threads", arguments.get("threads", "0"), 0, 1024))

    import torch

    from fastgan import parity

    torch.set_num_threads(1)  # its matrices are small: on a busy machine, it would wait for more threads
    print(f"{about}; PyTorch {torch.__version__}")
    print(f"largest difference from PyTorch in float64, median of {len(parity.SEEDS)} seeds")
    print("ratio: engine over PyTorch; moments: Adam's, as a share of what is allowed")
    print(_HEADER)
    breaches = 0
    for name, row in parity.table(engine):
        p = row.parameters
        ratio = p.engine / p.pytorch if p.pytorch else math.nan
        print(
            f"{name:<23}{row.steps:>5}{p.pytorch:>11.1e}{p.engine:>10.1e}{ratio:>8.2f}"
            f"{max(d.share for d in row.moments):>9.2f}{row.loss:>10.1e}  {'yes' if row.ok else 'NO'}",
            flush=True,
        )
        for line in row.wrong:
            print("  " + " ".join(line.split()))
        breaches += not row.ok
    allowed = f"{parity.FACTOR:g} times PyTorch's own difference and {parity.ROUNDINGS:g} roundings"
    print(f"{breaches} lines are beyond {allowed}" if breaches else f"all within {allowed}")
    return 1 if breaches else 0


def _native(threads: int) -> tuple[str, Callable[[Config, Data], Engine]]:
    """Return a line about the native engine, and what makes one."""
    from fastgan.engines.cpu import CpuEngine
    from fastgan.kernels import cpu
    from fastgan.threads import thread_count

    about, threads = cpu.describe(), thread_count(threads)
    return f"{about}; threads: {threads}", lambda c, d: CpuEngine(dataclasses.replace(c, threads=threads), d)


def _cuda(precision: str, design: str) -> tuple[str, Callable[[Config, Data], Engine]]:
    """Return a line about the CUDA engine, and what makes one."""
    from fastgan import engines

    gpu = engines.require_gpu()
    options = dict(fused=True, device="cuda", precision=precision, design=design)
    about = f"{gpu}, {design} kernels, products in {precision}, steps in CUDA graphs"
    return about, lambda c, d: engines.create(dataclasses.replace(c, **options), d)


def _only_for(device: str, flag: str, arguments: dict[str, str]) -> None:
    if flag.removeprefix("--") in arguments:
        raise UserError(flag, "another --device", f"--device {device}, which alone it is about")


if __name__ == "__main__":
    sys.exit(main())
