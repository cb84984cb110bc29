"""A worker process: builds contenders and times them when told to: ``python -m bench.worker THREADS [KEEP]``.

It reads one JSON request per line and answers each with one line; in between it is blocked on its input. The
first request of a contender builds it. Errors are answers, too: ``{"error": ...}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from dataclasses import asdict
from importlib import import_module
from typing import Any

import numpy as np

from bench import machine, parity, peers
from bench.plan import Contender
from bench.protocol import Peer, Replayed
from bench.stats import summarize

KEEP = "keep-memory"  # second argument of the command: no freed memory goes back to the system
_FIRST_SECONDS = 0.05  # of the first, untimed tries
_PROFILES = 9  # samples of a profile


class _Worker:
    """Contenders that live here, and what a unit of each took last time."""

    def __init__(self) -> None:
        self.peers: dict[Contender, Peer] = {}
        self.estimates: dict[Contender, float] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        module, name = request["problem"]
        case = getattr(import_module(module), name)(**request["case"])
        contender = Contender("", request["peer"], case)
        if contender not in self.peers:
            self.peers[contender] = peers.create(contender)
        if request["do"] == "replay":
            save(request["file"], self.peers[contender].replay(contender.case.recorded()))
            return {}
        if request["do"] == "rows":
            np.save(request["file"], self.peers[contender].rows(contender.case.noise()))
            return {}
        if request["do"] == "measure":
            return self.measure(contender, request["seconds"])
        if request["do"] == "profile":
            return self.profile(contender, request["seconds"])
        if request["do"] == "launches":
            return {"launches": kernels(self.peers[contender])}
        if hasattr(self.peers[contender], "errors"):
            return {"errors": self.peers[contender].errors()}
        return {}

    def measure(self, contender: Contender, seconds: float) -> dict[str, float]:
        """Measure some ``seconds`` from the initial state.

        Returns:
            Seconds per unit; processor seconds that others took, and that there were.

        Raises:
            ParityError: it did not do as many units as it says.
        """
        peer = self.peers[contender]
        if contender not in self.estimates:
            peer.reset()
            _hold(contender, peer, peer.run(1))  # whatever is compiled or allocated late
            units = 1
            while (found := _time(peer, units))[0] < min(_FIRST_SECONDS, seconds):
                units *= 2 if found[0] > 0.1 * _FIRST_SECONDS else 8
            self.estimates[contender] = found[0] / found[1]
        peer.reset()
        before = 0
        if self.estimates[contender] < seconds:  # wakes threads, fills caches
            before = peer.run(max(1, int(0.02 * seconds / self.estimates[contender])))
        others = machine.Others()
        taken, done = _time(peer, max(1, round(seconds / self.estimates[contender])))
        found = others.taken()
        _hold(contender, peer, before + done)
        self.estimates[contender] = taken / done
        return {"seconds": taken / done} | found

    def profile(self, contender: Contender, seconds: float) -> dict[str, Any]:
        """Return where the time of some ``seconds`` went; a measurement must have come before.

        Of some samples: medians of the parts, and of the whole with its interval, in which others count.
        """
        peer = self.peers[contender]
        if not hasattr(peer, "profile"):
            raise RuntimeError("it has no profile")
        units = max(1, round(seconds / _PROFILES / self.estimates[contender]))
        parts: dict[str, list[dict[str, Any]]] = {}
        taken, others = [], machine.Others()
        for _ in range(_PROFILES):
            peer.reset()
            start = time.perf_counter()
            for part in peer.profile(units):
                parts.setdefault(part["part"], []).append(part)
            taken.append((time.perf_counter() - start) / units)
        found = others.taken()
        whole = summarize(taken, [found["others"] / found["room"]] * _PROFILES)
        medians = [
            {"part": name, **{k: float(np.median([p[k] for p in some])) for k in ("seconds", "flops")}}
            for name, some in parts.items()
        ]
        return {"parts": medians, "seconds": whole.median, "summary": asdict(whole) | {"noisy": whole.noisy}}


def _hold(contender: Contender, peer: Peer, said: int) -> None:
    """Hold the units that a peer says that it did against what it left, if that can be counted."""
    if hasattr(peer, "counted"):
        parity.check_count(contender.peer, said, peer.counted())


def kernels(peer: Peer) -> float:
    """Return how many kernels the GPU runs for a unit, as PyTorch's profiler records them, in graphs too."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    peer.reset()
    peer.run(1)  # whatever is compiled or captured late
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        done = peer.run(1)
    found = [e for e in profiler.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    return sum(not e.name.startswith(("Memcpy", "Memset")) for e in found) / done


def _time(peer: Peer, units: int) -> tuple[float, int]:
    start = time.perf_counter()
    done = peer.run(units)
    taken = time.perf_counter() - start
    return getattr(peer, "taken", taken), done


def save(path: str, replayed: Replayed) -> None:
    """Write what a peer made of the recorded steps."""
    np.savez(path, losses=replayed.losses, **replayed.parameters)


def load(path: str) -> Replayed:
    """Read it back."""
    with np.load(path) as arrays:
        values = {name: arrays[name] for name in arrays}
    return Replayed(values.pop("losses"), values)


def request(contender: Contender, do: str, **more: Any) -> str:
    """Return a line that asks for something."""
    kind = type(contender.case)
    problem = {"problem": [kind.__module__, kind.__qualname__], "case": asdict(contender.case)}
    return json.dumps({"do": do, "peer": contender.peer} | problem | more) + "\n"


def main(threads: int, keeps_memory: bool) -> None:
    """Answer until the input ends."""
    machine.pin(threads)
    if keeps_memory:
        machine.keep_memory()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is not an answer
    worker = _Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            answer = {"error": str(error).split("\n")[0], "kind": type(error).__name__}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), KEEP in sys.argv[2:])
