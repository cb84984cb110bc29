"""``python -m bench.ops_choice``: is ``impl="auto"`` ever slower than plain PyTorch, and where is it faster?

The promise: at any size from 1 to 4096, not slower by more than 3%, or else not by more than 2 microseconds.
Both sides take turns in one process, in many short rounds; a figure is the median of the rounds' ratios with
its 95% interval. A case whose interval says neither yes nor no is measured again, longer. Freed memory stays
in the process: else one side would pay for the pages that the other gave back, or be helped by them. With
``--impl cpu`` it times the native code wherever it runs, chosen or not: the rules of ``fastgan/ops`` come
from there.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from bench import machine, options, parity
from bench.peers.ops import Auto, Bce, Dense, Plain
from bench.stats import Summary, summarize
from fastgan import ops

SHARE, SECONDS = 1.03, 2e-6  # what auto may lose
MODES = {
    "no graph": {},
    "graph": {"graph": True},
    "graph and backward": {"backward": True},
}
SIZES = (1, 8, 64, 512, 4096)  # batch, inputs, outputs: all of them with each other
INPUTS = (1, 2, 3, 4, 16, 17, 32, 128, 256, 257, 784)  # around what the rule looks at
OUTPUTS = (
    (2048, 128),
    (1024, 512),
    (1024, 1023),
    (1024, 1024),
    (4096, 257),
    (511, 4096),
    (512, 4096),
    (4095, 1000),
)
LOGITS = (1, 8, 64, 512, 4096, 1 << 14, 1 << 15, (1 << 16) - 1, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
_BLOCK = 3e-4  # seconds of one side in a round, at least
_LEAST, _MOST = 5, 401  # rounds
_AGAIN = 3  # times that a case is measured again, each four times as long


@dataclass(frozen=True)
class Case:
    """A problem with the name of its mode."""

    problem: Dense | Bce
    mode: str

    @property
    def name(self) -> str:
        p = self.problem
        if isinstance(p, Dense):
            sizes = f"dense, {p.batch} x {p.inputs} -> {p.outputs}"
        else:
            sizes = f"BCE, {p.batch} logits, target {'tensor' if p.tensor else 'number'}"
        return f"{sizes}, {p.dtype}, {self.mode}, threads {p.threads}"


@dataclass(frozen=True)
class Timed:
    """A case's figures.

    Attributes:
        case: what was timed.
        impl: what ran.
        plain: seconds of plain PyTorch.
        ratio: time of the op over that of plain PyTorch.
        loss: seconds of the op minus those of plain PyTorch.
    """

    case: Case
    impl: str
    plain: float
    ratio: Summary
    loss: Summary

    @property
    def verdict(self) -> str:
        """``ok``, ``SLOWER``, or ``unclear`` where the intervals go to both sides."""
        if self.ratio.low > SHARE and self.loss.low > SECONDS:
            return "SLOWER"
        return "ok" if self.ratio.high <= SHARE or self.loss.high <= SECONDS else "unclear"

    def __str__(self) -> str:
        ratio = f"{self.ratio.median:.3f} [{self.ratio.low:.3f}, {self.ratio.high:.3f}]"
        return (
            f"{self.verdict:8}{self.case.name}: {self.impl}, {ratio} of PyTorch's {1e6 * self.plain:.1f} us, "
            f"{1e6 * self.loss.median:+.1f} us, {self.ratio.rounds} rounds"
        )


def cases(threads: int) -> Iterator[Case]:
    """Return all cases."""
    shapes = list(itertools.product(SIZES, SIZES, SIZES))
    shapes += [(batch, inputs, outputs) for batch, outputs in OUTPUTS for inputs in INPUTS]
    problems: list[Dense | Bce] = [
        Dense(threads, batch=b, inputs=i, outputs=o) for b, i, o in dict.fromkeys(shapes)
    ]
    problems += [Dense(threads, batch=b, inputs=128, outputs=512, dtype="bfloat16") for b in (1, 64, 4096)]
    problems += [Bce(threads, batch=count, tensor=tensor) for tensor in (False, True) for count in LOGITS]
    return (Case(replace(p, **fields), mode) for mode, fields in MODES.items() for p in problems)


def measure(case: Case, impl: str, seconds: float) -> Timed:
    """Time a case, for about so many seconds at first.

    Raises:
        ParityError: the op computes something else than plain PyTorch.
    """
    torch.set_num_threads(case.problem.threads)
    plain, ours = Plain(case.problem), Auto(case.problem)
    chosen = ops.explain(_op(case), *ours.arguments).impl
    if impl != "auto":
        ours.call, chosen = partial(ours.call, impl=impl), impl
    parity.check_errors(case.name, ours.errors())
    calls = _warm(plain, ours)
    for again in range(1 + _AGAIN):
        times = _rounds(plain, ours, calls, seconds * 4**again)
        ratio, loss = (summarize(values) for values in zip(*((b / a, b - a) for a, b in times), strict=True))
        found = Timed(case, chosen, summarize([a for a, _ in times]).median, ratio, loss)
        if found.verdict == "ok" or (found.verdict == "SLOWER" and again) or impl != "auto":
            break
    return found


def _op(case: Case):
    return ops.linear_leaky_relu if isinstance(case.problem, Dense) else ops.bce_with_logits


def _seconds(peer: Auto | Plain, calls: int) -> float:
    start = time.perf_counter()
    peer.run(calls)
    return (time.perf_counter() - start) / calls


def _warm(*peers: Auto | Plain) -> int:
    """Run both, and return how many calls make a block."""
    first = [_seconds(peer, 1) for peer in peers]
    second = [
        _seconds(peer, 1 if seconds > _BLOCK else 8) for peer, seconds in zip(peers, first, strict=True)
    ]
    return max(1, round(_BLOCK / max(*second, 1e-7)))


def _rounds(plain: Plain, ours: Auto, calls: int, seconds: float) -> list[tuple[float, float]]:
    """Return what a call of each took, round by round; who is first changes."""
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(times) < _LEAST or (time.perf_counter() < end and len(times) < _MOST):
        if len(times) % 2:
            b, a = _seconds(ours, calls), _seconds(plain, calls)
        else:
            a, b = _seconds(plain, calls), _seconds(ours, calls)
        times.append((a, b))
    return times


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if auto breaks its promise somewhere, else 0."""
    parser = argparse.ArgumentParser("python -m bench.ops_choice", description=__doc__.split("\n\n")[0])
    cores = len(machine.cores())
    some = tuple(sorted({1, min(2, cores)}))
    parser.add_argument("--threads", type=options.counts, default=some, help="such as 1,2 (default)")
    named = "a regular expression that a case's name must contain"
    parser.add_argument("--only", type=options.pattern, default="", help=named)
    parser.add_argument(
        "--part", type=_part, default=(1, 1), help="such as 2/8: every eighth case (1/1: all)"
    )
    parser.add_argument("--impl", choices=("auto", "cpu"), default="auto", help="what is timed (auto)")
    parser.add_argument("--seconds", type=options.duration, default=0.1, help="of a case, at first (0.1)")
    parser.add_argument("--all", action="store_true", help="print every case, not only the slower ones")
    wanted = parser.parse_args(argv)
    if (most := max(wanted.threads)) > cores:
        parser.error(f"--threads: got {most}; wanted 1 to {cores}, the cores that there are")
    chosen = [c for n in wanted.threads for c in cases(n) if wanted.only.search(c.name)]
    if not chosen:
        parser.error(f"--only {wanted.only.pattern}: no case has that in its name")
    part, parts = wanted.part
    chosen = chosen[part - 1 :: parts]
    print("  ".join(f"{name} {value}" for name, value in machine.facts().items()))
    machine.keep_memory()
    found = []
    for case in chosen:
        found.append(measure(case, wanted.impl, wanted.seconds))
        if wanted.all or found[-1].verdict != "ok":
            print(found[-1], flush=True)
    print(*summary(found), sep="\n")
    return 1 if wanted.impl == "auto" and any(t.verdict == "SLOWER" for t in found) else 0


def _part(text: str) -> tuple[int, int]:
    """Return which part of how many."""
    words = text.split("/")
    if len(words) == 2 and all(word.isdecimal() for word in words) and 1 <= int(words[0]) <= int(words[1]):
        return int(words[0]), int(words[1])
    raise argparse.ArgumentTypeError(f"got {text}; wanted a part and how many there are, such as 2/8")


def summary(found: list[Timed]) -> list[str]:
    """Return a line for each op, implementation and mode: how fast it is, in times plain PyTorch."""
    lines = []
    groups: dict[tuple[str, str, str], list[Timed]] = {}
    for t in found:
        groups.setdefault((t.case.name.split(",")[0], t.impl, t.case.mode), []).append(t)
    for (op, impl, mode), some in groups.items():
        speeds = sorted(1 / t.ratio.median for t in some)
        count = {v: sum(t.verdict == v for t in some) for v in ("SLOWER", "unclear")}
        lines.append(
            f"{op}, {mode}, {impl}: {len(some)} cases, {speeds[0]:.2f} to {speeds[-1]:.2f} times as fast as "
            f"plain PyTorch, median {speeds[len(speeds) // 2]:.2f}; "
            f"{count['SLOWER']} slower than promised, {count['unclear']} unclear"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
