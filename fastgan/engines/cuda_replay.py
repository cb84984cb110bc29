"""Many steps per call of the driver: CUDA graphs of whole steps, or the same launches one by one.

A graph is a block of steps, whose number and order of penalties are always the same, or one step, for what is
left before and after. Which steps have penalties is their *pattern*: for each discriminator step, whether.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastgan.engines.cuda_launch import Launch
from fastgan.errors import UserError
from fastgan.graphs.recording import Recording, record

Pattern = tuple[bool, ...]
STEPS_PER_REPLAY = 16
"""About so many: 16 steps are some 300 kernels, a millisecond or more, and a replay costs the host some 10
microseconds. Not tuned on a GPU."""


class Replays:
    """Runs steps of a plan.

    Before a capture, all its kernels run once on a side stream, since compiling and loading them cannot be
    captured; then everything in ``state`` is as it was before.

    Args:
        pattern: from the number of a step to its pattern.
        period: steps after which patterns repeat.
        launches: from a pattern to the launches of such a step.
        state: the tensors that a step changes and the next one reads.
        device: where they are.
        captures: whether steps are captured, or launched one kernel after the other for ever.
        most: steps of a replay, if there is a reason for fewer than ``STEPS_PER_REPLAY``.
    """

    def __init__(
        self,
        pattern: Callable[[int], Pattern],
        period: int,
        launches: Callable[[Pattern], list[Launch]],
        state: Sequence[Tensor],
        device: torch.device,
        captures: bool,
        most: int | None = None,
    ) -> None:
        self._pattern, self._state, self._device = pattern, state, device
        self._list, self._launches = launches, {}
        size = min(STEPS_PER_REPLAY, most or STEPS_PER_REPLAY)
        # Penalties that come more seldom than that are single steps between blocks without any.
        seldom = period > size
        size = size if seldom else size // period * period
        self._block = ((False,) * len(pattern(0)),) * size if seldom else self._patterns(0, size)
        self._captures = captures
        self._warm: set[Pattern] = set()
        self._graphs: dict[tuple[Pattern, ...], Recording] = {}
        self._stream = torch.cuda.Stream(device) if captures else None

    @property
    def memory(self) -> int:
        """Bytes that the graphs hold, as :class:`Recording` counts them."""
        return sum(graph.memory for graph in self._graphs.values())

    @property
    def block(self) -> int:
        """Steps per replay, if any are captured, where it is not a single one; otherwise 0."""
        return len(self._block) if self._captures else 0

    def prepare(self, step: int) -> None:
        """Capture what the next steps need, if anything.

        Raises:
            UserError: a step that cannot be captured, with the launch.
        """
        if self._captures:
            self._graph(self._block)
            self._graph((self._pattern(step),))

    def run(self, step: int, most: int) -> int:
        """Ask the device for steps from ``step`` on, at most so many, and return how many.

        Raises:
            UserError: a step that cannot be captured, with the launch.
        """
        if not self._captures:
            for launch in self.launches(self._pattern(step)):
                launch()
            return 1
        size = len(self._block)
        whole = most >= size and self._patterns(step, size) == self._block
        key = self._block if whole else (self._pattern(step),)
        self._graph(key).graph.replay()
        return len(key)

    def launches(self, pattern: Pattern) -> list[Launch]:
        """Return the launches of a step of this pattern, the same ones every time."""
        if pattern not in self._launches:
            self._launches[pattern] = self._list(pattern)
        return self._launches[pattern]

    def _patterns(self, step: int, count: int) -> tuple[Pattern, ...]:
        return tuple(map(self._pattern, range(step, step + count)))

    def _graph(self, key: tuple[Pattern, ...]) -> Recording:
        if key not in self._graphs:
            for pattern in set(key) - self._warm:
                self._warm_up(pattern)
            self._graphs[key] = self._capture(key)
        return self._graphs[key]

    def _warm_up(self, pattern: Pattern) -> None:
        kept = [tensor.clone() for tensor in self._state]
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            for launch in self.launches(pattern):
                launch()
        main.wait_stream(self._stream)
        for tensor, before in zip(self._state, kept, strict=True):
            tensor.copy_(before)
        self._warm.add(pattern)

    def _capture(self, key: tuple[Pattern, ...]) -> Recording:
        launches = [launch for pattern in key for launch in self.launches(pattern)]
        asked = 0

        def ask() -> None:
            nonlocal asked
            for launch in launches:
                launch()
                asked += 1

        try:
            return record(ask, self._device, self._stream)
        except RuntimeError as error:
            at = "at its end" if asked == len(launches) else f"at launch {asked + 1} of {len(launches)}, "
            at += "" if asked == len(launches) else launches[asked].name
            raise UserError(
                "--device cuda",
                f"steps whose capture in a CUDA graph failed {at}: {str(error).splitlines()[0]}",
                "steps that can be captured",
                "To launch kernels one by one instead, slower: --no-graph.",
            ) from error
