"""A stand-in for CUDA graphs on the CPU: capturing runs nothing, replaying runs what was captured.

An iteration in Python is run again by a replay, so unlike a graph it would see a value that Python changed;
what guards against those is tested by itself. Launches are data: a replay repeats the very ones that were
captured. The stand-in knows nothing of streams.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace

import torch


class StandIn:
    """Patch ``torch.cuda``, so that captures work with tensors on the CPU.

    Args:
        monkeypatch: pytest's.
        tensors: a function that returns all tensors that an iteration changes, by name.

    Attributes:
        graphs: every graph, with ``calls``, what was captured, and ``replays``, how often it ran.
        eager: iterations and launches outside of captures.
        beside: how many of them on a side stream.
    """

    def __init__(self, monkeypatch, tensors=dict) -> None:
        self.tensors, self.graphs, self.eager, self.beside = tensors, [], 0, 0
        self._capturing, self._on_side = None, False
        stand_in = self

        class Graph:
            def __init__(self) -> None:
                self.calls, self.replays, self.generators = [], 0, []
                stand_in.graphs.append(self)

            def register_generator_state(self, generator) -> None:
                self.generators.append(generator)

            def replay(self) -> None:
                self.replays += 1
                for call in self.calls:
                    call()

        @contextlib.contextmanager
        def capture(graph, stream, capture_error_mode):
            assert stream is not None and capture_error_mode == "thread_local"
            stand_in._capturing = graph
            try:
                yield
            finally:
                stand_in._capturing = None

        @contextlib.contextmanager
        def beside(stream):
            stand_in._on_side = True
            yield
            stand_in._on_side = False

        for name, value in dict(
            CUDAGraph=Graph,
            graph=capture,
            Stream=lambda device: SimpleNamespace(wait_stream=lambda other: None),
            current_stream=lambda device: SimpleNamespace(wait_stream=lambda other: None),
            stream=beside,
            empty_cache=lambda: None,
            mem_get_info=lambda device: (10_000 - 100 * len(self.graphs), 10_000),
        ).items():
            monkeypatch.setattr(torch.cuda, name, value)

    def launch(self, act: Callable[[], None]) -> None:
        """Do what a launch does: run, or under capture be recorded."""
        if self._capturing is not None:
            self._capturing.calls.append(act)
            return
        self.eager += 1
        self.beside += self._on_side
        act()

    def wrap(self, iterate):
        """Return ``iterate`` as it behaves on a device: under capture it leaves everything as it was."""

        def wrapped(inputs, spec):
            graph = self._capturing
            if graph is None:
                self.eager += 1
                return iterate(inputs, spec)
            before = {k: v.clone() for k, v in self.tensors().items()}
            with torch.random.fork_rng():
                metrics, names = iterate(inputs, spec)
            for key, value in self.tensors().items():
                value.copy_(before[key])
            metrics.fill_(torch.nan)
            graph.calls.append(lambda: metrics.copy_(iterate(inputs, spec)[0]))
            return metrics, names

        return wrapped
