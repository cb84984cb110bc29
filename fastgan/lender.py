"""Things that take memory and serve one caller at a time, made when somebody needs one and shared by all."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any


class Lender:
    """Lends things of several kinds, and has never more than ``kept`` of them in memory.

    May be used by several threads, pickled, and used on both sides of a fork: each process has its own. What
    the parent has is never freed in the child, where what CUDA gave cannot be.

    Args:
        make: returns a new thing of a kind.
        kept: things there are at most, lent or not; those used last are kept.
        at_once: things lent at a time, at most ``kept``; who comes then waits.
    """

    def __init__(self, make: Callable[[Any], Any], kept: int, at_once: int) -> None:
        self._make, self._kept, self._at_once = make, kept, at_once
        self._own = _Own(at_once)
        _LENDERS.add(self)

    @contextmanager
    def lend(self, kind: Hashable) -> Iterator[Any]:
        """Lend a thing of a kind for the block."""
        own = self._own
        with own.turns:
            with own.lock:
                own.lent += 1
                thing = own.take(kind)
                if thing is None:  # before another is made, one that nobody has makes room for it
                    del own.idle[: max(len(own.idle) + own.lent - self._kept, 0)]
            try:
                thing = self._make(kind) if thing is None else thing
                yield thing
            finally:
                with own.lock:
                    own.lent -= 1
                    if thing is not None:
                        own.idle.append((kind, thing))

    def __len__(self) -> int:
        return len(self._own.idle) + self._own.lent

    def __reduce__(self) -> tuple:
        return Lender, (self._make, self._kept, self._at_once)


class _Own:
    """What one process has: threads and locks do not survive a fork."""

    def __init__(self, at_once: int) -> None:
        self.lock, self.turns = threading.Lock(), threading.Semaphore(at_once)
        self.idle: list[tuple[Hashable, Any]] = []  # the one used last at the end
        self.lent = 0

    def take(self, kind: Hashable) -> Any:
        for i in reversed(range(len(self.idle))):
            if self.idle[i][0] == kind:
                return self.idle.pop(i)[1]
        return None


_LENDERS: weakref.WeakSet[Lender] = weakref.WeakSet()
_OF_PARENTS: list[_Own] = []


def _start_anew() -> None:
    for lender in _LENDERS:
        _OF_PARENTS.append(lender._own)
        lender._own = _Own(lender._at_once)


os.register_at_fork(after_in_child=_start_anew)
