"""A worker process: builds contenders and times them when told to. ``python -m bench.worker THREADS``.

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
from typing import Any

import numpy as np

from bench import machine, peers
from bench.cases import Case, Contender
from bench.protocol import Peer, Replayed

_FIRST_SECONDS = 0.05  # of the first, untimed tries


class _Worker:
    """Contenders that live here, and what a unit of each took last time."""

    def __init__(self) -> None:
        self.peers: dict[Contender, Peer] = {}
        self.estimates: dict[Contender, float] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        contender = Contender(request["peer"], Case(**request["case"]))
        if contender not in self.peers:
            self.peers[contender] = peers.create(contender)
        if request["do"] == "replay":
            save(request["file"], self.peers[contender].replay(contender.case.recorded()))
            return {}
        if request["do"] == "measure":
            seconds, others = self.measure(contender, request["seconds"])
            return {"seconds": seconds, "others": others}
        return {}

    def measure(self, contender: Contender, seconds: float) -> tuple[float, float]:
        """Return seconds per unit over some ``seconds`` from the initial state, and the share of others."""
        peer = self.peers[contender]
        if contender not in self.estimates:
            peer.reset()
            peer.run(1)  # whatever is compiled or allocated late
            units = 1
            while (taken := _time(peer, units)[0]) < _FIRST_SECONDS:
                units *= 2 if taken > 0.1 * _FIRST_SECONDS else 8
            self.estimates[contender] = taken / units
        peer.reset()
        peer.run(max(1, int(0.02 * seconds / self.estimates[contender])))  # wakes threads, fills caches
        others = machine.Others()
        taken, done = _time(peer, max(1, round(seconds / self.estimates[contender])))
        self.estimates[contender] = taken / done
        return taken / done, others.share()


def _time(peer: Peer, units: int) -> tuple[float, int]:
    start = time.perf_counter()
    done = peer.run(units)
    return time.perf_counter() - start, done


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
    return json.dumps({"do": do, "peer": contender.peer, "case": asdict(contender.case)} | more) + "\n"


def main(threads: int) -> None:
    """Answer until the input ends."""
    machine.pin(threads)
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
    main(int(sys.argv[1]))
