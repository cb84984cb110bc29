"""What is measured, in general: work, contenders, groups of them, and the ratios that a group is about.

A suite (``bench_*.py``) lists its groups; ``measure.py`` measures one; README.md says how to add a suite.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

# Modules that share processes, so that fewer of them import the same for seconds; others have their own.
_TORCH = ("torch_eager", "torch_graph", "torch_rows", "reference", "sgemm", "limits")
FRAMEWORKS = dict.fromkeys(_TORCH, "torch") | dict.fromkeys(("jax_scan", "jax_rows"), "jax")
# Modules whose process keeps freed memory (``machine.keep_memory``): microseconds beside a page fault's.
_KEEPING = ("ops",)


@dataclass(frozen=True)
class Work:
    """What one unit takes at least.

    Attributes:
        flops: of the matrix products; a multiply-add counts as two.
        bytes: that must be read or written once, however well everything is fused.
        unit: its name: step, row, call, number.
        launches: kernels that ran on a GPU, those of a replayed graph too; None on a CPU.
        span: bytes of the memory that units go over, again and again, if not those of one unit. Whether it
            fits into a cache decides on how fast bytes can move.
        dtype: of the products' operands.
    """

    flops: float = 0.0
    bytes: float = 0.0
    unit: str = "step"
    launches: float | None = None
    span: float | None = None
    dtype: str = "float32"


@dataclass(frozen=True)
class Problem:
    """A problem to be solved by all contenders of a group; suites derive theirs."""

    threads: int = 2
    device: str = "cpu"

    @property
    def work(self) -> Work:
        """Of one unit."""
        return Work()


@dataclass(frozen=True)
class Contender:
    """A peer at work on a problem.

    Attributes:
        title: for tables.
        peer: ``module.Class`` in ``bench.peers``, built in a worker with the problem as its only argument.
        case: the problem.
        trains: it can replay recorded steps, and must agree with the reference before it is timed.
        generates: it can make rows of recorded noise, and must likewise.
        alone: it gets a process for itself; otherwise peers of one framework share one.
    """

    title: str
    peer: str
    case: Any
    trains: bool = False
    generates: bool = False
    alone: bool = False

    @property
    def process(self) -> tuple[object, ...]:
        """What decides on its worker process."""
        who = (self.peer, self.case) if self.alone else (FRAMEWORKS.get(self.module, self.module),)
        return (*who, self.case.threads, self.case.device)

    @property
    def keeps_memory(self) -> bool:
        """Whether its process keeps the memory that it frees."""
        return self.module in _KEEPING

    @property
    def module(self) -> str:
        """In ``bench.peers``."""
        return self.peer.split(".")[0]


@dataclass(frozen=True)
class Row:
    """A ratio: ``scale * seconds(top) / seconds(bottom)``, wanted within ``[low, high]``.

    Attributes:
        better: more or less of it, or nothing: neither is a matter of ours. By default more, and less where
            there is an upper bound only.
    """

    top: Contender
    bottom: Contender
    title: str = ""
    low: float | None = None
    high: float | None = None
    scale: float = 1.0
    percent: bool = False
    better: Literal["more", "less", "nothing", ""] = ""

    @property
    def name(self) -> str:
        """Its title, by default top over bottom."""
        return self.title or f"{self.top.title} / {self.bottom.title}"

    @property
    def more_is_better(self) -> bool | None:
        """Which way a regression goes; None if there is none."""
        if self.better == "nothing":
            return None
        return self.better == "more" or (not self.better and (self.low is not None or self.high is None))


@dataclass(frozen=True)
class Group:
    """Contenders that are measured in turn, round by round, and the ratios that are wanted of them.

    Attributes:
        name: short, for ``-k`` and ``--only``; several groups of a suite may share it.
        title: what is measured, at which sizes: unique in its suite, and the same in every run.
        rows: ratios.
        also: contenders without a ratio.
        rounds, seconds: instead of those of the options.
        profile: a contender whose time is taken apart afterwards (``Peer.profile``).
        figure: values that figures need: batch, threads, ...
        method: how it is measured. Raise it with a change that moves ratios while the work stays the same:
            ``bench.compare`` holds a run against runs by the same method only.
    """

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    also: list[Contender] = field(default_factory=list)
    rounds: int | None = None
    seconds: float | None = None
    profile: Contender | None = None
    figure: dict[str, Any] = field(default_factory=dict)
    method: int = 1

    @property
    def contenders(self) -> list[Contender]:
        """All of them, each once, in the order of the rows."""
        return list(dict.fromkeys([*(c for row in self.rows for c in (row.bottom, row.top)), *self.also]))

    def only(self, wanted: list[Contender]) -> Group:
        """Return the group with these contenders and those that their ratios need."""
        rows = [row for row in self.rows if row.top in wanted]
        needed = {c for row in rows for c in (row.top, row.bottom)} | set(wanted)
        also = [c for c in self.contenders if c in needed]
        profile = self.profile if self.profile in needed else None
        return replace(self, rows=rows, also=also, profile=profile)
