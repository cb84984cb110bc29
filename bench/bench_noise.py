"""Normal numbers: the counter-based noise against the generators of NumPy, PyTorch and JAX, one thread."""

from __future__ import annotations

from bench.options import Options
from bench.peers.noise import Noise
from bench.plan import Contender, Group, Row

TITLES = {
    "Numpy": "NumPy PCG64, ziggurat",
    "Torch": "torch.Tensor.normal_",
    "Jax": "JAX rbg",
    "Reference": "fastgan.noise in NumPy",
}

CPU_ONLY = "on a GPU noise is drawn inside the step's kernels, and is in the step's time"


def groups(options: Options) -> list[Group]:
    """Return a group for each size."""
    if options.device == "cuda":
        return []
    sizes = ((1024, 100),) if options.quick else ((32, 100), (1024, 100), (4096, 512))
    return [_numbers(Noise(threads=1, rows=rows, columns=columns)) for rows, columns in sizes]


def _numbers(case: Noise) -> Group:
    ours = Contender("fastgan, native", "noise.Native", case)
    rows = [
        Row(Contender(title, f"noise.{name}", case, alone=name == "Jax"), ours)
        for name, title in TITLES.items()
    ]
    title = f"normals [{case.rows}, {case.columns}] float32, 1 thread"
    return Group("noise", title, rows, figure={"numbers": case.rows * case.columns})


def test_noise(feed, benchmark):
    feed(benchmark)
