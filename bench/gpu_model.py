"""What a step of the CUDA engine would take, modelled and not timed: ``python -m bench.gpu_model``.

By kernel and by step: launches, programs, registers and shared memory (compiled), programs that a
multiprocessor holds, flops, bytes, and a time for an H100 and an A100 that follows from the assumptions.
No GPU has run it: the times say which kernels wait for what, and no more.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench import gpu_steps
from bench.gpu_compile import Resources, launches
from bench.gpu_work import work_of
from bench.options import count
from fastgan.config import PRECISIONS
from fastgan.engines.cuda import CudaEngine
from fastgan.engines.cuda_design import DESIGNS
from fastgan.engines.cuda_launch import Launch
from fastgan.errors import UserError

ASSUMPTIONS = """\
Modelled, not timed. Assumptions:
- A kernel takes the longest of: its flops at the peak of the multiprocessors that have a program; its bytes
  at the bandwidth of L2, and those from HBM at that of HBM; the latency of its programs, wave after wave. To
  this comes the gap between dependent kernels of a CUDA graph.
- Peaks and HBM bandwidths are those that NVIDIA states for H100 SXM and A100 SXM 80 GB, dense. Bandwidths of
  L2 (5.5 and 3.5 TB/s; a multiprocessor gets 64 bytes a clock), a program's start (1.5 us), a load (0.35 us)
  and the gap (1 us) are guesses.
- A program's latency: its start, and a load from L2 for each turn of its products' loops, of which as many
  are on their way as there are stages beyond the first; but none is when a loop begins. The loops of a
  row-fused program come one after the other; what it reads of its own rows waits for a store and a load.
