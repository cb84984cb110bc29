"""How long until something can begin: fresh processes, started one after the other. A unit is a process."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.plan import Problem, Work

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Startup(Problem):
    """Code that a fresh interpreter runs."""

    code: str = "pass"

    @property
    def work(self) -> Work:
        """Of a process: it has no limit of arithmetic or memory."""
        return Work(unit="process")


@dataclass(frozen=True)
class FirstStep(Problem):
    """A peer's first training step in a fresh process, its imports done."""

    peer: str = "native.Step"
    batch: int = 128

    @property
    def work(self) -> Work:
        """Of a process: it has no limit of arithmetic or memory."""
        return Work(unit="process")


class Process:
    """An interpreter from its start to its end."""

    def __init__(self, case: Startup) -> None:
        self.command = [sys.executable, "-c", case.code]
        self.run(1)  # whether it can

    def reset(self) -> None:
        """Every process is a new one."""

    def run(self, units: int) -> int:
        for _ in range(units):
            _output(self.command)
        return units


class First:
    """From the imports to the end of the first step: building, loading, compiling."""

    def __init__(self, case: FirstStep) -> None:
        where = [str(case.batch), str(case.threads), case.device]
        self.command = [sys.executable, "-m", "bench.peers.startup", case.peer, *where]
        self.run(1)

    def reset(self) -> None:
        """Every process is a new one."""

    def run(self, units: int) -> int:
        self.taken = sum(float(_output(self.command)) for _ in range(units))
        return units


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().split("\n")[-1] or f"exit code {done.returncode}")
    return done.stdout


def _first(peer: str, batch: int, threads: int, device: str) -> float:
    from importlib import import_module

    from bench.cases import Case

    case = Case(batch=batch, threads=threads, device=device)
    assert case.floats.size  # the data are there
    module, name = peer.split(".")
    kind = getattr(import_module(f"bench.peers.{module}"), name)
    start = time.perf_counter()
    one = kind(case)
    one.reset()
    one.run(1)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(_first(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
