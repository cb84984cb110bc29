"""How long until one can begin: imports, and the first training step of a fresh process."""

from __future__ import annotations

from bench.options import Options
from bench.peers.startup import FirstStep, Startup
from bench.plan import Contender, Group, Row

IMPORTS = {
    "import torch": "import torch",
    "import jax": "import jax",
    "python alone": "pass",
}


def groups(options: Options) -> list[Group]:
    """Return the imports, and the first steps if there is time for them."""
    first = [] if options.quick else [_first_steps(options.threads, options.device)]
    return [_imports(options.quick, options.threads), *first]


def _imports(quick: bool, threads: int) -> Group:
    def contender(title: str, code: str) -> Contender:
        return Contender(title, "startup.Process", Startup(threads=threads, code=code))

    ours = contender("import fastgan", "import fastgan")
    rows = [
        Row(contender(title, code), ours) for title, code in IMPORTS.items() if not (quick and "jax" in code)
    ]
    if not quick:
        engine = contender("import fastgan.engines.cpu", "import fastgan.engines.cpu")
        rows.append(Row(engine, rows[0].top, better="less"))
    return Group("imports", "imports in a fresh process", rows, rounds=5)


def _first_steps(threads: int, device: str) -> Group:
    def contender(title: str, peer: str) -> Contender:
        return Contender(title, "startup.First", FirstStep(threads, device, peer=peer))

    peers = {"torch eager, Adam(fused=True)": "torch_eager.Eager", "JAX jit + lax.scan": "jax_scan.JaxScan"}
    if device == "cuda":
        ours = contender("fastgan", "cuda.CudaStep")
        peers["torch eager in a CUDA graph"] = "torch_graph.Graphed"
    else:
        ours = contender("fastgan", "native.Step")
    rows = [Row(contender(title, peer), ours) for title, peer in peers.items()]
    place = "GPU" if device == "cuda" else f"{threads} threads"
    return Group("first", f"first step, batch 128, {place}, imports not counted", rows, rounds=5)


def test_startup(feed, benchmark):
    feed(benchmark)
