"""The parent's side: workers, each measured in turn while all the others sleep."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import machine, worker
from bench.cases import Contender

_PAUSE = 0.02  # seconds before a measurement, so that the last one's threads have gone to sleep
_ROOT = Path(__file__).resolve().parents[1]


Measured = dict[Contender, list[float]]


class WorkerError(RuntimeError):
    """A contender cannot run, with its reason."""


class _Process:
    """A worker process and its pipe."""

    def __init__(self, threads: int) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by stop)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=_ROOT,
            env=machine.environment(threads),
        )

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        answer = ""
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:  # it has died before
            pass
        if not answer:
            code = self.process.wait()
            self.log.seek(0)
            raise WorkerError(f"its process ended with code {code}: {self.log.read()[-2000:]}")
        result = json.loads(answer)
        if "error" in result:
            raise WorkerError(result["error"])
        return result

    def stop(self) -> None:
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Team:
    """All workers: one process per framework and number of threads, started when first asked."""

    def __init__(self) -> None:
        self._processes: dict[tuple[object, ...], _Process] = {}

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.stop()

    def ask(self, contender: Contender, do: str, **more: Any) -> dict[str, Any]:
        """Ask a contender's worker, and wait for its answer.

        Raises:
            WorkerError: it cannot run here, with the reason.
        """
        peer, threads = contender.peer, contender.case.threads
        framework = peer.split()[0].rstrip(",")
        # A compiled case has a process of its own: torch.compile looks through all that it has compiled.
        key = (peer, contender.case) if framework == "compile" else (framework, threads)
        if key not in self._processes:
            self._processes[key] = _Process(threads)
        return self._processes[key].ask(worker.request(contender, do, **more))

    def rounds(self, contenders: list[Contender], rounds: int, seconds: float) -> tuple[Measured, float]:
        """Measure in turn, A B C A B C ..., after an untimed round.

        Returns:
            Seconds per unit by contender and round, and the mean share of processor time that others took.
        """
        out: Measured = {c: [] for c in contenders}
        others = []
        for i in range(-1, rounds):
            for contender in contenders:
                time.sleep(_PAUSE)
                answer = self.ask(contender, "measure", seconds=seconds if i >= 0 else 0.1 * seconds)
                if i >= 0:
                    out[contender].append(answer["seconds"])
                    others.append(answer["others"])
        return out, sum(others) / max(len(others), 1)
