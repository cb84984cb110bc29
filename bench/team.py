"""The parent's side: workers, each measured in turn while all the others sleep."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine, worker
from bench.parity import ParityError
from bench.plan import Contender

_PAUSE = 0.02  # seconds before another process's turn, so that the last one's threads have gone to sleep
_ROOT = Path(__file__).resolve().parents[1]
_TICK = 0.01  # seconds, in which the system counts processor time
_FINE = 50  # ticks of a round, from which on its own share of others can be told


@dataclass(frozen=True)
class Rounds:
    """Seconds per unit by contender and round; the share of processor time that others took, by round."""

    seconds: dict[Contender, list[float]]
    others: list[float]


class WorkerError(RuntimeError):
    """A contender cannot run, with its reason."""


class _Process:
    """A worker process and its pipe."""

    def __init__(self, threads: int, device: str, keeps_memory: bool) -> None:
        words = [str(threads), *([worker.KEEP] if keeps_memory else [])]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by stop)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=_ROOT,
            env=machine.environment(threads, device),
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
            kind = ParityError if result["kind"] == ParityError.__name__ else WorkerError
            raise kind(result["error"])
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
    """All workers, each started when a contender of its is first asked."""

    def __init__(self) -> None:
        self._processes: dict[tuple[object, ...], _Process] = {}
        self._timer: threading.Timer | None = None
        self.over = False  # the time that it had

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop_after(self, seconds: float) -> None:
        """End all workers when so many seconds are over.

        Whoever waits for one, or asks after that, gets a WorkerError; ``over`` says so.
        """
        self._timer = threading.Timer(seconds, self._stop)
        self._timer.daemon = True
        self._timer.start()

    def _stop(self) -> None:
        self.over = True
        for process in list(self._processes.values()):
            process.process.kill()

    def close(self) -> None:
        """End all of them."""
        if self._timer is not None:
            self._timer.cancel()
        for process in self._processes.values():
            process.stop()
        self._processes.clear()

    def ask(self, contender: Contender, do: str, **more: Any) -> dict[str, Any]:
        """Ask a contender's worker, and wait for its answer.

        Raises:
            WorkerError: it cannot run here, with the reason.
            ParityError: it did not do what it says.
        """
        return self._of(contender).ask(worker.request(contender, do, **more))

    def _of(self, contender: Contender) -> _Process:
        key = contender.process
        if self.over:
            raise WorkerError("the time is over")
        if key not in self._processes:
            case = contender.case
            self._processes[key] = _Process(case.threads, case.device, contender.keeps_memory)
        return self._processes[key]

    def each(self, contenders: list[Contender], call: Callable[[Contender], object]) -> dict[Contender, str]:
        """Call something for each contender: in parallel over processes, in order within each.

        Returns:
            Those that cannot run here, with the reasons.
        """
        missing = {}

        def work(mine: list[Contender]) -> None:
            for contender in mine:
                try:
                    call(contender)
                except WorkerError as error:
                    missing[contender] = str(error)

        shares: dict[tuple[object, ...], list[Contender]] = {}
        for contender in contenders:
            shares.setdefault(contender.process, []).append(contender)
        with ThreadPoolExecutor(len(machine.cores())) as pool:
            list(pool.map(work, shares.values()))
        return missing

    def release(self, contenders: list[Contender]) -> None:
        """End the processes that some of these have for themselves, and free their memory."""
        for key in {c.process for c in contenders if c.alone} & self._processes.keys():
            self._processes.pop(key).stop()

    def rounds(self, seconds: dict[Contender, float], rounds: int) -> Rounds:
        """Measure in turn, A B C, C B A, ..., after an untimed round.

        Args:
            seconds: of one measurement of each contender.
            rounds: how many.
        """
        out = Rounds({c: [] for c in seconds}, [])
        taken, room = [], []
        for i in range(-1, rounds):
            answers, last = {}, None
            for contender in list(seconds)[:: -1 if i % 2 else 1]:
                if contender.process != last:
                    time.sleep(_PAUSE)
                last = contender.process
                wanted = seconds[contender] if i >= 0 else 0.1 * seconds[contender]
                answers[contender] = self.ask(contender, "measure", seconds=wanted)
            if i >= 0:
                for contender, answer in answers.items():
                    out.seconds[contender].append(answer["seconds"])
                taken.append(sum(a["others"] for a in answers.values()))
                room.append(sum(a["room"] for a in answers.values()))
        mean = sum(taken) / max(sum(room), _TICK)
        fine = bool(room) and min(room) >= _FINE * _TICK
        out.others.extend(t / r if fine else mean for t, r in zip(taken, room, strict=True))
        return out