- A step's matrices stay in L2 from launch to launch where all of them fit; then only data rows come from HBM.
- tf32x3 takes three products; ieee runs on the plain float32 units.
- The host keeps up: steps are replays of a captured graph."""


@dataclass(frozen=True)
class Gpu:
    """Figures of a GPU, per second and in bytes; latencies in seconds."""

    name: str
    target: str
    multiprocessors: int
    float32: float
    tf32: float
    bf16: float
    hbm: float
    l2: float
    l2_share: float  # of one multiprocessor
    l2_size: int
    shared: int  # of a multiprocessor
    gap: float = 1.0e-6
    start: float = 1.5e-6
    load: float = 0.35e-6

    def peak(self, precision: str) -> float:
        """Return flops per second of products."""
        return {"ieee": self.float32, "tf32": self.tf32, "tf32x3": self.tf32 / 3, "bf16": self.bf16}[
            precision
        ]


GPUS = (
    Gpu("H100", "sm_90", 132, 67e12, 494e12, 989e12, 3.35e12, 5.5e12, 0.11e12, 50 << 20, 228 << 10),
    Gpu("A100", "sm_80", 108, 19.5e12, 156e12, 312e12, 2.04e12, 3.5e12, 0.09e12, 40 << 20, 164 << 10),
)


def resident(gpu: Gpu, resources: Resources, warps: int) -> int:
    """Return how many programs a multiprocessor holds at once: registers, shared memory, warps, programs."""
    registers = -(-max(resources.registers, 1) // 8) * 8 * 32 * warps
    shared = resources.shared + (1 << 10)  # the system's own
    return min(65536 // registers, gpu.shared // shared, 64 // warps, 32)


def seconds(gpu: Gpu, engine: CudaEngine, launch: Launch, per_sm: int) -> float:
    """Return a launch's modelled time."""
    wanted, programs = work_of(engine, launch), math.prod(launch.grid)
    busy = min(1.0, programs / gpu.multiprocessors)
    waves = -(-programs // (gpu.multiprocessors * per_sm))
    on_their_way = max(1, launch.arguments["num_stages"] - 1)
    loads = wanted.loops + (wanted.turns - wanted.loops) / on_their_way + 2 * wanted.barriers
    latency = gpu.start + waves * loads * gpu.load
    fits = working_set(engine) < gpu.l2_size
    hbm = wanted.data if fits else wanted.data + wanted.bytes
    work = wanted.flops / (gpu.peak(engine.config.precision) * busy)
    l2 = wanted.bytes / min(gpu.l2, busy * gpu.multiprocessors * gpu.l2_share)
    return max(work, l2, hbm / gpu.hbm, latency) + gpu.gap


def working_set(engine: CudaEngine) -> int:
    """Return the bytes of everything that a step touches, but for the data."""
    b = engine.buffers
    return sum(t.nbytes for t in (b.parameters, b.exp_avg, b.exp_avg_sq, b.average, b.workspace))


def compiled(engine: CudaEngine, step: int, target: str) -> list[Resources]:
    """Return what each launch of a step takes, compiled for a target."""
    with launches(target) as found:
        for launch in engine.launches(step):
            launch()
    known: dict[int, Resources] = {}
    return [known.setdefault(id(x.compiled), x.resources) for x in found]


def table(
    engine: CudaEngine, step: int, resources: Callable[[CudaEngine, int, str], list[Resources]] = compiled
) -> tuple[str, dict[str, float]]:
    """Return a step as Markdown, a row for each kernel and its total, and the modelled seconds by GPU."""
    plan = engine.launches(step)
    taken = {gpu.name: resources(engine, step, gpu.target) for gpu in GPUS}
    rows: dict[str, dict[str, Any]] = {}
    totals = dict.fromkeys(taken, 0.0)
    for i, launch in enumerate(plan):
        wanted, warps = work_of(engine, launch), launch.arguments["num_warps"]
        fresh = dict(launches=0, programs=0, flops=0.0, l2=0.0, hbm=0.0)
        row = rows.setdefault(launch.name, fresh | {gpu.name: [0.0, 0, 0, 32] for gpu in GPUS})
        row["launches"] += 1
        row["programs"] = max(row["programs"], math.prod(launch.grid))
        row["flops"] += wanted.flops
        row["l2"] += wanted.bytes
        row["hbm"] += wanted.data
        for gpu in GPUS:
            r, cell = taken[gpu.name][i], row[gpu.name]
            per_sm = resident(gpu, r, warps)
            time = seconds(gpu, engine, launch, per_sm)
            row[gpu.name] = [
                cell[0] + time,
                max(cell[1], r.registers),
                max(cell[2], r.shared),
                min(cell[3], per_sm),
            ]
            totals[gpu.name] += time
    head = "kernel | launches | programs, at most | Mflop | MB from L2 | MB from HBM"
    cells = "registers | KiB shared | programs an SM | modelled us"
    lines = ["| " + head + " | " + " | ".join(f"{g.name}: {cells}" for g in GPUS) + " |"]
    lines.append("|---" * (6 + 4 * len(GPUS)) + "|")
    for name, row in rows.items():
        per_gpu = [
            f"{registers} | {shared / 1024:.1f} | {fit} | {1e6 * time:.1f}"
            for time, registers, shared, fit in (row[gpu.name] for gpu in GPUS)
        ]
        counts = f"{row['launches']} | {row['programs']} | {row['flops'] / 1e6:.1f} | {row['l2'] / 1e6:.2f}"
        lines.append(f"| `{name}` | {counts} | {row['hbm'] / 1e6:.2f} | " + " | ".join(per_gpu) + " |")
    sums = [sum(row[key] for row in rows.values()) for key in ("launches", "flops", "l2", "hbm")]
    total = f"| **step** | {sums[0]} | | {sums[1] / 1e6:.1f} | {sums[2] / 1e6:.2f} | {sums[3] / 1e6:.2f} | "
    lines.append(total + " | ".join(f" | | | {1e6 * totals[gpu.name]:.1f}" for gpu in GPUS) + " |")
    return "\n".join(lines), totals


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m bench.gpu_model", description=__doc__.split("\n\n")[0])
    parser.add_argument("--precision", choices=PRECISIONS, default="tf32", help="of products; default: tf32")
    parser.add_argument("--batch", type=count, default=128, help="rows of a batch; default: 128")
    parser.add_argument("--hidden", type=count, default=128, help="both hidden widths; default: 128")
    options = parser.parse_args(arguments)
    hidden = (options.hidden, options.hidden)
    sizes = dict(batch=options.batch, g_hidden=hidden, d_hidden=hidden, precision=options.precision)
    try:
        steps = [
            (f"{design}, {recipe} recipe", kinds, gpu_steps.engine(chosen | sizes | dict(design=design)))
            for design, (recipe, (chosen, kinds)) in product(DESIGNS, gpu_steps.RECIPES.items())
        ]
    except UserError as error:
        print(f"error: {error}".replace("--g-hidden", "--hidden"), file=sys.stderr)
        return error.exit_code
    print(ASSUMPTIONS)
    for title, kinds, engine in steps:
        widths = " and ".join("-".join(map(str, w)) for w in (engine.spec.g_widths, engine.spec.d_widths))
        for kind, step in kinds.items():
            print(f"compiling: {title}, {kind}", file=sys.stderr, flush=True)
            text, totals = table(engine, step)
            sizes_of = f"{widths}, batch {options.batch}, {options.precision}"
            print(f"\n{title}, {kind}: {sizes_of}\n\n{text}")
            rates = ", ".join(f"{1 / t:,.0f} on {name}" for name, t in totals.items())
            print(f"\nModelled steps/s: {rates}. Parameters, moments and activations: "
                  f"{working_set(engine) / 1e6:.1f} MB.")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
