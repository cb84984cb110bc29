"""A device with streams that do what they were told as late, or in as odd an order, as they may.

Stands in for ``torch.cuda``'s streams and events, and for a pool of one thread. What is asked of a stream is
a queue; an order picks the stream that goes on, whenever the host waits for an event, and at the end. What a
wait between two streams should have prevented happens in one order or another.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import torch

ORDERS = ("copies first", "kernels first", "random")


class Stream:
    """A queue of actions, and of waits for others' marks."""

    def __init__(self) -> None:
        self.queue: deque[Callable[[], bool]] = deque()

    def wait_event(self, event: Event) -> None:
        mark = event.mark  # as it is now; None if it was never recorded
        self.queue.append(lambda: mark is None or mark["done"])


class Event:
    """What a stream has come by, when ``record`` was the last thing asked of it."""

    def __init__(self, device: Streams) -> None:
        self.device, self.mark = device, None

    def record(self, stream: Stream) -> None:
        mark = self.mark = {"done": False}
        stream.queue.append(lambda: mark.update(done=True) or True)

    def synchronize(self) -> None:
        while self.mark is not None and not self.mark["done"]:
            self.device.go_on()


class Streams:
    """Patch ``torch.cuda``, and what a module has of streams, events, copies and threads.

    Args:
        monkeypatch: pytest's.
        module: ``fastgan.engines.cuda_data``, or a copy of it.
        order: one of ``ORDERS``.
        thread_is_late: whether the thread begins what it is given only when somebody waits for it.
    """

    def __init__(self, monkeypatch, module, order: str, thread_is_late: bool) -> None:
        self.main, self.side, self.current = Stream(), Stream(), None
        self.order, self.random = order, random.Random(0)
        streams = self

        class Thread:
            def __init__(self, workers: int, name: str) -> None:
                assert workers == 1

            def submit(self, function, *arguments) -> Future:
                if thread_is_late:
                    return Late(lambda: function(*arguments))
                future = Future()
                future.set_result(function(*arguments))
                return future

        @contextlib.contextmanager
        def on(stream):
            before, streams.current = streams.current, stream
            yield
            streams.current = before

        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.main)
        monkeypatch.setattr(torch.cuda, "stream", on)
        monkeypatch.setattr(module, "new_stream", lambda device: self.side)
        monkeypatch.setattr(module, "new_event", lambda device: Event(self))
        monkeypatch.setattr(module, "copy_async", lambda to, of: self.ask(lambda: to.copy_(of)))
        monkeypatch.setattr(module, "ThreadPoolExecutor", Thread)

    def ask(self, act: Callable[[], object]) -> None:
        """Queue an action on the current stream."""
        (self.current or self.main).queue.append(lambda: act() is not self)

    def go_on(self) -> None:
        """Let one stream take one step, if it need not wait.

        Raises:
            AssertionError: all streams wait for each other.
        """
        order = [self.side, self.main] if self.order == "copies first" else [self.main, self.side]
        if self.order == "random":
            self.random.shuffle(order)
        for stream in order:
            if stream.queue and stream.queue[0]():
                stream.queue.popleft()
                return
        raise AssertionError("streams wait for each other, or for nothing")

    def finish(self) -> None:
        """Let all streams come to their end."""
        while self.main.queue or self.side.queue:
            self.go_on()


class Late:
    """A future whose work begins when its result is wanted."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work

    def result(self) -> object:
        return self._work()
