"""What PyTorch's own step launches on a GPU, counted on a machine without one: ``python -m bench.gpu_peers``.

What a step hands to PyTorch's dispatcher is the same on every device; operations that compute launch at least
one kernel each, and read and write their tensors at least once. So the counts are lower bounds of launches
and of bytes (from HBM, as far as caches do not hold them). Nothing is timed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench import options
from bench.cases import Case
from bench.peers.torch_eager import Eager

PEERS: dict[str, dict[str, bool]] = {
    "torch eager, Adam(fused=True)": dict(fused=True),
    "torch eager, default Adam": dict(foreach=True),  # what PyTorch takes by itself on a GPU
}
"""Titles, and options of Adam. A CUDA graph of a step has the same kernels, launched at once."""

_NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "_local_scalar_dense"}


@dataclass
class Counts:
    """Of a step: operations that launch kernels, by name, and the bytes that they read and write."""

    operations: dict[str, int]
    bytes: int

    @property
    def launches(self) -> int:
        return sum(self.operations.values())


class Counting(TorchDispatchMode):
    """Counts the operations inside of its block that compute: no views, no memory that is only asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts({}, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.namespace == "aten" and not func.is_view and name not in _NOTHING:
            tensors = (t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
            read_or_written = {id(t): t.nbytes for t in tensors}
            self.counts.operations[name] = self.counts.operations.get(name, 0) + 1
            self.counts.bytes += sum(read_or_written.values())
        return out


def count(case: Case, adam: dict[str, bool]) -> Counts:
    """Return the counts of one step, batch and noise included; a first one has made Adam's moments."""
    peer = Eager(case, **adam)
    peer.reset()
    peer.run(1)
    with Counting() as counting:
        peer.run(1)
    return counting.counts


def table(case: Case) -> str:
    """Return the peers' counts as Markdown."""
    lines = [
        "| article step, counted | launches, at least | MB read and written, at least |",
        "|---|---|---|",
    ]
    for title, adam in PEERS.items():
        found = count(case, adam)
        lines.append(f"| {title} | {found.launches} | {found.bytes / 1e6:.1f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m bench.gpu_peers", description=__doc__.split("\n\n")[0])
    parser.add_argument("--batch", type=options.count, default=128, help="rows of a batch; default: 128")
    wanted = parser.parse_args(arguments)
    print(table(Case(batch=wanted.batch, threads=torch.get_num_threads())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
