"""A stand-in for CUDA graphs on the CPU: capturing runs nothing, replaying runs it on the static inputs.

It replays by running the Python again, so unlike a graph it would see a value that Python changed; what
guards against those is tested by itself. It knows nothing of streams.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import torch


class StandIn:
    """Patch ``torch.cuda`` and wrap an iteration, so that ``Captures`` works with tensors on the CPU.

    Args:
        monkeypatch: pytest's.
        tensors: a function that returns all tensors that an iteration changes, by name.
    """

    def __init__(self, monkeypatch, tensors) -> None:
        self.tensors, self.graphs, self.eager, self._capturing = tensors, [], 0, None
        stand_in = self

        class Graph:
            def __init__(self) -> None:
                self.replays, self.generators = 0, []
                stand_in.graphs.append(self)

            def register_generator_state(self, generator) -> None:
                self.generators.append(generator)

            def replay(self) -> None:
                self.replays += 1
                self.metrics.copy_(self.run()[0])

        @contextlib.contextmanager
        def capture(graph, capture_error_mode):
            assert capture_error_mode == "thread_local"
            stand_in._capturing = graph
            yield
            stand_in._capturing = None

        for name, value in dict(
            CUDAGraph=Graph,
            graph=capture,
            Stream=lambda device: SimpleNamespace(wait_stream=lambda other: None),
            current_stream=lambda device: SimpleNamespace(wait_stream=lambda other: None),
            stream=lambda stream: contextlib.nullcontext(),
            empty_cache=lambda: None,
            memory_reserved=lambda device: 100 * len(self.graphs),
        ).items():
            monkeypatch.setattr(torch.cuda, name, value)

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
            graph.run, graph.metrics = (lambda: iterate(inputs, spec)), metrics.fill_(torch.nan)
            return graph.metrics, names

        return wrapped
